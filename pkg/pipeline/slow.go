package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/holdfast/holdfast/pkg/accounts"
	"github.com/holdfast/holdfast/pkg/coalesce"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/judge"
	"github.com/holdfast/holdfast/pkg/rehash"
	"github.com/holdfast/holdfast/pkg/respond"
	"github.com/holdfast/holdfast/pkg/window"
)

// runBack works off the queue until the fast side has ended and nothing is left.
func (p *Pipeline) runBack(ctx context.Context, frontDone <-chan struct{}, back func(context.Context, *item) error) error {
	p.scans.start()
	defer p.scans.end()
	endLane := p.lane.start(ctx, back)
	defer endLane()
	ending, first := false, false
	for {
		now := p.o.Clock.Boot()
		if now >= p.stuck.Load() {
			for _, g := range p.gaps.due(now, ending) {
				if err := p.declare(ctx, g); err != nil {
					return err
				}
			}
		}
		if !ending && p.yield(ctx) {
			continue
		}
		room, err := p.lane.room()
		if err != nil {
			return err
		}
		first = !first
		did, busy := false, p.lane.n.Load() > 0 // asked first: what it leaves is still to be done
		if room {
			if did, err = p.next(ctx, now, first, back); err != nil {
				return err
			}
		}
		switch {
		case did:
			continue
		case ending && !busy:
			return p.lastLooks(ctx, back)
		case ending || !room:
			if err := p.awaitLane(ctx); err != nil {
				return err
			}
			continue
		}
		p.turns.Add(1)
		ended := p.wait(ctx, now, frontDone)
		p.turns.Add(1)
		if ended {
			ending = true
			p.scans.end()
		}
	}
}

// next deals with one item, or sends it to the lane; false: there is none. From the queue
// and from those for later in turn, so that looks that have to be repeated do not keep
// changes waiting.
func (p *Pipeline) next(ctx context.Context, now uint64, first bool, back func(context.Context, *item) error) (bool, error) {
	p.turn.Lock()
	defer p.turn.Unlock()
	var it *item
	if first {
		it = p.take()
	}
	if it == nil {
		it = p.delayed.due(now)
	}
	if it == nil && !first {
		it = p.take()
	}
	if it == nil {
		return false, nil
	}
	defer p.queue.done()
	if p.lane.takes(it) {
		return true, nil
	}
	return true, p.work(ctx, it, back)
}

// awaitLane waits until something in the lane was dealt with.
func (p *Pipeline) awaitLane(ctx context.Context) error {
	select {
	case <-p.lane.moved:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("deal with large files: %w", ctx.Err())
	}
}

// take returns the oldest item of the queue, nil if there is none.
func (p *Pipeline) take() *item {
	it := p.queue.take()
	if it != nil && it.change != nil {
		p.taken = max(p.taken, it.change.Turn)
	}
	return it
}

// lastLooks makes the second looks at once that were to be made a little later:
// nothing is told any more.
func (p *Pipeline) lastLooks(ctx context.Context, back func(context.Context, *item) error) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	p.closing = true
	for {
		it := p.delayed.due(math.MaxUint64)
		switch {
		case it == nil || ctx.Err() != nil:
			return nil
		case it.self && it.change != nil:
			if err := back(ctx, it); err != nil {
				return err
			}
		}
	}
}

// yieldFor is for how long the slow side stands back.
const yieldFor = time.Millisecond

// yield lets the fast side have the processor while events pile up before it and
// the queue behind it has room: what is not taken in is lost sooner than what
// waits to be looked at.
func (p *Pipeline) yield(ctx context.Context) bool {
	used, size, _ := p.in.stats()
	n, _ := p.queue.stats()
	if used < min(size/4, 1<<20) || n > p.queue.limit/4*3 {
		return false
	}
	t, stop := p.o.Clock.After(yieldFor)
	defer stop()
	select {
	case <-t:
	case <-ctx.Done():
	}
	return true
}

// wait sleeps until there is something to do; true: the fast side has ended.
func (p *Pipeline) wait(ctx context.Context, now uint64, frontDone <-chan struct{}) bool {
	var due <-chan time.Time
	stop := func() bool { return true }
	p.turn.Lock()
	at, ok := p.delayed.next()
	p.turn.Unlock()
	if g, gok := p.gaps.next(); gok && (!ok || max(g, p.stuck.Load()) < at) {
		at, ok = max(g, p.stuck.Load()), true
	}
	if ok {
		due, stop = p.o.Clock.After(until(at, now))
	}
	defer stop()
	select {
	case <-p.queue.ready:
	case <-due:
	case <-frontDone:
		return true
	case <-ctx.Done():
		return true
	}
	return false
}

// work does one piece of work.
func (p *Pipeline) work(ctx context.Context, it *item, back func(context.Context, *item) error) error {
	switch {
	case it.record != nil:
		if f, ok := p.o.Attribute.(Finisher); ok {
			f.Finish(it.record)
		}
		err := p.append(ctx, it.record)
		if errors.Is(err, errStuck) {
			p.unwritten(it.record)
			return nil
		}
		return err
	case it.call != nil:
		it.call(ctx)
		return nil
	case it.again != nil:
		return p.retry(ctx, it.again)
	case it.held != nil:
		return p.holds(ctx, it.held)
	}
	return back(ctx, it)
}

// find is a change that was one: an item, what it was about and what it did.
type find struct {
	*item
	rehash.Finding
}

// rehash is stage 5: what did the change do? One event may tell of several
// changes: of all names of a file, or of one that was taken for none before.
func (p *Pipeline) rehash(ctx context.Context, it *item) ([]find, error) {
	c := it.change
	if c.Blocked {
		return []find{{it, rehash.Finding{Path: c.Path, Op: c.Op, Changed: true}}}, nil
	}
	if it.self && c.Mapped {
		if !p.closing && p.putOff(it) {
			return nil, nil
		}
		p.disown(c)
	}
	if it.rescan != nil && p.stored(it) {
		return nil, nil
	}
	if (it.rescan != nil || it.self) && !p.steady(ctx, it) {
		return nil, nil
	}
	if c.Key.PID == p.o.Self && p.o.Self != 0 && !it.self {
		p.ownWork(ctx, c)
		return nil, nil
	}
	if it.self && c.Key.PID == p.o.Self && p.o.Self != 0 && p.taking.has(c.Path) {
		p.delay(p.o.SelfDelay, it) // not all of it is done, and known
		return nil, nil
	}
	f, err := p.states.Check(ctx, c, p.later, p.keeps(c))
	if err != nil {
		p.o.Log.Warn("content cannot be given back", "stage", "rehash", "err", err)
	}
	if f.Err != nil {
		p.o.Log.Warn("file cannot be read", "stage", "rehash", "path", f.Path, "err", f.Err)
	}
	p.followUp(it, &f)
	if f.Barred {
		// Who keeps changing a file sends events; who cannot be read sends none.
		if it.rescan != nil {
			it.rescan.unread.Add(1)
		} else {
			p.unreadable(f.Path, c.First)
		}
	}
	var out []find
	if f.Doubted != nil {
		p.n.unchanged.Add(^uint64(0))
		d := *it
		d.change, d.rescan = f.Doubted, nil // it has had its event
		out = append(out, find{&d, rehash.Taken(f.Doubted, f.Before)})
	}
	switch {
	case f.Changed:
		out = append(out, find{it, f})
	case c.Op == event.OpOpen:
		p.n.looks.Add(1)
	default:
		p.n.unchanged.Add(1)
	}
	for _, a := range f.Aliases {
		it.names = append(it.names, a.Path)
	}
	for _, a := range f.Aliases {
		o := *it
		l := *c
		l.Path, l.PathTo = a.Path, ""
		o.change, o.reason = &l, "another name of "+event.Text([]byte(a.Alias))
		out = append(out, find{&o, a})
	}
	return out, ctx.Err()
}

// keeps reports whether the content that a change left is asked for: to be kept, which
// is not worth it where it is put back anyway, or to tell what it means.
func (p *Pipeline) keeps(c *event.Change) bool {
	path := c.Path
	if c.PathTo != "" {
		path = c.PathTo
	}
	rule, ok := p.o.Rule(path)
	return p.o.Vault != nil && ok && (rule.Mode == event.ModeObserve || rule.Enrolling || c.Allowed || accounts.Known(path) || p.o.Windows != nil && p.o.Windows.May(path))
}

// ownWork is about a change that our own process made: if it left what we know,
// it was a restore, which has its record. Else somebody else's change may be on
// its way to us: look again when that has had time to come.
func (p *Pipeline) ownWork(ctx context.Context, c *event.Change) {
	differs := false
	for _, path := range []string{c.Path, c.PathTo} {
		if path == "" || p.later(path).Any || !p.states.Differs(ctx, path) {
			continue
		}
		differs = true
		l := *c
		p.delay(p.o.SelfDelay, &item{change: lookAt(&l, path), self: true})
	}
	if !differs {
		p.n.self.Add(1)
	}
}

// lookAt makes c a change without an operation.
func lookAt(c *event.Change, path string) *event.Change {
	c.Path, c.PathTo = path, ""
	c.Op, c.Ops, c.Count, c.Bytes = event.OpOpen, nil, 0, 0
	c.Ino, c.Gen, c.Nlink, c.FMode, c.Dir, c.Exchange = 0, 0, 0, 0, false, false
	return c
}

// lookLater schedules a look in the name of who did c, as far as it finds the
// object that c was about.
func (p *Pipeline) lookLater(c *event.Change, path string, d time.Duration) {
	l := *c
	p.delay(d, &item{change: lookAt(&l, path), self: true, of: c.Ino})
}

// followUp schedules what is to be looked at after a finding.
func (p *Pipeline) followUp(it *item, f *rehash.Finding) {
	c := it.change
	switch {
	case f.Again && it.rescan != nil:
		it.rescan.left.Add(1)
		p.delay(p.o.SelfDelay, it.rescan.look(f.Path, p.o.Clock.Boot()))
	case f.Again:
		p.lookLater(c, f.Path, p.o.SelfDelay)
	}
	for _, l := range f.Looks {
		if l.By == nil {
			l.By = &event.Change{First: c.Last, Last: c.Last}
		}
		p.lookLater(l.By, l.Path, p.o.SelfDelay)
	}
	for _, dir := range f.Compare {
		p.compare(dir)
	}
}

// compareMany is how many directories wait at most to be compared; beyond it the
// watched trees are, as a whole.
const compareMany = 4096

// compare has the inside of a directory compared with what is known of it, a
// little later and together with others: operations in it may have been told in
// another order than they were done.
func (p *Pipeline) compare(dir string) {
	if len(p.compares) == 0 {
		now := p.o.Clock.Boot()
		d := max(p.o.SelfDelay, until(p.compareAt.Load(), now))
		p.delay(d, &item{call: func(context.Context) {
			trees := make([]string, 0, len(p.compares))
			for t := range p.compares {
				trees = append(trees, t)
			}
			p.compares = nil
			if len(trees) >= compareMany {
				p.n.comparedAll.Add(1)
				trees = p.o.Trees()
			}
			p.scans.begin(&job{trees: p.outermost(trees), found: event.FoundOrder, reason: reasonOrder, compare: true})
		}})
	}
	if p.compares == nil {
		p.compares = make(map[string]bool)
	}
	if len(p.compares) < compareMany {
		p.compares[dir] = true
	}
}

// outermost leaves out what lies below others in the same tree.
func (p *Pipeline) outermost(trees []string) []string {
	slices.Sort(trees)
	roots := p.o.Trees()
	covers := func(o, t string) bool {
		return coalesce.Within(o, t) && !slices.ContainsFunc(roots, func(r string) bool {
			return r != o && coalesce.Within(o, r) && coalesce.Within(r, t)
		})
	}
	var out []string
	for _, t := range trees {
		if !slices.ContainsFunc(out, func(o string) bool { return o == t || covers(o, t) }) {
			out = append(out, t)
		}
	}
	return out
}

// judge is stage 6. A rename is judged at both of its names.
func (p *Pipeline) judge(f *find) judgement {
	c := f.change
	w := p.window(f)
	j := p.judgeOne(c, &f.Finding, w)
	if f.From == nil {
		return j
	}
	from := p.judgeOne(c, f.From, w)
	// Where the name that was given up lacks nothing, only the other one counts.
	if len(from.targets) > 0 && p.lacks(f.From.Path) {
		if !j.Respond {
			j.Verdict, j.rule, j.window = from.Verdict, from.rule, nil
		}
		j.targets = append(from.targets, j.targets...)
	}
	p.misplaced(f, &j)
	return j
}

// lacks reports whether something belongs at path.
func (p *Pipeline) lacks(path string) bool {
	want, _, ok := p.o.Vault.Trusted(path)
	return ok && want.Exists
}

func (p *Pipeline) judgeOne(c *event.Change, f *rehash.Finding, w *window.Window) judgement {
	rule, ok := p.o.Rule(f.Path)
	if !ok {
		rule = Rule{Mode: event.ModeObserve}
	}
	foreign := !f.Before.Exists || f.Fresh
	var trusted *event.State
	kept := false
	if p.o.Vault != nil && rule.Mode != event.ModeObserve {
		switch want, _, ok := p.o.Vault.Trusted(f.Path); {
		case ok:
			trusted, kept = &want, true
		case foreign:
			trusted = &event.State{}
		}
	}
	name := ""
	if w != nil {
		name = w.Name()
	}
	v := judge.Judge(judge.Case{
		Rule: rule.Name, Mode: rule.Mode, Op: f.Op, Blocked: c.Blocked, Allowed: c.Allowed, Window: name,
		Self: c.Key.PID == p.o.Self && p.o.Self != 0, Before: f.Before, After: f.After, Trusted: trusted,
	})
	v.Respond = v.Respond && !rule.Own // nothing of it is kept
	if v.Respond && rule.Enrolling && !kept {
		v.Respond = false
		v.Reason += "; it stays: its tree is still being enrolled, and nothing is kept that could be put back"
	}
	j := judgement{Verdict: v, rule: rule}
	if v.Promote && !c.Allowed {
		j.window = w
	}
	if v.Respond {
		whole := f.Before.Type == event.TypeDir && !f.After.Exists
		j.targets = []respond.Target{{Path: f.Path, Rule: rule.Name, Mode: rule.Mode, Foreign: foreign, Whole: whole}}
	}
	return j
}

// respond is stage 7: what to do about it.
func (p *Pipeline) respond(j *judgement) []respond.Step {
	if !j.Respond || p.responder == nil {
		return nil
	}
	return p.responder.Plan(j.targets)
}

// journal is stage 8: the change is recorded, then the answer is given between
// its two records, and the known state follows.
func (p *Pipeline) journal(ctx context.Context, found *find, j *judgement, steps []respond.Step) error {
	it, f := found.item, &found.Finding
	rec := p.record(it, f, j)
	if p.justReads(rec, j) {
		p.n.self.Add(1)
		return nil
	}
	rec.Meaning = p.meaning(ctx, it.change, f)
	err := p.write(ctx, rec, j, steps)
	if errors.Is(err, errStuck) {
		p.unrecorded(it.change, f)
		return discard(f, nil)
	}
	if err != nil {
		return fmt.Errorf("record %s of %q: %w", rec.Op, f.Path, discard(f, err))
	}
	if rec.Kind == event.RecAttempt {
		p.n.attempts.Add(1)
		return nil
	}
	p.n.changes.Add(1)
	if it.rescan != nil {
		p.gaps.found(rec, it.rescan)
	}
	if it.self && f.Before.Exists && !f.After.Exists {
		// Where has it gone? Nobody has told.
		at := rec.TimeEnd
		p.gaps.unplaced(1, at, at, event.CauseUnplaced, event.Unknown)
		signal(p.queue.ready)
	}
	p.keep(ctx, it.change, f, j, rec)
	if len(steps) > 0 {
		out, err := p.responder.Answer(ctx, rec, it.change.Last, 0, steps)
		p.answered(ctx, rec, it.change.Last, 0, out)
		if err != nil {
			return err
		}
	}
	if it.rescan == nil { // else what is in a directory is looked at by itself
		p.inside(it, f)
	}
	return nil
}

// write appends the record of a change. One that asks for an answer is durable
// before the answer: with its intent, which follows in the same log, or by itself.
func (p *Pipeline) write(ctx context.Context, rec *event.Record, j *judgement, steps []respond.Step) error {
	intent := false
	for _, s := range steps {
		intent = intent || s.Refused == ""
	}
	switch {
	case j.Respond && !intent:
		return p.appendDurable(ctx, rec)
	case intent:
		return p.must(ctx, rec)
	}
	return p.append(ctx, rec)
}

// answered lets the known state follow what was put back, and schedules what
// must be tried again.
func (p *Pipeline) answered(ctx context.Context, cause *event.Record, since uint64, try int, out []respond.Outcome) {
	for _, o := range out {
		if o.Err == nil && o.Step.Action == respond.ActionRelink && o.Done.Skipped {
			continue
		}
		if o.Err == nil {
			p.states.PutAbove(ctx, o.Step.Path)
			p.states.Put(o.Step.Path, o.Done.After)
			p.table.Displaced(o.Step.Path, p.o.Clock.Boot())
			continue
		}
		p.o.Log.Warn("not put back", "stage", "respond", "path", o.Step.Path, "err", o.Err)
		if o.Retry == 0 {
			continue
		}
		a := &again{cause: &event.Record{ID: cause.ID, Sensor: cause.Sensor}, since: since, try: try + 1, target: o.Step.Target}
		p.delay(until(o.Retry, p.o.Clock.Boot()), &item{again: a})
	}
}

// retry gives an answer once more.
func (p *Pipeline) retry(ctx context.Context, a *again) error {
	if rule, ok := p.o.Rule(a.target.Path); !ok || rule.Mode == event.ModeObserve {
		p.responder.Forget(a.target.Path)
		return nil // the rule has changed meanwhile
	}
	if at, waits := p.responder.Waits(a.target.Path); waits {
		p.delay(until(at, p.o.Clock.Boot()), &item{again: a})
		return nil
	}
	out, err := p.responder.Answer(ctx, a.cause, a.since, a.try, p.responder.Plan([]respond.Target{a.target}))
	p.answered(ctx, a.cause, a.since, a.try, out)
	return err
}

// inside has the paths looked at that appeared together with a directory. Those
// that were made in it tell of themselves, so they get the time for that.
func (p *Pipeline) inside(it *item, f *rehash.Finding) {
	c, d := it.change, p.o.SelfDelay
	came := it.came || c.Op == event.OpRename
	if came {
		d = 0
	}
	for _, path := range f.Inside {
		if rule, ok := p.o.Rule(path); !ok || rule.Own {
			continue
		}
		l := *c
		if !came { // others may have been in it already
			l.Actor, l.Process, l.Key = *event.Nobody(), event.Process{}, event.ProcKey{}
		}
		p.delay(d, &item{change: lookAt(&l, path), self: true, came: came, reason: fmt.Sprintf("found in %s, which appeared with it", event.Text([]byte(f.Path)))})
	}
}

// delay puts an item off. What finds no room is done at once: early is better
// than never.
func (p *Pipeline) delay(d time.Duration, it *item) {
	if p.closing {
		return // the next start compares everything
	}
	p.delayed.put(p.o.Clock.Boot()+uint64(d), it)
}
