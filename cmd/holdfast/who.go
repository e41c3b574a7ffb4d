package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
)

func (a *app) whoCommand() *cli.Command {
	return &cli.Command{
		Name:      "who",
		Usage:     "say who last changed a path: person, address, when, how, and the chain of processes",
		ArgsUsage: "PATH",
		Flags:     []cli.Flag{&cli.StringFlag{Name: "host", Usage: "on host `NAME`"}, jsonFlag(), storeFlag()},
		Action:    a.who,
	}
}

func (a *app) who(c *cli.Context) (err error) {
	if err := someArgs(c, "PATH", 1, 1); err != nil {
		return err
	}
	path, err := absolute(c.Args().First())
	if err != nil {
		return err
	}
	s, err := a.openStore(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	r, err := query.Who(c.Context, s, event.Text([]byte(path)), c.String("host"))
	if errors.Is(err, query.ErrNotFound) {
		return hint(fmt.Errorf("who %s: %w: no change of it is recorded", shellQuote(path), errNotFound),
			"holdfast policy explain "+shellQuote(path)+" says whether it is watched")
	}
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.json(r)
	}
	answers, err := responses(c.Context, s, r)
	if err != nil {
		return err
	}
	a.printWho(r, answers)
	return a.note(c.Context, s)
}

// responses returns what Holdfast recorded as done about r, oldest first.
func responses(ctx context.Context, s query.Store, r *event.Record) ([]*event.Record, error) {
	var out []*event.Record
	f := query.Filter{Kind: event.RecResponse, Host: r.HostID, AfterSeq: r.Seq}
	if r.PathTo == "" && r.Path != "" {
		f.Path = query.Quote(r.Path)
	}
	err := s.Records(ctx, f, func(x *event.Record) error {
		if x.Response != nil && x.Response.Of == r.ID {
			out = append(out, x)
		}
		return nil
	})
	return out, err
}

// printWho answers in one line, and gives the reasons below it.
func (a *app) printWho(r *event.Record, answers []*event.Record) {
	target := pathText(r.Path)
	if r.PathTo != "" {
		target += " → " + pathText(r.PathTo)
	}
	verb := "was " + done(r.Op)
	if r.Kind == event.RecAttempt && r.Verdict == event.VerdictBlocked {
		verb = "was nearly " + done(r.Op) + " (refused)"
	}
	how := ""
	if r.Process != nil {
		how = " with " + command(r.Process.Argv)
		if len(r.Process.Argv) == 0 {
			how = " with " + processName(r.Process.Comm, r.Process.Exe)
		}
	}
	a.linef("%s%s %s by %s %s on %s%s", a.hostColumn(r.Host, 0), a.color(bold, target), verb, a.color(bold, person(r.Actor)), from(r.Actor), when(r.Time), how)
	a.line("")
	a.printFacts(r, answers)
}

// printFacts prints the chain, the session, what changed and what was done.
func (a *app) printFacts(r *event.Record, answers []*event.Record) {
	fact := func(name, text string) { a.linef("  %s%s", a.color(dim, pad(name, 10)), text) }
	for i, s := range r.Meaning {
		name := "meaning"
		if i > 0 {
			name = ""
		}
		fact(name, printableText(s))
	}
	if r.Process != nil {
		fact("chain", chainLine(r))
		for _, s := range chain(r) {
			if len(s.Argv) > 0 {
				fact("", a.color(dim, pad(fmt.Sprintf("%d", s.PID), 8))+command(s.Argv))
			}
		}
	}
	fact("session", session(r.Actor))
	if len(r.Ops) > 1 || r.Count > 1 {
		fact("how", fmt.Sprintf("%s (%s)", printableText(list(r.Ops)), plural(r.Count, "operation")))
	}
	if r.Before != nil || r.After != nil {
		fact("before", stateText(r.Before))
		fact("after", stateText(r.After))
	}
	if r.Rule != "" {
		text := fmt.Sprintf("%s (%s): %s", printableText(r.Rule), printableText(r.Mode), a.verdict(r.Verdict, 0))
		if r.Reason != "" {
			text += ", " + printableText(r.Reason)
		}
		fact("rule", text)
	}
	for _, x := range answers {
		if x.Response.Outcome != "intended" || len(answers) == 1 {
			fact("holdfast", responseText(x))
		}
	}
	if len(answers) == 0 {
		fact("holdfast", "recorded it")
	}
	fact("record", r.ID)
}
