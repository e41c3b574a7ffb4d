package pipeline

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/coalesce"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/judge"
	"github.com/holdfast/holdfast/pkg/rehash"
	"github.com/holdfast/holdfast/pkg/respond"
)

// Pipeline carries events through the stages. Feed may be called before Run:
// what is fed waits.
type Pipeline struct {
	o         Options
	in        *handover
	table     *coalesce.Table
	states    *rehash.Rehash
	responder *respond.Responder // nil without a vault
	queue     *queue
	stopper   *respond.Stopper
	gaps      gaps
	pace      pace    // of the slow side alone
	delayed   delayed // of the slow side alone
	links     uint64  // of the slow side alone: rehash.Links when it was told
	scans     *scans

	closing   bool            // no look is put off any more; of the slow side alone
	compares  map[string]bool // directories to be compared soon; of the slow side alone
	compareAt atomic.Uint64   // when that may be done again

	ev     event.Event   // reused by the fast side
	reaped uint64        // when processes were last looked after
	lost   []uint64      // per CPU, as the kernel last told
	last   atomic.Uint64 // time of the last good event

	ask chan func() // what others want of the fast side's stages

	n counters
}

// New returns a Pipeline that does nothing yet.
func New(o Options) *Pipeline {
	o.defaults()
	p := &Pipeline{o: o, in: newHandover(o.HandoverBytes), queue: newQueue(o.Queue), ask: make(chan func())}
	p.table = coalesce.New(coalesce.Options{
		Anchors: o.Anchors, Resolver: o.Resolver, Emit: p.enqueue,
		Watched: func(path string) bool { _, ok := o.Rule(path); return ok },
		Found:   func(h coalesce.Holding) { p.put(&item{held: &h}) },
		Scan:    o.Scan, Holds: o.Holds, MappedEvery: o.MappedEvery,
		Quiet: o.Quiet, Grace: o.Grace, MaxHold: o.MaxHold, MaxOpen: o.MaxOpen,
	})
	ro := rehash.Options{Now: o.Clock.Boot, Workers: o.Workers}
	if o.Vault != nil {
		ro.Intake = o.Vault.Intake
		ro.Keep = func(ctx context.Context, path string) (event.State, error) {
			return o.Vault.Capture(ctx, path, "found when its tree was enrolled")
		}
		p.responder = respond.New(respond.Options{
			Vault: o.Vault, Journal: patient{p}, Now: o.Clock.Boot, Wall: o.Clock.Wall, Exists: exists,
			Limit: o.FlapLimit, Window: o.FlapWindow,
		})
	}
	p.stopper = respond.NewStopper(respond.StopOptions{Journal: patient{p}, Now: o.Clock.Boot, Wall: o.Clock.Wall, Self: o.Self, Signal: o.Signal})
	p.pace = newPace(o.MappedRate, o.MappedEvery, o.Clock.Boot())
	p.states = rehash.New(ro)
	p.scans = newScans(p)
	p.gaps.every = uint64(o.GapEvery)
	p.last.Store(o.Clock.Boot())
	return p
}

func exists(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil
}

// Feed takes one raw record of the ring. It copies it and never blocks.
func (p *Pipeline) Feed(raw []byte) {
	if !p.in.put(raw) {
		p.lose(1, p.o.Clock.Boot(), "no room between the ring and the stages")
	}
}

// Run works until ctx ends, and then works off what was fed. It may be called
// once. The error says that records could not be written in the time given.
func (p *Pipeline) Run(ctx context.Context) error {
	// The fast side: one raw record becomes, or joins, a change.
	front := func(raw []byte) {
		ev, ok := p.decode(raw)
		if !ok {
			return
		}
		p.attribute(ev)
		p.coalesce(ev) // changes that are settled by it go to the queue
	}
	// The slow side: one change becomes a record, and an answer where one is due.
	back := func(ctx context.Context, it *item) error {
		finds, err := p.rehash(ctx, it)
		for i := range finds {
			if err != nil {
				break
			}
			f := &finds[i]
			verdict := p.judge(f)
			steps := p.respond(&verdict)
			// The change first, then each step between its intent and its outcome.
			err = p.journal(ctx, f, &verdict, steps)
		}
		p.dealt(it)
		return err
	}
	return p.run(ctx, front, back)
}

// run drives both sides.
func (p *Pipeline) run(ctx context.Context, front func([]byte), back func(context.Context, *item) error) error {
	frontDone := make(chan struct{})
	backErr := make(chan error, 1)
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	go func() { backErr <- p.runBack(work, frontDone, back) }()
	p.runFront(ctx, front)
	close(frontDone)
	stop := time.AfterFunc(p.o.Drain, cancel)
	defer stop.Stop()
	return <-backErr
}

func (p *Pipeline) runFront(ctx context.Context, front func([]byte)) {
	for {
		if raw := p.in.next(); raw != nil {
			front(raw)
			p.in.done()
			p.table.Tick(p.last.Load())
			p.reap()
			select {
			case f := <-p.ask:
				f()
			default:
			}
			continue
		}
		if ctx.Err() != nil {
			p.table.Flush()
			return
		}
		now := p.o.Clock.Boot()
		p.table.Tick(now)
		var due <-chan time.Time
		stop := func() bool { return true }
		if at, ok := p.table.Next(); ok {
			due, stop = p.o.Clock.After(until(at, now))
		}
		select {
		case <-p.in.ready:
		case f := <-p.ask:
			f()
		case <-due:
		case <-ctx.Done():
		}
		stop()
	}
}

func until(at, now uint64) time.Duration {
	if at <= now {
		return 0
	}
	return time.Duration(at - now)
}

// Reaper is an Attributor that can look for processes whose end was lost.
type Reaper interface {
	Reap(now uint64, max int) []*event.Record
}

// How often processes are looked after, and how many at a time.
const (
	reapEvery = 5_000_000_000 // ns
	reapMany  = 64
)

// reap lets stage 3 look after processes whose end was lost.
func (p *Pipeline) reap() {
	r, ok := p.o.Attribute.(Reaper)
	now := p.last.Load()
	if !ok || now < p.reaped+reapEvery {
		return
	}
	p.reaped = now
	for _, rec := range r.Reap(now, reapMany) {
		p.put(&item{record: rec})
	}
}

// decode is stage 2. The event is valid until the next call.
func (p *Pipeline) decode(raw []byte) (*event.Event, bool) {
	ev := &p.ev
	if err := p.o.Decode(raw, ev); err != nil {
		p.n.spoilt.Add(1)
		p.o.Log.Warn("event cannot be read", "stage", "decode", "err", err)
		p.lose(1, p.o.Clock.Boot(), "an event could not be read")
		return nil, false
	}
	p.n.events.Add(1)
	for int(ev.CPU) >= len(p.lost) {
		p.lost = append(p.lost, 0)
	}
	if ev.Lost > p.lost[ev.CPU] { // lost since the last good event
		p.lose(ev.Lost-p.lost[ev.CPU], ev.Time, "no room in the kernel's ring")
		p.lost[ev.CPU] = ev.Lost
	}
	if ev.Time > p.last.Load() {
		p.last.Store(ev.Time)
	}
	return ev, true
}

// attribute is stage 3, as far as it learns from events; who did a change is
// asked by coalesce when a change begins.
func (p *Pipeline) attribute(ev *event.Event) {
	if ev.Kind == event.KindFile {
		return
	}
	if rec := p.o.Attribute.Observe(ev); rec != nil {
		p.put(&item{record: rec})
	}
	if ev.Kind == event.KindGuard {
		p.put(&item{record: p.attempt(ev)})
	}
}

// coalesce is stage 4.
func (p *Pipeline) coalesce(ev *event.Event) {
	if ev.Kind == event.KindFile && ev.Op.Beneath() && ev.Flags&event.FlagBlocked == 0 {
		p.beneath(ev)
		return
	}
	err := p.table.Add(ev, p.o.Attribute.Who)
	switch {
	case errors.Is(err, coalesce.ErrCut):
		p.lose(1, ev.Time, "the path of an event was too long")
	case err != nil:
		p.gaps.unplaced(ev.Time)
		p.o.Log.Debug("event cannot be placed", "stage", "coalesce", "err", err)
		signal(p.queue.ready)
	}
	if ev.Flags&event.FlagAppeared != 0 {
		if ev.Op == event.OpRename {
			b := Beneath{Op: ev.Op, Time: ev.Time, Hook: ev.Hook}
			b.Actor, b.Process = p.o.Attribute.Who(ev)
			p.o.Beneath(b)
		}
		p.o.Appeared()
	}
}

// enqueue takes a settled change from coalesce.
func (p *Pipeline) enqueue(c *event.Change) {
	// A mapped file is looked at because it is time, not because something was told.
	p.put(&item{change: c, self: c.Mapped && c.Op == event.OpOpen})
}

func (p *Pipeline) put(it *item) {
	if !p.queue.put(it) {
		p.lose(1, p.o.Clock.Boot(), "too many changes wait to be looked at")
	}
}

// lose declares that events are missing. It never blocks.
func (p *Pipeline) lose(n, now uint64, why string) {
	p.n.lost.Add(n)
	p.table.Lost(now)
	p.gaps.add(n, p.last.Load(), now, why)
	signal(p.queue.ready)
}

// later tells rehash what is known to have happened to a path since.
func (p *Pipeline) later(path string) rehash.Later {
	pending := p.table.Later(path) // first: what is pending moves on to the queue
	return rehash.Later(p.queue.later(path).Merge(pending))
}

// judgement is what judge says of a finding, for each of its names.
type judgement struct {
	judge.Verdict
	rule    Rule
	targets []respond.Target
}
