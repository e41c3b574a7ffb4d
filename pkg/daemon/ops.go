package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"

	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/index"
	"github.com/holdfast/holdfast/pkg/query"
	"github.com/holdfast/holdfast/pkg/vault"
	"github.com/holdfast/holdfast/rollback"
)

// took is told which paths an operation has changed, so that a running daemon
// takes what is there now as known.
type took func(ctx context.Context, paths []string) error

// who tells who a living process is, false if that is not known.
type who func(ctx context.Context, pid uint32) (event.Actor, event.Process, bool)

// ops are the operations of the control socket on an open state.
type ops struct {
	*state
	took took
	// taking is told before of the paths that are going to be changed; what it returns is
	// called after took. nil: nobody watches.
	taking func(paths []string) (done func())
	who    who
	life   context.Context // of the daemon; nil: of who asks
}

// Restore implements control.Handler.
func (o ops) Restore(ctx context.Context, r control.RestoreRequest) (control.Outcome, error) {
	paths, err := clean(r.Paths)
	if err != nil {
		return control.Outcome{}, err
	}
	into := string(r.Into)
	if into != "" && !filepath.IsAbs(into) {
		return control.Outcome{}, fmt.Errorf("restore into %q: no absolute path: %w", into, control.ErrInvalid)
	}
	if !r.DryRun {
		o.finishFirst(ctx)
	}
	plan, err := o.vault.PlanRestore(ctx, paths, rollback.RestoreOptions{
		Version: r.Version, At: r.At, Into: into, Recursive: r.Version == 0,
	})
	if errors.Is(err, rollback.ErrNoVersion) {
		return control.Outcome{}, fmt.Errorf("%w: %w", control.ErrNotFound, err)
	}
	if err != nil {
		return control.Outcome{}, err
	}
	return o.carryOut(ctx, "restore", plan, r.DryRun, "")
}

// Undo implements control.Handler.
func (o ops) Undo(ctx context.Context, r control.UndoRequest) (control.Outcome, error) {
	if r.Session == "" && r.User == "" && r.Source == "" && r.Exec == "" && r.Record == "" {
		return control.Outcome{}, fmt.Errorf("undo: no cause is named: %w", control.ErrInvalid)
	}
	if !r.DryRun {
		o.finishFirst(ctx)
	}
	if err := o.journal.Sync(ctx); err != nil {
		return control.Outcome{}, err
	}
	store, err := index.OpenRead(o.cfg.IndexFile(), o.cfg.JournalDir())
	if err != nil {
		return control.Outcome{}, err
	}
	defer store.Close()
	cause, later, err := causes(ctx, store, r, o.hostID)
	if err != nil {
		return control.Outcome{}, err
	}
	plan, err := o.vault.PlanUndo(ctx, cause, later, rollback.UndoOptions{Force: r.Force, Merger: vault.Merger()})
	if err != nil {
		return control.Outcome{}, err
	}
	out, err := o.carryOut(ctx, "undo", plan, r.DryRun, r.Record)
	out.Matched = len(cause)
	return out, err
}

// causes finds the changes of a cause, and what came later: the changes by others of the
// same paths and below the directories that the cause renamed, and the gaps.
func causes(ctx context.Context, s query.Store, r control.UndoRequest, hostID string) (cause, later []*event.Record, err error) {
	f := query.Filter{
		Kind: event.RecChange, Host: hostID, Session: r.Session, User: r.User, Source: r.Source, Exec: r.Exec,
		Since: r.Since, Until: r.Until, Path: string(r.Path),
	}
	if r.Record != "" {
		rec, err := query.Get(ctx, s, r.Record)
		if errors.Is(err, query.ErrNotFound) {
			return nil, nil, fmt.Errorf("%w: %w", control.ErrNotFound, err)
		}
		if err != nil {
			return nil, nil, err
		}
		switch {
		case rec.Kind == event.RecChange && f.Match(rec):
			cause = append(cause, rec)
		case rec.Kind == event.RecResponse:
			if cause, err = answers(ctx, s, rec, hostID); err != nil {
				return nil, nil, err
			}
		case rec.Kind != event.RecChange:
			return nil, nil, fmt.Errorf("undo record %s: it is of kind %s, only a change, a restore or an undo can be undone: %w", r.Record, rec.Kind, control.ErrInvalid)
		}
	} else if err := s.Records(ctx, f, func(rec *event.Record) error { cause = append(cause, rec); return nil }); err != nil {
		return nil, nil, err
	}
	if len(cause) == 0 {
		return nil, nil, nil
	}
	slices.SortFunc(cause, func(a, b *event.Record) int { return cmp.Compare(a.Seq, b.Seq) })
	begun := cause[0].Time
	ours, paths, renamed := make(map[string]bool), make(map[string]bool), make(map[string]bool)
	for _, rec := range cause {
		begun = min(begun, rec.Time)
		ours[rec.ID], paths[rec.Path] = true, true
		if rec.PathTo != "" {
			paths[rec.PathTo] = true
			renamed[rec.PathTo] = rec.Op == event.OpRename.String()
		}
	}
	concerned := func(p string) bool {
		if p == "" || paths[p] {
			return p != ""
		}
		for dir := path.Dir(p); len(dir) > 1; dir = path.Dir(dir) {
			if renamed[dir] {
				return true
			}
		}
		return false
	}
	err = s.Records(ctx, query.Filter{Kind: event.RecChange, Host: hostID, AfterSeq: cause[0].Seq}, func(rec *event.Record) error {
		if !ours[rec.ID] && (concerned(rec.Path) || concerned(rec.PathTo)) {
			later = append(later, rec)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	err = s.Records(ctx, query.Filter{Kind: event.RecGap, Host: hostID, Since: begun}, func(rec *event.Record) error {
		later = append(later, rec)
		return nil
	})
	return cause, later, err
}

// answers finds what a restore or undo did, by the record with which it began, or
// the one step that a record is of.
func answers(ctx context.Context, s query.Store, begun *event.Record, hostID string) ([]*event.Record, error) {
	if begun.Verdict == event.VerdictRestored {
		return []*event.Record{begun}, nil
	}
	var out []*event.Record
	f := query.Filter{Kind: event.RecResponse, Verdict: event.VerdictRestored, Host: hostID, AfterSeq: begun.Seq}
	err := s.Records(ctx, f, func(rec *event.Record) error {
		if rec.Response != nil && rec.Response.Of == begun.ID && rec.Response.Outcome == control.StepDone {
			out = append(out, rec)
		}
		return nil
	})
	return out, err
}

// answer is a record of what is done on somebody's request.
func answer(asked by, action, path, reason string) *event.Record {
	return &event.Record{
		Time: now(), Kind: event.RecResponse, Path: event.Text([]byte(path)), Reason: reason, Actor: asked.actor, Process: asked.process,
		Response: &event.Response{Action: action, Outcome: control.StepDone},
	}
}

// carryOut turns a plan into an outcome: as it is if nothing is to be done, else
// with the intent recorded before, and what came of each step after.
func (o ops) carryOut(ctx context.Context, action string, plan rollback.Plan, dry bool, of string) (control.Outcome, error) {
	out := control.Outcome{DryRun: dry}
	for _, c := range plan.Conflicts {
		out.Conflicts = append(out.Conflicts, control.Conflict{Path: control.Path(c.Path), Reason: c.Reason, Record: c.Record})
	}
	if dry || len(plan.Steps) == 0 {
		for i := range plan.Steps {
			step := stepOf(&plan.Steps[i], control.StepPlanned)
			step.Meaning = o.meaning(&plan.Steps[i], step.Want)
			out.Steps = append(out.Steps, step)
		}
		return out, nil
	}
	asked := o.asker(ctx)
	ctx, end := o.outliving(ctx)
	defer end()
	intent := answer(asked, action, plan.Steps[0].Path, fmt.Sprintf("%s of %d paths begins", action, len(plan.Steps)))
	intent.Response.Outcome, intent.Response.Of = "intended", of
	if _, err := o.journal.AppendDurable(ctx, intent); err != nil {
		return out, fmt.Errorf("record the intent: %w", err)
	}
	out.Record = intent.ID
	id, err := o.begin(plan, planNote{Action: action, Record: intent.ID, Seq: intent.Seq, Actor: asked.actor, Process: asked.process})
	if err != nil {
		failed := answer(asked, action, plan.Steps[0].Path, action+" was not begun")
		failed.Response.Of, failed.Response.Outcome, failed.Response.Error = intent.ID, control.StepFailed, err.Error()
		_, jerr := o.journal.AppendDurable(ctx, failed)
		return out, errors.Join(err, jerr)
	}
	defer o.plans.release(id)
	defer o.about(&plan)()
	var paths []string
	var done []rollback.Result
	var recErr error
	err = o.vault.Apply(ctx, plan, func(r rollback.Result) {
		step := stepOf(&r.Step, r.Outcome)
		step.Evidence, step.TookNS = r.Evidence, r.TookNS
		rec := o.recordOf(asked, action, intent.ID, &r)
		step.Meaning, step.Error = rec.Meaning, rec.Response.Error
		if _, err := o.journal.Append(rec); err != nil {
			recErr = errors.Join(recErr, fmt.Errorf("record %s of %s: %w", action, rec.Path, err))
		}
		step.Record = rec.ID
		out.Steps = append(out.Steps, step)
		paths = append(paths, touched(&r.Step)...)
		done = append(done, r)
	})
	keep := recErr != nil || rollback.Passing(err)
	if ctx.Err() == nil {
		err = nil // each step tells its own
	}
	recErr = errors.Join(recErr, o.brought(ctx, action, intent.ID, done), o.journal.Sync(ctx))
	if !keep && recErr == nil {
		recErr = o.vault.End(id)
	}
	return out, errors.Join(err, recErr, o.took(ctx, paths))
}

// about tells of a plan that is about to be carried out, and returns what is to be
// called when all it changed is known.
func (o ops) about(p *rollback.Plan) (done func()) {
	if o.taking == nil {
		return func() {}
	}
	var paths []string
	for i := range p.Steps {
		paths = append(paths, touched(&p.Steps[i])...)
	}
	return o.taking(paths)
}

func stepOf(s *rollback.Step, outcome string) control.Step {
	want, have := s.Want, s.Have
	return control.Step{
		Path: control.Path(s.Path), Action: s.Action, Version: s.Version, Want: &want, Have: &have, Reason: s.Reason, Outcome: outcome,
	}
}

// clean checks the paths of a request.
func clean(paths []control.Path) ([]string, error) {
	if len(paths) == 0 {
		return nil, fmt.Errorf("no path is named: %w", control.ErrInvalid)
	}
	var out []string
	for _, p := range paths {
		if !filepath.IsAbs(string(p)) {
			return nil, fmt.Errorf("path %q: not absolute: %w", string(p), control.ErrInvalid)
		}
		out = append(out, filepath.Clean(string(p)))
	}
	return out, nil
}
