package daemon

import (
	"context"
	"errors"
	"fmt"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/policy"
	"github.com/holdfast/holdfast/rollback"
)

// brought makes what a restore or undo has brought back the trusted state where rules
// protect it: else the next look at it, at the latest that of the next start, would put
// back what was just undone. of is the record with which it began.
func (o ops) brought(ctx context.Context, action, of string, done []rollback.Result) error {
	p := o.policy()
	if p == nil {
		return nil
	}
	b := bringing{ops: o, policy: p, why: rollback.Provenance{Record: of, Reason: action}}
	var errs []error
	for i := range done {
		r := &done[i]
		if r.Err != nil || r.Outcome == rollback.OutcomeFailed {
			continue
		}
		if r.Step.Action == rollback.ActionRename {
			errs = append(errs, b.renamed(ctx, r.Step.From, r.Step.Path))
		}
		errs = append(errs, b.trust(ctx, r.Step.Path, &r.After))
	}
	return errors.Join(errors.Join(errs...), o.vault.Sync())
}

type bringing struct {
	ops
	policy *policy.Policy
	why    rollback.Provenance
}

// renamed lets the trust in what is at and below a name follow it to another one.
func (b *bringing) renamed(ctx context.Context, from, to string) error {
	var errs []error
	for _, p := range b.vault.Paths(from) {
		v, ok := b.vault.Trusted(p)
		if !ok || !v.State.Exists {
			continue
		}
		errs = append(errs, b.trust(ctx, to+p[len(from):], &v.State), b.trust(ctx, p, &event.State{}))
	}
	return errors.Join(errs...)
}

// trust makes a state the trusted one of a path, if that is what is there.
func (b *bringing) trust(ctx context.Context, path string, st *event.State) error {
	m, ok := b.policy.Match(path)
	if !ok || m.Rule.Mode == event.ModeObserve {
		return nil
	}
	t, kept := b.vault.Trusted(path)
	if kept && t.State.Same(st) || !kept && !st.Exists {
		return nil
	}
	v, err := b.vault.Capture(ctx, path, b.why)
	if err == nil && v.State.Same(st) {
		_, err = b.vault.Promote(path, v.ID, b.why)
	}
	if err != nil {
		return fmt.Errorf("trust %s: %w", event.Text([]byte(path)), err)
	}
	return nil
}
