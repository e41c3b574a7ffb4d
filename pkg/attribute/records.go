package attribute

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// The processes that have records of their own: Options.Processes.
const (
	ProcessesNone     = "none"
	ProcessesSessions = "sessions" // those of logins
	ProcessesAll      = "all"
)

// told reports whether the process of n has records of its own.
func (t *Table) told(n *node) bool {
	switch t.o.Processes {
	case ProcessesAll:
		return !n.is(flagKthread)
	case ProcessesSessions:
		return n.sess != nil
	}
	return false
}

// tell has a record appended, in turn.
func (t *Table) tell(r *event.Record) { t.pending = append(t.pending, r) }

// execRecord tells that n began. Its ancestors have no arguments here: they are in
// the records of their own execs.
func (t *Table) execRecord(n *node, ev *event.Event) *event.Record {
	c := t.known(n)
	a := t.actor(ev, n, n.sess, c)
	p := t.process(ev, n, c, false)
	for i := range p.Ancestors {
		if p.Ancestors[i].Exe != CutMark {
			p.Ancestors[i].Argv = nil
		}
	}
	r := &event.Record{Kind: event.RecExec, Time: t.wall(ev.Time), Actor: &a, Process: &p}
	if i := n.image; i.ino != 0 {
		r.File = &event.File{Type: event.TypeRegular, Dev: unix.Mkdev(uint32(i.dev>>20), uint32(i.dev&0xfffff)), Ino: i.ino}
	}
	return r
}

// exitRecord tells how the process of n ended. Who it was is in the record of its exec.
func (t *Table) exitRecord(n *node, ev *event.Event) *event.Record {
	c := t.known(n)
	a := t.actor(ev, n, n.sess, c)
	p := t.process(ev, n, c, false)
	bare(&p)
	r := &event.Record{Kind: event.RecExit, Time: t.wall(ev.Time), Actor: &a, Process: &p, Exit: exitOf(ev.Ret)}
	if r.Reason = fmt.Sprintf("exit %d", r.Exit.Code); r.Exit.Signal != "" {
		r.Reason = r.Exit.Signal
	}
	return r
}

// exitOf reads the status that wait(2) gives.
func exitOf(status int32) *event.Exit {
	n := status & 0x7f
	if n == 0 {
		return &event.Exit{Code: uint8(status >> 8)}
	}
	e := &event.Exit{Code: uint8(128 + n), Signal: unix.SignalName(unix.Signal(n)), Core: status&0x80 != 0}
	if e.Signal == "" {
		e.Signal = fmt.Sprintf("signal %d", n)
	}
	return e
}

// bare leaves out of a process what the record of its exec has.
func bare(p *event.Process) { p.Argv, p.Ancestors, p.Cwd = nil, nil, "" }

// known is the chain of n, after all that can be found out about its session was.
func (t *Table) known(n *node) []*node {
	c := t.chain(n)
	if s := n.sess; s != nil && s.found {
		part, _ := inSession(c)
		t.candidate(part[len(part)-1])
		t.resolve(s)
		c = t.chain(n)
	}
	return c
}

// Finish completes an exec record with the hash of the executable, if that can be
// had soon. Unlike the rest of the Table it may be called from any goroutine: reading
// a large file must not hold up events.
func (t *Table) Finish(r *event.Record) {
	if r.Kind != event.RecExec || r.File == nil || t.o.HashSoon == nil {
		return
	}
	p := r.Process
	h, err := t.o.HashSoon(p.PID, string(event.Untext(p.Exe)), kernelDev(r.File.Dev), r.File.Ino)
	if err != nil {
		t.n.hashError.Add(1)
		return
	}
	t.n.hashed.Add(1)
	p.ExeHash = h
}
