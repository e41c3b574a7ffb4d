package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/rollback"
)

// The states of a path before control.PathArmed.
const (
	stateNew      = "new"      // there is no version to put back
	stateCaptured = "captured" // there is one that does not read back
	stateVerified = "verified" // it reads back; nobody watches the path now
)

// stateOf tells how far a path under a rule is protected: it reads back now what
// would be put back, and asks the daemon, if there is one, whether it watches.
func (a *app) stateOf(ctx context.Context, cfg config.Config, path string, x *explained) (err error) {
	x.State, x.Detail = stateNew, "no version of it is kept: it cannot be put back"
	vault, err := rollback.OpenReadOnly(cfg.VaultDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if errors.Is(err, fs.ErrPermission) {
		x.State, x.Detail = "unknown", "the vault is for root alone"
		return nil
	}
	if err != nil {
		return stateError(cfg, err)
	}
	defer func() { err = errors.Join(err, vault.Close()) }()
	v, ok := vault.Trusted(path)
	if !ok {
		if last, kept := vault.Latest(path); kept && last.State.Exists {
			x.Detail = fmt.Sprintf("version %d, of %s, is kept and nobody trusts it (%s): it is not put back until holdfast trust", last.ID, when(last.Time), last.Reason)
		}
		return nil
	}
	x.Version = v.ID
	if err := vault.Verify(v); err != nil {
		x.State, x.Detail = stateCaptured, fmt.Sprintf("version %d cannot be read back: %v", v.ID, err)
		return nil
	}
	x.State, x.Detail = stateVerified, fmt.Sprintf("version %d, of %s, reads back", v.ID, when(v.Time))
	if !v.State.Exists {
		x.Detail = fmt.Sprintf("nothing belongs there since %s (version %d)", when(v.Time), v.ID)
	}
	st, err := control.NewClient(cfg.Socket).Status(ctx)
	if err != nil {
		x.Detail += "; whether it is watched is not known: no daemon answers"
		return nil
	}
	for _, r := range st.Rules {
		for _, p := range r.Paths {
			if r.Name != x.Rule || pathText(string(p.Path)) != pathText(x.Root) {
				continue
			}
			if p.State == control.PathArmed {
				x.State, x.Detail = control.PathArmed, x.Detail+", and changes are "+map[bool]string{true: "recorded", false: "answered"}[r.EffectiveMode == "observe"]
			} else {
				x.Detail += "; its tree is " + p.State
			}
			return nil
		}
	}
	x.Detail += "; the daemon that runs has no such rule"
	return nil
}
