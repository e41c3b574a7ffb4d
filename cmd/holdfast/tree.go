package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
)

func (a *app) treeCommand() *cli.Command {
	return &cli.Command{
		Name:      "tree",
		Usage:     "print the processes of a session, or those below the process with an exec id, with each change at its process",
		ArgsUsage: "EXEC|SESSION",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "host", Usage: "of host `NAME`"},
			&cli.IntFlag{Name: "acts", Value: 20, Usage: "print the first `N` changes of each process, and of the others those that are more than observed; 0 prints all"},
			jsonFlag(), storeFlag(),
		},
		Action: a.tree,
	}
}

func (a *app) tree(c *cli.Context) (err error) {
	if err := someArgs(c, "EXEC|SESSION", 1, 1); err != nil {
		return err
	}
	id, host := c.Args().First(), c.String("host")
	s, err := a.openStore(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	list, nobody, err := query.Tree(c.Context, s, id, host)
	if errors.Is(err, query.ErrNotFound) {
		return hint(fmt.Errorf("tree %s: %w", printableText(id), errNotFound), "holdfast sessions lists sessions, holdfast log --json has the exec_id of each process")
	}
	if err != nil {
		return err
	}
	if c.Bool("json") {
		for _, p := range list {
			if err := a.json(p); err != nil {
				return err
			}
		}
		return a.note(c.Context, s)
	}
	sessions, err := query.Sessions(c.Context, s, query.Filter{Session: id, Host: host})
	if err != nil {
		return err
	}
	for i := range sessions {
		a.line(a.hostColumn(sessions[i].Host, 0) + sessionLine(&sessions[i]))
	}
	for i := range list {
		a.printProcess(list, i, c.Int("acts"), len(sessions) > 1)
	}
	if nobody > 0 {
		a.linef("%s of it %s no process", plural(uint64(nobody), "record"), map[bool]string{true: "names", false: "name"}[nobody == 1])
	}
	return a.note(c.Context, s)
}

// sessionLine answers in one line who was in a session, from where, when, and what came of it.
func sessionLine(x *query.Session) string {
	user := printableText(x.User)
	if user == "" || x.User == event.Unknown {
		user = "someone unknown"
	}
	s := "session " + printableText(x.ID) + ": " + user
	switch {
	case x.SourceIP != "" && x.SourcePort != 0:
		s += " from " + addrPort(printableText(x.SourceIP), x.SourcePort)
	case x.SourceIP != "":
		s += " from " + printableText(x.SourceIP)
	}
	if x.Origin != "" {
		s += " by " + printableText(x.Origin)
	}
	if x.TTY != "" {
		s += " on " + printableText(x.TTY)
	}
	s += ", " + when(x.Start) + " to "
	if x.End != 0 {
		s += when(x.End)
	} else {
		s += "(no end recorded, last seen " + when(x.Last) + ")"
	}
	s += ", " + plural(x.Changes, "change")
	for _, n := range []struct {
		n    uint64
		what string
	}{{x.Unauthorized, "unauthorized"}, {x.Attempts, "refused"}, {x.Restored, "put back"}} {
		if n.n > 0 {
			s += fmt.Sprintf(", %d %s", n.n, n.what)
		}
	}
	return s
}

// printProcess prints one process of a tree and below it what it did.
func (a *app) printProcess(list []*query.Process, i, most int, several bool) {
	p := list[i]
	if several && (i == 0 || list[i-1].HostID != p.HostID || list[i-1].Boot != p.Boot) {
		a.line(a.color(dim, "host "+printableText(p.HostID)+", boot "+printableText(p.Boot)))
	}
	lead := indent(list, i)
	text := command(p.Argv)
	if len(p.Argv) == 0 {
		text = pathText(p.Exe)
	}
	if p.Script != "" {
		text += " (script " + pathText(p.Script) + ")"
	}
	notes := []string{}
	if p.User != "" {
		notes = append(notes, "as "+printableText(p.User))
	}
	if p.Exit != nil {
		end := fmt.Sprintf("exit %d", p.Exit.Code)
		if p.Exit.Signal != "" {
			end = "ended by " + printableText(p.Exit.Signal)
		}
		notes = append(notes, end)
	}
	if p.ExecID != "" {
		notes = append(notes, "exec "+printableText(p.ExecID))
	}
	a.line(a.color(dim, lead) + a.color(bold, fmt.Sprintf("%s[%d]", processName("", p.Exe), p.PID)) + " " + text + a.color(dim, noteText(notes)))
	below := strings.NewReplacer("└─ ", "   ", "├─ ", "│  ").Replace(lead) + "   "
	if i+1 < len(list) && list[i+1].Depth > p.Depth {
		below = strings.TrimSuffix(below, "   ") + "│  "
	}
	left := 0
	for n := range p.Acts {
		if act := &p.Acts[n]; n < most || most <= 0 || telling(act.Verdict, act.Meaning) {
			a.line(a.color(dim, below) + a.actText(act))
		} else {
			left++
		}
	}
	if left > 0 {
		a.line(a.color(dim, below) + fmt.Sprintf("and %d more: holdfast log --exec %s", left, shellQuote(p.ExecID)))
	}
}

// telling reports whether a change is never left out of a list: what the policy did not
// simply let pass, and what has a meaning.
func telling(verdict string, meaning []string) bool {
	return len(meaning) > 0 || verdict != event.VerdictObserved && verdict != event.VerdictExpected
}

func noteText(notes []string) string {
	if len(notes) == 0 {
		return ""
	}
	return "  (" + strings.Join(notes, ", ") + ")"
}

// indent draws the branches in front of a process.
func indent(list []*query.Process, i int) string {
	if list[i].Depth == 0 {
		return ""
	}
	// more reports whether another process of that depth follows below the same one.
	more := func(depth int) bool {
		for _, q := range list[i+1:] {
			if q.Depth <= depth {
				return q.Depth == depth
			}
		}
		return false
	}
	var b strings.Builder
	for d := 1; d < list[i].Depth; d++ {
		if more(d) {
			b.WriteString("│  ")
		} else {
			b.WriteString("   ")
		}
	}
	if more(list[i].Depth) {
		return b.String() + "├─ "
	}
	return b.String() + "└─ "
}

// actText writes what a process did: time, operation, path, verdict, meaning.
func (a *app) actText(x *query.Act) string {
	s := x.Time.Go().Local().Format("15:04:05.000") + fmt.Sprintf(" #%d ", x.Seq)
	if c := x.Credential; c != nil {
		return s + fmt.Sprintf("became %s through %s", uidName(c.After.EUID), printableText(c.How))
	}
	if x.Verdict != "" && x.Verdict != event.VerdictObserved {
		s += a.verdict(x.Verdict, 0) + " "
	}
	s += printableText(x.Op) + " " + pathText(x.Path)
	if x.PathTo != "" {
		s += " → " + pathText(x.PathTo)
	}
	if len(x.Meaning) > 0 {
		s += "  " + a.color(bold, printableText(cut(strings.Join(x.Meaning, "; "), 400)))
	}
	return s
}
