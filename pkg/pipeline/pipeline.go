package pipeline

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/coalesce"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/judge"
	"github.com/holdfast/holdfast/pkg/rehash"
	"github.com/holdfast/holdfast/pkg/respond"
	"github.com/holdfast/holdfast/pkg/window"
)

// Pipeline carries events through the stages. Feed may be called before Run:
// what is fed waits.
type Pipeline struct {
	o         Options
	in        *handover
	table     *coalesce.Table
	states    *rehash.Rehash
	responder *respond.Responder // nil without a vault
	taking    taking
	queue     *queue
	lane      *lane
	stopper   *respond.Stopper
	gaps      gaps
	scans     *scans
	turns     atomic.Uint64 // odd while the slow side works, even while it waits for work
	stuck     atomic.Uint64 // no gap is declared before: the journal takes nothing
	compareAt atomic.Uint64 // when directories may be compared again

	turn     sync.Mutex      // who works on items has it, the slow side or the lane; guards what follows
	frozen   []string        // paths to be promoted when a mass change is over
	pace     pace            // of looks at mapped files
	delayed  delayed         // items for later
	links    uint64          // rehash.Links when it was told
	taken    uint64          // the last change from the queue, by its Turn
	closing  bool            // no look is put off any more
	compares map[string]bool // directories to be compared soon

	ev     event.Event // reused by the fast side
	reaped uint64      // when processes were last looked after
	polled uint64      // when the kernel's counters were last read
	kernel KernelLosses

	crowded crowded // records of processes that found no room; of the fast side alone

	last atomic.Uint64 // time of the last good event

	told []rehash.Told // of who calls Enrol and Down

	ask chan func() // what others want of the fast side's stages

	n counters
}

// New returns a Pipeline that does nothing yet.
func New(o Options) *Pipeline {
	o.defaults()
	p := &Pipeline{o: o, in: newHandover(o.HandoverBytes), queue: newQueue(o.Queue), ask: make(chan func())}
	p.turns.Store(1)
	p.table = coalesce.New(coalesce.Options{
		Anchors: o.Anchors, Resolver: o.Resolver, Emit: p.enqueue,
		Watched: func(path string) bool { _, ok := o.Rule(path); return ok },
		Inode:   p.inode,
		Found:   func(h coalesce.Holding) { p.put(&item{held: &h}) },
		Scan:    o.Scan, Holds: o.Holds, Armed: o.Armed, MappedEvery: o.MappedEvery,
		Quiet: o.Quiet, Grace: o.Grace, MaxHold: o.MaxHold, MaxOpen: o.MaxOpen, Lasting: o.Lasting,
	})
	ro := rehash.Options{Now: o.Clock.Boot, Read: o.Read, ReadOnce: o.ReadOnce, Aside: p.readAside, Workers: o.Workers, Returns: p.returns}
	if o.Vault != nil {
		ro.Intake = o.Vault.Intake
		ro.Keep = func(ctx context.Context, path string) (event.State, error) {
			return o.Vault.Capture(ctx, path, "found when its tree was enrolled")
		}
		p.responder = respond.New(respond.Options{
			Vault: restorer{o.Vault, p}, Journal: patient{p}, Now: o.Clock.Boot, Wall: o.Clock.Wall, Exists: exists,
			Limit: o.FlapLimit, Window: o.FlapWindow, Restores: p.restores, StormLimit: o.StormLimit, StormWindow: o.StormWindow, Stormed: p.stormed,
		})
	}
	p.stopper = respond.NewStopper(respond.StopOptions{Journal: patient{p}, Now: o.Clock.Boot, Wall: o.Clock.Wall, Self: o.Self, Signal: o.Signal})
	p.pace = newPace(o.MappedRate, o.MappedEvery, o.Clock.Boot())
	p.states = rehash.New(ro)
	p.scans, p.lane, p.told = newScans(p), newLane(p), o.Told
	p.gaps.every, p.gaps.pause = uint64(o.GapEvery), uint64(o.GapEvery)
	p.polled = o.Clock.Boot()
	p.last.Store(p.polled)
	return p
}

// restores reports whether what is at path is put back.
func (p *Pipeline) restores(path string) bool {
	rule, ok := p.o.Rule(path)
	return ok && !rule.Own && rule.Mode != event.ModeObserve
}

func exists(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil
}

// Feed takes one raw record of the ring, and copies it. If the fast side is behind
// it waits: what the ring holds meanwhile is not lost, and the ring never makes
// the host wait.
func (p *Pipeline) Feed(raw []byte) {
	if !p.in.put(raw) {
		p.lose(event.CauseHandover, 1, p.last.Load())
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
			if p.last.Load() >= p.polled+pollEvery {
				p.poll()
			}
			continue
		}
		if ctx.Err() != nil {
			p.poll()
			p.table.Flush()
			p.in.close()
			return
		}
		now := p.o.Clock.Boot()
		if now >= p.polled+pollEvery {
			p.poll()
		}
		p.table.Tick(now)
		at := p.polled + pollEvery
		if next, ok := p.table.Next(); ok {
			at = min(at, next)
		}
		due, stop := p.o.Clock.After(until(at, now))
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

// pollEvery is how often the kernel's counters are read: a loss at the end of a
// burst has no later event that tells of it.
const pollEvery = 1_000_000_000 // ns

// poll declares what the kernel side has lost since the last time.
func (p *Pipeline) poll() {
	since := p.polled
	p.polled = p.o.Clock.Boot()
	p.tellCrowded()
	p.calm()
	if p.o.Kernel == nil {
		return
	}
	k, err := p.o.Kernel()
	if err != nil {
		p.o.Log.Error("kernel counters cannot be read", "stage", "sense", "err", err)
		return
	}
	for cpu, n := range k.Ring {
		p.ringLost(cpu, n, since)
	}
	if n := k.Failed - p.kernel.Failed; n > 0 {
		p.lose(event.CauseKernel, n, since)
	}
	for cause, n := range map[string]uint64{event.CauseDeep: k.Deep - p.kernel.Deep, event.CauseIoUring: k.Rings - p.kernel.Rings} {
		if n > 0 {
			p.gaps.unplaced(n, p.o.Clock.Wall(since), p.o.Clock.Wall(p.polled), cause, event.Unknown)
			signal(p.queue.ready)
		}
	}
	p.kernel.Failed, p.kernel.Deep, p.kernel.Rings = k.Failed, k.Deep, k.Rings
}

// ringLost declares what found no room in the ring, from the count of one CPU.
func (p *Pipeline) ringLost(cpu int, n, since uint64) {
	for cpu >= len(p.kernel.Ring) {
		p.kernel.Ring = append(p.kernel.Ring, 0)
	}
	if n > p.kernel.Ring[cpu] {
		p.lose(event.CauseRing, n-p.kernel.Ring[cpu], since)
		p.kernel.Ring[cpu] = n
	}
}

// The margins of CaughtUp and Settled: how long an event may be on its way from
// the program that made it to the ring and from there to Feed, and how long a
// change may wait for a second look.
const (
	onItsWay = 100_000_000 // ns
	atRest   = 1_000_000_000
)

// CaughtUp returns a moment (ns since boot): what the kernel side told of before
// it has been taken in.
func (p *Pipeline) CaughtUp() uint64 {
	now := p.o.Clock.Boot()
	if p.o.Waiting == nil || !p.o.Waiting() {
		if p.in.empty() {
			return now - onItsWay
		}
	}
	return p.last.Load() - onItsWay
}

// Settled returns a moment: changes that ended before it have their records,
// though these may not be durable yet. It asks in the order in which changes move on.
func (p *Pipeline) Settled() uint64 {
	at := p.CaughtUp()
	if t, ok := p.table.Oldest(); ok {
		at = min(at, t)
	}
	if t, ok := p.queue.oldest(); ok {
		at = min(at, t)
	}
	if t, ok := p.lane.oldest(); ok {
		at = min(at, t)
	}
	return at - atRest
}

// Quiet reports whether no loss is undeclared and no gap open, and every version
// could be kept.
func (p *Pipeline) Quiet() bool { return p.gaps.quiet() && p.n.unkept.Load() == 0 }

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
		p.putProcess(rec, 0)
	}
}

// decode is stage 2. The event is valid until the next call.
func (p *Pipeline) decode(raw []byte) (*event.Event, bool) {
	ev := &p.ev
	if err := p.o.Decode(raw, ev); err != nil {
		p.n.spoilt.Add(1)
		p.o.Log.Warn("event cannot be read", "stage", "decode", "err", err)
		p.lose(event.CauseDecode, 1, p.last.Load())
		return nil, false
	}
	p.n.events.Add(1)
	p.ringLost(int(ev.CPU), ev.Lost, min(p.polled, ev.Time))
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
	for _, rec := range p.o.Attribute.Observe(ev) {
		p.putProcess(rec, ev.Hook)
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
		var trees []string
		for _, id := range []uint32{ev.Anchor, ev.Anchor2} {
			if tree, _, ok := p.o.Anchors.Path(id); ok {
				trees = append(trees, tree)
			}
		}
		p.lose(event.CauseCut, 1, ev.Time, trees...)
	case err != nil:
		at := p.o.Clock.Wall(ev.Time)
		p.gaps.unplaced(1, at, at, event.CauseUnplaced, ev.Op.String())
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
	if p.queue.put(it) {
		return
	}
	c := it.change
	switch {
	case c == nil:
		p.lose(event.CauseQueue, 1, p.last.Load())
	case c.PathTo == "":
		p.lose(event.CauseQueue, 1, c.First, c.Path)
	case c.Path == "":
		p.lose(event.CauseQueue, 1, c.First, c.PathTo)
	default:
		p.lose(event.CauseQueue, 1, c.First, c.Path, c.PathTo)
	}
}

// later tells rehash what is known to have happened to a path since the changes that
// the slow side has taken.
func (p *Pipeline) later(path string) rehash.Later {
	pending := p.table.Later(path, p.taken) // first: what is pending moves on to the queue
	return rehash.Later(p.lane.later(path).Merge(p.queue.later(path)).Merge(pending))
}

// judgement is what judge says of a finding, for each of its names.
type judgement struct {
	judge.Verdict
	rule    Rule
	window  *window.Window // the approved window that made it expected, nil if none did
	targets []respond.Target
}
