package daemon

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback"
)

// The vault is pruned when the daemon has run for a while, and then every day.
const (
	pruneFirst = 10 * time.Minute
	pruneEvery = 24 * time.Hour
)

// tellEvery is how many records of destroyed versions are made durable at once.
const tellEvery = 1000

// pruned is what came of the last prune of this run.
type pruned struct {
	rollback.Pruned
	at  event.Time
	err string
}

// keep is what the settings keep. A record is kept if its number is not below the
// first one of the journal; one of another host's journal counts as kept.
func (s *state) keep() rollback.Keep {
	first := s.journal.Stats().First
	return rollback.Keep{
		Versions: s.cfg.Vault.KeepVersions, Age: time.Duration(s.cfg.Vault.KeepDays) * 24 * time.Hour, Grace: s.cfg.Vault.Grace,
		Referred: func(record string) bool {
			n, err := strconv.ParseUint(record[strings.LastIndexByte(record, '/')+1:], 10, 64)
			return err != nil || n >= first || !strings.HasPrefix(record, s.hostID+"/")
		},
	}
}

// errDry ends a prune before anything goes.
var errDry = errors.New("dry run")

// Prune implements control.Handler.
func (o ops) Prune(ctx context.Context, r control.PruneRequest) (control.Outcome, error) {
	out := control.Outcome{DryRun: r.DryRun}
	_, err := o.prune(ctx, r.DryRun, func(s control.Step) { out.Steps = append(out.Steps, s) })
	return out, err
}

// prune destroys what is not kept any more. Each version has its record before it
// goes; after a crash it may have two.
func (o ops) prune(ctx context.Context, dry bool, each func(control.Step)) (rollback.Pruned, error) {
	asked := o.asker(ctx)
	reason := fmt.Sprintf("replaced more than %d days ago, not of the newest %d, and no record refers to it", o.cfg.Vault.KeepDays, o.cfg.Vault.KeepVersions)
	done, err := o.vault.Prune(ctx, o.keep(), rollback.Provenance{Reason: reason}, func(vs []rollback.Version) error {
		for i := range vs {
			v := &vs[i]
			step := control.Step{Path: control.Path(v.Path), Action: "destroy", Version: v.ID, Have: &v.State, Reason: reason, Outcome: control.StepPlanned}
			if !dry {
				rec := answer(asked, "destroy", v.Path, reason)
				rec.Before = &v.State
				rec.Detail = map[string]string{"version": strconv.FormatUint(v.ID, 10), "since": v.Time.String()}
				if v.Record != "" {
					rec.Detail["made_by"] = v.Record
				}
				if _, err := o.journal.Append(rec); err != nil {
					return fmt.Errorf("record what is destroyed: %w", err)
				}
				if i%tellEvery == tellEvery-1 {
					if err := o.journal.Sync(ctx); err != nil {
						return err
					}
				}
				step.Record, step.Outcome = rec.ID, control.StepDone
			}
			each(step)
		}
		if dry {
			return errDry
		}
		return o.journal.Sync(ctx)
	})
	if errors.Is(err, errDry) {
		return done, nil
	}
	if err != nil || done.Versions+done.Objects == 0 {
		return done, err
	}
	rec := answer(asked, "prune", "", "what nothing keeps any more was destroyed")
	rec.Detail = map[string]string{
		"versions": strconv.Itoa(done.Versions), "objects": strconv.Itoa(done.Objects), "bytes": strconv.FormatInt(done.Bytes, 10),
		"objects_waiting": strconv.Itoa(done.Waiting),
	}
	if _, err := o.journal.AppendDurable(ctx, rec); err != nil {
		return done, fmt.Errorf("record what was destroyed: %w", err)
	}
	return done, nil
}

// Hold implements control.Handler.
func (o ops) Hold(ctx context.Context, r control.HoldRequest) (control.Outcome, error) {
	var out control.Outcome
	if strings.TrimSpace(r.Reason) == "" {
		return out, fmt.Errorf("hold: no reason is given: %w", control.ErrInvalid)
	}
	asked := o.asker(ctx)
	if r.Release != 0 {
		for _, h := range o.vault.Holds() {
			if h.ID == r.Release && h.Released == 0 {
				step, err := o.hold(ctx, asked, "release", h.Path, r)
				out.Steps = append(out.Steps, step)
				return out, err
			}
		}
		return out, fmt.Errorf("release hold %d: %w: %w", r.Release, control.ErrNotFound, rollback.ErrNoHold)
	}
	paths, err := clean(r.Paths)
	if err != nil {
		return out, err
	}
	for _, p := range paths {
		step, err := o.hold(ctx, asked, "hold", p, r)
		if err != nil {
			return out, err
		}
		out.Steps = append(out.Steps, step)
	}
	return out, nil
}

// hold records one hold, or the end of one, and then does it: a crash between the
// two leaves a record of what was asked for and did not happen.
func (o ops) hold(ctx context.Context, asked by, action, path string, r control.HoldRequest) (control.Step, error) {
	rec := answer(asked, action, path, r.Reason)
	rec.Response.Outcome = "intended"
	if r.Release != 0 {
		rec.Detail = map[string]string{"hold": strconv.FormatUint(r.Release, 10)}
	}
	if _, err := o.journal.AppendDurable(ctx, rec); err != nil {
		return control.Step{}, fmt.Errorf("record the %s: %w", action, err)
	}
	p := rollback.Provenance{Record: rec.ID, Reason: r.Reason}
	var h rollback.Hold
	var err error
	if r.Release != 0 {
		h, err = o.vault.Release(r.Release, p)
	} else {
		h, err = o.vault.Hold(path, p)
	}
	after := answer(asked, action, path, r.Reason)
	after.Response.Of = rec.ID
	after.Detail = map[string]string{"hold": strconv.FormatUint(h.ID, 10)}
	step := control.Step{Path: control.Path(path), Action: action, Version: 0, Reason: fmt.Sprintf("hold %d: %s", h.ID, r.Reason), Outcome: control.StepDone}
	if err != nil {
		after.Response.Outcome, after.Response.Error = control.StepFailed, err.Error()
		step.Outcome, step.Error = control.StepFailed, err.Error()
	}
	if _, err := o.journal.AppendDurable(ctx, after); err != nil {
		return step, fmt.Errorf("record the %s: %w", action, err)
	}
	step.Record = after.ID
	return step, nil
}

// retain prunes the vault now and then.
func (d *Daemon) retain(ctx context.Context) error {
	t := time.NewTimer(pruneFirst)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if d.pipe.Storm().On {
			t.Reset(time.Minute)
			continue
		}
		done, err := d.prune(ctx, false, func(control.Step) {})
		if ctx.Err() != nil {
			return nil
		}
		p := pruned{Pruned: done, at: now()}
		if err != nil {
			p.err = err.Error()
			d.degrade("prune", "old versions cannot be destroyed: "+p.err)
		} else {
			d.recover("prune")
		}
		d.mu.Lock()
		d.pruned = p
		d.mu.Unlock()
		t.Reset(pruneEvery)
	}
}

// retention is what status tells of it.
func (d *Daemon) retention() control.Retention {
	v := d.cfg.Vault
	r := control.Retention{KeepVersions: v.KeepVersions, KeepDays: v.KeepDays, GraceNS: int64(v.Grace)}
	for _, h := range d.vault.Holds() {
		if h.Released == 0 {
			r.Holds++
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.pruned; p.at != 0 {
		r.Pruned, r.Versions, r.Objects, r.Bytes, r.Waiting, r.LastError = p.at, p.Versions, p.Objects, p.Bytes, p.Waiting, p.err
	}
	return r
}
