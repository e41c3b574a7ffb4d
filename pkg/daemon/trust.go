package daemon

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback"
)

// Trust implements control.Handler.
func (o ops) Trust(ctx context.Context, r control.TrustRequest) (control.Outcome, error) {
	if r.Reason == "" {
		return control.Outcome{}, fmt.Errorf("trust: no reason is given: %w", control.ErrInvalid)
	}
	roots, err := clean(r.Paths)
	if err != nil {
		return control.Outcome{}, err
	}
	asked := o.asker(ctx)
	var out control.Outcome
	var changed []string
	for _, path := range roots {
		all, notes, err := o.trustable(path)
		if err != nil {
			return out, err
		}
		out.Notes = append(out.Notes, notes...)
		for _, p := range all {
			step, err := o.trust(ctx, asked, p, r.Reason)
			if err != nil {
				return out, err
			}
			out.Steps = append(out.Steps, step)
			changed = append(changed, p)
		}
	}
	if err := o.vault.Sync(); err != nil {
		return out, err
	}
	return out, o.took(ctx, changed)
}

// trustable lists what is trusted with a path: what a rule covers, and what has versions
// since one did. notes tell of what nothing puts back by itself, and of what is left alone.
func (o ops) trustable(root string) (all, notes []string, err error) {
	name := event.Text([]byte(root))
	every, err := present(root, o.vault.Paths(root))
	if err != nil {
		return nil, nil, err
	}
	if len(every) == 0 {
		return nil, nil, fmt.Errorf("trust %s: there is nothing and nothing was: %w", name, control.ErrNotFound)
	}
	policy, before := o.policy(), 0
	for _, p := range every {
		covered := policy == nil
		if !covered {
			_, covered = policy.Match(p)
		}
		_, kept := o.vault.Latest(p)
		if covered || kept {
			all = append(all, p)
		}
		if kept && !covered {
			before++
		}
	}
	if len(all) == 0 {
		return nil, nil, fmt.Errorf("trust %s: no rule covers it or anything below, and no version of it is kept: nothing was changed: %w", name, control.ErrNotFound)
	}
	if left := len(every) - len(all); left > 0 {
		notes = append(notes, fmt.Sprintf("no rule covers %d of %d paths at and below %s: they are left as they are, and not trusted", left, len(every), name))
	}
	if before > 0 {
		notes = append(notes, fmt.Sprintf("no rule covers %d of %d paths at and below %s any more: holdfast restore brings them back, nothing does so by itself", before, len(every), name))
	}
	return all, notes, nil
}

// trust promotes the present state of one path and records it.
func (o ops) trust(ctx context.Context, asked by, path, reason string) (control.Step, error) {
	step := control.Step{Path: control.Path(path), Action: "promote", Reason: reason}
	before, _ := o.vault.Trusted(path)
	v, err := o.vault.Capture(ctx, path, rollback.Provenance{Reason: reason, Trust: true})
	rec := answer(asked, "trust", path, reason)
	rec.Before, rec.After, rec.Verdict = &before.State, &v.State, event.VerdictPromoted
	step.Outcome, step.Version = control.StepDone, v.ID
	if err != nil {
		step.Outcome, step.Error = control.StepFailed, err.Error()
		rec.Response.Outcome, rec.Response.Error, rec.Verdict, rec.After = step.Outcome, step.Error, "", nil
	}
	if _, err := o.journal.AppendDurable(ctx, rec); err != nil {
		return step, fmt.Errorf("record trust in %s: %w", rec.Path, err)
	}
	step.Record = rec.ID
	return step, nil
}

// present lists a path, what is below it, and what the vault knows below it.
func present(root string, known []string) ([]string, error) {
	all := slices.Clone(known)
	if exists(root) {
		err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
			if err == nil {
				all = append(all, p)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", event.Text([]byte(root)), err)
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}
