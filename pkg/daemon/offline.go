package daemon

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/control"
)

// Offline opens the state of a daemon that does not run and gives the operations
// of the control socket on it. The returned function closes it; until then no
// daemon can start on it. What is changed here, a daemon that starts later finds
// recorded by these operations.
func Offline(cfg config.Config) (control.Handler, func() error, error) {
	st, err := openState(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, nil, err
	}
	h := offline{ops{state: st, took: func(context.Context, []string) error { return st.vault.Sync() }}}
	return h, st.close, nil
}

type offline struct{ ops }

// Stop implements control.Handler: there is nothing to stop.
func (o offline) Stop(context.Context, control.StopRequest) (control.Outcome, error) {
	return control.Outcome{}, fmt.Errorf("stop: %w", control.ErrNotRunning)
}

// Reindex implements control.Handler: index.Build does it without a daemon.
func (o offline) Reindex(context.Context, control.ReindexRequest) (control.Outcome, error) {
	return control.Outcome{}, fmt.Errorf("build the index anew: %w", control.ErrNotRunning)
}

// Status implements control.Handler: only a running daemon has one.
func (o offline) Status(context.Context) (control.Status, error) {
	return control.Status{}, fmt.Errorf("status: no daemon runs on %s: %w", o.cfg.State, control.ErrNotFound)
}
