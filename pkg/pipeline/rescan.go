package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/coalesce"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/rehash"
)

// job is one rescan.
type job struct {
	trees  []string
	found  string // Found of what it leads to
	reason string
	by     *Beneath // who made what it finds; nil if nobody is known
	whole  bool     // read everything
	gap    *gap     // the loss that it closes, or the unplaced events that it is for; nil if none
	// swapped: the trees lead to other directories (Pipeline.Swapped).
	swapped bool
	note    func(path string, before, after event.State)
	noted   uint64 // ns since boot when it was asked for: what happened before is taken in first
	begun   uint64 // ns since boot
	took    uint64 // ns, the search for suspects; what then waits for its turn is no work
	// compare: not after a loss, but because of the order of operations.
	compare bool
	done    chan<- error // gets the outcome of the first try, nil if nobody waits

	looked, changes, unread atomic.Uint64

	// Suspects that are not dealt with, and one for the search for them.
	left atomic.Int64
}

// told is 1, but 0 for a rescan for unplaced events: gaps tells of these.
func (j *job) told() int64 {
	if j.gap != nil && j.gap.unplaced {
		return 0
	}
	return 1
}

// scans runs rescans beside the slow side, one after the other: they only find
// out what to look at, the looks go through the queue like changes.
type scans struct {
	p      *Pipeline
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	jobs   chan struct{}
	open   atomic.Int64 // jobs that are not closed

	mu    sync.Mutex // guards all below
	next  []*job
	later []later
	ended bool
}

// later is a job whose trees could not be compared wholly, and when to try again.
type later struct {
	at uint64 // ns since boot
	j  *job
}

func newScans(p *Pipeline) *scans {
	s := &scans{p: p, jobs: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

func (s *scans) start() { s.wg.Go(s.run) }

// end gives up what is not done: the next start compares everything anyway.
func (s *scans) end() {
	s.cancel()
	s.wg.Wait()
}

func (s *scans) begin(j *job) {
	j.noted = s.p.o.Clock.Boot()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		j.answer(context.Canceled)
		return
	}
	s.next = append(s.next, j)
	s.open.Add(j.told())
	signal(s.jobs)
}

func (j *job) answer(err error) {
	if j.done != nil {
		j.done <- err
		j.done = nil
	}
}

// The first and the longest pause before a rescan is tried again.
const (
	againFirst = 5_000_000_000 // ns
	againMost  = 600_000_000_000
)

// again puts a job off that could not compare all.
func (s *scans) again(j *job, tries int) {
	n := &job{trees: j.trees, found: j.found, reason: j.reason, by: j.by, whole: j.whole, gap: j.gap}
	at := s.p.o.Clock.Boot() + min(uint64(againFirst)<<min(tries-1, 10), againMost)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.later = append(s.later, later{at, n})
	signal(s.jobs)
}

func (s *scans) run() {
	for s.ctx.Err() == nil {
		j, at := s.take()
		if j != nil {
			s.do(j)
			continue
		}
		var due <-chan time.Time
		stop := func() bool { return true }
		if at != 0 {
			due, stop = s.p.o.Clock.After(until(at, s.p.o.Clock.Boot()))
		}
		select {
		case <-s.jobs:
		case <-due:
		case <-s.ctx.Done():
		}
		stop()
	}
	s.giveUp()
}

// take returns the next job, or when there will be one, 0 if that is not known.
func (s *scans) take() (*job, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.next) > 0 {
		j := s.next[0]
		s.next = s.next[1:]
		return j, 0
	}
	at := uint64(0)
	for i, l := range s.later {
		if l.at <= s.p.o.Clock.Boot() {
			s.later = slices.Delete(s.later, i, i+1)
			l.j.noted = l.at
			s.open.Add(1)
			return l.j, 0
		}
		if at == 0 || l.at < at {
			at = l.at
		}
	}
	return nil, at
}

func (s *scans) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, j := range s.next {
		j.answer(s.ctx.Err())
	}
	s.next, s.later = nil, nil
}

// do finds the suspects of a job's trees and has them looked at; behind the last
// of them goes what closes the job.
func (s *scans) do(j *job) {
	p := s.p
	p.n.rescans.Add(1)
	j.begun = p.o.Clock.Boot()
	s.settle(j)
	from := p.o.Clock.Boot()
	var errs []error
	j.left.Add(1)
	for _, root := range j.trees {
		if j.whole {
			p.states.Doubt(root)
		}
		if err := s.swap(j, root); err != nil {
			errs = append(errs, err)
			continue
		}
		n, err := p.states.Suspects(s.ctx, p.tree(root), func(path string) error { return s.suspect(j, path) })
		j.looked.Add(uint64(n))
		if err != nil {
			errs = append(errs, err)
		}
	}
	now := p.o.Clock.Boot()
	j.took = now - from
	if j.compare {
		p.compareAt.Store(now + doubtShare*j.took)
	}
	err := errors.Join(errs...)
	if err == nil {
		err = s.put(&item{call: func(context.Context) { s.dealt(j) }})
	}
	if err != nil {
		s.close(j, err)
	}
}

// swap takes notice that a root leads elsewhere, in the slow side's turn. It is done
// once: tried again, a job only compares.
func (s *scans) swap(j *job, root string) error {
	if rule, ok := s.p.o.Rule(root); !j.swapped || !ok || rule.Mode != event.ModeObserve {
		return nil
	}
	return s.p.inTurn(root, func(context.Context) {
		before, after, swapped := s.p.states.Swap(s.p.tree(root))
		if swapped && j.note != nil {
			j.note(root, before, after)
		}
	})
}

// scanDelay lets changes that are under way settle before a rescan.
const scanDelay = 100 * time.Millisecond

// settle waits until the events that were sent before a job was asked for have
// been taken in: they know who did what the rescan would find.
func (s *scans) settle(j *job) {
	for wait := true; wait && s.ctx.Err() == nil; wait = s.p.CaughtUp() < j.noted {
		t, stop := s.p.o.Clock.After(scanDelay)
		select {
		case <-t:
		case <-s.ctx.Done():
		}
		stop()
	}
}

// maxSuspects is how many paths of one rescan may be under way at once.
const maxSuspects = 8192

// suspect has a path looked at for a job.
func (s *scans) suspect(j *job, path string) error {
	for j.left.Load() > maxSuspects {
		t, stop := s.p.o.Clock.After(5 * time.Millisecond)
		select {
		case <-t:
		case <-s.ctx.Done():
		}
		stop()
		if err := s.ctx.Err(); err != nil {
			return err
		}
	}
	j.left.Add(1)
	return s.put(j.look(path, s.p.o.Clock.Boot()))
}

// look is a look of a job at a path.
func (j *job) look(path string, now uint64) *item {
	c := &event.Change{Path: path, Op: event.OpOpen, First: now, Last: now, Actor: *event.Nobody()}
	if j.by != nil {
		c.Actor, c.Process, c.Hook = j.by.Actor, j.by.Process, j.by.Hook
	}
	return &item{change: c, rescan: j, reason: j.reason}
}

// dealt notes that one suspect of a job was dealt with; the last one closes it.
func (s *scans) dealt(j *job) {
	if j.left.Add(-1) == 0 {
		s.close(j, nil)
	}
}

// glance is what tells at a glance that a path was not touched in between; the
// time of an inode's last change cannot be set.
type glance struct {
	dev, ino, size uint64
	mode           uint32
	ctime          int64
}

func glanceAt(path string) glance {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return glance{}
	}
	return glance{st.Dev, st.Ino, uint64(st.Size), st.Mode, st.Ctim.Nano()}
}

// restless is after how many looks a path that never comes to rest is taken as
// it is.
const restless = 40

// steady is asked before a look that no event asked for. It reports whether the
// path differs from what is known and has come to rest. A difference that is just
// being made has an event on its way, which knows who made it: the path is looked
// at again a little later, when what was sent before has been taken in.
func (p *Pipeline) steady(ctx context.Context, it *item) bool {
	path := it.change.Path
	differs := p.states.Differs
	if it.change.Mapped {
		differs = p.states.DiffersRead
	}
	if !differs(ctx, path) {
		p.n.looks.Add(1)
		it.ready = true
		return false
	}
	now := glanceAt(path)
	if it.looks == 0 || p.CaughtUp() > it.at {
		it.looks++
	}
	if it.looks > restless {
		p.n.restless.Add(1)
	}
	if p.closing || it.looks > restless || it.looks > 1 && now == it.seen && !p.later(path).Any {
		it.ready = true
		return true
	}
	if now != it.seen {
		it.seen, it.at = now, p.o.Clock.Boot()
	}
	p.delay(p.o.SelfDelay, it)
	return false
}

// dealt notes that an item was carried through the stages.
func (p *Pipeline) dealt(it *item) {
	if n := p.states.Links(); n != p.links {
		p.links = n
		p.o.Linked()
	}
	if it.rescan != nil && it.ready {
		p.scans.dealt(it.rescan)
	}
}

// close ends a job: with the record that closes its gap, or to be tried again.
func (s *scans) close(j *job, err error) {
	defer s.open.Add(-j.told())
	p, g := s.p, j.gap
	if n := j.unread.Load(); err == nil && n > 0 {
		err = fmt.Errorf("%d paths could not be read", n)
	}
	if err != nil && s.ctx.Err() == nil {
		p.n.rescansFailed.Add(1)
		p.o.Log.Error("rescan failed", "stage", "pipeline", "err", err)
	}
	now := p.o.Clock.Boot()
	took := now - j.begun
	if g != nil && g.unplaced && g.id == "" {
		p.gaps.compared(now, j.took)
		signal(p.queue.ready)
		if err == nil {
			g = nil
		}
	}
	if g != nil && s.ctx.Err() == nil {
		err = errors.Join(err, s.outcome(j, err))
		p.gaps.tried(g, now, took, err == nil)
		signal(p.queue.ready)
		if err != nil {
			s.again(j, g.tries)
		}
	}
	j.answer(err)
}

// outcome records what came of a gap's rescan; of those that fail the first only.
func (s *scans) outcome(j *job, err error) error {
	switch {
	case err == nil:
		return s.p.tell(s.ctx, j, event.RescanDone, "every path that may have changed was compared with what was known")
	case j.gap.tries == 0:
		return s.p.tell(s.ctx, j, event.RescanFailed, "it is tried again: "+err.Error())
	}
	return nil
}

// put adds an item when the queue is less than half full, so that a rescan does
// not push out what happens now.
func (s *scans) put(it *item) error {
	q := s.p.queue
	for !q.putBelow(it, max(q.limit/2, 1), false) {
		t, stop := s.p.o.Clock.After(10 * time.Millisecond)
		select {
		case <-q.space:
		case <-t:
		case <-s.ctx.Done():
			stop()
			return s.ctx.Err()
		}
		stop()
	}
	return nil
}

// tree is a root without the other roots below it and without excepted paths.
func (p *Pipeline) tree(root string) rehash.Tree {
	var nested []string
	for _, t := range p.o.Trees() {
		if t != root && coalesce.Within(root, t) {
			nested = append(nested, t)
		}
	}
	return rehash.Tree{Root: root, Mount: p.o.Mount, Skip: func(path string) bool {
		for _, n := range nested {
			if coalesce.Within(n, path) {
				return true
			}
		}
		rule, ok := p.o.Rule(path)
		return !ok || rule.Own
	}}
}

// Enrolled says what came of enrolling a root.
type Enrolled struct {
	Root    string
	Paths   int     // that exist, at and below it
	Learned bool    // it was enrolled by an earlier run: the caller has it compared
	Errors  []error // paths that could not be kept: they are watched, and cannot be put back
	// Changed are paths of which a version is kept and none is trusted: they changed
	// after they were watched and before they were enrolled.
	Changed []string
}

// Enrol makes the present state of a root the trusted one and keeps all of its
// content. Of a root that an earlier run has enrolled, what was kept is taken as
// known instead: Down or Rescan finds what differs. It may be called before Run
// and beside it; roots that are neither enrolled nor surveyed must not be fed.
func (p *Pipeline) Enrol(ctx context.Context, root string, pace func(context.Context, uint64)) (Enrolled, error) {
	if e, ok := p.learn(root); ok {
		return e, nil
	}
	t := p.tree(root)
	t.Pace = pace
	n, errs, err := p.states.Enrol(ctx, t)
	e := Enrolled{Root: root, Paths: n, Errors: errs}
	if err != nil {
		return e, fmt.Errorf("enrol %q: %w", root, err)
	}
	if p.o.Vault != nil {
		if err := p.o.Vault.Sync(); err != nil {
			return e, fmt.Errorf("enrol %q: %w", root, err)
		}
	}
	return e, nil
}

// learn takes what an earlier run knew of a root.
func (p *Pipeline) learn(root string) (Enrolled, bool) {
	e := Enrolled{Root: root, Learned: true}
	if p.o.Vault == nil {
		return e, false
	}
	s, ok := p.o.Vault.Latest(root)
	if !ok {
		return e, false
	}
	for i := range p.told {
		p.trustTold(root, &p.told[i])
	}
	t := p.tree(root)
	for _, path := range append([]string{root}, p.o.Vault.Below(root)...) {
		if t.Skip(path) {
			continue
		}
		if s, ok = p.o.Vault.Latest(path); ok && s.Exists {
			p.states.Learn(path, s)
			e.Paths++
		}
	}
	for i := range p.told {
		if told := &p.told[i]; p.observes(root, told.Path) || p.observes(root, told.To) {
			p.states.Follow(told)
		}
	}
	n := 0
	e.Changed = p.changed(root, &n)
	return e, true
}

// observes reports whether a path is in a tree, and nothing there is put back: else
// the vault knows what belongs there.
func (p *Pipeline) observes(root, path string) bool {
	if path == "" || !coalesce.Within(root, path) {
		return false
	}
	rule, ok := p.o.Rule(path)
	return ok && rule.Mode == event.ModeObserve
}

// catchUp lets the vault follow the last records of an earlier run, as far as what
// they tell is still so.
func (p *Pipeline) catchUp(told []rehash.Told) error {
	keep := func(ctx context.Context, path, id string) {
		e, ok := p.states.Known().Get(path)
		if rule, watched := p.o.Rule(path); !ok || !watched || rule.Mode != event.ModeObserve || e.State.Unread != "" {
			return
		}
		if v, kept := p.o.Vault.Latest(path); kept && v.Same(&e.State) || !kept && !e.State.Exists {
			return
		}
		p.aside(ctx, e.State.Size, func() {
			err := p.o.Vault.Keep(path, e.State, nil, Provenance{Record: id, Reason: "was not kept when it was recorded"})
			p.kept(path, err)
		})
	}
	for i := range told {
		t := &told[i]
		err := p.scans.put(&item{about: []string{t.Path, t.To}, call: func(ctx context.Context) {
			keep(ctx, t.Path, t.ID)
			if t.To != "" {
				keep(ctx, t.To, t.ID)
			}
		}})
		if err != nil {
			return err
		}
	}
	return nil
}

// trustTold lets what an expected change in a tree left be trusted, if it is there still
// and the vault did not come to it before the end: else it would be put back. It is read
// anew, so that nothing else is trusted.
func (p *Pipeline) trustTold(root string, t *rehash.Told) {
	path := t.Path
	if t.To != "" {
		path = t.To
		if t.Moved && !t.Exchanged { // and nothing is left at the old name
			p.trustTold(root, &rehash.Told{Path: t.Path, ID: t.ID, Expected: t.Expected})
		}
	}
	rule, watched := p.o.Rule(path)
	trusted, _, ok := p.o.Vault.Trusted(path)
	if !t.Expected || !coalesce.Within(root, path) || !watched || rule.Own || t.After.Unread != "" || ok && trusted.Same(&t.After) || !ok && !t.After.Exists {
		return
	}
	if v, kept := p.o.Vault.Latest(path); kept && v.Same(&t.After) {
		return // it was kept, and was not to be trusted yet
	}
	in := p.o.Vault.Intake()
	s, err := p.states.Read(context.Background(), path, in)
	same := err == nil && s.Unread == "" && s.Same(&t.After)
	if !same || !s.Exists || s.Type != event.TypeRegular {
		p.kept(path, in.Discard())
		in = nil
	}
	if same {
		p.kept(path, p.keepVersion(context.Background(), path, s, in, Provenance{Record: t.ID, Reason: "was not kept when it was recorded", Trust: true}))
	}
}

// Rescan compares trees with what is known of them when they are armed; each
// difference is a record with an unknown actor. It returns when all of it went
// through the stages.
func (p *Pipeline) Rescan(ctx context.Context, trees []string, reason string) error {
	done := make(chan error, 1)
	p.scans.begin(&job{trees: trees, found: event.FoundArming, reason: reason, done: done})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Took tells that Holdfast itself has just changed paths on somebody's request,
// with records of its own: what is there now is taken as known. It returns when
// that is so.
func (p *Pipeline) Took(ctx context.Context, paths []string) error {
	done := make(chan error, 1)
	err := p.scans.put(&item{about: paths, call: func(turn context.Context) {
		read := context.WithValue(ctx, onLane{}, turn.Value(onLane{}))
		var errs []error
		for _, path := range paths {
			errs = append(errs, p.states.Refresh(read, path))
		}
		done <- errors.Join(errs...)
	}})
	if err != nil {
		return fmt.Errorf("take notice: %w", err)
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
