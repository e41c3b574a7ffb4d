package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/rollback"
)

// A restore or undo of several paths is begun and ended in the vault, too: one that a
// crash, a stop or a full disk cut off goes on at the next start, or before the next
// restore or undo.

// planNote is what the vault keeps of who asked for a plan.
type planNote struct {
	Action  string         `json:"action"`
	Record  string         `json:"record"` // the one it began with
	Seq     uint64         `json:"seq"`    // of that record
	Actor   *event.Actor   `json:"actor"`
	Process *event.Process `json:"process"`
}

// plansKept is how many of the plans that went on status tells of.
const plansKept = 10

// plans are those of this process.
type plans struct {
	mu      sync.Mutex
	running map[string]bool // by the vault's id
	wentOn  []control.Plan  // the last ones that were cut off before
}

// begin begins a plan. No other request sees it before it counts as running.
func (s *state) begin(p rollback.Plan, note planNote) (id string, err error) {
	text, err := json.Marshal(note)
	if err != nil {
		return "", err
	}
	s.plans.mu.Lock()
	defer s.plans.mu.Unlock()
	if id, err = s.vault.Begin(p, text); err == nil {
		s.plans.running[id] = true
	}
	return id, err
}

// claim takes all plans that wait.
func (s *state) claim() (mine []rollback.Pending, err error) {
	s.plans.mu.Lock()
	defer s.plans.mu.Unlock()
	all, err := s.vault.Pending()
	for _, p := range all {
		if !s.plans.running[p.ID] {
			s.plans.running[p.ID] = true
			mine = append(mine, p)
		}
	}
	return mine, err
}

// release is called when a plan is ended or left to wait.
func (p *plans) release(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.running, id)
}

func (p *plans) runs(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running[id]
}

// status lists the plans that are under way, that wait to go on, and that did.
func (s *state) planStatus() ([]control.Plan, error) {
	s.plans.mu.Lock()
	out := slices.Clone(s.plans.wentOn)
	s.plans.mu.Unlock()
	begun, err := s.vault.Begun()
	for _, p := range begun {
		c := shown(p)
		c.State = control.PlanWaits
		if s.plans.runs(p.ID) {
			c.State = control.PlanRuns
		}
		out = append(out, c)
	}
	return out, err
}

func shown(p rollback.Begun) control.Plan {
	var n planNote
	if err := json.Unmarshal(p.Note, &n); err != nil {
		n.Action = "plan"
	}
	return control.Plan{Action: n.Action, Record: n.Record, Begun: p.Begun, Steps: p.Steps, Tries: p.Tries}
}

// outliving is a context for what is not to end because the one who asked for it goes
// away; it ends with the daemon.
func (o ops) outliving(ctx context.Context) (context.Context, context.CancelFunc) {
	if o.life == nil {
		return context.WithCancel(ctx)
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(o.life, cancel)
	return run, func() { stop(); cancel() }
}

// finishPlans goes on with the plans that were cut off. What became of each step is on
// the record; the error is of plans that could not go on, or have to once more.
func (o ops) finishPlans(ctx context.Context) error {
	pending, err := o.claim()
	if err != nil {
		err = fmt.Errorf("a restore or undo that was cut off cannot go on: %w", err) // fsck tells of it, too
	}
	for _, p := range pending {
		if ctx.Err() == nil {
			err = errors.Join(err, o.goOn(ctx, p))
		}
		o.plans.release(p.ID)
	}
	return err
}

// finishEarlier goes on with what an earlier process left, before anything is watched:
// what it changes is on the record when the trees are compared.
func (d *Daemon) finishEarlier(ctx context.Context) {
	earlier := d.ops
	earlier.taking = nil
	earlier.took = func(context.Context, []string) error { return d.vault.Sync() }
	if err := earlier.finishPlans(ctx); err != nil {
		d.degrade("plans", err.Error())
	}
}

// finishFirst goes on with what waits before something else is begun. A plan that still
// cannot go on waits on, which is no reason to refuse what is asked for now.
func (o ops) finishFirst(ctx context.Context) {
	run, end := o.outliving(ctx)
	defer end()
	if err := o.finishPlans(run); err != nil {
		o.log.Warn("a restore or undo that was cut off is not finished", "err", err)
	}
}

// goOn goes on with one plan. Steps that were done before it was cut off are recorded
// now, unless they were then.
func (o ops) goOn(ctx context.Context, p rollback.Pending) error {
	var n planNote
	if err := json.Unmarshal(p.Note, &n); err != nil {
		return errors.Join(fmt.Errorf("plan %s: who began it: %w", p.ID, err), o.vault.End(p.ID))
	}
	first := ""
	if len(p.Plan.Steps) > 0 {
		first = p.Plan.Steps[0].Path
	}
	us := o.asker(context.WithoutCancel(ctx))
	say := func(outcome, text string) error {
		rec := answer(us, n.Action, first, text)
		rec.Response.Of, rec.Response.Outcome = n.Record, outcome
		_, err := o.journal.AppendDurable(ctx, rec)
		return err
	}
	if p.Tries >= rollback.MaxTries {
		err := say(control.StepFailed, fmt.Sprintf("%s of %d paths was cut off %d times: it is given up", n.Action, len(p.Plan.Steps), p.Tries))
		return errors.Join(err, o.vault.End(p.ID))
	}
	told, err := o.toldSteps(ctx, n)
	if err == nil {
		err = say("intended", fmt.Sprintf("%s of %d paths was cut off: it goes on", n.Action, len(p.Plan.Steps)))
	}
	if err != nil {
		return fmt.Errorf("go on with %s %s: %w", n.Action, n.Record, err)
	}
	c := shown(rollback.Begun{Begun: p.Begun, Note: p.Note, Steps: len(p.Plan.Steps), Tries: p.Tries})
	c.State = control.PlanWentOn
	asked := by{n.Actor, n.Process}
	defer o.about(&p.Plan)()
	var paths []string
	var done []rollback.Result
	var recErr error
	err = o.vault.Continue(ctx, p, func(r rollback.Result) {
		paths = append(paths, touched(&r.Step)...)
		done = append(done, r)
		key := event.Text([]byte(r.Step.Path))
		if told[key] > 0 { // done and recorded; what became of it since is another's
			told[key]--
			c.Before++
			return
		}
		if r.Outcome == rollback.OutcomeSkipped && len(r.Step.Have.Diff(&r.Step.Want)) > 0 {
			r.Outcome = rollback.OutcomeDone
			r.Step.Reason += "; done before it was cut off"
			c.Before++
		} else if r.Err != nil {
			c.Failed++
		} else {
			c.Done++
		}
		rec := o.recordOf(asked, n.Action, n.Record, &r)
		if _, err := o.journal.Append(rec); err != nil {
			recErr = errors.Join(recErr, fmt.Errorf("record %s of %s: %w", n.Action, rec.Path, err))
		}
	})
	keep := recErr != nil || rollback.Passing(err)
	outcome, text := control.StepDone, fmt.Sprintf("%s that was cut off went on: %d paths done, %d were done before, %d failed", n.Action, c.Done, c.Before, c.Failed)
	if err != nil {
		outcome = control.StepFailed
	}
	if keep {
		text += "; it is to go on again"
	}
	said := errors.Join(say(outcome, text), recErr, o.brought(ctx, n.Action, n.Record, done), o.took(ctx, paths))
	if keep {
		return errors.Join(err, said)
	}
	o.plans.mu.Lock()
	o.plans.wentOn = append(o.plans.wentOn, c)
	o.plans.wentOn = o.plans.wentOn[max(0, len(o.plans.wentOn)-plansKept):]
	o.plans.mu.Unlock()
	return errors.Join(said, o.vault.End(p.ID))
}

// toldSteps counts, for each path, the steps of a plan whose success is on the record.
func (o ops) toldSteps(ctx context.Context, n planNote) (map[string]int, error) {
	if err := o.journal.Sync(ctx); err != nil {
		return nil, err
	}
	r, err := journal.OpenReader(o.cfg.JournalDir())
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if err := r.Seek(n.Seq + 1); err != nil {
		return nil, err
	}
	told := map[string]int{}
	for {
		e, err := r.Next(ctx)
		if errors.Is(err, io.EOF) {
			return told, nil
		}
		if errors.Is(err, journal.ErrCorrupt) {
			continue // verify tells of it
		}
		if err != nil {
			return nil, err
		}
		rec, err := journal.Decode(e.Bytes)
		if err != nil || rec.Response == nil || rec.Response.Of != n.Record || rec.Verdict != event.VerdictRestored {
			continue
		}
		path := rec.Path
		if rec.PathTo != "" {
			path = rec.PathTo
		}
		told[path]++
	}
}

// touched lists the paths of a step.
func touched(s *rollback.Step) []string {
	if s.From != "" {
		return []string{s.Path, s.From}
	}
	return []string{s.Path}
}

// recordOf is the record of what became of one step of a plan.
func (o ops) recordOf(asked by, action, of string, r *rollback.Result) *event.Record {
	rec := answer(asked, action, r.Step.Path, r.Step.Reason)
	rec.Before, rec.After = &r.Step.Have, &r.After
	rec.Response.Of, rec.Response.Outcome, rec.Response.Evidence, rec.Response.TookNS = of, r.Outcome, r.Evidence, r.TookNS
	rec.Verdict = event.VerdictRestored
	if r.Err == nil {
		rec.Meaning = o.meaning(&r.Step, &r.After)
	}
	if r.Step.Action == rollback.ActionRename {
		rec.Op, rec.Path, rec.PathTo = event.OpRename.String(), event.Text([]byte(r.Step.From)), rec.Path
	}
	if r.Err != nil {
		rec.Response.Error, rec.Verdict = r.Err.Error(), event.VerdictRestoreFailed
	}
	return rec
}
