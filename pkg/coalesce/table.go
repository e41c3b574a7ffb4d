package coalesce

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
)

// Errors of Add. Both mean that a change may be missing.
var (
	// ErrUnresolved: the path that a process passed could not be followed any more.
	ErrUnresolved = errors.New("path cannot be followed any more")
	// ErrCut: the kernel side had to cut a path.
	ErrCut = errors.New("path was cut")
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
	// Holds tells how many mappings, how many descriptors that no event told the
	// opening of, and how many writers that stay open (Lasting) there are, when that
	// has changed; it must not block; nil: nobody asks.
	Holds func(mappings, descriptors, writers int)
	// Armed tells that Holds has told of all descriptors that a scan at arming found;
	// it must not block; nil: nobody asks.
	Armed func()

	// Inode returns where the file with a number of the kernel's device dev is known to
	// lie; nil, or false: it is not known.
	Inode func(dev, ino uint64) (path string, ok bool)

	// Lasting is how long a file is open for writing before its writes are asked for,
	// by Holds: until then its close tells enough. 0: writes are told of in any case.
	Lasting time.Duration

	Held    time.Duration // settles a change whose opener is still open; default 500 ms
	Quiet   time.Duration // settles repeated attempts; default 50 ms
	Grace   time.Duration // settles a change that no opener holds; default 5 ms
	MaxHold time.Duration // default 2 s
	MaxOpen int           // pending changes, and openers; default 65,536 each

	MappedEvery time.Duration // between two looks at a mapped file; default 10 s
	MaxHeld     int           // live holders; default 4,096
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
		o.MaxOpen = 65536
	}
	set(&o.MappedEvery, 10*time.Second)
	if o.MaxHeld <= 0 {
		o.MaxHeld = 4096
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

// Later tells what is known to have happened to a path after a moment.
type Later struct {
	Any     bool
	First   uint64 // of the first such operation
	Content bool   // content may have changed
	Meta    bool   // metadata may have changed
	Name    bool   // the name was removed, replaced or given
	MovedTo string // where the first such rename moved it
}

// Merge returns l with what o tells, o being the later one.
func (l Later) Merge(o Later) Later {
	if !l.Any {
		return o
	}
	if !o.Any {
		return l
	}
	l.First = min(l.First, o.First)
	l.Content = l.Content || o.Content
	l.Meta = l.Meta || o.Meta
	l.Name = l.Name || o.Name
	if l.MovedTo == "" {
		l.MovedTo = o.MovedTo
	}
	return l
}

// LaterOf tells what a change did to path, which is one of its names.
func LaterOf(c *event.Change, path string) Later {
	l := Later{Any: true, First: c.First}
	if c.Blocked || c.Op == event.OpOpen {
		return Later{}
	}
	for _, op := range c.Ops {
		switch {
		case op == event.OpWrite || op == event.OpTruncate || op == event.OpMapWrite:
			l.Content = true
		case op == event.OpCreate:
			l.Content, l.Meta, l.Name = true, true, true
		case op.Metadata():
			l.Meta = true
		case op == event.OpLink && c.Path == path:
			// the object keeps its content and metadata
		default:
			l.Name = true
		}
	}
	switch {
	case c.Op == event.OpRename && c.Path == path:
		l.MovedTo = c.PathTo
	case c.Exchange && c.PathTo == path:
		l.MovedTo = c.Path
	}
	return l
}

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

	older, newer *entry // in order of beginning
}

// opener is an open file description that can write.
type opener struct {
	timer
	id    uint64
	path  string
	who   actor
	c     *event.Change // the last change made through it, for who and where
	wrote bool
	lasts bool   // it has been open for a while, and no write was told of
	store bool   // the last thing it did was a store through a mapping
	first uint64 // time of the first write that was reported
	count uint64 // writes reported so far
	bytes uint64
	waits time.Duration // between two looks while it stays open

	older, newer *opener
}

// Table is the stage. Add, Tick, Next and Flush are for one goroutine; Later and
// Stats may be called by any.
type Table struct {
	o Options

	mu      sync.Mutex // guards all below
	pending map[slot]*entry
	openers map[uint64]*opener
	procs   map[uint32]int // pending changes and openers of a process
	paths   map[string]int // openers of a path
	due     heap
	entries list[entry]
	opened  list[opener]
	stats   Stats
	held    held
	out     []*event.Change // settled, to be emitted when mu is free
	found   []Holding       // the same
	scan    bool            // the same: a scan is to be asked for
	armed   bool            // the same: a scan at arming has told of all descriptors
	told    [3]int          // as Holds last told
	lasting map[uint64]bool // openers that stay open, by id; they outlive the process that opened them
	leaving []*event.Change // being emitted: not pending any more, perhaps not with the receiver yet
}

// New returns an empty Table.
func New(o Options) *Table {
	o.defaults()
	return &Table{
		o:       o,
		pending: make(map[slot]*entry),
		openers: make(map[uint64]*opener),
		lasting: make(map[uint64]bool),
		procs:   make(map[uint32]int),
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
	now := [3]int{t.held.mapped, t.held.loose, len(t.lasting)}
	t.out, t.found, t.scan, t.told, t.armed = nil, nil, false, now, false
	t.leaving = out
	t.mu.Unlock()
	for _, h := range found {
		if t.o.Found != nil {
			t.o.Found(h)
		}
	}
	for _, c := range out {
		t.o.Emit(c)
	}
	if len(out) > 0 {
		t.mu.Lock()
		t.leaving = nil
		t.mu.Unlock()
	}
	if scan && t.o.Scan != nil {
		t.o.Scan()
	}
	if now != told && t.o.Holds != nil {
		t.o.Holds(now[0], now[1], now[2])
	}
	if armed && t.o.Armed != nil {
		t.o.Armed()
	}
}

func (t *Table) add(ev *event.Event, from, to Place, who Who) {
	if ev.Flags&event.FlagBlocked != 0 {
		t.attempt(ev, from, to, who)
		return
	}
	if ev.Flags&event.FlagAhead != 0 {
		e := t.entry(ev, from, who)
		if len(e.c.Ops) == 0 {
			e.c.Count = 0 // fold counts it
		}
		t.fold(e, ev)
		return
	}
	switch ev.Op {
	case event.OpOpen:
		t.open(ev, from, who)
	case event.OpWrite:
		t.write(ev, from, who)
	case event.OpClose:
		t.closed(ev, from, who)
	case event.OpMapWrite:
		if ev.Flags&event.FlagMapped == 0 || ev.Ret > 0 {
			t.mapping(ev, from, who)
		}
		if ev.Flags&event.FlagMapped != 0 {
			t.write(ev, from, who)
			break
		}
		t.content(ev, from, who)
	case event.OpCreate, event.OpTruncate:
		t.content(ev, from, who)
	case event.OpReceive:
		t.received(ev, from, who)
	default:
		if ev.Op.Metadata() {
			t.fold(t.entry(ev, from, who), ev)
			return
		}
		t.name(ev, from, to, who)
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

// unnamed reports whether the event is about a file that has lost its name: what
// happens to it changes no tree.
func unnamed(ev *event.Event) bool { return ev.FMode != 0 && ev.Nlink == 0 }

func (t *Table) open(ev *event.Event, at Place, who Who) {
	t.stats.Opens++
	delete(t.lasting, ev.Opener)
	o := t.opener(ev, at.Path)
	created := ev.Flags&event.FlagCreated != 0
	truncated := ev.Arg&openTruncate != 0
	if o != nil && t.o.Lasting > 0 {
		t.due.set(&o.timer, ev.Time+uint64(t.o.Lasting))
	}
	if !created && !truncated {
		if o != nil && t.o.Lasting > 0 {
			o.c = change(ev, at, who)
		}
		return
	}
	e := t.entry(ev, at, who)
	e.opener = ev.Opener
	if created {
		addOp(e.c, event.OpCreate)
	} else {
		addOp(e.c, event.OpTruncate)
	}
	e.c.Opened = t.o.Lasting > 0
	e.c.Count++
	t.touch(e, ev)
	if o != nil {
		o.c = e.c
	}
}

// openTruncate is O_TRUNC (linux include/uapi/asm-generic/fcntl.h).
const openTruncate = 0o1000

func (t *Table) write(ev *event.Event, at Place, who Who) {
	if unnamed(ev) {
		t.stats.Skipped++
		return
	}
	e := t.entry(ev, at, who)
	e.opener = ev.Opener
	e.stored = e.stored || ev.Op == event.OpMapWrite
	if o := t.opener(ev, at.Path); o != nil {
		if !o.wrote {
			t.due.drop(&o.timer) // of open
		}
		if !o.wrote || ev.Flags&event.FlagFirst != 0 {
			o.first, o.count, o.bytes = first(ev), 0, 0
		}
		o.wrote, o.store, o.c = true, ev.Op == event.OpMapWrite, e.c
		o.count += max(ev.Count, 1)
		o.bytes += ev.Bytes
	}
	t.fold(e, ev)
}

// content is an operation on content that needs no close to be over.
func (t *Table) content(ev *event.Event, at Place, who Who) {
	if unnamed(ev) {
		t.stats.Skipped++
		return
	}
	t.fold(t.entry(ev, at, who), ev)
}

func (t *Table) closed(ev *event.Event, at Place, who Who) {
	delete(t.lasting, ev.Opener)
	o := t.openers[ev.Opener]
	if o != nil {
		t.forget(o)
	}
	// behind what is settled here: its last mapping may be gone with it
	defer t.drop(ev.Time, func(h *holder) bool { return h.opener == ev.Opener })
	if unnamed(ev) {
		t.stats.Skipped++
		return
	}
	count, bytes := folded(ev, o)
	op := event.OpWrite
	if o != nil && o.store {
		op = event.OpMapWrite
	}
	e := t.pending[slot{path: at.Path}]
	if e != nil && e.who != actorOf(ev) && (e.opener == 0 || e.opener != ev.Opener) {
		t.settle(e, false)
		e = nil
	}
	switch {
	case count > 0:
		if e == nil {
			e = t.entry(ev, at, who)
		}
		addOp(e.c, op)
		e.c.Mapped = e.c.Mapped || op == event.OpMapWrite
		e.c.Count += count
		e.c.Bytes += bytes
		e.c.First = min(e.c.First, first(ev))
		e.c.Last = max(e.c.Last, ev.Time)
		t.settle(e, false)
	case (e == nil || e.onlyMapped()) && t.maps(ev.Opener, at.Path):
		// It is looked at with all who had it mapped.
		if e != nil {
			t.unlist(e)
		}
	case e == nil:
		// Nothing was written through it as far as we know, or all of it is
		// reported: let the next stage see for itself.
		t.look(ev, at, who)
	case hasOp(e.c, event.OpWrite), hasOp(e.c, event.OpMapWrite):
		e.c.Last = max(e.c.Last, ev.Time)
		t.settle(e, false)
	default:
		// A shell closes the first of two descriptors before it writes through
		// the second: wait a little for that.
		t.touch(e, ev)
	}
}

// folded returns what the close tells beyond what was reported before. A close
// without a known opener is an event of its own moment and folds nothing.
func folded(ev *event.Event, o *opener) (count, bytes uint64) {
	if ev.First == ev.Time || ev.Count == 0 {
		return 0, 0
	}
	if o == nil || !o.wrote || first(ev) > o.first {
		return ev.Count, ev.Bytes
	}
	return ev.Count - min(o.count, ev.Count), ev.Bytes - min(o.bytes, ev.Bytes)
}

// look emits a change without an operation.
func (t *Table) look(ev *event.Event, at Place, who Who) {
	c := change(ev, at, who)
	c.Op, c.Count, c.Bytes = event.OpOpen, 0, 0
	t.send(c)
}

// attempt folds refusals of one operation.
func (t *Table) attempt(ev *event.Event, from, to Place, who Who) {
	if from.Path == "" {
		from, to = to, Place{}
	}
	s := slot{from.Path, ev.Op}
	e := t.pending[s]
	if e != nil && (e.who != actorOf(ev) || e.c.PathTo != to.Path) {
		t.settle(e, false)
		e = nil
	}
	if e == nil {
		e = t.begin(ev, from, s, who)
		e.c.PathTo = to.Path
		e.c.Blocked = true
	}
	t.fold(e, ev)
}

// name is an operation on names: what is pending on them goes first.
func (t *Table) name(ev *event.Event, from, to Place, who Who) {
	for _, p := range []string{from.Path, to.Path} {
		if p == "" {
			continue
		}
		if e := t.pending[slot{path: p}]; e != nil {
			t.settle(e, false)
		}
		if ev.Op == event.OpRename || ev.Op == event.OpRmdir || ev.Op == event.OpMount || ev.Op == event.OpUmount {
			t.settleBelow(p)
		}
	}
	c := change(ev, from, who)
	c.PathTo = to.Path
	addOp(c, ev.Op)
	t.send(c)
	if ev.Op == event.OpRename && from.Path != "" {
		t.moved(from.Path, to.Path, c.Exchange, c.Dir || c.FMode == 0)
		t.movedHeld(from.Path, to.Path)
	}
}

// Later tells what is pending on path, or just being emitted, than aside: asked
// before the receiver of changes, it misses none.
func (t *Table) Later(path string, than *event.Change) Later {
	t.mu.Lock()
	defer t.mu.Unlock()
	var l Later
	for _, c := range t.leaving {
		if c != than && (c.Path == path || c.PathTo == path) {
			l = l.Merge(LaterOf(c, path))
		}
	}
	if e := t.pending[slot{path: path}]; e != nil {
		l = l.Merge(LaterOf(e.c, path))
	}
	return l
}

// Oldest returns the first moment (ns since boot) of what is pending, false if
// nothing is.
func (t *Table) Oldest() (uint64, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.entries.oldest == nil {
		return 0, false
	}
	return t.entries.oldest.begun, true
}

// Stats returns the counters.
func (t *Table) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stats
	s.Pending, s.Openers = len(t.pending), len(t.openers)
	s.Mappings, s.Descriptors = t.held.mapped, t.held.loose
	return s
}
