package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/control"
)

// finish prints what a restore, undo or trust did and returns the error that its
// exit code follows from.
func (a *app) finish(o control.Outcome, c *cli.Context, nothing string) error {
	if c.Bool("json") {
		if err := a.json(o); err != nil {
			return err
		}
	} else {
		a.printOutcome(&o, c.Bool("verbose"), nothing)
	}
	if n := o.Count(control.StepFailed); n > 0 {
		return fmt.Errorf("%d of %s failed", n, plural(uint64(len(o.Steps)), "step"))
	}
	if len(o.Conflicts) > 0 {
		return silent{errConflicts}
	}
	return nil
}

func (a *app) printOutcome(o *control.Outcome, verbose bool, nothing string) {
	for _, n := range o.Notes {
		a.line("note: " + printableText(n))
	}
	switch n := len(o.Steps) + len(o.Conflicts); {
	case n == 0:
		a.line(nothing)
		return
	case n > manyLines && !verbose:
		a.printSummed(o)
	default:
		a.printEach(o)
	}
	sum := fmt.Sprintf("%d done, %d failed, %d skipped", o.Count(control.StepDone), o.Count(control.StepFailed), o.Count(control.StepSkipped))
	if o.DryRun {
		sum = fmt.Sprintf("dry run: %s would be taken, nothing was changed", plural(uint64(len(o.Steps)), "step"))
	}
	if n := len(o.Conflicts); n > 0 {
		sum += ", " + plural(uint64(n), "conflict") + " left for you: --force undoes these too"
	}
	a.line(sum)
	if o.Record != "" {
		a.linef("holdfast undo --record %s takes this back", o.Record)
	}
}

// printEach prints each step and conflict on a line of its own.
func (a *app) printEach(o *control.Outcome) {
	t := &table{}
	for _, s := range o.Steps {
		t.add(s.Outcome, s.Action, shellQuote(string(s.Path)), stepText(&s))
		t.paint(0, outcomeColor(s.Outcome))
	}
	a.print(t)
	for _, c := range o.Conflicts {
		a.linef("%s  %s  %s", a.color(red, "conflict"), shellQuote(string(c.Path)), printableText(c.Reason))
		if c.Record != "" {
			a.linef("          holdfast show %s", c.Record)
		}
	}
}

func stepText(s *control.Step) string {
	text := s.Reason
	add := func(more string) {
		if text != "" {
			text += "; "
		}
		text += more
	}
	if s.Version != 0 {
		add(fmt.Sprintf("version %d", s.Version))
	}
	if s.TookNS != 0 {
		add(took(s.TookNS))
	}
	if s.Evidence != "" {
		add("the displaced file is " + shellQuote(s.Evidence))
	}
	if len(s.Meaning) > 0 {
		add(cut(strings.Join(s.Meaning, "; "), 400))
	}
	if s.Error != "" {
		add(s.Error)
	}
	return printableText(text)
}
