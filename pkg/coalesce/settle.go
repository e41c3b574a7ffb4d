package coalesce

import (
	"slices"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
)

// entry returns the pending change of the actor of ev at a place, begun if there
// is none. A change of another actor there is settled first.
func (t *Table) entry(ev *event.Event, at Place, who Who) *entry {
	s := slot{path: at.Path}
	if e := t.pending[s]; e != nil {
		if e.who == actorOf(ev) {
			return e
		}
		t.settle(e, false)
	}
	return t.begin(ev, at, s, who)
}

func (t *Table) begin(ev *event.Event, at Place, s slot, who Who) *entry {
	for len(t.pending) >= t.o.MaxOpen {
		t.stats.Overflow++
		t.settle(t.entries.oldest, false)
	}
	e := &entry{c: change(ev, at, who), who: actorOf(ev), slot: s, begun: ev.Time}
	e.timer.e = e
	e.pos = -1
	t.pending[s] = e
	t.procs[e.who.key.PID]++
	e.older = t.entries.newest
	if e.older != nil {
		e.older.newer = e
	} else {
		t.entries.oldest = e
	}
	t.entries.newest = e
	return e
}

// fold adds an operation to a pending change.
func (t *Table) fold(e *entry, ev *event.Event) {
	addOp(e.c, ev.Op)
	e.c.Mapped = e.c.Mapped || ev.Op == event.OpMapWrite
	e.c.Count += max(ev.Count, 1)
	e.c.Bytes += ev.Bytes
	if ev.Opener != 0 {
		e.opener = ev.Opener
		e.c.Opened = e.c.Opened || t.o.Lasting > 0 && ev.Op == event.OpTruncate
	}
	t.touch(e, ev)
}

// touch notes the moment and the inode of ev and puts the settling off.
func (t *Table) touch(e *entry, ev *event.Event) {
	c := e.c
	c.First = min(c.First, first(ev))
	c.Last = max(c.Last, ev.Time)
	c.Allowed = c.Allowed && ev.Flags&event.FlagAllowed != 0
	if ev.Ino != 0 {
		c.Dev, c.Ino, c.Gen, c.Nlink, c.FMode = ev.Dev, ev.Ino, ev.Gen, ev.Nlink, ev.FMode
	}
	wait := t.o.Grace
	if e.slot.op != event.OpNone {
		wait = t.o.Quiet
	} else if ev.Flags&event.FlagAhead != 0 || t.openers[e.opener] != nil {
		wait = t.o.Held
	}
	t.due.set(&e.timer, min(ev.Time+uint64(wait), e.begun+uint64(t.o.MaxHold)))
}

// settle ends a pending change and emits it.
func (t *Table) settle(e *entry, held bool) {
	t.unlist(e)
	e.c.Partial = held
	if e.onlyMapped() {
		t.lookMade(e.c)
		return
	}
	t.send(e.c)
}

// unlist takes a change out of those that are pending.
func (t *Table) unlist(e *entry) {
	delete(t.pending, e.slot)
	t.due.drop(&e.timer)
	t.gone(e.who.key.PID)
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		t.entries.oldest = e.newer
	}
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		t.entries.newest = e.older
	}
	e.older, e.newer = nil, nil
}

// onlyMapped reports whether all that is known is that a mapping was made.
func (e *entry) onlyMapped() bool {
	return e.slot.op == event.OpNone && !e.stored && len(e.c.Ops) > 0 &&
		!slices.ContainsFunc(e.c.Ops, func(op event.Op) bool { return op != event.OpMapWrite })
}

// settleBelow ends what is pending below a directory, oldest first.
func (t *Table) settleBelow(dir string) {
	for e := t.entries.oldest; e != nil; {
		next := e.newer
		if below(e.c.Path, dir) || below(e.c.PathTo, dir) {
			t.settle(e, false)
		}
		e = next
	}
}

func below(p, dir string) bool {
	return len(p) > len(dir) && strings.HasPrefix(p, dir) && (p[len(dir)] == '/' || dir == "/")
}

// leave ends what a process had: its program ended or was replaced. Descriptors
// that it shared live on; what is written through them is told of anew.
func (t *Table) leave(ev *event.Event) {
	pid := ev.Key.PID
	if t.procs[pid] == 0 {
		return
	}
	for e := t.entries.oldest; e != nil; {
		next := e.newer
		if e.who.key.PID == pid {
			if o := t.openers[e.opener]; o != nil && o.c == e.c && ev.Kind == event.KindExit {
				o.wrote = false // what it wrote is told of here
			}
			t.settle(e, false)
		}
		e = next
	}
	if ev.Kind != event.KindExit {
		return
	}
	for o := t.opened.oldest; o != nil; {
		next := o.newer
		switch {
		case o.who.key.PID != pid:
		case t.o.Lasting > 0 && !o.wrote:
			// its close comes later, or a child has it: see lasts
		default:
			if o.wrote && o.c != nil {
				t.send(lookAgain(o, ev.Time))
			}
			t.forget(o)
		}
		o = next
	}
}

func (t *Table) gone(pid uint32) {
	if t.procs[pid]--; t.procs[pid] <= 0 {
		delete(t.procs, pid)
	}
}

// opener returns the opener of ev, remembered if it is new; nil if ev has none.
func (t *Table) opener(ev *event.Event, path string) *opener {
	if ev.Opener == 0 {
		return nil
	}
	o := t.openers[ev.Opener]
	if o != nil && (ev.Op == event.OpOpen || o.who.key.PID != ev.Key.PID) {
		// The kernel side uses the number again, or another process writes.
		t.forget(o)
		o = nil
	}
	if o == nil {
		for len(t.openers) >= t.o.MaxOpen {
			t.stats.Overflow++
			if old := t.opened.oldest; old.wrote && old.c != nil {
				t.send(lookAgain(old, ev.Time))
			}
			t.forget(t.opened.oldest)
		}
		o = &opener{id: ev.Opener}
		o.timer.o = o
		o.pos = -1
		t.openers[ev.Opener] = o
		t.procs[ev.Key.PID]++
		o.older = t.opened.newest
		if o.older != nil {
			o.older.newer = o
		} else {
			t.opened.oldest = o
		}
		t.opened.newest = o
	} else {
		t.leavePath(o.path)
	}
	o.path, o.who = path, actorOf(ev)
	t.paths[path]++
	return o
}

func (t *Table) forget(o *opener) {
	delete(t.openers, o.id)
	t.due.drop(&o.timer)
	t.gone(o.who.key.PID)
	t.leavePath(o.path)
	if o.older != nil {
		o.older.newer = o.newer
	} else {
		t.opened.oldest = o.newer
	}
	if o.newer != nil {
		o.newer.older = o.older
	} else {
		t.opened.newest = o.older
	}
	o.older, o.newer = nil, nil
}

func (t *Table) leavePath(p string) {
	if t.paths[p]--; t.paths[p] <= 0 {
		delete(t.paths, p)
	}
}

// moved lets the openers of a renamed file, or of files below a renamed directory,
// be looked for at their new names.
func (t *Table) moved(from, to string, exchange, dir bool) {
	if from == "" || !dir && !exchange && t.paths[from] == 0 {
		return
	}
	for o := t.opened.oldest; o != nil; {
		next := o.newer
		switch {
		case o.path == from || below(o.path, from):
			t.follow(o, from, to)
		case exchange && (o.path == to || below(o.path, to)):
			t.follow(o, to, from)
		}
		o = next
	}
}

// follow lets an opener at or below from be looked for at or below to.
func (t *Table) follow(o *opener, from, to string) {
	if to == "" {
		t.forget(o)
		return
	}
	at := to + o.path[len(from):]
	t.leavePath(o.path)
	o.path = at
	t.paths[at]++
	if o.c != nil {
		c := *o.c
		c.Path = at
		o.c = &c
	}
}

// lookAgain is a change without an operation in the name of an opener's last one.
func lookAgain(o *opener, now uint64) *event.Change {
	c := *o.c
	c.Path, c.PathTo = o.path, ""
	c.Op, c.Ops, c.Count, c.Bytes = event.OpOpen, nil, 0, 0
	c.First, c.Last = now, now
	c.Partial = true
	return &c
}

// Tick settles what is due at now. The caller passes the time of the last event
// while more events wait, so that a backlog does not settle changes early.
func (t *Table) Tick(now uint64) {
	t.mu.Lock()
	for len(t.due) > 0 && t.due[0].at <= now {
		switch x := t.due[0]; {
		case x.e != nil:
			o := t.openers[x.e.opener]
			held := o != nil && o.wrote && x.e.slot.op == event.OpNone
			t.settle(x.e, held)
			if held && !o.store { // mapped files are looked at by a clock of their own
				o.waits = t.o.MaxHold
				t.due.set(&o.timer, now+uint64(o.waits))
			}
		case !x.o.wrote:
			t.lasts(x.o, now)
		default:
			t.send(lookAgain(x.o, now))
			x.o.waits = min(2*x.o.waits, 32*t.o.MaxHold)
			t.due.set(&x.o.timer, now+uint64(x.o.waits))
		}
	}
	t.tickHeld(now)
	t.emit()
}

// lasts asks for the writes of an opener that stays open, and when they are told of
// has the file looked at once: it may have been written before.
func (t *Table) lasts(o *opener, now uint64) {
	if !o.lasts {
		o.lasts = true
		if len(t.lasting) < t.o.MaxOpen { // more ask for nothing that these do not
			t.lasting[o.id] = true
		}
		t.due.set(&o.timer, now+uint64(t.o.Lasting))
		return
	}
	t.due.drop(&o.timer)
	if o.c != nil {
		t.send(lookAgain(o, now))
	}
}

// Next returns when Tick has something to do, false if nothing is pending.
func (t *Table) Next() (uint64, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.held.due
	if len(t.due) > 0 && (at == 0 || t.due[0].at < at) {
		at = t.due[0].at
	}
	return at, at != 0
}

// Flush settles everything, oldest first.
func (t *Table) Flush() {
	t.mu.Lock()
	for t.entries.oldest != nil {
		t.settle(t.entries.oldest, false)
	}
	t.emit()
}

func (t *Table) send(c *event.Change) {
	c.Op = decisive(c)
	t.stats.Changes++
	t.out = append(t.out, c)
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
