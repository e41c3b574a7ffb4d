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
		t.settle(t.entries.First(), false)
	}
	e := &entry{c: change(ev, at, who), who: actorOf(ev), slot: s, begun: ev.Time}
	e.timer.e = e
	e.pos = -1
	t.pending[s] = e
	t.entries.Push(&e.age, e)
	t.process(e.who.key.PID).entries.Push(&e.mine, e)
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
	e.age.Leave()
	e.mine.Leave()
	t.gone(e.who.key.PID)
}

// onlyMapped reports whether all that is known is that a mapping was made.
func (e *entry) onlyMapped() bool {
	return e.slot.op == event.OpNone && !e.stored && len(e.c.Ops) > 0 &&
		!slices.ContainsFunc(e.c.Ops, func(op event.Op) bool { return op != event.OpMapWrite })
}

// settleBelow ends what is pending below a directory, oldest first.
func (t *Table) settleBelow(dir string) {
	for e := range t.entries.All() {
		if below(e.c.Path, dir) || below(e.c.PathTo, dir) {
			t.settle(e, false)
		}
	}
}

func below(p, dir string) bool {
	return len(p) > len(dir) && strings.HasPrefix(p, dir) && (p[len(dir)] == '/' || dir == "/")
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
	for e := range t.entries.All() {
		t.settle(e, false)
	}
	t.emit()
}

func (t *Table) send(c *event.Change) {
	c.Op = decisive(c)
	t.stats.Changes++
	t.turn++
	c.Turn = t.turn
	t.out = append(t.out, c)
}
