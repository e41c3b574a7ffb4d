package control

import "github.com/holdfast/holdfast/pkg/event"

// The states of a rule's path.
const (
	PathArmed     = "armed"     // watched; its present files are protected as far as the mode says
	PathWaiting   = "waiting"   // does not exist yet: armed when it appears
	PathEnrolling = "enrolling" // its files are being taken into the vault; watched, unless Reason says otherwise
	PathFailed    = "failed"    // not watched: Reason says why
)

// Status is what the daemon says of itself; status --json prints it.
type Status struct {
	Version string     `json:"version"`
	Host    string     `json:"host"`
	HostID  string     `json:"host_id"`
	Boot    string     `json:"boot"`
	PID     int        `json:"pid"`
	Started event.Time `json:"started"`
	State   string     `json:"state"` // the state directory

	Tier            string   `json:"tier"`        // how events are seen now
	TierWanted      string   `json:"tier_wanted"` // what was configured
	Degraded        bool     `json:"degraded"`    // works, but less than configured
	DegradedReasons []string `json:"degraded_reasons"`
	Armed           bool     `json:"armed"` // every path that exists is watched and, where its mode says so, protected

	Guard    Guard             `json:"guard"`
	Rules    []RuleStatus      `json:"rules"`
	Events   Events            `json:"events"`
	Queues   []Queue           `json:"queues"`
	Gaps     Gaps              `json:"gaps"`
	Pipeline map[string]uint64 `json:"pipeline"` // counters of the stages, stage_what
	Journal  Journal           `json:"journal"`
	Index    Index             `json:"index"`
	Ship     Ship              `json:"ship"`

	Published []Published `json:"published,omitempty"` // copies of checkpoints, besides ClickHouse

	Vault    Vault     `json:"vault"`
	Windows  []Window  `json:"windows,omitempty"` // approved change windows that are open
	Plans    []Plan    `json:"plans,omitempty"`   // restores and undos that are not ended, and the last ten that were cut off and went on
	Limits   []Limit   `json:"limits"`
	Held     []Held    `json:"held,omitempty"` // the first hundred
	OnDemand []Program `json:"on_demand,omitempty"`
}

// The states of a plan.
const (
	PlanRuns   = "runs"    // it is carried out
	PlanWaits  = "waits"   // it was cut off, and goes on at the next start or before the next restore or undo
	PlanWentOn = "went on" // it was cut off, and has ended since
)

// Plan is a restore or undo of some paths.
type Plan struct {
	Action string     `json:"action"`
	Record string     `json:"record"` // the one it began with
	Begun  event.Time `json:"begun"`
	State  string     `json:"state"`
	Steps  int        `json:"steps"`
	Tries  int        `json:"tries"`            // how often it was begun, from 1
	Before int        `json:"before,omitempty"` // steps that were done when it was cut off
	Done   int        `json:"done,omitempty"`   // when it went on
	Failed int        `json:"failed,omitempty"` // then
}

// Program is a program of the kernel side that is attached only while there is a
// reason to.
type Program struct {
	Name     string   `json:"name"`
	Attached bool     `json:"attached"`
	Reasons  []string `json:"reasons,omitempty"` // why it is needed now
	Times    uint64   `json:"times"`             // it was attached
}

// Held is a process that can change a watched file without opening it again.
type Held struct {
	Path   Path   `json:"path"`
	PID    uint32 `json:"pid"`
	Exe    string `json:"exe,omitempty"`
	User   string `json:"user,omitempty"`
	Mapped bool   `json:"mapped"` // by a shared mapping; else by a descriptor
	Before bool   `json:"before"` // since before the file was watched
}

// Guard says whether the daemon refuses what would end or blind it.
type Guard struct {
	On     bool   `json:"on"`
	Reason string `json:"reason,omitempty"` // why it is off
	Paths  []Path `json:"paths,omitempty"`  // its own places, which only it may change
}

// RuleStatus is one rule and how far it is in force.
type RuleStatus struct {
	Name          string       `json:"name"`
	Mode          string       `json:"mode"`
	EffectiveMode string       `json:"effective_mode"` // less than Mode if the tier cannot block
	Paths         []PathStatus `json:"paths"`
	Reason        string       `json:"reason,omitempty"` // why the effective mode is less
}

// PathStatus is one path of a rule.
type PathStatus struct {
	Path      Path   `json:"path"`
	State     string `json:"state"`
	Files     uint64 `json:"files"`            // paths here and below that ought to be as the vault has them
	New       uint64 `json:"new"`              // of these, without a version: they could not be captured
	Captured  uint64 `json:"captured"`         // with a trusted version that was not read back by this daemon, or cannot be
	Protected uint64 `json:"protected"`        // with one that was: verified, and armed if the path is
	Reason    string `json:"reason,omitempty"` // why it failed, what it waits for, or that it is not watched yet
}

// Counters add up: Seen = Sent + Skipped + Folded + Blocked + Lost + Failed. A
// blocked event was refused and sent; Sent does not count it.
type Counters struct {
	Seen    uint64 `json:"seen"`
	Sent    uint64 `json:"sent"`
	Skipped uint64 `json:"skipped"`
	Folded  uint64 `json:"folded"` // counted into an event that was sent later
	Blocked uint64 `json:"blocked"`
	Lost    uint64 `json:"lost"`   // no room in the ring
	Failed  uint64 `json:"failed"` // could not be put together
}

// Events are the kernel side's counters, in total and for each hook.
type Events struct {
	Counters
	Hooks []Hook `json:"hooks"`
}

// Hook is one hook of the kernel side.
type Hook struct {
	Name string `json:"name"`
	Counters
}

// Queue is one bounded queue.
type Queue struct {
	Name    string `json:"name"`
	Len     int    `json:"len"`
	Limit   int    `json:"limit"`
	Dropped uint64 `json:"dropped"` // each declared by a gap record
}

// Gaps is what may have been missed since the start, and what came of it.
type Gaps struct {
	Causes  map[string]uint64 `json:"causes"`  // events lost, by cause (event.Cause*)
	Waiting uint64            `json:"waiting"` // of these, not declared by a record yet
	Healed  uint64            `json:"healed"`  // gaps whose trees were compared since
	Open    []Gap             `json:"open"`    // declared and not healed
	Last    *Gap              `json:"last,omitempty"`
}

// Gap is one declared loss.
type Gap struct {
	ID     string     `json:"id"` // of its record
	From   event.Time `json:"from"`
	To     event.Time `json:"to"`
	Lost   uint64     `json:"lost,omitempty"` // events, as far as they were counted
	Causes []string   `json:"causes"`
	Trees  []string   `json:"trees,omitempty"` // none: all that are watched
	Tries  int        `json:"tries,omitempty"` // rescans that could not compare all of it
	Open   bool       `json:"open"`
}

// Journal is the state of the record log.
type Journal struct {
	Seq        uint64     `json:"seq"`
	First      uint64     `json:"first"`   // the oldest record that has not expired
	Durable    uint64     `json:"durable"` // last sequence number that is on disk and signed
	Bytes      uint64     `json:"bytes"`
	Segments   int        `json:"segments"`
	Checkpoint uint64     `json:"checkpoint"` // records covered by the newest checkpoint
	Signed     event.Time `json:"signed,omitzero"`
	Keys       int        `json:"keys"`               // signing keys so far
	KeySince   event.Time `json:"key_since,omitzero"` // since when the present one signs
	Errors     uint64     `json:"errors"`
	Refused    uint64     `json:"refused"` // records not taken because the queue was full
	LastError  string     `json:"last_error,omitempty"`
	DiskFree   uint64     `json:"disk_free"`
	Reserve    uint64     `json:"reserve"`
}

// Index is the state of the index behind the journal.
type Index struct {
	Seq       uint64 `json:"seq"`
	Lag       uint64 `json:"lag"` // records not yet indexed; queries read them from the journal
	Bytes     uint64 `json:"bytes"`
	LastError string `json:"last_error,omitempty"`
}

// Ship is the state of shipping to ClickHouse.
type Ship struct {
	Enabled   bool   `json:"enabled"`
	Connected bool   `json:"connected"`
	Shipped   uint64 `json:"shipped"` // last sequence number the server confirmed
	Lag       uint64 `json:"lag"`
	Retries   uint64 `json:"retries"`
	LastError string `json:"last_error,omitempty"`
}

// Published is how far copies of signed checkpoints are at one place.
type Published struct {
	To        string `json:"to"`
	Sent      uint64 `json:"sent"`
	Size      uint64 `json:"size"` // of the log that the last one covers
	Errors    uint64 `json:"errors"`
	LastError string `json:"last_error,omitempty"` // of the last attempt
}

// Vault is the state of the kept versions.
type Vault struct {
	Paths    uint64 `json:"paths"`
	Versions uint64 `json:"versions"`
	Objects  uint64 `json:"objects"`
	Bytes    uint64 `json:"bytes"`  // of content kept
	Stored   uint64 `json:"stored"` // of disk used for it

	Retention Retention `json:"retention"`
}

// Retention is for how long versions stay, and what the last prune of this run
// destroyed.
type Retention struct {
	KeepVersions int   `json:"keep_versions"`
	KeepDays     int   `json:"keep_days"` // 0: for ever
	GraceNS      int64 `json:"grace_ns"`
	Holds        int   `json:"holds"` // in force

	Pruned    event.Time `json:"pruned,omitzero"`
	Versions  int        `json:"versions"`
	Objects   int        `json:"objects"` // contents and chunks
	Bytes     int64      `json:"bytes"`   // of these, on disk
	Waiting   int        `json:"waiting"` // objects that no version names, in their time of grace
	LastError string     `json:"last_error,omitempty"`
}

// Limit is a bound and how often it was reached.
type Limit struct {
	Name  string `json:"name"`
	Value uint64 `json:"value"`
	Hit   uint64 `json:"hit"`
}

// Losses counts what may be missing from the record: lost and failed events and
// dropped queue entries.
func (s *Status) Losses() uint64 {
	n := s.Events.Lost + s.Events.Failed + s.Journal.Refused
	for _, q := range s.Queues {
		n += q.Dropped
	}
	return n
}
