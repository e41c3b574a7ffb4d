package main

import (
	"context"
	"log/slog"

	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/daemon"
	"github.com/holdfast/holdfast/pkg/kernel"
)

// runDaemon runs the daemon until ctx ends.
func runDaemon(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	return daemon.Run(ctx, cfg, daemon.Options{Version: version(), Log: log})
}

// offline returns the daemon's operations on the state directory of a daemon
// that does not run, and a function that ends them.
func offline(cfg config.Config) (control.Handler, func() error, error) {
	return daemon.Offline(cfg)
}

// probe finds out what this kernel can do.
func probe(ctx context.Context) kernel.Report { return kernel.Probe(ctx) }
