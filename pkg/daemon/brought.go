package daemon

import (
	"context"
	"errors"
	"fmt"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/policy"
	"github.com/holdfast/holdfast/rollback"
)

// brought keeps what a restore or undo has brought back as versions, from which the next
// start knows it, and as the trusted ones where rules protect it: else the next look at
// it, at the latest that of the next start, would put back what was just undone. of is the record with which it began.
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
		errs = append(errs, b.keep(ctx, r.Step.Path, &r.After))
	}
	return errors.Join(errors.Join(errs...), o.vault.Sync())
}

type bringing struct {
	ops
	policy *policy.Policy
	why    rollback.Provenance
}

// renamed lets what is at and below a name follow it to another one.
func (b *bringing) renamed(ctx context.Context, from, to string) error {
	var errs []error
	for _, p := range b.vault.Paths(from) {
		v, ok := b.vault.Latest(p)
		if !ok || !v.State.Exists {
			continue
		}
		errs = append(errs, b.keep(ctx, to+p[len(from):], &v.State), b.keep(ctx, p, &event.State{}))
	}
	return errors.Join(errs...)
}

// keep makes a state a version of a path, and the trusted one where a rule protects
// it, if that is what is there.
func (b *bringing) keep(ctx context.Context, path string, st *event.State) error {
	m, ok := b.policy.Match(path)
	if !ok {
		return nil
	}
	v, kept := b.vault.Latest(path)
	t, trusted := b.vault.Trusted(path)
	protected := m.Rule.Mode != event.ModeObserve && !(trusted && t.State.Same(st))
	if kept && v.State.Same(st) && !protected || !kept && !st.Exists {
		return nil
	}
	v, err := b.vault.Capture(ctx, path, b.why)
	if err == nil && protected && v.State.Same(st) {
		_, err = b.vault.Promote(path, v.ID, b.why)
	}
	if err != nil {
		return fmt.Errorf("keep %s: %w", event.Text([]byte(path)), err)
	}
	return nil
}
