package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
)

func (a *app) sessionsCommand() *cli.Command {
	return &cli.Command{
		Name:   "sessions",
		Usage:  "list sessions with person, origin, address, start, end and counts of changes; with --session tell of one",
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
	of := func(host string, cells ...string) {
		if a.fleet {
			cells = append([]string{host}, cells...)
		}
		t.add(cells...)
	}
	of("HOST", "SESSION", "PERSON", "ORIGIN", "FROM", "TTY", "START", "END", "PROGRAMS", "CHANGES", "UNAUTHORIZED", "REFUSED", "RESTORED")
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
		of(dash(x.Host), printableText(x.ID), dash(x.User), dash(x.Origin), dash(source), dash(x.TTY), when(x.Start), when(x.End),
			counted(x.Execs), fmt.Sprint(x.Changes), fmt.Sprint(x.Unauthorized), fmt.Sprint(x.Attempts), fmt.Sprint(x.Restored))
	}
	if !c.Bool("json") {
		switch {
		case len(list) == 0:
			a.line("no sessions")
		case f.Session != "": // the answer in one line, and what the session was below it
			for i := range list {
				a.line(a.hostColumn(list[i].Host, 0) + a.color(bold, sessionLine(&list[i])))
				if err := a.tellSession(c.Context, s, &list[i]); err != nil {
					return err
				}
			}
		default:
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

// change is a line about one, and whether it is never left out.
type change struct {
	text    string
	telling bool
}

// counted writes a number that is 0 where nothing was counted.
func counted(n uint64) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

// tellSession prints how a session began, the credentials that were reached in it, and what
// was changed, the newest last.
func (a *app) tellSession(ctx context.Context, s query.Store, x *query.Session) error {
	fact := func(name, text string) { a.linef("  %s%s", a.color(dim, pad(name, 10)), text) }
	var began, credentials []string
	var changes []change
	how := map[string]int{}
	err := s.Records(ctx, query.Filter{Session: x.ID, Host: x.HostID}, func(r *event.Record) error {
		if r.Boot != x.Boot {
			return nil
		}
		switch r.Kind {
		case event.RecSession:
			if len(began) == 0 && r.Process != nil {
				began = append(began, chainLine(r))
			}
		case event.RecCredential:
			if c := r.Credential; c != nil {
				way := fmt.Sprintf("%s through %s", uidName(c.After.EUID), printableText(c.How))
				if c.How == event.HowCall && r.Process != nil { // such as those of sshd while it logs somebody in
					way = fmt.Sprintf("%s by a call of %s", uidName(c.After.EUID), printableText(r.Process.Exe))
				}
				if how[way]++; how[way] == 1 {
					credentials = append(credentials, way)
				}
			}
		case event.RecChange, event.RecAttempt:
			text := when(r.Time) + " " + a.verdict(r.Verdict, 0) + " " + what(r) + " " + object(r)
			if len(r.Meaning) > 0 {
				text += "  " + a.color(bold, printableText(cut(strings.Join(r.Meaning, "; "), 400)))
			}
			changes = append(changes, change{text, telling(r.Verdict, r.Meaning)})
		}
		return nil
	})
	if err != nil {
		return err
	}
	tell := func(name string, lines []string) {
		for i, l := range lines {
			if i > 0 {
				name = ""
			}
			fact(name, l)
		}
	}
	tell("began", began)
	tell("known by", []string{strings.ReplaceAll(dash(x.Evidence), "_", " ")})
	if x.Processes > 0 {
		fact("ran", fmt.Sprintf("%s, %s", plural(x.Processes, "process"), plural(x.Execs, "program")))
	}
	tell("became", credentials)
	left := len(changes) - 20
	var shown []string
	for _, x := range changes { // of the plain ones the oldest are left out
		if left > 0 && !x.telling {
			left--
			continue
		}
		shown = append(shown, x.text)
	}
	if n := len(changes) - len(shown); n > 0 {
		shown = append(shown, fmt.Sprintf("and %d more: holdfast log --session %s", n, shellQuote(x.ID)))
	}
	tell("changes", shown)
	fact("", "holdfast tree "+shellQuote(x.ID)+" shows each at its process")
	return nil
}
