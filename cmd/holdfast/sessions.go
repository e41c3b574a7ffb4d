package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/query"
)

func (a *app) sessionsCommand() *cli.Command {
	return &cli.Command{
		Name:   "sessions",
		Usage:  "list sessions with person, origin, address, start, end and counts of changes",
		Flags:  append(filterFlags(), jsonFlag(), storeFlag()),
		Action: a.sessions,
	}
}

func (a *app) sessions(c *cli.Context) (err error) {
	if err := noArgs(c); err != nil {
		return err
	}
	f, err := a.filter(c)
	if err != nil {
		return err
	}
	s, err := a.openStore(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	list, err := query.Sessions(c.Context, s, f)
	if err != nil {
		return err
	}
	t := &table{}
	t.add("SESSION", "PERSON", "ORIGIN", "FROM", "TTY", "START", "END", "CHANGES", "UNAUTHORIZED", "REFUSED", "RESTORED")
	for i := range list {
		x := &list[i]
		if c.Bool("json") {
			if err := a.json(x); err != nil {
				return err
			}
			continue
		}
		source := x.SourceIP
		if source != "" && x.SourcePort != 0 {
			source = addrPort(x.SourceIP, x.SourcePort)
		}
		t.add(printableText(x.ID), dash(x.User), dash(x.Origin), dash(source), dash(x.TTY), when(x.Start), when(x.End),
			fmt.Sprint(x.Changes), fmt.Sprint(x.Unauthorized), fmt.Sprint(x.Attempts), fmt.Sprint(x.Restored))
	}
	if !c.Bool("json") {
		if len(list) == 0 {
			a.line("no sessions")
		} else {
			a.print(t)
		}
	}
	return a.note(c.Context, s)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return printableText(s)
}
