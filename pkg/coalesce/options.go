package coalesce

import (
	"time"

	"github.com/holdfast/holdfast/pkg/event"
)

// Anchors tells what path a marked inode has (implemented by pkg/sense).
type Anchors interface {
	Path(id uint32) (path string, rule int, ok bool)
}

// Who tells who did an event (pkg/attribute); it is asked once per change.
type Who func(*event.Event) (event.Actor, event.Process)

// Options of a Table. Emit is required; it gets changes that it may keep.
type Options struct {
	Anchors  Anchors
	Resolver *Resolver              // nil: an event with FlagNamed is unresolved
	Watched  func(path string) bool // false for an excepted path; nil: all are watched
	Emit     func(*event.Change)
	Found    func(Holding) // a scan at arming found it; nil: nobody asks
	Scan     func()        // asks for a scan of what is held; must not block; nil: there is none
	Holds    func(Holds)   // tells what is held, when that has changed; must not block; nil: nobody asks
	// Armed tells that Holds has told of all descriptors that a scan at arming found;
	// it must not block; nil: nobody asks.
	Armed func()

	// Inode returns where the file of an event without a place is known to lie; nil, or
	// false: it is not known.
	Inode func(ev *event.Event) (path string, ok bool)

	// Lasting is how long a file is open for writing before its writes are asked for,
	// by Holds: until then its close tells enough. 0: writes are told of in any case.
	Lasting time.Duration

	Held    time.Duration // settles a change whose opener is still open; default 500 ms
	Quiet   time.Duration // settles repeated attempts; default 50 ms
	Grace   time.Duration // settles a change that no opener holds; default 5 ms
	MaxHold time.Duration // default 2 s
	MaxOpen int           // pending changes, and openers; default DefaultMaxOpen each

	MappedEvery time.Duration // between two looks at a mapped file; default 10 s
	MaxHeld     int           // live holders; default DefaultMaxHeld
}

// The limits that hold where Options say nothing.
const (
	DefaultMaxOpen = 65536
	DefaultMaxHeld = 4096
)

// Holds counts what can change a file without being opened again.
type Holds struct {
	Mappings    int
	Descriptors int // that no event told the opening of
	Writers     int // that stay open (Options.Lasting)
}

func (o *Options) defaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&o.Held, 500*time.Millisecond)
	set(&o.Quiet, 50*time.Millisecond)
	set(&o.Grace, 5*time.Millisecond)
	set(&o.MaxHold, 2*time.Second)
	if o.MaxOpen <= 0 {
		o.MaxOpen = DefaultMaxOpen
	}
	set(&o.MappedEvery, 10*time.Second)
	if o.MaxHeld <= 0 {
		o.MaxHeld = DefaultMaxHeld
	}
	if o.Watched == nil {
		o.Watched = func(string) bool { return true }
	}
}

// Stats counts what the stage saw since it began.
type Stats struct {
	Events     uint64 // file events
	Skipped    uint64 // not below a watched root, excepted, or on a file without a name
	Failed     uint64 // operations that did not succeed
	Unresolved uint64
	Cut        uint64
	Opens      uint64 // opens for writing
	Changes    uint64 // emitted, attempts and looks included
	Overflow   uint64 // settled early for want of room
	Pending    int
	Openers    int

	HeldBefore   uint64 // holders that a scan at arming found
	HeldLooks    uint64 // looks at mapped files
	HeldBlind    uint64 // rounds of them without knowing whether the mappings are there still
	HeldOverflow uint64 // holders that found no room: their stores are found at their close, or by a rescan
	Mappings     int
	Descriptors  int
}
