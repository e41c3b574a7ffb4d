package pipeline

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/holdfast/holdfast/pkg/coalesce"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/rehash"
	"github.com/holdfast/holdfast/pkg/respond"
	"github.com/holdfast/holdfast/pkg/window"
)

// Attributor is stage 3 (pkg/attribute).
type Attributor interface {
	// Observe learns from an event; it returns the records to append. The list is
	// valid until the next call.
	Observe(ev *event.Event) []*event.Record
	// Who tells who did a file event; the answer shares no memory with the event, and
	// its lists are not to be changed.
	Who(ev *event.Event) (event.Actor, event.Process)
}

// Journal is stage 8 (pkg/journal). Both methods give the record its ID.
type Journal interface {
	Append(r *event.Record) (uint64, error)
	AppendDurable(ctx context.Context, r *event.Record) (uint64, error)
}

// Clock tells the time.
type Clock interface {
	Boot() uint64                                          // ns since boot (CLOCK_BOOTTIME)
	Wall(boot uint64) event.Time                           // the wall clock at a moment since boot
	After(d time.Duration) (<-chan time.Time, func() bool) // a timer and how to stop it
}

// Vault keeps versions (pkg/vault makes one of a rollback.Store).
type Vault interface {
	respond.Vault
	// Capture reads path, keeps its content and makes it the trusted version.
	Capture(ctx context.Context, path, reason string) (event.State, error)
	// Intake returns where the content of a file goes while it is read.
	Intake() rehash.Intake
	// Keep keeps a state as a version: one that was read into in, or, if in is nil,
	// one without content or whose content is kept already. It ends in.
	Keep(path string, s event.State, in rehash.Intake, p Provenance) error
	// Promote makes the newest version of path the trusted one.
	Promote(path, reason string) error
	// Latest returns the newest version's state.
	Latest(path string) (event.State, bool)
	// Content returns a content that is kept, if it is not longer than max.
	Content(h event.Hash, max int) ([]byte, error)
	// Sync makes what was kept durable.
	Sync() error
}

// Provenance says where a version comes from.
type Provenance struct {
	Record string // id of the record of the change
	Reason string
	Trust  bool
	Time   event.Time // when the change was done, 0: not known
}

// Windows are the approved change windows (pkg/window).
type Windows interface {
	// May reports whether a window could cover a change of path by somebody.
	May(path string) bool
	// Covering returns the window that covers a change.
	Covering(c *window.Change) (window.Window, bool)
}

// KernelLosses is what the kernel side counted since it was loaded.
type KernelLosses struct {
	Ring   []uint64 // by CPU: events that found no room in the ring
	Failed uint64   // events that could not be put together
	Deep   uint64   // operations too deep to tell whether they concern a tree
	Rings  uint64   // requests of io_uring of which that is not told
}

// Rule is the rule that holds for a path.
type Rule struct {
	Name string
	Mode string // as far as the tier can keep it
	// Own: a place of Holdfast's own. What the kernel refused there is recorded;
	// nothing in it is enrolled, compared or put back.
	Own bool
	// Enrolling: the tree is watched, and its content is still being taken into the
	// vault. What is not there yet cannot be put back.
	Enrolling bool
	Held      string // what becomes of who held a file before it was watched (policy.Held*); "": only a record
}

// Options of a Pipeline. Decode, Attribute, Anchors, Rule, Trees, Journal and
// Clock are required.
type Options struct {
	Decode    func(raw []byte, ev *event.Event) error
	Attribute Attributor
	Anchors   coalesce.Anchors
	Resolver  *coalesce.Resolver             // nil: no tier that sends names
	Rule      func(path string) (Rule, bool) // false: not watched, or excepted
	Trees     func() []string                // the watched roots that exist
	Journal   Journal
	// Stuck tells that the journal cannot write: ordinary records that it refuses then are not
	// waited for, but declared lost, and their places compared again. nil: they are waited for.
	Stuck func() bool
	Clock Clock
	Vault Vault // nil: nothing is kept and nothing put back
	// Windows are the approved change windows; nil: there are none.
	Windows Windows

	Kernel  func() (KernelLosses, error) // nil: events alone tell of losses
	Waiting func() bool                  // events are on their way to Feed; nil: they are in Feed at once
	// Told is what the last records of an earlier run tell, oldest first, as far as
	// the vault may not know it yet.
	Told []rehash.Told
	// Read and ReadOnce are those of rehash.Options.
	Read, ReadOnce func(ctx context.Context, path string, sink io.Writer) (event.State, error)

	Self     uint32                // our own pid
	Exe      string                // our own executable: the path of attempts on the daemon itself
	Reads    string                // directory of ours that our own reading verbs try to open for writing
	Tier     string                // sensor.tier of records
	Hook     func(n uint16) string // sensor.hook of records
	Scan     func()                // asks for a scan of what is held (coalesce.Options.Scan); nil: there is none
	Holds    func(coalesce.Holds)  // see coalesce.Options
	Armed    func()                // the same
	Lasting  time.Duration         // see coalesce.Options
	Signal   respond.Signal        // nil: respond.Send
	Appeared func()                // a name that a rule waits for appeared or went; must not block
	Beneath  func(Beneath)         // somebody changed what lies below paths; must not block
	Linked   func()                // a file with several names came or went; must not block
	Mount    func(at string) bool  // do rules reach into what is mounted there? nil: no
	Log      *slog.Logger

	HandoverBytes int           // default 64 MiB
	Queue         int           // changes waiting for the slow side; default 16,384
	Quiet         time.Duration // see coalesce.Options
	Grace         time.Duration
	MaxHold       time.Duration
	MaxOpen       int
	FlapLimit     int // see respond.Options
	StormLimit    int
	StormWindow   time.Duration
	FlapWindow    time.Duration
	MappedEvery   time.Duration // between two looks at a mapped file; default 10 s
	MappedRate    uint64        // bytes a second that such looks may read; default 64 MiB
	Large         uint64        // bytes; what is longer is read and put back beside the rest; default 16 MiB
	Behind        int           // changes that wait for large files, and these; default 8,192
	Workers       int           // concurrent reads of a scan
	GapEvery      time.Duration // at most one gap record in this time; default a second
	SelfDelay     time.Duration // between our own event that finds a difference and the second look; default 250 ms
	Drain         time.Duration // how long Run goes on working off its queues when its context ends; default 10 s
}

func (o *Options) defaults() {
	if o.HandoverBytes <= 0 {
		o.HandoverBytes = 64 << 20
	}
	if o.Queue <= 0 {
		o.Queue = 16384
	}
	if o.MappedRate == 0 {
		o.MappedRate = 64 << 20
	}
	if o.Behind <= 0 {
		o.Behind = 8192
	}
	if o.Large == 0 {
		o.Large = 16 << 20
	}
	if o.Hook == nil {
		o.Hook = func(uint16) string { return "" }
	}
	if o.Appeared == nil {
		o.Appeared = func() {}
	}
	if o.Beneath == nil {
		o.Beneath = func(Beneath) {}
	}
	if o.Linked == nil {
		o.Linked = func() {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&o.MappedEvery, 10*time.Second)
	set(&o.GapEvery, time.Second)
	set(&o.SelfDelay, 250*time.Millisecond)
	set(&o.Drain, 10*time.Second)
}
