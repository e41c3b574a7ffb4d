package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/control"
)

func (a *app) restoreCommand() *cli.Command {
	return &cli.Command{
		Name:      "restore",
		Usage:     "bring paths back to their trusted state; directories with all below them",
		ArgsUsage: "PATH…",
		Flags: []cli.Flag{
			&cli.Uint64Flag{Name: "version", Usage: "bring back version `V` (see holdfast versions)"},
			&cli.StringFlag{Name: "at", Usage: "bring back what was there at `TIME`: by when changes were done, however much later they were captured; what was found without an event counts from when it was found"},
			&cli.StringFlag{Name: "into", Usage: "write below `DIR` and leave the paths alone"},
			boolFlag("dry-run", "print the plan, change nothing"),
			diffFlag(),
			boolFlag("verbose", "a line for each path, however many there are"),
			jsonFlag(),
		},
		Action: a.restore,
	}
}

func (a *app) restore(c *cli.Context) error {
	if err := someArgs(c, "PATH…", 1, 0); err != nil {
		return err
	}
	if c.IsSet("version") && c.IsSet("at") {
		return usagef("restore: --version and --at exclude each other")
	}
	if c.IsSet("version") && c.Uint64("version") == 0 {
		return hint(usagef("restore: there is no version 0"), "holdfast versions PATH lists them")
	}
	req := control.RestoreRequest{Version: c.Uint64("version"), DryRun: c.Bool("dry-run")}
	var err error
	if req.Paths, err = paths(c); err != nil {
		return err
	}
	if req.Version != 0 && len(req.Paths) > 1 {
		return hint(usagef("restore: --version goes with one path"), "version numbers count for each path: use --at for several")
	}
	if req.At, err = a.parseTime(c, "at"); err != nil {
		return err
	}
	if into := c.String("into"); into != "" {
		abs, err := absolute(into)
		if err != nil {
			return err
		}
		req.Into = control.Path(abs)
	}
	o, err := a.withOps(c, func(ctx context.Context, h ops) (control.Outcome, error) { return h.Restore(ctx, req) })
	if err != nil {
		return err
	}
	if o.DryRun && c.Bool("diff") && !c.Bool("json") {
		if err := a.planDiffs(c, &o); err != nil {
			return err
		}
	}
	return a.finish(o, c, "nothing to do: everything is as it should be")
}
