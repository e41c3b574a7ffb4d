package coalesce

import (
	"errors"
	"fmt"
	"sync"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/internal/chain"
)

// Errors of Add. Both mean that a change may be missing.
var (
	// ErrUnresolved: the path that a process passed could not be followed any more.
	ErrUnresolved = errors.New("path cannot be followed any more")
	// ErrCut: the kernel side had to cut a path.
	ErrCut = errors.New("path was cut")
)

// actor is what must be equal for two operations to be of one actor.
type actor struct {
	key     event.ProcKey
	creds   event.Creds
	login   uint32
	session uint64
}

func actorOf(ev *event.Event) actor {
	return actor{ev.Key, ev.Creds, ev.Login, ev.Session}
}

// slot names a pending change: a path has one, and one per refused operation.
type slot struct {
	path string
	op   event.Op // of a refused attempt, OpNone else
}

// entry is a change that is not settled.
type entry struct {
	timer
	c      *event.Change
	who    actor
	slot   slot
	opener uint64 // the last opener seen, 0 if none
	begun  uint64
	stored bool // through a mapping: who did that is known

	age  chain.Link[entry] // in Table.entries
	mine chain.Link[entry] // in process.entries
}

// process is what a process has: its changes and openers, in order of beginning.
type process struct {
	entries chain.List[entry]
	openers chain.List[opener]
}

// Table is the stage. Add, Tick, Next and Flush are for one goroutine; Later and
// Stats may be called by any.
type Table struct {
	o Options

	mu      sync.Mutex // guards all below
	pending map[slot]*entry
	openers map[uint64]*opener
	procs   map[uint32]*process
	paths   map[string]int // openers of a path
	due     heap
	entries chain.List[entry]  // in order of beginning
	opened  chain.List[opener] // the same
	stats   Stats
	held    held
	out     []*event.Change // settled, to be emitted when mu is free
	found   []Holding       // the same
	scan    bool            // the same: a scan is to be asked for
	armed   bool            // the same: a scan at arming has told of all descriptors
	told    Holds           // as Options.Holds was last told
	lasting map[uint64]bool // openers that stay open, by id; they outlive the process that opened them
	turn    uint64          // of the last one that was settled
	leaving []*event.Change // being emitted: not pending any more, and not yet or just now with the receiver
}

// New returns an empty Table.
func New(o Options) *Table {
	o.defaults()
	return &Table{
		o:       o,
		pending: make(map[slot]*entry),
		openers: make(map[uint64]*opener),
		lasting: make(map[uint64]bool),
		procs:   make(map[uint32]*process),
		paths:   make(map[string]int),
		held:    held{files: make(map[string]*heldFile), procs: make(map[uint32]int)},
	}
}

// Add takes one event. It keeps nothing of it. Events that are not about files
// only end the changes of their process. The error says that the event could not
// be placed.
func (t *Table) Add(ev *event.Event, who Who) error {
	switch ev.Kind {
	case event.KindExec, event.KindExit, event.KindFork:
		t.mu.Lock()
		t.family(ev, who)
		if ev.Kind != event.KindFork {
			t.leave(ev)
		}
		t.emit()
		return nil
	case event.KindFile:
	case event.KindHeld:
		return t.hears(ev, who)
	default:
		return nil
	}
	from, to, err := t.place(ev)
	t.mu.Lock()
	t.stats.Events++
	switch {
	case errors.Is(err, ErrUnresolved):
		t.stats.Unresolved++
	case errors.Is(err, ErrCut):
		t.stats.Cut++
	case err == nil && from.Path == "" && to.Path == "":
		t.stats.Skipped++
	case ev.Ret < 0 && ev.Flags&event.FlagBlocked == 0:
		t.stats.Failed++
	default:
		t.add(ev, from, to, who)
	}
	t.emit()
	if err != nil {
		return fmt.Errorf("place %s: %w", ev.Op, err)
	}
	return nil
}

// emit hands over what was settled. It is called with mu held and gives it up:
// Emit may be slow, and may ask Later.
func (t *Table) emit() {
	out, found, scan, told, armed := t.out, t.found, t.scan, t.told, t.armed
	now := Holds{Mappings: t.held.mapped, Descriptors: t.held.loose, Writers: len(t.lasting)}
	t.out, t.found, t.scan, t.told, t.armed = nil, nil, false, now, false
	t.leaving = out
	t.mu.Unlock()
	for _, h := range found {
		if t.o.Found != nil {
			t.o.Found(h)
		}
	}
	for i, c := range out {
		t.o.Emit(c)
		// One by one: what the receiver has may be dealt with at once, and is not
		// later than what comes behind it.
		t.mu.Lock()
		t.leaving = out[i+1:]
		t.mu.Unlock()
	}
	if scan && t.o.Scan != nil {
		t.o.Scan()
	}
	if now != told && t.o.Holds != nil {
		t.o.Holds(now)
	}
	if armed && t.o.Armed != nil {
		t.o.Armed()
	}
}

// hears takes what a scan tells.
func (t *Table) hears(ev *event.Event, who Who) error {
	var at Place
	var err error
	if ev.Op == event.OpOpen || ev.Op == event.OpMapWrite {
		at, _, err = t.place(ev)
	}
	t.mu.Lock()
	switch {
	case err != nil:
		t.stats.Cut++
	case ev.Op == event.OpNone:
		t.ended(ev)
	case ev.Op == event.OpClose:
		t.unmapped(ev)
	default:
		t.scanned(ev, at, who)
	}
	t.emit()
	if err != nil {
		return fmt.Errorf("place what is held: %w", err)
	}
	return nil
}

// Oldest returns the first moment (ns since boot) of what is pending or just being
// emitted, false if nothing is.
func (t *Table) Oldest() (at uint64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.entries.First(); e != nil {
		at, ok = e.begun, true
	}
	for _, c := range t.leaving {
		if !ok || c.First < at {
			at, ok = c.First, true
		}
	}
	return at, ok
}

// Stats returns the counters.
func (t *Table) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stats
	s.Pending, s.Openers = len(t.pending)+len(t.leaving), len(t.openers)
	s.Mappings, s.Descriptors = t.held.mapped, t.held.loose
	return s
}
