package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
)

func (a *app) logCommand() *cli.Command {
	return &cli.Command{
		Name:  "log",
		Usage: "print records, oldest first",
		Flags: append(filterFlags(),
			&cli.IntFlag{Name: "limit", Value: defaultLimit, Usage: "keep the newest `N`; 0 keeps all"},
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with new records as they come", DisableDefaultText: true},
			jsonFlag(), storeFlag(),
		),
		Action: a.log,
	}
}

// followEvery is how often --follow asks for news: short enough for a person who
// watches, long enough not to be seen in top.
const followEvery = 250 * time.Millisecond

func (a *app) log(c *cli.Context) (err error) {
	if err := noArgs(c); err != nil {
		return err
	}
	f, err := a.filter(c)
	if err != nil {
		return err
	}
	if f.Limit = c.Int("limit"); f.Limit < 0 {
		return usagef("--limit: %d is less than 0", f.Limit)
	}
	s, err := a.openStore(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()

	emit := a.logLine
	if c.Bool("json") {
		emit = func(r *event.Record) error { return a.json(r) }
	}
	if !c.Bool("follow") {
		return errors.Join(s.Records(c.Context, f, emit), a.note(c.Context, s))
	}
	return a.follow(c.Context, s, f, emit)
}

// follow prints what is there and then what comes, until ctx ends.
func (a *app) follow(ctx context.Context, s query.Store, f query.Filter, emit func(*event.Record) error) error {
	if x, ok := s.(query.Follower); ok {
		had := false
		err := x.Follow(ctx, f, emit, func(trouble error) error {
			switch {
			case trouble != nil && !had:
				fmt.Fprintln(a.err, "note: it goes on when there is an answer again: "+printableText(trouble.Error()))
			case trouble == nil && had:
				fmt.Fprintln(a.err, "note: there is an answer again, nothing was left out")
			}
			had = trouble != nil
			return a.flush()
		})
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		err := a.followLocal(ctx, s, &f, emit)
		if err == nil {
			err = a.flush()
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// followLocal prints what f selects, and has f select what comes behind it: what was looked at once is not looked
// at again, whether it was selected or not.
func (a *app) followLocal(ctx context.Context, s query.Store, f *query.Filter, emit func(*event.Record) error) error {
	l, err := s.Lag(ctx)
	if err != nil {
		return err
	}
	if l.Newest < f.AfterSeq { // the log was begun again
		f.AfterSeq = 0
	}
	if l.Newest == f.AfterSeq && l.Newest != 0 {
		return nil
	}
	next := l.Newest
	err = s.Records(ctx, *f, func(r *event.Record) error {
		next = max(next, r.Seq)
		return emit(r)
	})
	f.AfterSeq, f.Limit = next, 0
	return err
}

// logLine prints a record on one line.
func (a *app) logLine(r *event.Record) error {
	var b strings.Builder
	b.WriteString(a.color(dim, pad(when(r.Time), 24)))
	b.WriteString(a.hostColumn(r.Host, 16))
	b.WriteString(pad(fmt.Sprintf("#%d", r.Seq), 9))
	verdict := r.Verdict
	if verdict == "" {
		verdict = r.Kind
	}
	b.WriteString(a.verdict(verdict, 14))
	b.WriteString(" " + pad(what(r), 10) + " ")
	b.WriteString(pad(by(r), 32))
	obj := object(r)
	b.WriteString(obj)
	if len(r.Meaning) > 0 {
		b.WriteString("  " + a.color(bold, printableText(cut(strings.Join(r.Meaning, "; "), 400))))
	}
	if r.Found != "" {
		b.WriteString("  " + a.color(yellow, printableText(r.Found)))
	}
	if r.Verdict != "" && r.Reason != "" && obj != printableText(r.Reason) && (r.Verdict != event.VerdictObserved || r.Found != "") {
		b.WriteString("  " + a.color(dim, printableText(r.Reason)))
	}
	_, err := io.WriteString(a.buf, strings.TrimRight(b.String(), " ")+"\n")
	return err
}

// gapText writes what may be missing, and what came of the rescan.
func gapText(g *event.Gap) string {
	lost := plural(g.Lost, "event")
	if g.Lost == 0 {
		lost = "what was done"
	}
	s := fmt.Sprintf("%s between %s and %s", lost, when(g.From), when(g.To))
	if len(g.Causes) > 0 {
		s += " (" + strings.Join(g.Causes, ", ") + ")"
	}
	if len(g.Trees) > 0 {
		s += " under " + quoteAll(g.Trees)
	}
	if g.Rescan != "" {
		s += "; rescan " + g.Rescan
	}
	if g.Rescan == event.RescanDone && g.Of != "" {
		s += fmt.Sprintf(": %s compared, %s found", plural(g.Looked, "path"), plural(g.Changes, "change"))
	}
	return printableText(s)
}

// what names the operation or, of other records, what they tell of.
func what(r *event.Record) string {
	switch {
	case r.Response != nil:
		return printableText(r.Response.Action)
	case r.Op != "":
		return printableText(r.Op)
	case r.Session != nil:
		return printableText(r.Session.State)
	case r.Credential != nil:
		return "ids"
	case r.Kind == event.RecGap:
		return "lost"
	}
	return "-"
}

// by writes who did it and with what: alice@192.0.2.7 sed[4123].
func by(r *event.Record) string {
	who := ""
	if r.Actor != nil {
		who = printableText(r.Actor.User)
		if r.Actor.User == event.Unknown && r.Actor.EUID != event.Unset {
			who = uidName(r.Actor.EUID)
		}
		if r.Actor.SourceIP != "" {
			who += "@" + printableText(r.Actor.SourceIP)
		}
	}
	if p := r.Process; p != nil && p.PID != 0 {
		who += fmt.Sprintf(" %s[%d]", processName(p.Comm, p.Exe), p.PID)
	}
	if who == "" {
		return "holdfast "
	}
	return strings.TrimSpace(who) + " "
}

// processName is the base name of the executable, or what the process calls itself.
func processName(comm, exe string) string {
	if i := strings.LastIndexByte(exe, '/'); i >= 0 && i < len(exe)-1 {
		return printableText(exe[i+1:])
	}
	if exe != "" && exe != event.Unknown {
		return printableText(exe)
	}
	if comm != "" {
		return printableText(comm)
	}
	return "?"
}

// object writes what the record is about.
func object(r *event.Record) string {
	s := ""
	if r.Path != "" {
		s = pathText(r.Path)
	}
	if r.PathTo != "" {
		s += " → " + pathText(r.PathTo)
	}
	if resp := r.Response; resp != nil {
		s += "  " + printableText(resp.Outcome)
		if resp.TookNS != 0 {
			s += " in " + took(resp.TookNS)
		}
		if resp.Error != "" {
			s += ": " + printableText(resp.Error)
		}
	}
	if t := r.Detail["ticket"]; t != "" && r.Kind == event.RecResponse { // the reason of a change names it
		s += "  ticket " + printableText(t)
	}
	if g := r.Gap; g != nil && r.Kind == event.RecGap {
		s += gapText(g)
	}
	if r.Kind == event.RecExec && r.Process != nil {
		s = command(r.Process.Argv)
	}
	if s == "" {
		s = printableText(r.Reason)
	}
	return strings.TrimSpace(s)
}
