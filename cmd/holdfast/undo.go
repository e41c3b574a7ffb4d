package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/control"
)

func (a *app) undoCommand() *cli.Command {
	return &cli.Command{
		Name:  "undo",
		Usage: "take back what a session, person, address, program or record changed",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "session", Usage: "what session `ID` changed (see holdfast sessions)"},
			&cli.StringFlag{Name: "user", Usage: "what the person `NAME` changed, through sudo and su"},
			&cli.StringFlag{Name: "source", Usage: "what came from the address `IP`"},
			&cli.StringFlag{Name: "exec", Usage: "what the process with exec id `ID` changed"},
			&cli.StringFlag{Name: "record", Usage: "the one change of record `ID`"},
			&cli.StringFlag{Name: "since", Usage: "only changes since `TIME`"},
			&cli.StringFlag{Name: "until", Usage: "only changes before `TIME`"},
			&cli.StringFlag{Name: "path", Usage: "only changes of `PATH`: exact, prefix/ or glob"},
			boolFlag("dry-run", "print the plan, change nothing"),
			diffFlag(),
			boolFlag("force", "also where someone else changed the path since"),
			boolFlag("verbose", "a line for each path, however many there are"),
			jsonFlag(),
		},
		Action: a.undo,
	}
}

func (a *app) undo(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	req := control.UndoRequest{
		Session: c.String("session"), User: c.String("user"), Source: c.String("source"), Exec: c.String("exec"), Record: c.String("record"),
		DryRun: c.Bool("dry-run"), Force: c.Bool("force"),
	}
	if req.Session == "" && req.User == "" && req.Source == "" && req.Exec == "" && req.Record == "" {
		return hint(usagef("undo needs a cause"), "use --session, --user, --source, --exec or --record; holdfast sessions and holdfast log show them")
	}
	var err error
	if req.Since, err = a.parseTime(c, "since"); err != nil {
		return err
	}
	if req.Until, err = a.parseTime(c, "until"); err != nil {
		return err
	}
	pattern, err := pathFilter(c.String("path"))
	if err != nil {
		return err
	}
	req.Path = control.Path(pattern)
	o, err := a.withOps(c, func(ctx context.Context, h ops) (control.Outcome, error) { return h.Undo(ctx, req) })
	if err != nil {
		return err
	}
	if o.Matched == 0 && len(o.Steps) == 0 && len(o.Conflicts) == 0 {
		return hint(fmt.Errorf("undo: %w: no change of this cause is recorded", errNotFound), "holdfast log with the same flags shows what is")
	}
	if o.DryRun && c.Bool("diff") && !c.Bool("json") {
		if err := a.planDiffs(c, &o); err != nil {
			return err
		}
	}
	return a.finish(o, c, "nothing to do: what it changed is as it was before")
}
