package event

import "net/netip"

// Kind says what a kernel event tells of (bpf/event.h, EV_*).
type Kind uint8

// The kinds of kernel events.
const (
	KindNone    Kind = iota
	KindFile         // an operation on a watched file, done or refused
	KindFork         // a process began as a copy of its parent
	KindExec         // a process replaced its program
	KindExit         // the last thread of a process ended
	KindSession      // a login bound a session to a process
	KindProc         // a process that lived before the daemon (BPF iterator)
	KindSocket       // an inbound connection a process held before the daemon (BPF iterator)
	KindHeld         // a descriptor or mapping that was there before the rule (iterator)
	KindGuard        // somebody reached for the daemon itself
	KindCred         // credentials changed, or a process reached into another
)

// Event flags (bpf/event.h, EF_*).
const (
	// FlagBlocked: a hook refused the operation; nothing changed.
	FlagBlocked uint16 = 1 << iota
	// FlagAllowed: the executable is on the rule's list of allowed ones.
	FlagAllowed
	// FlagNamed: the place of the file is not known in the kernel. Base and
	// Path are where the process started from and what it asked for; the user
	// side resolves them and must be ready to find that the file is not watched.
	FlagNamed
	// FlagFollow (with FlagNamed): a symlink in the last component was followed.
	FlagFollow
	// FlagCreated: the open that this event tells of made the file.
	FlagCreated
	// FlagFirst: the first of the operations that are folded until the opener closes.
	FlagFirst
	// FlagAppeared: a name that a rule waits for appeared or went: resolve the rules again.
	FlagAppeared
	// FlagDir: the object is a directory.
	FlagDir
	// FlagTruncated: a string did not fit and was cut; it names less than the truth.
	FlagTruncated
	// FlagMapped: a store through a shared mapping, not a write.
	FlagMapped
	// FlagAhead: told before it is done, and perhaps it fails.
	FlagAhead
	// FlagAstray: where the object lies is not known, only its inode; the anchor is
	// the strictest one of its file system.
	FlagAstray
)

// What Arg of a KindGuard event holds above the kernel's own numbers
// (bpf/event.h, GUARD_*).
const (
	GuardSigio uint64 = 1 << 32 // with OpKill: the signal of F_SETOWN; the process named only made it due
	GuardSched uint64 = 1 << 32 // with OpLimit: scheduling, not a resource limit
	GuardNice  uint64 = 2 << 32 // with OpLimit: priority
)

// ProcKey identifies one program running in one process, unique per boot: it is
// read from the kernel (task_struct tgid, start_boottime of the group leader and
// self_exec_id), so that a restarted daemon derives the same key.
type ProcKey struct {
	PID   uint32 // thread group id in the initial pid namespace
	Execs uint32 // self_exec_id: grows by one at each exec
	Start uint64 // ns since boot (CLOCK_BOOTTIME) at which the process was forked
}

// What a KindCred event tells (bpf/event.h, CRED_*).
const (
	CredCommit uint32 = 1 + iota // credentials are about to change from Before to After; by an execution: before its KindExec
	CredDone                     // they have changed, or may have, to After
	CredReach                    // the process reaches into Target, whose credentials are After
)

// IDs are credentials with what comes with them.
type IDs struct {
	Creds
	Caps   uint64 // effective capabilities, a bit each
	UserNS uint32 // inode number of the user namespace
}

// Creds are the credentials that were in force at the moment of an event.
type Creds struct {
	UID, EUID, SUID, FSUID uint32
	GID, EGID, SGID, FSGID uint32
}

// Unset is the loginuid and audit session of a process outside any login
// (linux include/linux/audit.h, AUDIT_UID_UNSET).
const Unset = ^uint32(0)

// How a session's source address is known (bpf/event.h, HOW_*).
const (
	HowNone      uint8 = iota
	HowHeld            // the login process held an accepted TCP socket
	HowInherited       // an ancestor accepted the connection and the process descends from it
	HowFound           // the socket was found by an iterator: it was accepted before the daemon started
)

// Event is one kernel event, decoded. The byte slices are borrowed from the
// ring's record: they are valid until the next event is decoded into the same
// Event. Keep copies what is needed for longer.
type Event struct {
	Kind  Kind
	Op    Op
	Flags uint16
	Hook  uint16 // index into the table of hooks; HookName tells its name
	CPU   uint16
	Lost  uint64 // events of this CPU lost before this one, since the programs were attached
	Time  uint64 // ns since boot (CLOCK_BOOTTIME) at which it happened
	Ret   int32  // result of the operation: 0 or a negative errno

	Key    ProcKey
	TID    uint32
	Parent ProcKey // at fork: who forked; else the present real parent
	Creds  Creds
	Login  uint32 // loginuid, Unset if none
	Audit  uint32 // audit session id, Unset if none
	// Session is the id of Holdfast's own, set once at login and inherited: the
	// audit session id that the login was given. 0: not inside a login.
	Session uint64
	Cgroup  uint64 // id of the cgroup (v2 hierarchy)
	MntNS   uint32 // inode number of the mount namespace
	Kthread bool
	Comm    [16]byte // NUL padded
	ExeDev  uint64   // kernel dev_t of the executable's file system
	ExeIno  uint64
	TTY     [16]byte // NUL padded name of the controlling terminal; empty if none

	// KindFile, KindHeld and KindGuard
	Anchor uint32 // the marked inode found on the way up, 0 with FlagNamed
	// Anchor2 is the same for the second name of a rename or link. One of the
	// two is 0 when that name lies outside every watched tree.
	Anchor2 uint32
	Dev     uint64 // kernel dev_t of the file system
	Ino     uint64
	Gen     uint32 // inode generation
	Nlink   uint32
	FMode   uint16 // type and permission bits of the inode
	Opener  uint64 // identity of the open file description, 0 if none
	Count   uint64 // operations since the last event about this opener: counts add up
	Bytes   uint64 // bytes written where known
	First   uint64 // Time of the first folded operation
	Arg     uint64 // op specific: attribute mask, open flags, mode, ioctl command

	// Path is the place below the anchor ("" for the anchor itself), or with
	// FlagNamed the string that the process passed. Base is the directory that
	// it starts from. Path2 and Base2 are the second name of rename and link.
	Path, Base, Path2, Base2 []byte

	// KindExec and KindProc
	Exe  []byte // absolute path of the executable
	Argv []byte // arguments separated by NUL, cut at the wire's limit
	Cwd  []byte // absolute path of the working directory
	// Script is the file that was executed, as the process named it, if Exe is its
	// interpreter (KindExec).
	Script []byte

	// KindSession and KindSocket
	Peer      netip.AddrPort // the client
	LocalPort uint16
	How       uint8

	// KindCred
	CredHow       uint32 // Cred*
	Before, After IDs
	// Target is who is reached with CredReach; Start and Execs are 0 where only the
	// pid is known, and PID is 0 where not even that.
	Target ProcKey
}

// CommString returns the command name without its padding.
func (e *Event) CommString() string { return cstr(e.Comm[:]) }

// TTYString returns the terminal's name without its padding.
func (e *Event) TTYString() string { return cstr(e.TTY[:]) }

func cstr(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
