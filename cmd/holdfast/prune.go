package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/control"
)

func (a *app) pruneCommand() *cli.Command {
	return &cli.Command{
		Name:  "prune",
		Usage: "destroy the versions that nothing keeps any more, as the daemon does every day",
		Flags: []cli.Flag{boolFlag("dry-run", "list them and destroy nothing"), jsonFlag()},
		Action: func(c *cli.Context) error {
			if err := noArgs(c); err != nil {
				return err
			}
			req := control.PruneRequest{DryRun: c.Bool("dry-run")}
			o, err := a.withOps(c, func(ctx context.Context, h ops) (control.Outcome, error) { return h.Prune(ctx, req) })
			if err != nil {
				return err
			}
			return a.finish(o, c, "nothing to do: every version is kept by a rule")
		},
	}
}
