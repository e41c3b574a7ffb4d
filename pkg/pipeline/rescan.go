package pipeline

import (
	"context"
	"errors"
	"fmt"
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
	reason string
	by     *Beneath // who made what it finds; nil if nobody is known
	whole  bool     // read everything
	gap    *gap     // the loss that it closes, or the unplaced events that it is for; nil if none
	begun  uint64   // ns since boot, set when it is done
	// compare: not after a loss, but because of the order of operations.
	compare bool
	done    chan<- error // gets the outcome once, nil if nobody waits

	// Suspects that are not dealt with, and one for the search for them.
	left atomic.Int64
}

// scans runs rescans beside the slow side, one after the other: they only find
// out what to look at, the looks go through the queue like changes.
type scans struct {
	p      *Pipeline
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	jobs   chan struct{}

	mu    sync.Mutex // guards next and ended
	next  []*job
	ended bool
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
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		if j.done != nil {
			j.done <- context.Canceled
		}
		return
	}
	s.next = append(s.next, j)
	signal(s.jobs)
}

func (s *scans) run() {
	for s.ctx.Err() == nil {
		if j, ok := s.take(); ok {
			s.do(j)
			continue
		}
		select {
		case <-s.jobs:
		case <-s.ctx.Done():
		}
	}
	s.giveUp()
}

func (s *scans) take() (*job, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.next) == 0 {
		return nil, false
	}
	j := s.next[0]
	s.next = s.next[1:]
	return j, true
}

func (s *scans) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, j := range s.next {
		if j.done != nil {
			j.done <- s.ctx.Err()
		}
	}
	s.next = nil
}

// do finds the suspects of a job's trees and has them looked at; behind the last
// of them goes what closes the job.
func (s *scans) do(j *job) {
	p := s.p
	p.n.rescans.Add(1)
	j.begun = p.o.Clock.Boot()
	t, stop := p.o.Clock.After(scanDelay) // what is under way tells of itself first
	select {
	case <-t:
	case <-s.ctx.Done():
	}
	stop()
	var errs []error
	j.left.Add(1)
	for _, root := range j.trees {
		if j.whole {
			p.states.Doubt(root)
		}
		err := p.states.Suspects(s.ctx, p.tree(root), func(path string) error {
			now := p.o.Clock.Boot()
			c := &event.Change{Path: path, Op: event.OpOpen, First: now, Last: now}
			if j.by != nil {
				c.Actor, c.Process, c.Hook = j.by.Actor, j.by.Process, j.by.Hook
			}
			j.left.Add(1)
			return s.put(&item{change: c, rescan: j, reason: j.reason})
		})
		if err != nil {
			errs = append(errs, err)
		}
	}
	if j.compare {
		now := p.o.Clock.Boot()
		p.compareAt.Store(now + doubtShare*(now-j.begun-uint64(scanDelay)))
	}
	err := errors.Join(errs...)
	if err == nil {
		err = s.put(&item{call: func() { s.dealt(j) }})
	}
	if err != nil {
		s.close(j, err)
	}
}

// scanDelay lets changes that are under way settle before a rescan.
const scanDelay = 100 * time.Millisecond

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
// at again a little later.
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
	it.looks++
	if p.closing || it.looks > restless || it.looks > 1 && now == it.seen && !p.later(path).Any {
		it.ready = true
		return true
	}
	it.seen = now
	p.delay(p.o.SelfDelay, it)
	return false
}

// dealt notes that an item was carried through the stages.
func (p *Pipeline) dealt(it *item) {
	if it.rescan != nil && it.ready {
		p.scans.dealt(it.rescan)
	}
}

// close writes the record that ends a gap.
func (s *scans) close(j *job, err error) {
	p := s.p
	if err != nil && s.ctx.Err() == nil {
		p.n.rescansFailed.Add(1)
		p.o.Log.Error("rescan failed", "stage", "pipeline", "err", err)
	}
	if j.gap != nil && j.gap.unplaced {
		now := p.o.Clock.Boot()
		p.gaps.compared(now, now-j.begun)
		signal(p.queue.ready)
		if err == nil {
			j.gap = nil
		} else {
			p.n.gaps.Add(1)
		}
	}
	if j.gap != nil && s.ctx.Err() == nil {
		state, reason := rescanDone, "every watched path was compared with what was known"
		if err != nil {
			state, reason = rescanFailed, err.Error()
		}
		if aerr := p.append(s.ctx, p.gapRecord(j.gap, j.trees, state, reason)); aerr != nil {
			err = errors.Join(err, aerr)
		}
	}
	if j.done != nil {
		j.done <- err
	}
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
	Learned bool    // it was enrolled by an earlier run: what differs since is found and recorded
	Errors  []error // paths that could not be kept: they are watched, and cannot be put back
}

// Enrol makes the present state of a root the trusted one and keeps all of its
// content. A root that an earlier run has enrolled is compared with what was kept
// instead, and what differs goes through the stages as changed while the daemon
// was down. It may be called before Run and beside it; roots that are not enrolled
// must not be fed.
func (p *Pipeline) Enrol(ctx context.Context, root string) (Enrolled, error) {
	if e, ok := p.learn(root); ok {
		p.scans.begin(&job{trees: []string{root}, reason: reasonDown})
		return e, nil
	}
	n, errs, err := p.states.Enrol(ctx, p.tree(root))
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
	return e, true
}

// Rescan compares trees with what is known of them; each difference is a record
// with an unknown actor. It returns when all of it went through the stages.
func (p *Pipeline) Rescan(ctx context.Context, trees []string, reason string) error {
	done := make(chan error, 1)
	p.scans.begin(&job{trees: trees, reason: reason, done: done})
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
	err := p.scans.put(&item{call: func() {
		var errs []error
		for _, path := range paths {
			errs = append(errs, p.states.Refresh(ctx, path))
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
