package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/holdfast/holdfast/pkg/coalesce"
	"github.com/holdfast/holdfast/pkg/event"
)

// The reasons of looks that nobody's event asked for.
const (
	reasonLost = "found by a rescan after lost events"
	reasonDown = "changed while the daemon was down"
	// An operation named a path that could not be followed any more: it is not
	// known whether it was in a watched tree, so the trees are asked.
	reasonUnplaced = "found by a rescan after an operation whose path could not be followed any more"
	// Requests of io_uring may have changed something, and the tier does not tell what.
	reasonRings = "found by a rescan after requests of io_uring, of which this tier does not tell what they did"
	// Operations on a directory's name and in it came in each other's way.
	reasonOrder = "found by comparing a directory that was renamed or made while others worked in it"
	reasonOther = "found by a second look; who did it was not told"
)

// doubtEvery is the least time between two rescans for unplaced events, and
// doubtShare how many times longer than such a rescan the pause after it is.
const (
	doubtEvery = 10_000_000_000 // ns
	doubtShare = 20
)

// While losses go on, the time between two gaps doubles up to gapMost, and is at
// least gapShare times as long as a rescan takes.
const (
	gapMost  = 30_000_000_000 // ns
	gapShare = 4
)

// maxTrees is how many paths a gap names before it names all trees.
const maxTrees = 64

// whys explains each cause to a person.
func whys() map[string]string {
	return map[string]string{
		event.CauseRing:       "no room in the kernel's ring",
		event.CauseKernel:     "the kernel side could not put events together",
		event.CauseDeep:       "something lay deeper than the kernel side looks up, and the watched trees could not be compared",
		event.CauseIoUring:    "io_uring worked with files, which this tier does not see, and the watched trees could not be compared",
		event.CauseHandover:   "an event did not fit between the ring and the stages",
		event.CauseQueue:      "too many changes waited to be looked at",
		event.CauseDecode:     "an event could not be read",
		event.CauseCut:        "the path of an event was too long",
		event.CauseUnreadable: "a changed file could not be read",
		event.CauseUnplaced:   "an operation's path could not be followed any more, and the watched trees could not be compared",
		event.CauseJournal:    "records could not be written to the journal, or were torn off its end",
		event.CauseProcesses:  "too many processes began or ended: of some there is no record of their own",
		event.CauseDown:       "the daemon was not running",
	}
}

// gap is a declared loss.
type gap struct {
	lost     uint64
	from, to event.Time
	causes   []string
	trees    []string // in which something may be missing
	all      bool     // in any
	unplaced bool     // events that could not be placed: no loss unless the rescan fails
	ops      []string // of those: what they were, event.Unknown if nobody can tell
	prior    []Prior  // gaps of an earlier run that are closed with it

	id    string // of its record, "" before
	tries int    // rescans that failed
	early uint64 // changes of it that comparisons for something else found
}

// finds returns how that is said of a change that was found because of it, and why.
func (g *gap) finds() (found, reason string) {
	if slices.Contains(g.causes, event.CauseDown) {
		return event.FoundWhileDown, reasonDown
	}
	return event.FoundAfterGap, reasonLost
}

// holds reports whether a change of path may be missing because of it.
func (g *gap) holds(path string) bool {
	return g.all || slices.ContainsFunc(g.trees, func(t string) bool { return coalesce.Within(t, path) })
}

// Prior is a gap that an earlier run left open.
type Prior struct {
	ID  string
	Gap event.Gap
}

// grow adds n lost events; no trees: they may have been anywhere.
func (g *gap) grow(n uint64, from, to event.Time, cause string, trees ...string) {
	if g.lost == 0 || from < g.from {
		g.from = from
	}
	g.lost += n
	g.to = max(g.to, from, to)
	if !slices.Contains(g.causes, cause) {
		g.causes = append(g.causes, cause)
	}
	for _, t := range trees {
		if !slices.Contains(g.trees, t) {
			g.trees = append(g.trees, t)
		}
	}
	g.all = g.all || len(trees) == 0 || len(g.trees) > maxTrees
}

func (g *gap) reason() string {
	var out []string
	for _, c := range g.causes {
		out = append(out, whys()[c])
	}
	return strings.Join(out, "; ")
}

// gaps collects losses, so that there is one record for many.
type gaps struct {
	every uint64

	mu     sync.Mutex // guards all below
	lost   gap
	named  gap
	busy   *gap   // the newest one, until its rescan has had its first end
	pause  uint64 // between two gaps while losses go on
	after  uint64 // when losses may be given out again
	doubt  uint64 // when unplaced events may be given out again
	causes map[string]uint64
	open   []*gap // declared, not closed
	last   *gap   // the last one that was declared
	healed uint64

	comparing *gap // the unplaced events that were given out, nil if that is over
}

// add collects lost events.
func (g *gaps) add(n uint64, from, to event.Time, cause string, trees ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.causes == nil {
		g.causes = make(map[string]uint64)
	}
	g.causes[cause] += n
	g.lost.grow(n, from, to, cause, trees...)
}

// unplaced collects events of which it is not known whether they concern a tree. op is
// what they were, event.Unknown if nobody can tell.
func (g *gaps) unplaced(n uint64, from, to event.Time, cause, op string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.named.unplaced = true
	g.named.grow(n, from, to, cause)
	if !slices.Contains(g.named.ops, op) {
		g.named.ops = append(g.named.ops, op)
	}
}

// doubts lists the operations that may have been on any path, for all that comparing told
// until now: those that a rescan is for, if it is for such ones, and those after them.
func (g *gaps) doubts(own *gap) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	ops := slices.Clone(g.named.ops)
	for _, d := range []*gap{own, g.comparing} {
		if d != nil {
			ops = append(ops, d.ops...)
		}
	}
	slices.Sort(ops)
	return strings.Join(slices.Compact(ops), " ")
}

// compared ends a rescan for unplaced events that took a while.
func (g *gaps) compared(now, took uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.doubt = now + max(doubtEvery, doubtShare*took)
	g.comparing = nil
}

// due gives out what was collected: losses when the rescan for earlier ones is
// over, and at most once in a while unless force; unplaced events when no rescan
// for earlier ones is under way or just over. At the end these are left: the next
// start compares everything.
func (g *gaps) due(now uint64, force bool) []*gap {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []*gap
	if g.lost.lost > 0 && (force || g.busy == nil && now >= g.after) {
		if now > g.after+2*g.pause {
			g.pause = g.every
		} else {
			g.pause = min(2*g.pause, gapMost)
		}
		d := g.lost
		out = append(out, &d)
		g.lost, g.busy, g.after = gap{}, &d, now+g.pause
	}
	if g.named.lost > 0 && !force && now >= g.doubt {
		d := g.named
		out = append(out, &d)
		g.comparing = &d
		g.named, g.doubt = gap{}, math.MaxUint64 // until compared
	}
	return out
}

// waiting returns how many events were lost and not given out and gaps are open, and
// the moment of the first unplaced event whose comparing is not over, 0 if there is none.
func (g *gaps) waiting() (n uint64, doubt event.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.comparing != nil {
		doubt = g.comparing.from
	} else if g.named.lost > 0 {
		doubt = g.named.from
	}
	return g.lost.lost + uint64(len(g.open)), doubt
}

// back takes a gap again that could not be declared.
func (g *gaps) back(d *gap) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy == d {
		g.busy = nil
	}
	for _, cause := range d.causes {
		g.lost.grow(0, d.from, d.to, cause, d.trees...)
	}
	g.lost.lost += d.lost
	g.lost.all = g.lost.all || d.all
}

// next returns when due has something to give, false if that is not known or
// nothing was collected.
func (g *gaps) next() (uint64, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := uint64(math.MaxUint64)
	if g.lost.lost > 0 && g.busy == nil {
		at = g.after
	}
	if g.named.lost > 0 {
		at = min(at, g.doubt)
	}
	return at, at != math.MaxUint64
}

// declared notes that a gap has its record.
func (g *gaps) declared(d *gap, id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	d.id, g.last = id, d
	if !slices.Contains(g.open, d) {
		g.open = append(g.open, d)
	}
}

// tried notes the end of a gap's rescan that took a while; healed: nothing of it
// is left to be done.
func (g *gaps) tried(d *gap, now, took uint64, healed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy == d {
		g.busy, g.after = nil, max(g.after, now+gapShare*took)
	}
	if healed {
		g.open = slices.DeleteFunc(g.open, func(o *gap) bool { return o == d })
		g.healed++
	} else {
		d.tries++
	}
}

// over returns the open loss that began first of those by which a change of path
// may be missing, nil if there is none: whatever comparison finds it first, it may
// have been lost with that one. Those whose trees were compared once do not count.
func (g *gaps) over(path string) (first *gap) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, d := range g.open {
		if !d.unplaced && d.tries == 0 && d.holds(path) && (first == nil || d.from < first.from) {
			first = d
		}
	}
	return first
}

// found counts a change that a job found for the loss that its record names.
func (g *gaps) found(r *event.Record, j *job) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, d := range g.open {
		if r.Gap != nil && r.Gap.Of == d.id && d != j.gap {
			d.early++
			return
		}
	}
	j.changes.Add(1)
}

func (g *gaps) earlier(d *gap) uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return d.early
}

// quiet reports whether nothing is collected or open.
func (g *gaps) quiet() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lost.lost == 0 && g.named.lost == 0 && len(g.open) == 0
}

// Gap is a gap as status shows it.
type Gap struct {
	ID       string
	From, To event.Time
	Lost     uint64
	Causes   []string
	Trees    []string // none: all
	Tries    int      // rescans that could not compare all of it
	Open     bool
}

func (d *gap) show(open bool) Gap {
	s := Gap{ID: d.id, From: d.from, To: d.to, Lost: d.lost, Causes: slices.Clone(d.causes), Tries: d.tries, Open: open}
	if !d.all {
		s.Trees = slices.Clone(d.trees)
	}
	return s
}

// Losses is what may be missing from the records and what came of it.
type Losses struct {
	Causes  map[string]uint64 // events lost since the start, by cause
	Waiting uint64            // of these, not declared yet
	Healed  uint64            // gaps that were closed
	Open    []Gap             // declared and not closed, oldest first
	Last    *Gap              // nil: there was none
}

// Losses tells of all losses since the start.
func (p *Pipeline) Losses() Losses {
	g := &p.gaps
	g.mu.Lock()
	defer g.mu.Unlock()
	l := Losses{Causes: maps.Clone(g.causes), Waiting: g.lost.lost, Healed: g.healed}
	for _, d := range g.open {
		l.Open = append(l.Open, d.show(true))
		for _, q := range d.prior {
			l.Open = append(l.Open, Gap{ID: q.ID, From: q.Gap.From, To: q.Gap.To, Lost: q.Gap.Lost, Causes: q.Gap.Causes, Trees: q.Gap.Trees, Open: true})
		}
	}
	slices.SortStableFunc(l.Open, func(a, b Gap) int { return cmp.Compare(a.From, b.From) })
	if g.last != nil {
		s := g.last.show(slices.Contains(g.open, g.last))
		l.Last = &s
	}
	return l
}

// lose declares that events may be missing since from (ns since boot), in the
// trees of paths, or of unknown place if there are none. It never blocks.
func (p *Pipeline) lose(cause string, n, from uint64, paths ...string) {
	p.n.lost.Add(n)
	p.table.Lost(p.o.Clock.Boot())
	var trees []string
	for _, path := range paths {
		t, ok := p.treeOf(path)
		if !ok {
			trees = nil
			break
		}
		trees = append(trees, t)
	}
	p.gaps.add(n, p.o.Clock.Wall(from), p.o.Clock.Wall(p.o.Clock.Boot()), cause, trees...)
	signal(p.queue.ready)
}

// unreadable declares that a change was seen and its outcome could not be read:
// the path is looked at until it can.
func (p *Pipeline) unreadable(path string, since uint64) {
	p.n.lost.Add(1)
	p.gaps.add(1, p.o.Clock.Wall(since), p.o.Clock.Wall(p.o.Clock.Boot()), event.CauseUnreadable, path)
	signal(p.queue.ready)
}

// treeOf returns the innermost watched root that holds path.
func (p *Pipeline) treeOf(path string) (tree string, ok bool) {
	for _, t := range p.o.Trees() {
		if coalesce.Within(t, path) && len(t) > len(tree) {
			tree, ok = t, true
		}
	}
	return tree, ok
}

// treesOf are the trees that a gap concerns.
func (p *Pipeline) treesOf(g *gap) []string {
	if g.all {
		return p.o.Trees()
	}
	return g.trees
}

// declare writes a gap record and has the trees scanned that it concerns.
// Unplaced events only have them scanned: what that finds has its own records.
func (p *Pipeline) declare(ctx context.Context, g *gap) error {
	j := &job{trees: p.treesOf(g), gap: g, found: event.FoundUnplaced, reason: reasonUnplaced}
	if slices.Equal(g.causes, []string{event.CauseIoUring}) {
		j.reason = reasonRings
	}
	if !g.unplaced {
		j.found, j.reason = g.finds()
		err := p.tell(ctx, j, event.RescanPending, g.reason())
		if errors.Is(err, errStuck) {
			p.gaps.back(g)
			return nil
		}
		if err != nil {
			return fmt.Errorf("declare a gap: %w", err)
		}
	}
	p.scans.begin(j)
	return nil
}

// Down declares that nothing was seen from a moment until now, has trees compared
// with what is known of them, and closes with that what an earlier run left open.
// It returns when that is done, or cannot be done now: then it is tried again.
func (p *Pipeline) Down(ctx context.Context, from event.Time, trees []string, open []Prior) error {
	now := p.o.Clock.Wall(p.o.Clock.Boot())
	g := &gap{from: min(from, now), to: now, causes: []string{event.CauseDown}, trees: trees, prior: open}
	done := make(chan error, 1)
	j := &job{trees: trees, gap: g, done: done}
	j.found, j.reason = g.finds()
	if err := p.tell(ctx, j, event.RescanPending, g.reason()); err != nil {
		return fmt.Errorf("declare a gap: %w", err)
	}
	p.scans.begin(j)
	select {
	case <-done: // a failure is in its record and in Losses
	case <-ctx.Done():
		return ctx.Err()
	}
	if p.o.Vault == nil {
		return nil
	}
	told := p.told
	p.told = nil
	return p.catchUp(told)
}

// tell writes a record about a job's gap: the first one declares it.
func (p *Pipeline) tell(ctx context.Context, j *job, state, reason string) error {
	g := j.gap
	r := &event.Record{
		Time: p.o.Clock.Wall(p.o.Clock.Boot()), Kind: event.RecGap, Reason: reason,
		Sensor: &event.Sensor{Tier: p.o.Tier},
		Gap:    &event.Gap{Lost: g.lost, From: g.from, To: g.to, Causes: g.causes, Rescan: state, Of: g.id},
	}
	for _, t := range j.trees {
		r.Gap.Trees = append(r.Gap.Trees, text(t))
	}
	if state != event.RescanPending {
		r.Gap.Looked, r.Gap.Changes = j.looked.Load(), j.changes.Load()+p.gaps.earlier(g)
	}
	put := p.must
	if state == event.RescanPending && len(g.prior) == 0 {
		put = p.append // it can be declared later
	}
	if err := put(ctx, r); err != nil {
		return err
	}
	if g.id == "" {
		p.n.gaps.Add(1)
		p.gaps.declared(g, r.ID)
	}
	if state != event.RescanDone {
		return nil
	}
	var errs []error
	for _, q := range g.prior {
		c := q.Gap
		c.Rescan, c.Of, c.Looked, c.Changes = state, q.ID, r.Gap.Looked, r.Gap.Changes
		errs = append(errs, p.must(ctx, &event.Record{Time: r.Time, Kind: event.RecGap, Reason: reason, Sensor: r.Sensor, Gap: &c}))
	}
	return errors.Join(errs...)
}
