package coalesce

import (
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/internal/chain"
)

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

	age  chain.Link[opener] // in Table.opened
	mine chain.Link[opener] // in process.openers
}

// leave ends what a process had: its program ended or was replaced. Descriptors
// that it shared live on; what is written through them is told of anew.
func (t *Table) leave(ev *event.Event) {
	p := t.procs[ev.Key.PID]
	if p == nil {
		return
	}
	for e := range p.entries.All() {
		if o := t.openers[e.opener]; o != nil && o.c == e.c && ev.Kind == event.KindExit {
			o.wrote = false // what it wrote is told of here
		}
		t.settle(e, false)
	}
	if ev.Kind != event.KindExit {
		return
	}
	for o := range p.openers.All() {
		if t.o.Lasting > 0 && !o.wrote {
			continue // its close comes later, or a child has it: see lasts
		}
		if o.wrote && o.c != nil {
			t.send(lookAgain(o, ev.Time))
		}
		t.forget(o)
	}
}

// process returns what a process has, to add to it.
func (t *Table) process(pid uint32) *process {
	p := t.procs[pid]
	if p == nil {
		p = new(process)
		t.procs[pid] = p
	}
	return p
}

// gone forgets a process that has nothing any more.
func (t *Table) gone(pid uint32) {
	if p := t.procs[pid]; p != nil && p.entries.Len() == 0 && p.openers.Len() == 0 {
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
			old := t.opened.First()
			if old.wrote && old.c != nil {
				t.send(lookAgain(old, ev.Time))
			}
			t.forget(old)
		}
		o = &opener{id: ev.Opener}
		o.timer.o = o
		o.pos = -1
		t.openers[ev.Opener] = o
		t.opened.Push(&o.age, o)
		t.process(ev.Key.PID).openers.Push(&o.mine, o)
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
	o.age.Leave()
	o.mine.Leave()
	t.gone(o.who.key.PID)
	t.leavePath(o.path)
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
	for o := range t.opened.All() {
		switch {
		case o.path == from || below(o.path, from):
			t.follow(o, from, to)
		case exchange && (o.path == to || below(o.path, to)):
			t.follow(o, to, from)
		}
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
