package pipeline

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/coalesce"
	"github.com/holdfast/holdfast/pkg/event"
)

// attempt is the record of an attempt on the daemon itself. Its path is our
// executable, or none where the attempt was on a program in the kernel.
func (p *Pipeline) attempt(ev *event.Event) *event.Record {
	p.n.attempts.Add(1)
	r := &event.Record{
		Kind: event.RecAttempt, Time: p.o.Clock.Wall(ev.First), TimeEnd: p.o.Clock.Wall(ev.Time),
		Op: ev.Op.String(), Ops: []string{ev.Op.String()}, Count: ev.Count,
		Rule: event.RuleOwn, Mode: event.ModeBlock, Verdict: event.VerdictBlocked,
		Sensor: &event.Sensor{Tier: p.o.Tier, Hook: p.o.Hook(ev.Hook)},
	}
	if ev.Op != event.OpBPF {
		r.Path = text(p.o.Exe)
	}
	what := reach(ev)
	if ev.Flags&event.FlagBlocked == 0 {
		r.Verdict = event.VerdictObserved
		r.Reason = what + ": let through, it comes from the service manager"
	} else {
		r.Reason = what + ": refused in the kernel"
	}
	if ev.Op == event.OpKill && ev.Arg&event.GuardSigio != 0 {
		r.Actor = event.Nobody() // who asked for it with F_SETOWN is not known here
		return r
	}
	a, proc := p.o.Attribute.Who(ev)
	r.Actor, r.Process = &a, &proc
	return r
}

// justReads reports whether an attempt is of a reading verb of ours: SQLite opens
// the files beside the index for writing first, and for reading when that is refused;
// then it gives them the owner that they have.
func (p *Pipeline) justReads(r *event.Record, j *judgement) bool {
	return j.rule.Own && r.Kind == event.RecAttempt && p.o.Reads != "" &&
		coalesce.Within(p.o.Reads, string(event.Untext(r.Path))) && r.Process.Exe == text(p.o.Exe)
}

// reach says in a few words what was tried.
func reach(ev *event.Event) string {
	n := uint32(ev.Arg)
	switch {
	case ev.Op == event.OpKill && ev.Arg&event.GuardSigio != 0:
		return signalName(n) + " to the daemon by way of F_SETOWN"
	case ev.Op == event.OpKill:
		return signalName(n) + " to the daemon"
	case ev.Op == event.OpPtrace:
		return "attaching to the daemon or to its memory"
	case ev.Op == event.OpLimit && ev.Arg == event.GuardSched:
		return "the scheduling of the daemon"
	case ev.Op == event.OpLimit && ev.Arg == event.GuardNice:
		return "the priority of the daemon"
	case ev.Op == event.OpLimit:
		return fmt.Sprintf("resource limit %d of the daemon", n)
	}
	objects := map[uint32]string{unix.BPF_PROG_GET_FD_BY_ID: "program", unix.BPF_MAP_GET_FD_BY_ID: "map", unix.BPF_LINK_GET_FD_BY_ID: "link"}
	return fmt.Sprintf("a descriptor of our BPF %s %d", objects[n], ev.Ino)
}

func signalName(n uint32) string {
	if s := unix.SignalName(unix.Signal(n)); s != "" {
		return s
	}
	return fmt.Sprintf("signal %d", n)
}

// Caller is an Attributor that can tell who a living process is.
type Caller interface {
	// Caller is false if the process, or the program that it runs now, is not known (yet).
	Caller(pid uint32, now uint64) (event.Actor, event.Process, bool)
}

// Who tells who a living process is, as fully as for a change. It is false if
// that is not known: its exec may still be on its way here. Run must be running.
func (p *Pipeline) Who(ctx context.Context, pid uint32) (a event.Actor, proc event.Process, ok bool) {
	c, can := p.o.Attribute.(Caller)
	if !can {
		return a, proc, false
	}
	done := make(chan struct{})
	f := func() {
		a, proc, ok = c.Caller(pid, p.o.Clock.Boot())
		close(done)
	}
	select {
	case p.ask <- f:
		<-done
	case <-ctx.Done():
	}
	return a, proc, ok
}
