package main

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
)

// defaultLimit is how many records log prints unless --limit says otherwise.
const defaultLimit = 1000

func filterFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "since", Usage: "since `TIME`: RFC 3339, 15:04, yesterday, or an age such as 2h or 3d"},
		&cli.StringFlag{Name: "until", Usage: "before `TIME`"},
		&cli.StringFlag{Name: "path", Usage: "of `PATH`: exact, prefix/ or a glob; **TEXT** is a text anywhere in it"},
		&cli.StringFlag{Name: "user", Usage: "by the person who logged in as `NAME`, through sudo and su; unknown: outside any login"},
		&cli.StringFlag{Name: "source", Usage: "from the address `IP`"},
		&cli.StringFlag{Name: "session", Usage: "of session `ID`"},
		&cli.StringFlag{Name: "exec", Usage: "by the process with exec id `ID`"},
		&cli.StringFlag{Name: "below", Usage: "by the process with exec id `ID` or one below it"},
		&cli.StringFlag{Name: "exe", Usage: "by the executable `PATH`"},
		&cli.StringFlag{Name: "command", Usage: "with `TEXT` in the command line of the process"},
		&cli.StringFlag{Name: "meaning", Usage: "with `TEXT` in what the change of a file of accounts means"},
		&cli.StringFlag{Name: "op", Usage: "with operation `OP`: " + list(event.OpNames())},
		&cli.StringFlag{Name: "kind", Usage: "of kind `KIND`: " + list(kinds())},
		&cli.StringFlag{Name: "verdict", Usage: "with verdict `VERDICT`: " + list(verdicts())},
		&cli.StringFlag{Name: "rule", Usage: "of rule `NAME`"},
		&cli.StringFlag{Name: "found", Usage: "found without an event, `HOW`: " + list(founds())},
		&cli.StringFlag{Name: "ticket", Usage: "of the approved change window with ticket `T`: what it covered, its opening and its end"},
		&cli.StringFlag{Name: "host", Usage: "of host `NAME`"},
	}
}

func kinds() []string {
	return []string{event.RecChange, event.RecAttempt, event.RecExec, event.RecExit, event.RecCredential, event.RecSession, event.RecResponse, event.RecGap, event.RecPolicy, event.RecAgent}
}

func verdicts() []string {
	return []string{event.VerdictObserved, event.VerdictExpected, event.VerdictUnauthorized, event.VerdictBlocked, event.VerdictRestored, event.VerdictRestoreFailed, event.VerdictPromoted}
}

func founds() []string {
	return []string{event.FoundAfterGap, event.FoundWhileDown, event.FoundArming, event.FoundOrder, event.FoundUnplaced, event.FoundBeneath}
}

// filter reads the filter flags. A word that no record can have is a mistake and
// not an empty answer.
func (a *app) filter(c *cli.Context) (query.Filter, error) {
	f := query.Filter{
		User: c.String("user"), Source: c.String("source"), Session: c.String("session"), Exec: c.String("exec"), Below: c.String("below"),
		Op: c.String("op"), Kind: c.String("kind"), Verdict: c.String("verdict"), Rule: c.String("rule"), Found: c.String("found"), Host: c.String("host"),
		Exe: event.Text([]byte(c.String("exe"))), Command: event.Text([]byte(c.String("command"))), Meaning: event.Text([]byte(c.String("meaning"))), Ticket: c.String("ticket"),
	}
	var err error
	if f.Since, err = a.parseTime(c, "since"); err != nil {
		return f, err
	}
	if f.Until, err = a.parseTime(c, "until"); err != nil {
		return f, err
	}
	if f.Since != 0 && f.Until != 0 && f.Since >= f.Until {
		return f, hint(usagef("--since %s is not before --until %s", c.String("since"), c.String("until")), "nothing can lie between them: swap them")
	}
	path, err := pathFilter(c.String("path"))
	if err != nil {
		return f, err
	}
	f.Path = event.Text([]byte(path))
	for _, w := range []struct {
		flag, value string
		known       []string
	}{{"op", f.Op, event.OpNames()}, {"kind", f.Kind, kinds()}, {"verdict", f.Verdict, verdicts()}, {"found", f.Found, founds()}} {
		if w.value != "" && !slices.Contains(w.known, w.value) {
			return f, hint(usagef("--%s: unknown %s %q", w.flag, w.flag, w.value), "use one of "+list(w.known))
		}
	}
	if f.Source != "" {
		ip, _ := query.SplitSource(f.Source)
		if _, err := netip.ParseAddr(ip); err != nil {
			return f, hint(usagef("--source: %q is no address", f.Source), "write an address such as 192.0.2.7 or 2001:db8::7, with a port 192.0.2.7:50122 or [2001:db8::7]:50122")
		}
	}
	return f, nil
}

// pathFilter makes the path of a filter absolute. A trailing slash, which means
// "and all below", is kept; a pattern is left as it is.
func pathFilter(p string) (string, error) {
	if p == "" || strings.HasPrefix(p, "/") || strings.ContainsAny(p, "*?[") {
		return p, nil
	}
	abs, err := filepath.Abs(p)
	if err != nil {
		return "", fmt.Errorf("--path %s: %w", shellQuote(p), err)
	}
	if strings.HasSuffix(p, "/") && abs != "/" {
		abs += "/"
	}
	return abs, nil
}
