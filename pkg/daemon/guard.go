package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/sense"
)

// unit is the name of the packaged systemd unit.
const unit = "holdfast.service"

// ownPlaces are what only the daemon may change while it is guarded: its state,
// its executable, and what the next start would read.
func ownPlaces(cfg config.Config) ([]string, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("own executable: %w", err)
	}
	paths := []string{cfg.State, exe, cfg.File, cfg.RulesDir, cfg.Socket}
	for _, dir := range []string{"/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"} {
		if exists(dir) {
			paths = append(paths, filepath.Join(dir, unit), filepath.Join(dir, unit+".d"))
		}
	}
	ch := cfg.ClickHouse
	for _, p := range []string{ch.PasswordFile, ch.CAFile, ch.CertFile, ch.KeyFile} {
		if p != "" {
			paths = append(paths, p)
		}
	}
	var out []string
	for _, p := range paths {
		// a symlink is guarded as well as what it leads to
		for _, resolve := range []func(string) (string, error){resolveParent, filepath.EvalSymlinks} {
			c, err := resolve(p)
			if errors.Is(err, fs.ErrNotExist) {
				c, err = p, nil // guarded when its directory appears
			}
			if err != nil {
				return nil, fmt.Errorf("guard %s: %w", event.Text([]byte(p)), err)
			}
			out = append(out, c)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// resolveParent resolves all of a path but its last component.
func resolveParent(p string) (string, error) {
	dir, err := filepath.EvalSymlinks(filepath.Dir(p))
	return filepath.Join(dir, filepath.Base(p)), err
}

// guard is the rule of our own places.
func (r *rules) guard() []sense.Rule {
	if len(r.own) == 0 {
		return nil
	}
	return []sense.Rule{{ID: sense.RuleOwn, Mode: event.ModeBlock, Paths: r.own}}
}

func (d *Daemon) guardStatus() control.Guard {
	g := control.Guard{On: d.rules.guardOff == "", Reason: d.rules.guardOff}
	for _, p := range d.rules.own {
		g.Paths = append(g.Paths, control.Path(p))
	}
	return g
}

// describeSelf is what the start record says of the daemon's own files and guard.
func (d *Daemon) describeSelf(ctx context.Context) map[string]string {
	out := map[string]string{"guard": "on"}
	if d.rules.guardOff != "" {
		out["guard"] = "off: " + d.rules.guardOff
	}
	files := map[string]string{"config": d.cfg.File}
	if exe, err := os.Executable(); err == nil {
		files["executable"] = exe
	}
	for name, path := range files {
		st, err := digest.ReadPath(ctx, path, nil)
		switch {
		case err != nil:
			out[name] = event.Text([]byte(path)) + ": " + err.Error()
		case st.Exists:
			out[name] = event.Text([]byte(path)) + " " + st.Hash.String()
		}
	}
	return out
}

// How often attempts are looked for that were counted and not told of, and how
// old the telling before must be (bpf/maps.h, REPEAT_NS).
const (
	attemptsEvery = 10 * time.Second
	attemptsAge   = uint64(time.Minute)
)

// watchGuard tells of those who go on reaching for the daemon.
func (d *Daemon) watchGuard(ctx context.Context) error {
	if d.rules.guardOff != "" {
		return nil
	}
	t := time.NewTicker(attemptsEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := d.sensor.Attempts(newClock().Boot(), attemptsAge, d.pipe.Feed); err != nil {
				return err
			}
		}
	}
}

// disarmGuard lets everybody at the daemon and its files again, and tells of what
// was tried until now.
func (d *Daemon) disarmGuard() error {
	if d.rules.guardOff != "" {
		return nil
	}
	err := d.sensor.Guard(false)
	return errors.Join(err, d.sensor.Attempts(newClock().Boot(), 0, d.pipe.Feed))
}

// Stop implements control.Handler: it records who wants the end and why, and
// begins it. The guard ends with the daemon's other work.
func (d *Daemon) Stop(ctx context.Context, r control.StopRequest) (control.Outcome, error) {
	reason := strings.TrimSpace(r.Reason)
	if reason == "" {
		return control.Outcome{}, fmt.Errorf("stop: no reason is given: %w", control.ErrInvalid)
	}
	asked := d.asker(ctx)
	_, err := d.journal.AppendDurable(ctx, &event.Record{
		Time: now(), Kind: event.RecAgent, Op: "stop", Reason: reason, Actor: asked.actor, Process: asked.process,
	})
	if err != nil {
		return control.Outcome{}, fmt.Errorf("record the stop: %w", err)
	}
	d.log.Info("stopping", "reason", reason)
	d.stop()
	return control.Outcome{}, nil
}
