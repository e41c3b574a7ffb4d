package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast/holdfast/pkg/attribute"
	"github.com/holdfast/holdfast/pkg/coalesce"
	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/decode"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/index"
	"github.com/holdfast/holdfast/pkg/kernel"
	"github.com/holdfast/holdfast/pkg/pipeline"
	"github.com/holdfast/holdfast/pkg/publish"
	"github.com/holdfast/holdfast/pkg/query"
	"github.com/holdfast/holdfast/pkg/rehash"
	"github.com/holdfast/holdfast/pkg/sense"
	"github.com/holdfast/holdfast/pkg/ship"
)

// ErrTier says that the tier that was asked for does not work here.
var ErrTier = errors.New("tier does not work on this kernel")

// Options of Run.
type Options struct {
	Version string
	Log     *slog.Logger
	Ready   func() // called when everything is armed; nil: nobody waits
}

// Daemon is a running daemon; it answers the control socket.
type Daemon struct {
	ops
	o       Options
	log     *slog.Logger
	started time.Time
	report  kernel.Report
	sensor  *sense.Sensor
	table   *attribute.Table
	pipe    *pipeline.Pipeline
	index   *index.Index
	shipper *ship.Shipper

	publisher *publish.Publisher // nil: nowhere to send checkpoints to

	rules   *rules
	names   *coalesce.Resolver
	beneath beneath
	links   map[string]bool // files with names outside the watched trees that are marked; of one goroutine
	scan    chan struct{}   // look who holds watched files
	stop    func()          // begins the end
	holds   holds

	clock  clock
	before before // what an earlier run left
	marked mark   // what comes to be seen next; of syncVault alone
	wrote  mark   // of syncVault alone

	shipDown func() error // closes what the shipper uses

	unlinked atomic.Uint64 // files with names outside the watched trees that are not marked

	mu       sync.Mutex
	armed    bool
	degraded map[string]string // what for → reason
	enrolled map[string]pipeline.Enrolled
	later    []string                 // large trees that are still to be enrolled
	begun    map[string][]rehash.Mark // what an earlier run surveyed of them, until it is taken
	surveyed map[string][]rehash.Mark // what was in them before
	unarmed  []sense.Unarmed
	pruned   pruned
}

var _ control.Handler = (*Daemon)(nil)

// Run runs the daemon until ctx ends. It returns nil after an orderly stop.
func Run(ctx context.Context, cfg config.Config, o Options) (err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	listener, err := control.Listen(cfg.Socket)
	if err != nil {
		return err
	}
	st, err := openState(cfg, o.Log)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	d := &Daemon{
		ops: ops{state: st}, o: o, log: o.Log, started: time.Now(), beneath: beneath{wake: make(chan struct{}, 1)}, scan: make(chan struct{}, 1), holds: holds{changed: make(chan struct{}, 1)}, stop: stop,
		degraded: make(map[string]string), enrolled: make(map[string]pipeline.Enrolled),
		begun: make(map[string][]rehash.Mark), surveyed: make(map[string][]rehash.Mark),
	}
	defer func() { err = errors.Join(err, d.state.close()) }()
	d.finishEarlier(ctx)
	if err := d.openKernel(ctx); err != nil {
		return errors.Join(err, listener.Close())
	}
	if err := d.build(); err != nil {
		return errors.Join(err, d.sensor.Close(), listener.Close())
	}
	server := control.NewServer(d, o.Log)
	return d.run(ctx, func(ctx context.Context) error { return server.Serve(ctx, listener) })
}

// openKernel chooses a tier by trying and loads it.
func (d *Daemon) openKernel(ctx context.Context) error {
	d.report = kernel.Probe(ctx)
	d.tier = d.report.Tier
	if want := d.cfg.Tier; want != config.TierAuto {
		d.tier = want
	}
	if !sense.CanBlock(d.tier) && d.tier != sense.TierTracepoint {
		return fmt.Errorf("tier %q on linux %s: %w", d.cfg.Tier, d.report.Release, ErrTier)
	}
	var err error
	d.sensor, err = sense.Open(sense.Options{
		Tier: d.tier, Ring: uint32(d.cfg.Limits.Ring), Self: uint32(os.Getpid()), Everybody: d.cfg.Processes == attribute.ProcessesAll,
	})
	if err != nil {
		return fmt.Errorf("tier %s on linux %s: %w: %w", d.tier, d.report.Release, ErrTier, err)
	}
	for _, p := range d.sensor.Programs() {
		if p.Cost != "" {
			d.degrade("program "+p.Name, fmt.Sprintf("%s is not loaded: %s (%v)", p.Name, p.Cost, p.Err))
		}
	}
	return nil
}

// Try loads the programs of tier, watches nothing, takes them away again and
// tells what this kernel made of each.
func Try(tier string) ([]sense.Program, error) {
	s, err := sense.Open(sense.Options{Tier: tier, Ring: uint32(os.Getpagesize()), Self: uint32(os.Getpid())})
	if err != nil {
		return nil, fmt.Errorf("try tier %s: %w", tier, err)
	}
	return s.Programs(), s.Close()
}

// build makes the stages; nothing runs yet.
func (d *Daemon) build() error {
	var err error
	if d.rules, err = newRules(d.cfg, d.tier); err != nil {
		return err
	}
	if err := d.windowsErr; err != nil {
		d.degrade("windows", "approved windows are not in force: "+err.Error())
	}
	if sense.CanBlock(d.tier) { // else there is nothing to open
		d.through = d.letThrough
	}
	for name, reason := range d.rules.weakened {
		d.degrade("rule "+name, reason)
	}
	self := uint32(os.Getpid())
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("own executable: %w", err)
	}
	if d.rules.guardOff != "" {
		d.log.Warn("the daemon is not guarded", "reason", d.rules.guardOff)
	}
	ao := attribute.NewSystem(self)
	ao.MaxProcesses, ao.Processes = d.cfg.Limits.Processes, d.cfg.Processes
	d.table = attribute.New(ao)
	ns, err := mountNS()
	if err != nil {
		return err
	}
	d.names = coalesce.NewResolver(ns, nil)
	var scan func()
	var writers time.Duration // where each write is told of, none is asked for
	if sense.CanBlock(d.tier) {
		writers = lasting
	}
	if d.sensor.CanScan() {
		scan = func() { signal(d.scan) }
	}
	d.clock = newClock()
	if d.before, err = d.earlier(); err != nil {
		return err
	}
	var dec decode.Decoder
	d.pipe = pipeline.New(pipeline.Options{
		Decode: dec.Decode, Attribute: d.table, Anchors: d.sensor, Resolver: d.names,
		Rule: d.rules.rule, Trees: d.rules.trees, Journal: d.journal, Stuck: d.journal.Failing, Clock: d.clock, Vault: d.keeper, Windows: d.windows, Told: d.before.told,
		Kernel: d.lost, Waiting: d.sensor.Waiting,
		Self: self, Exe: exe, Reads: filepath.Dir(d.cfg.IndexFile()), Tier: d.tier, Hook: sense.HookName, Appeared: d.beneath.appear, Log: d.log,
		Beneath: d.beneath.tell, Linked: d.beneath.link, Mount: d.mounted,
		Queue: d.cfg.Limits.Queue, FlapLimit: d.cfg.Limits.Restores, FlapWindow: d.cfg.Limits.RestoreWindow,
		Scan: scan, Holds: d.holds.set, Armed: d.holds.armed, Lasting: writers, MappedEvery: d.cfg.Limits.MappedInterval, MappedRate: uint64(d.cfg.Limits.MappedRate),
	})
	d.took, d.taking, d.who = d.pipe.Took, d.pipe.Taking, d.pipe.Who
	if d.index, err = index.Open(d.cfg.IndexFile(), d.cfg.JournalDir(), index.Options{Logger: d.log, FreeFloor: freeFloor, Bounds: d.journal.Bounds}); err != nil {
		return err
	}
	if err := d.remember(); err != nil {
		d.log.Warn("logins from before are not remembered", "error", err)
	}
	if err := d.buildPublisher(); err != nil {
		return err
	}
	return d.buildShipper()
}

// remember tells the table of the logins that daemons before this one recorded since the
// machine was booted.
func (d *Daemon) remember() error {
	s, err := index.OpenRead(d.cfg.IndexFile(), d.cfg.JournalDir())
	if err != nil {
		return err
	}
	since := time.Now().Add(-time.Duration(d.clock.Boot())).Add(-time.Minute)
	err = s.Records(context.Background(), query.Filter{Kind: event.RecSession, Since: event.TimeOf(since)}, func(r *event.Record) error {
		if r.Boot == d.boot {
			d.table.Remember(r)
		}
		return nil
	})
	return errors.Join(err, s.Close())
}

// earlier reads what an earlier run left.
func (d *Daemon) earlier() (before, error) {
	o := d.journal.Opened()
	if o.Created || o.Size == 0 {
		return before{}, nil
	}
	m, err := readMark(d.cfg.State)
	if err != nil {
		return before{}, err
	}
	if m.Seq > o.Size {
		m = mark{} // of another log
	}
	return readBefore(context.Background(), d.cfg.JournalDir(), m)
}

// lost is what the kernel side lost, as the stages ask for it.
func (d *Daemon) lost() (pipeline.KernelLosses, error) {
	l, err := d.sensor.Losses()
	return pipeline.KernelLosses(l), err
}

// roots are the marked places, as the resolver of names compares with.
func (d *Daemon) roots() []coalesce.Root {
	anchors := d.sensor.Anchors()
	out := make([]coalesce.Root, 0, len(anchors))
	for _, a := range anchors {
		out = append(out, coalesce.Root{Path: a.Path, Dev: a.Dev, Ino: a.Ino, Name: a.Name, Anchor: a.ID, Link: a.Link})
	}
	for _, s := range d.sensor.Steps() {
		out = append(out, coalesce.Root{Path: s.Path, Dev: s.Dev, Ino: s.Ino, Name: s.Name, Anchor: s.Anchor, Above: true})
	}
	return out
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run starts everything, waits for the end and stops it in order.
func (d *Daemon) run(ctx context.Context, serve func(context.Context) error) error {
	failed := make(chan error, 8)
	var front, back sync.WaitGroup // what makes events; what works them off
	senseCtx, stopSense := context.WithCancel(context.WithoutCancel(ctx))
	pipeCtx, stopPipe := context.WithCancel(context.WithoutCancel(ctx))
	restCtx, stopRest := context.WithCancel(context.WithoutCancel(ctx))
	start := func(wg *sync.WaitGroup, ctx context.Context, name string, f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	d.life = restCtx
	var mid sync.WaitGroup
	start(&mid, pipeCtx, "stages", d.pipe.Run)
	start(&front, senseCtx, "sense", func(ctx context.Context) error { return d.sensor.Run(ctx, d.pipe.Feed) })
	start(&back, restCtx, "index", d.index.Run)
	start(&back, restCtx, "control", serve)
	start(&back, restCtx, "vault", d.syncVault)
	if d.shipper != nil {
		start(&back, restCtx, "ship", d.shipper.Run)
	}
	if d.publisher != nil {
		start(&back, restCtx, "publish", d.publisher.Run)
	}
	err := d.begin(ctx)
	if err == nil {
		start(&front, senseCtx, "rules", d.armAgain)
		start(&front, senseCtx, "mounts", d.watchMounts)
		start(&front, senseCtx, "loops", d.watchLoops)
		signal(d.beneath.wake) // mounts may have changed before they were watched
		start(&front, senseCtx, "held", d.scanHeld)
		start(&front, senseCtx, "guard", d.watchGuard)
		start(&front, senseCtx, "demand", d.demand)
		start(&front, senseCtx, "alive", d.sayAlive)
		start(&front, senseCtx, "retention", d.retain)
		start(&front, senseCtx, "windows", d.watchWindows)
		start(&front, senseCtx, "enrol", d.enrolLater)
		start(&front, senseCtx, "read back", d.readBack)
		select {
		case <-ctx.Done():
		case err = <-failed:
		}
	} else if ctx.Err() != nil {
		err = nil
	}
	err = errors.Join(err, d.disarmGuard())
	stopSense()
	front.Wait()
	stopPipe()
	mid.Wait()
	err = errors.Join(err, d.end(err))
	stopRest()
	back.Wait()
	if d.shipDown != nil {
		err = errors.Join(err, d.shipDown())
	}
	return errors.Join(err, d.index.Close(), d.names.Close(), d.sensor.Close())
}

// heapSlack is how many percent of what is in use may be garbage before it is
// collected: a burst asks for much at once.
const heapSlack = 50

// begin records the start, enrols, arms and compares.
func (d *Daemon) begin(ctx context.Context) (err error) {
	if err := d.recordStart(ctx); err != nil {
		return err
	}
	if err := d.sensor.Learn(); err != nil {
		d.degrade("learn", fmt.Sprintf("processes older than the daemon are not known: %v", err))
	}
	if d.beneath.table, err = sense.Mounts(); err != nil {
		return err
	}
	if err := d.sensor.Guard(d.rules.guardOff == ""); err != nil {
		return err
	}
	if _, err := d.arm(ctx, "changed while the tree was being armed"); err != nil {
		return err
	}
	if err := d.link(ctx); err != nil {
		d.degrade("link", err.Error())
	}
	d.mu.Lock()
	d.armed = true
	d.mu.Unlock()
	if err := d.recordArmed(ctx); err != nil {
		return err
	}
	debug.FreeOSMemory() // loading programs took a description of the whole kernel
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(heapSlack)
	}
	if d.o.Ready != nil {
		d.o.Ready()
	}
	return notify("READY=1")
}

// end records the stop; cause is what it stops for, nil for an orderly one.
func (d *Daemon) end(cause error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	reason := "stopped"
	if cause != nil {
		reason = "stopped: " + cause.Error()
	}
	_, err := d.journal.AppendDurable(ctx, &event.Record{
		Time: event.TimeOf(time.Now()), Kind: event.RecAgent, Reason: reason, Detail: map[string]string{"version": d.o.Version},
	})
	return err
}

// syncVault makes versions durable that were kept since the last time.
func (d *Daemon) syncVault(ctx context.Context) error {
	t := time.NewTicker(markEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			at := d.settled()
			if err := errors.Join(d.vault.Sync(), d.moveMark(at)); err != nil {
				return err
			}
			return d.moveMark(at)
		case <-t.C:
			at := d.settled()
			if err := d.vault.Sync(); err != nil {
				d.degrade("vault", fmt.Sprintf("versions cannot be made durable: %v", err))
				continue
			}
			d.recover("vault")
			if err := d.moveMark(at); err != nil {
				d.degrade("seen", err.Error())
				continue
			}
			d.recover("seen")
		}
	}
}

// degrade notes that less works than was configured.
func (d *Daemon) degrade(what, reason string) {
	d.mu.Lock()
	known := d.degraded[what] == reason
	d.degraded[what] = reason
	d.mu.Unlock()
	if !known {
		d.log.Warn("degraded", "reason", reason)
	}
}

// recover takes back what degrade noted.
func (d *Daemon) recover(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.degraded, what)
}
