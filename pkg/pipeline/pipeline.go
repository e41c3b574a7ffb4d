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
	o        Options
	in       *handover
	coalesce *coalesce.Table
	rehash   *rehash.Rehash
	respond  *respond.Responder
	queue    *queue
	gaps     gaps
	delayed  delayed // of the slow side alone
	scans    *scans

	ev   event.Event   // reused by the fast side
	lost []uint64      // per CPU, as the kernel last told
	last atomic.Uint64 // time of the last good event

	n counters
}

// New returns a Pipeline that does nothing yet.
func New(o Options) *Pipeline {
	o.defaults()
	p := &Pipeline{o: o, in: newHandover(o.HandoverBytes), queue: newQueue(o.Queue)}
	p.coalesce = coalesce.New(coalesce.Options{
		Anchors: o.Anchors, Resolver: o.Resolver, Emit: p.enqueue,
		Watched: func(path string) bool { _, ok := o.Rule(path); return ok },
		Quiet:   o.Quiet, Grace: o.Grace, MaxHold: o.MaxHold, MaxOpen: o.MaxOpen,
	})
	ro := rehash.Options{Now: o.Clock.Boot, Workers: o.Workers}
	if o.Vault != nil {
		ro.Intake = o.Vault.Intake
		ro.Keep = func(ctx context.Context, path string) (event.State, error) {
			return o.Vault.Capture(ctx, path, "found when its tree was enrolled")
		}
		p.respond = respond.New(respond.Options{
			Vault: o.Vault, Journal: patient{p}, Now: o.Clock.Boot, Wall: o.Clock.Wall, Exists: exists,
			Limit: o.FlapLimit, Window: o.FlapWindow,
		})
	}
	p.rehash = rehash.New(ro)
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
		ev := &p.ev
		if err := p.o.Decode(raw, ev); err != nil { // 2 decode
			p.spoilt(err)
			return
		}
		p.account(ev)
		rec := p.attribute(ev)                       // 3 attribute
		err := p.coalesce.Add(ev, p.o.Attribute.Who) // 4 coalesce: settled changes go to the queue
		p.placed(ev, rec, err)
	}
	// The slow side: one change becomes a record, and an answer where one is due.
	back := func(ctx context.Context, it *item) error {
		found, err := p.check(ctx, it) // 5 rehash
		if err != nil || !found.Changed {
			return err
		}
		verdict := p.judge(it.change, &found)              // 6 judge
		steps := p.answer(&verdict)                        // 7 respond: what to do
		return p.journal(ctx, it, &found, &verdict, steps) // 8 journal: the change, then the answer as it is given
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
			p.coalesce.Tick(p.last.Load())
			continue
		}
		if ctx.Err() != nil {
			p.coalesce.Flush()
			return
		}
		now := p.o.Clock.Boot()
		p.coalesce.Tick(now)
		var due <-chan time.Time
		stop := func() bool { return true }
		if at, ok := p.coalesce.Next(); ok {
			due, stop = p.o.Clock.After(until(at, now))
		}
		select {
		case <-p.in.ready:
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

// spoilt counts a record that is none.
func (p *Pipeline) spoilt(err error) {
	p.n.spoilt.Add(1)
	p.o.Log.Warn("event cannot be read", "stage", "decode", "err", err)
	p.lose(1, p.o.Clock.Boot(), "an event could not be read")
}

// account notices what the kernel side lost before ev.
func (p *Pipeline) account(ev *event.Event) {
	p.n.events.Add(1)
	for int(ev.CPU) >= len(p.lost) {
		p.lost = append(p.lost, 0)
	}
	if ev.Lost > p.lost[ev.CPU] {
		p.lose(ev.Lost-p.lost[ev.CPU], ev.Time, "no room in the kernel's ring")
		p.lost[ev.CPU] = ev.Lost
	}
	if ev.Time > p.last.Load() {
		p.last.Store(ev.Time)
	}
}

// attribute lets stage 3 learn from an event.
func (p *Pipeline) attribute(ev *event.Event) *event.Record {
	if ev.Kind == event.KindFile {
		return nil
	}
	return p.o.Attribute.Observe(ev)
}

// placed finishes what the fast side does about an event.
func (p *Pipeline) placed(ev *event.Event, rec *event.Record, err error) {
	switch {
	case errors.Is(err, coalesce.ErrCut):
		p.lose(1, ev.Time, "the path of an event was too long")
	case err != nil:
		p.gaps.unplaced(ev.Time)
		p.o.Log.Debug("event cannot be placed", "stage", "coalesce", "err", err)
		signal(p.queue.ready)
	}
	if ev.Flags&event.FlagAppeared != 0 {
		p.o.Appeared()
	}
	if rec != nil {
		p.put(&item{record: rec})
	}
}

// enqueue takes a settled change from coalesce.
func (p *Pipeline) enqueue(c *event.Change) { p.put(&item{change: c}) }

func (p *Pipeline) put(it *item) {
	if !p.queue.put(it) {
		p.lose(1, p.o.Clock.Boot(), "too many changes wait to be looked at")
	}
}

// lose declares that events are missing. It never blocks.
func (p *Pipeline) lose(n, now uint64, why string) {
	p.n.lost.Add(n)
	p.gaps.add(n, p.last.Load(), now, why)
	signal(p.queue.ready)
}

// later tells rehash what is known to have happened to a path since.
func (p *Pipeline) later(path string) rehash.Later {
	return rehash.Later(p.queue.later(path).Merge(p.coalesce.Later(path)))
}

// judgement is what judge says of a finding, for each of its names.
type judgement struct {
	judge.Verdict
	rule    Rule
	targets []respond.Target
}
