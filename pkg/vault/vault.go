// Package vault makes of a rollback.Store what the stages ask of a vault: it
// translates, and decides nothing. The daemon calls it.
package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/pipeline"
	"github.com/holdfast/holdfast/pkg/rehash"
	"github.com/holdfast/holdfast/pkg/respond"
	"github.com/holdfast/holdfast/rollback"
)

// Over returns the Vault that a rollback.Store makes.
func Over(s *rollback.Store) pipeline.Vault { return over{s} }

type over struct{ s *rollback.Store }

var _ pipeline.Vault = over{}

func (o over) Capture(ctx context.Context, path, reason string) (event.State, error) {
	v, err := o.s.Capture(ctx, path, rollback.Provenance{Reason: reason, Trust: true})
	return v.State, err
}

func (o over) Intake() rehash.Intake { return o.s.Intake() }

func (o over) Keep(path string, s event.State, in rehash.Intake, p pipeline.Provenance) error {
	pr := rollback.Provenance{Record: p.Record, Reason: p.Reason, Trust: p.Trust, Time: p.Time}
	if in != nil {
		taken, ok := in.(*rollback.Intake)
		if !ok {
			return errors.Join(fmt.Errorf("keep %q: content of another vault", path), in.Discard())
		}
		_, err := o.s.CaptureState(path, s, taken, pr)
		return err
	}
	if !s.Exists {
		_, err := o.s.Absent(path, pr)
		return err
	}
	if s.Type == event.TypeRegular {
		_, err := o.s.Capture(context.Background(), path, pr)
		return err
	}
	_, err := o.s.CaptureState(path, s, o.s.Intake(), pr)
	return err
}

func (o over) Latest(path string) (event.State, bool) {
	v, ok := o.s.Latest(path)
	return v.State, ok
}

func (o over) Promote(path, reason string) error {
	v, ok := o.s.Latest(path)
	if !ok {
		return fmt.Errorf("promote %q: %w", path, rollback.ErrNoVersion)
	}
	_, err := o.s.Promote(path, v.ID, rollback.Provenance{Reason: reason})
	return err
}

func (o over) Trusted(path string) (event.State, uint64, bool) {
	v, ok := o.s.Trusted(path)
	return v.State, v.ID, ok
}

func (o over) Below(dir string) []string {
	all := o.s.Paths(dir)
	if len(all) > 0 && all[0] == dir {
		return all[1:]
	}
	return all
}

func (o over) Restore(ctx context.Context, path string, version uint64) (respond.Done, error) {
	v, ok := o.s.Version(path, version)
	if !ok {
		return respond.Done{}, fmt.Errorf("restore %q: version %d is not kept", path, version)
	}
	return o.put(ctx, path, v)
}

func (o over) Remove(ctx context.Context, path string) (respond.Done, error) {
	return o.put(ctx, path, rollback.Version{Path: path})
}

func (o over) Links(path string, version uint64) []string {
	v, ok := o.s.Version(path, version)
	if !ok {
		return nil
	}
	return o.s.Links(v)
}

func (o over) Linked(a, b string) bool {
	x, err := os.Lstat(a)
	if err != nil {
		return false
	}
	y, err := os.Lstat(b)
	return err == nil && os.SameFile(x, y)
}

func (o over) Relink(ctx context.Context, path, from string) (respond.Done, error) {
	v, ok := o.s.Trusted(path)
	if !ok {
		return respond.Done{}, fmt.Errorf("relink %q: no trusted version of it is kept", path)
	}
	return done(o.s.Relink(ctx, path, from, v))
}

func (o over) put(ctx context.Context, path string, v rollback.Version) (respond.Done, error) {
	return done(o.s.RestorePath(ctx, path, v))
}

func done(r rollback.Result, err error) (respond.Done, error) {
	return respond.Done{After: r.After, Evidence: r.Evidence, Skipped: r.Outcome == rollback.OutcomeSkipped, Note: r.Step.Reason}, err
}

func (o over) Content(h event.Hash, max int) (b []byte, err error) {
	r, err := o.s.Content(h)
	if err != nil {
		return nil, err
	}
	b, err = io.ReadAll(io.LimitReader(r, int64(max)+1))
	if err == nil && len(b) > max {
		err = fmt.Errorf("content %s: longer than %d bytes", h, max)
	}
	return b, errors.Join(err, r.Close())
}

func (o over) Sync() error { return o.s.Sync() }
