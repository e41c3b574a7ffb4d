package rollback

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
)

// batch is how many new inodes are staged before one syncfs makes all of them
// durable; each holds two or three descriptors. inFlight is how many batches are under
// way at once, so that the processors work while one waits for the disk.
const (
	batch    = 64
	inFlight = 3
)

// grouped is from how many files on that is worth it.
const grouped = 8

// Apply carries out a plan and reports each step to each, in the plan's order
// within renames, removals and the rest. Every step is all or nothing, but for
// metadata alone, which is set one by one; one that fails does not keep the others
// from being tried, unless they need it (ErrHalted). A path that is not as the plan
// found it is left alone (ErrRaced). Conflicts are not touched. The error joins
// those of the steps.
func (s *Store) Apply(ctx context.Context, p Plan, each func(Result)) error {
	if each == nil {
		each = func(Result) {}
	}
	if s.readOnly {
		return fmt.Errorf("apply plan: %w", ErrReadOnly)
	}
	moves := 0 // the steps up to the last rename: each stands on those before it
	for i := range p.Steps {
		if p.Steps[i].Action == ActionRename {
			moves = i + 1
		}
	}
	var errs []error
	halted := false
	i := 0
	report := func(r Result) {
		if r.Err != nil {
			errs = append(errs, r.Err)
			halted = halted || Passing(r.Err) && (i < moves || r.Step.Action == ActionMkdir)
		}
		each(r)
	}
	for i < len(p.Steps) {
		if halted {
			report(Result{Step: p.Steps[i], Outcome: OutcomeFailed, Err: fmt.Errorf("restore %q: %w", p.Steps[i].Path, ErrHalted)})
			i++
			continue
		}
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, fmt.Errorf("apply plan: %w", err))...)
		}
		n := together(p.Steps[i:])
		switch {
		case n >= grouped:
			n = s.applyGroups(ctx, p.Steps[i:i+n], report)
		case p.Steps[i].Action == ActionRename:
			n = 1
			report(s.renameBack(ctx, p.Steps[i]))
		default:
			n = 1
			report(s.restore(ctx, p.Steps[i], s.holes(&p.Steps[i]), true))
		}
		i += n
	}
	return errors.Join(errs...)
}

// holes finds where a content had no blocks: the version knows, or another
// version of the path with the same content.
func (s *Store) holes(st *Step) []digest.Extent {
	path := st.Source
	if path == "" {
		path = st.Path
	}
	if v, ok := s.Version(path, st.Version); ok {
		return v.Holes
	}
	for _, v := range s.Versions(path) {
		if v.State.Hash == st.Want.Hash {
			return v.Holes
		}
	}
	return nil
}

// together is how many steps from the first on make new inodes that need none of the
// others: directories of one depth, or what is no directory.
func together(steps []Step) (n int) {
	dirs := steps[0].Action == ActionMkdir
	depth := strings.Count(steps[0].Path, "/")
	for n < len(steps) {
		switch steps[n].Action {
		case ActionMkdir:
			if !dirs || strings.Count(steps[n].Path, "/") != depth {
				return n
			}
		case ActionWrite, ActionLink, ActionMknod:
			if dirs || steps[n].From != "" { // another name of one before
				return n
			}
		default:
			return n
		}
		n++
	}
	return n
}

// applyGroups carries out steps that do not need each other, reports each in order, and
// returns how many it began: fewer than all only if ctx is done.
func (s *Store) applyGroups(ctx context.Context, steps []Step, report func(Result)) (begun int) {
	var flying []chan []Result
	for {
		for len(flying) < inFlight && begun < len(steps) && ctx.Err() == nil {
			group := steps[begun:min(begun+batch, len(steps))]
			begun += len(group)
			c := make(chan []Result, 1)
			go func() { c <- s.applyGroup(ctx, group) }()
			flying = append(flying, c)
		}
		if len(flying) == 0 {
			return begun
		}
		for _, r := range <-flying[0] {
			report(r)
		}
		flying = flying[1:]
	}
}

// applyGroup stages many inodes, makes them durable together, and swaps them in
// one by one. Those that did not go through at once are tried again alone.
func (s *Store) applyGroup(ctx context.Context, steps []Step) []Result {
	jobs := make([]*job, len(steps))
	errs := make([]error, len(steps))
	for i := range steps {
		jobs[i] = s.newJob(ctx, steps[i], s.holes(&steps[i]), true)
		jobs[i].grouped = true
	}
	atOnce(jobs, func(i int, j *job) {
		if errs[i] = j.open(); errs[i] == nil {
			errs[i] = j.stage()
		}
	})
	synced := map[uint64]error{} // by device
	for i, j := range jobs {
		if errs[i] != nil || j.phase != phaseStaged {
			continue
		}
		dev := j.mine.Dev
		err, ok := synced[dev]
		if !ok {
			err = s.disk.Syncfs(j.parent, j.step.Path)
			synced[dev] = err
		}
		if err != nil {
			err = j.settle()
		}
		errs[i] = err
		if err == nil {
			errs[i] = j.swap()
			j.swapped = errs[i] == nil
		}
	}
	for i, j := range jobs {
		if j.parent >= 0 && !j.asIs(errs[i]) {
			errs[i] = errors.Join(errs[i], j.clean())
		}
	}
	s.settleParents(jobs, errs)
	atOnce(jobs, func(i int, j *job) {
		if j.parent >= 0 && !j.asIs(errs[i]) {
			errs[i] = j.conclude(errs[i])
		}
	})
	results := make([]Result, len(jobs))
	for i, j := range jobs {
		if errors.Is(errs[i], errRaced) {
			j.close()
			results[i] = s.restore(ctx, steps[i], j.holes, true)
			continue
		}
		results[i] = j.result(errs[i])
		j.close()
	}
	return results
}

// settleParents makes the names durable that were swapped in, each directory once,
// or all of a file system in one go.
func (s *Store) settleParents(jobs []*job, errs []error) {
	type inode struct{ dev, ino uint64 }
	parents := map[inode][]int{}
	many := map[uint64]int{}
	for i, j := range jobs {
		if errs[i] != nil || j.phase != phaseStaged {
			continue
		}
		var st unix.Stat_t
		if err := digest.Again(func() error { return unix.Fstat(j.parent, &st) }); err != nil {
			errs[i] = fmt.Errorf("stat parent of %q: %w", j.step.Path, err)
			continue
		}
		p := inode{st.Dev, st.Ino}
		if parents[p] == nil {
			many[st.Dev]++
		}
		parents[p] = append(parents[p], i)
	}
	synced := map[uint64]error{}
	for p, members := range parents {
		j := jobs[members[0]]
		err, ok := synced[p.dev]
		switch {
		case many[p.dev] < grouped:
			err = s.disk.Fsync(j.parent, j.step.Path)
		case !ok:
			err = s.disk.Syncfs(j.parent, j.step.Path)
			synced[p.dev] = err
		}
		for _, i := range members {
			errs[i] = err
		}
	}
}

// atOnce calls f for all jobs, with as many at a time as there are processors.
func atOnce(jobs []*job, f func(int, *job)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(jobs)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(jobs); i = int(next.Add(1)) - 1 {
				f(i, jobs[i])
			}
		})
	}
	wg.Wait()
}

// renameBack gives what is at From its old name back, if both are as planned.
func (s *Store) renameBack(ctx context.Context, st Step) Result {
	start := time.Now()
	r := Result{Step: st, Outcome: OutcomeFailed}
	if at, err := digest.StatPath(st.From); err == nil && !at.Exists && renamed(&st) { // somebody did it already
		r.Outcome, r.After = OutcomeSkipped, st.Want
		return r
	}
	after, err := s.moveBack(ctx, &st)
	r.After, r.TookNS = after, uint64(time.Since(start))
	if err != nil {
		r.Err = fmt.Errorf("rename %q back to %q: %w", st.From, st.Path, err)
		return r
	}
	r.Outcome = OutcomeDone
	return r
}

func (s *Store) moveBack(ctx context.Context, st *Step) (after event.State, err error) {
	from, fromBase, err := digest.OpenParent(st.From)
	if err != nil {
		return after, err
	}
	defer unix.Close(from)
	to, toBase, err := digest.OpenParent(st.Path)
	if err != nil {
		return after, err
	}
	defer unix.Close(to)
	now, err := digest.Stat(from, fromBase)
	if err != nil {
		return after, err
	}
	if !st.moves(&now) {
		return after, ErrRaced
	}
	err = s.disk.Rename(from, fromBase, to, toBase, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) {
		err = ErrRaced
	}
	if err != nil {
		return after, err
	}
	if err := s.disk.Fsync(to, st.Path); err != nil {
		return after, err
	}
	if err := s.disk.Fsync(from, st.From); err != nil {
		return after, err
	}
	return digest.Read(ctx, to, toBase, nil)
}
