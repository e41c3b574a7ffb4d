package main

import (
	"context"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/control"
)

func (a *app) trustCommand() *cli.Command {
	return &cli.Command{
		Name:      "trust",
		Usage:     "make the present state of paths the trusted one; directories with all below them",
		ArgsUsage: "PATH…",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "reason", Usage: "why, for the record: `TEXT` (required)"},
			boolFlag("verbose", "a line for each path, however many there are"),
			jsonFlag(),
		},
		Action: a.trust,
	}
}

func (a *app) trust(c *cli.Context) error {
	if err := someArgs(c, "PATH…", 1, 0); err != nil {
		return err
	}
	req := control.TrustRequest{Reason: strings.TrimSpace(c.String("reason"))}
	if req.Reason == "" {
		return hint(usagef("trust needs --reason"), "say why the present state is right; the record keeps it")
	}
	var err error
	if req.Paths, err = paths(c); err != nil {
		return err
	}
	o, err := a.withOps(c, func(ctx context.Context, h ops) (control.Outcome, error) { return h.Trust(ctx, req) })
	if err != nil {
		return err
	}
	return a.finish(o, c, "nothing to do: no rule covers what is there")
}
