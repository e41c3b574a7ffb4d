package event

import "strings"

// The kinds of records.
const (
	RecChange     = "change"
	RecAttempt    = "attempt"
	RecExec       = "exec"
	RecExit       = "exit"
	RecCredential = "credential"
	RecSession    = "session"
	RecResponse   = "response"
	RecGap        = "gap"
	RecPolicy     = "policy"
	RecAgent      = "agent"
)

// The modes of a rule.
const (
	ModeObserve = "observe"
	ModeRestore = "restore"
	ModeBlock   = "block"
)

// RuleOwn is the name of the rule of Holdfast's own files, process and programs.
const RuleOwn = "holdfast"

// The verdicts of a record.
const (
	VerdictObserved      = "observed"
	VerdictExpected      = "expected"
	VerdictUnauthorized  = "unauthorized"
	VerdictBlocked       = "blocked"
	VerdictRestored      = "restored"
	VerdictRestoreFailed = "restore_failed"
	VerdictPromoted      = "promoted"
)

// Origins and the evidence for them.
const (
	OriginSSH       = "ssh"
	OriginConsole   = "console"
	OriginCron      = "cron"
	OriginAt        = "at"
	OriginSystemd   = "systemd"
	OriginContainer = "container"
	OriginKernel    = "kernel"
	OriginUnknown   = "unknown"

	EvidenceAccepted  = "accepted_socket" // the kernel saw the accept and the login process held the socket
	EvidenceInherited = "inherited"       // the session descends from the process that accepted
	EvidenceProcScan  = "proc_scan"       // found by an iterator or in /proc: it began before the daemon
	EvidenceJournal   = "journal"         // an earlier daemon of this boot recorded the beginning of the session
	EvidenceUnit      = "unit"            // the cgroup names a systemd unit
	EvidenceLogin     = "login"           // loginuid was set, by a program without a connection
	EvidenceCgroup    = "cgroup"          // the cgroup names a container
	EvidenceAncestor  = "ancestor"        // the executable of an ancestor tells
	EvidenceKernel    = "kernel"          // a task of the kernel's own
	EvidenceNone      = "none"
)

// How a change was found that no event told of; its actor is unknown.
const (
	FoundAfterGap  = "after_gap"  // by the rescan after a declared loss: Gap.Of names its record
	FoundWhileDown = "while_down" // at start: it was made while the daemon was not running
	FoundArming    = "arming"     // when a tree was armed, or had appeared: it was made just before
	FoundOrder     = "order"      // when a directory was compared in which operations came in each other's way
	FoundBeneath   = "beneath"    // when what a path leads to had changed: a mount, a rename above it, a write to its device; the actor is who did that. What was hidden by it, or is back as it was, has no record of its own
	FoundUnplaced  = "unplaced"   // after an operation whose path could not be followed any more, or one of io_uring that no event told of
)

// DetailUnplaced is the key, in the Detail of a record that was found, of the operations whose
// paths could not be followed before it was found: names as in Op, sorted, with a space between,
// and Unknown for what nobody can name. Without it a record that is FoundUnplaced tells nothing
// of them, and one that is FoundOrder says that there was none.
const DetailUnplaced = "unplaced"

// The causes of a gap.
const (
	CauseRing       = "ring"       // no room in the kernel's ring
	CauseKernel     = "kernel"     // the kernel side could not put an event together
	CauseDeep       = "deep"       // something lay deeper than the kernel side looks up
	CauseIoUring    = "io_uring"   // an io_uring worked with files, and the trees could not be compared
	CauseHandover   = "handover"   // an event did not fit between the ring and the stages
	CauseQueue      = "queue"      // too many changes waited to be looked at
	CauseDecode     = "decode"     // an event could not be read
	CauseCut        = "cut"        // the path of an event was too long
	CauseUnreadable = "unreadable" // a changed file could not be read
	CauseUnplaced   = "unplaced"   // a path could not be followed, and the trees not be compared
	CauseJournal    = "journal"    // records could not be written, or were torn off the end of the journal
	CauseProcesses  = "processes"  // records of processes found no room: no change is missing
	CauseDown       = "down"       // the daemon was not running: nothing was counted
)

// The states of Gap.Rescan.
const (
	RescanPending = "pending" // the trees are going to be compared with what is known of them
	RescanDone    = "done"    // they were: the gap is closed
	RescanFailed  = "failed"  // not all of it could be: it is tried again
)

// Unknown is the value of a field that was looked for and could not be told.
const Unknown = "unknown"

// Again stands between the machine id and the number in the host id of a log that was begun again.
const Again = "~"

// Machine returns the machine id of a host id.
func Machine(hostID string) string {
	m, _, _ := strings.Cut(hostID, Again)
	return m
}

// Record is one entry of the journal. The journal assigns ID, Boot, HostID, Host
// and Seq when it appends; all else is the writer's. JSON is what log --json
// prints, the journal's bytes are deterministic CBOR of the same names.
type Record struct {
	ID     string `json:"id"`
	Host   string `json:"host"`
	HostID string `json:"host_id"` // machine id; with ~ and a number behind it in a log that was begun again
	Boot   string `json:"boot"`    // boot id
	Seq    uint64 `json:"seq"`

	Time    Time   `json:"time"`
	TimeEnd Time   `json:"time_end,omitzero"`
	Kind    string `json:"kind"`

	Op    string   `json:"op,omitempty"`
	Ops   []string `json:"ops,omitempty"`
	Count uint64   `json:"count,omitempty"`
	Bytes uint64   `json:"bytes,omitempty"`

	Path     string `json:"path,omitempty"` // as Text writes it
	PathTo   string `json:"path_to,omitempty"`
	PathSeen string `json:"path_seen,omitempty"`

	File   *File  `json:"file,omitempty"`
	Before *State `json:"before,omitempty"`
	After  *State `json:"after,omitempty"`

	Rule    string `json:"rule,omitempty"`
	Mode    string `json:"mode,omitempty"`
	Verdict string `json:"verdict,omitempty"`
	Reason  string `json:"reason,omitempty"`
	// Meaning tells in sentences what the change of a file of accounts did (pkg/accounts).
	Meaning []string `json:"meaning,omitempty"`
	Found   string   `json:"found,omitempty"` // how a change was found that no event told of: Found*

	Actor    *Actor    `json:"actor,omitempty"`
	Process  *Process  `json:"process,omitempty"`
	Response *Response `json:"response,omitempty"`
	Gap      *Gap      `json:"gap,omitempty"`
	Sensor   *Sensor   `json:"sensor,omitempty"`

	Session    *Session    `json:"session,omitempty"`    // of session records
	Exit       *Exit       `json:"exit,omitempty"`       // of exit records
	Credential *Credential `json:"credential,omitempty"` // of credential records
	Target     *Target     `json:"target,omitempty"`     // the process that was reached into

	// Detail holds facts of agent and policy records, and of approved windows: of the records
	// of these, and of changes that one covers. Key and value, for people. Of what comparing
	// found it tells with DetailUnplaced which operations of others may have been on it.
	Detail map[string]string `json:"detail,omitempty"`
}

// File identifies the object behind the path.
type File struct {
	Type  string `json:"type,omitempty"`
	Dev   uint64 `json:"dev,omitempty"`
	Ino   uint64 `json:"ino,omitempty"`
	Gen   uint32 `json:"gen,omitempty"`
	Nlink uint32 `json:"nlink,omitempty"`
}

// Actor is the person behind an event, the credentials in force at that moment,
// and how the person came in.
type Actor struct {
	User     string   `json:"user,omitempty"` // the person who logged in, "unknown" outside any login
	Loginuid uint32   `json:"loginuid"`       // 4294967295 outside any login
	UID      uint32   `json:"uid"`
	EUID     uint32   `json:"euid"`
	SUID     uint32   `json:"suid"`
	FSUID    uint32   `json:"fsuid"`
	GID      uint32   `json:"gid"`
	EGID     uint32   `json:"egid"`
	FSGID    uint32   `json:"fsgid"`
	Via      []string `json:"via,omitempty"`

	Session    string `json:"session,omitempty"`
	Origin     string `json:"origin,omitempty"`
	TTY        string `json:"tty,omitempty"`
	SourceIP   string `json:"source_ip,omitempty"`
	SourcePort uint16 `json:"source_port,omitempty"`
	Evidence   string `json:"evidence,omitempty"`

	// Peers are the other ends of the connections that a network service held when
	// it acted, as ADDRESS:PORT: who may have asked for it, and no more than that.
	Peers []string `json:"peers,omitempty"`
}

// Process is the acting process and the way to it from its session's first one.
type Process struct {
	PID     uint32   `json:"pid"`
	TID     uint32   `json:"tid,omitempty"`
	ExecID  string   `json:"exec_id,omitempty"`
	Comm    string   `json:"comm,omitempty"`
	Exe     string   `json:"exe,omitempty"`
	ExeHash Hash     `json:"exe_hash,omitzero"`
	Argv    []string `json:"argv,omitempty"`
	Cwd     string   `json:"cwd,omitempty"`
	Start   Time     `json:"start,omitzero"`
	// Script is the file that was executed, where Exe is its interpreter.
	Script string `json:"script,omitempty"`
	// Evidence says how Exe, Argv and Cwd are known if not from the kernel's
	// report of the exec: EvidenceProcScan, or EvidenceNone where they are unknown.
	Evidence string `json:"evidence,omitempty"`

	Unit      string `json:"unit,omitempty"`
	Cgroup    string `json:"cgroup,omitempty"`
	Container string `json:"container,omitempty"`
	MntNS     string `json:"mnt_ns,omitempty"`

	Ancestors []Ancestor `json:"ancestors,omitempty"` // parent first
}

// Ancestor is one step of the chain back to the session's first process.
type Ancestor struct {
	PID    uint32   `json:"pid"`
	ExecID string   `json:"exec_id,omitempty"`
	Exe    string   `json:"exe,omitempty"`
	Argv   []string `json:"argv,omitempty"`
	User   string   `json:"user,omitempty"` // name of its real uid
}

// The states of a session record.
const (
	SessionStart   = "start"
	SessionEnd     = "end"
	SessionFound   = "found"   // it began before it could be seen: what is known of it
	SessionChanged = "changed" // its loginuid was set again
)

// Session is what a session record tells beside its actor and its process, which
// is the session's first one.
type Session struct {
	State     string `json:"state"`
	Processes uint64 `json:"processes,omitempty"` // that were seen to run in it, until now
	Execs     uint64 `json:"execs,omitempty"`
}

// Exit is how a process ended.
type Exit struct {
	Code   uint8  `json:"code"`             // 0 to 255; 128 and the number of the signal if one ended it
	Signal string `json:"signal,omitempty"` // "SIGKILL"
	Core   bool   `json:"core,omitempty"`   // it left a core dump
}

// The ways to other credentials that have no program of their own. The others are
// those of Actor.Via, and "filecaps:/path" for the capabilities of a file.
const (
	HowCall   = "call"           // the program asked for it, and was entitled to
	HowUserNS = "user_namespace" // it entered a user namespace
	HowExec   = "exec"           // executing the program gave something up
	HowPtrace = "ptrace"         // it reached into Target, and may act with its credentials
)

// Credential is a change of a process's credentials; the actor's are those after it.
type Credential struct {
	How    string `json:"how"`
	Before Ids    `json:"before"`
	After  Ids    `json:"after"`
}

// Ids are credentials with the capabilities and the user namespace.
type Ids struct {
	UID   uint32 `json:"uid"`
	EUID  uint32 `json:"euid"`
	SUID  uint32 `json:"suid"`
	FSUID uint32 `json:"fsuid"`
	GID   uint32 `json:"gid"`
	EGID  uint32 `json:"egid"`
	SGID  uint32 `json:"sgid"`
	FSGID uint32 `json:"fsgid"`
	// Caps are the effective capabilities as setcap(8) writes them without a
	// suffix: "cap_chown,cap_kill", "all", "none"; "unknown" where nobody told.
	Caps   string `json:"caps,omitempty"`
	UserNS string `json:"user_ns,omitempty"` // "user:[4026531837]"
}

// Target is the process that another one reached into.
type Target struct {
	PID     uint32 `json:"pid"`
	ExecID  string `json:"exec_id,omitempty"`
	Comm    string `json:"comm,omitempty"`
	Exe     string `json:"exe,omitempty"`
	User    string `json:"user,omitempty"` // the person of its session
	UID     uint32 `json:"uid"`
	Session string `json:"session,omitempty"`
}

// Response is what Holdfast did about another record.
type Response struct {
	Action   string `json:"action"`             // restore, remove, quarantine, undo, trust, hold, release, destroy, prune, window_open, window_close, window_end
	Outcome  string `json:"outcome"`            // intended, done, failed, skipped
	TookNS   uint64 `json:"took_ns,omitempty"`  // from the kernel event to the outcome
	Of       string `json:"of,omitempty"`       // id of the record that it answers
	Evidence string `json:"evidence,omitempty"` // where the displaced inode was kept
	Error    string `json:"error,omitempty"`
}

// Gap declares that events may be missing. The first record about a gap has the
// state pending, later ones name it in Of and say what came of the rescan.
type Gap struct {
	Lost   uint64   `json:"lost,omitempty"` // events, as far as they were counted
	From   Time     `json:"from,omitzero"`  // the window in which they happened
	To     Time     `json:"to,omitzero"`
	Causes []string `json:"causes,omitempty"` // Cause*
	Trees  []string `json:"trees,omitempty"`  // in which they may have happened
	Rescan string   `json:"rescan,omitempty"` // pending, done, failed

	Of      string `json:"of,omitempty"`      // id of the gap that this record closes, or whose rescan found this change
	Looked  uint64 `json:"looked,omitempty"`  // paths that the rescan compared
	Changes uint64 `json:"changes,omitempty"` // records of changes that it led to
}

// Sensor is how an event was seen.
type Sensor struct {
	Tier string `json:"tier,omitempty"`
	Hook string `json:"hook,omitempty"`
}

// Nobody is the actor of what was done by somebody who is not known.
func Nobody() *Actor {
	return &Actor{
		User: Unknown, Loginuid: Unset, UID: Unset, EUID: Unset, SUID: Unset, FSUID: Unset,
		GID: Unset, EGID: Unset, FSGID: Unset, Origin: OriginUnknown, Evidence: EvidenceNone,
	}
}
