package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/event"
)

func (a *app) holdCommand() *cli.Command {
	reason := func() cli.Flag {
		return &cli.StringFlag{Name: "reason", Usage: "why, for the record: `TEXT` (required)"}
	}
	return &cli.Command{
		Name:  "hold",
		Usage: "keep all versions of paths from being destroyed, until the hold is released",
		Subcommands: []*cli.Command{
			{Name: "add", Usage: "hold paths, directories with all below them, now and later", ArgsUsage: "PATH…", Flags: []cli.Flag{reason(), jsonFlag()}, Action: a.holdAdd},
			{Name: "list", Usage: "list the holds", Flags: []cli.Flag{boolFlag("all", "those that were released, too"), jsonFlag()}, Action: a.holdList},
			{Name: "release", Usage: "end a hold", ArgsUsage: "NUMBER", Flags: []cli.Flag{reason(), jsonFlag()}, Action: a.holdRelease},
		},
	}
}

func (a *app) holdAdd(c *cli.Context) error {
	if err := someArgs(c, "PATH…", 1, 0); err != nil {
		return err
	}
	list, err := paths(c)
	if err != nil {
		return err
	}
	return a.hold(c, control.HoldRequest{Paths: list})
}

func (a *app) holdRelease(c *cli.Context) error {
	if err := someArgs(c, "NUMBER", 1, 1); err != nil {
		return err
	}
	n, err := strconv.ParseUint(c.Args().First(), 10, 64)
	if err != nil || n == 0 {
		return hint(usagef("%q is no number of a hold", c.Args().First()), "holdfast hold list shows them")
	}
	return a.hold(c, control.HoldRequest{Release: n})
}

func (a *app) hold(c *cli.Context, req control.HoldRequest) error {
	if req.Reason = strings.TrimSpace(c.String("reason")); req.Reason == "" {
		return hint(usagef("hold %s needs --reason", c.Command.Name), "say for whom or what; the record keeps it")
	}
	o, err := a.withOps(c, func(ctx context.Context, h ops) (control.Outcome, error) { return h.Hold(ctx, req) })
	if err != nil {
		return err
	}
	return a.finish(o, c, "nothing to do")
}

func (a *app) holdList(c *cli.Context) (err error) {
	if err := noArgs(c); err != nil {
		return err
	}
	cfg, err := a.settings(c)
	if err != nil {
		return err
	}
	vault, err := a.openVault(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, vault.Close()) }()
	t := &table{}
	t.add("HOLD", "SINCE", "PATH", "RELEASED", "WHY")
	n := 0
	for _, h := range vault.Holds() {
		if h.Released != 0 && !c.Bool("all") {
			continue
		}
		n++
		if c.Bool("json") {
			h.Path = event.Text([]byte(h.Path))
			if err := a.json(h); err != nil {
				return err
			}
			continue
		}
		released, why := "-", h.Reason
		if h.Released != 0 {
			released, why = when(h.Released), why+"; released: "+h.Why
		}
		t.add(fmt.Sprint(h.ID), when(h.Time), shellQuote(h.Path), released, printableText(why))
	}
	switch {
	case c.Bool("json"):
	case n == 0:
		a.line("nothing is under a hold")
	default:
		a.print(t)
	}
	return nil
}
