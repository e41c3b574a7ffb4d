package coalesce

import (
	"slices"

	"github.com/holdfast/holdfast/pkg/event"
)

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

// renameExchange is RENAME_EXCHANGE (linux include/uapi/linux/fs.h).
const renameExchange = 2

// change begins a Change from an event; it owns all it holds.
func change(ev *event.Event, at Place, who Who) *event.Change {
	c := &event.Change{
		Anchor: at.Anchor, Path: at.Path, Seen: at.Seen,
		Op: ev.Op, First: first(ev), Last: ev.Time,
		Dev: ev.Dev, Ino: ev.Ino, Gen: ev.Gen, Nlink: ev.Nlink, FMode: ev.FMode,
		Dir:     ev.Flags&event.FlagDir != 0 || ev.Op == event.OpMkdir || ev.Op == event.OpRmdir,
		Allowed: ev.Flags&event.FlagAllowed != 0,
		Ret:     ev.Ret, Hook: ev.Hook, Key: ev.Key,
	}
	if ev.Op.Namespace() && ev.Op != event.OpCreate {
		c.Count = 1
	}
	c.Exchange = ev.Op == event.OpRename && ev.Arg&renameExchange != 0
	if who != nil {
		c.Actor, c.Process = who(ev)
	}
	return c
}

func first(ev *event.Event) uint64 {
	if ev.First != 0 && ev.First < ev.Time {
		return ev.First
	}
	return ev.Time
}

func hasOp(c *event.Change, op event.Op) bool { return slices.Contains(c.Ops, op) }

func addOp(c *event.Change, op event.Op) {
	if !hasOp(c, op) {
		c.Ops = append(c.Ops, op)
	}
}

// decisive names the operation that says most about a change: what gave or took
// a name, else what wrote, else the first one.
func decisive(c *event.Change) event.Op {
	if len(c.Ops) == 0 {
		return c.Op
	}
	if hasOp(c, event.OpCreate) {
		return event.OpCreate
	}
	for _, op := range c.Ops {
		if op.Namespace() {
			return op
		}
	}
	for _, op := range []event.Op{event.OpWrite, event.OpMapWrite, event.OpTruncate} {
		if hasOp(c, op) {
			return op
		}
	}
	return c.Ops[0]
}
