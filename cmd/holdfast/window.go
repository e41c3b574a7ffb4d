package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/daemon"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/policy"
)

func (a *app) windowCommand() *cli.Command {
	return &cli.Command{
		Name:  "window",
		Usage: "approved change windows: for some time, what somebody changes somewhere is expected and becomes trusted",
		Subcommands: []*cli.Command{
			{Name: "open", Usage: "open a window; what is not given of path, user and exe matches all", Flags: []cli.Flag{
				&cli.StringFlag{Name: "ticket", Usage: "what approves it, for the records: `TEXT` (required)"},
				&cli.DurationFlag{Name: "for", Usage: "close it after `TIME`, such as 30m or 8h, at most 168h (required)", DefaultText: "none"},
				&cli.StringFlag{Name: "path", Usage: "only changes at or below `PATH`; * ? [ ] match within a component"},
				&cli.StringFlag{Name: "user", Usage: "only changes by the person who logged in as `USER`, through sudo and su"},
				&cli.StringFlag{Name: "exe", Usage: "only changes that the program, or the script, `FILE` itself makes"},
				&cli.StringFlag{Name: "host", Usage: "an error unless this is `HOST`, by name or id"},
				jsonFlag(),
			}, Action: a.windowOpen},
			{Name: "close", Usage: "close a window before its time", ArgsUsage: "[NUMBER]", Flags: []cli.Flag{
				&cli.StringFlag{Name: "ticket", Usage: "close all windows of the ticket `TEXT`"}, jsonFlag(),
			}, Action: a.windowClose},
			{Name: "list", Usage: "list the windows that are open", Flags: []cli.Flag{jsonFlag()}, Action: a.windowList},
		},
	}
}

func (a *app) windowOpen(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	req := control.WindowRequest{Ticket: strings.TrimSpace(c.String("ticket")), ForNS: int64(c.Duration("for")), User: c.String("user"), Host: c.String("host")}
	if req.Ticket == "" {
		return hint(usagef("window open needs --ticket"), "say what approves the changes; the records keep it")
	}
	if req.ForNS <= 0 {
		return hint(usagef("window open needs --for"), "say for how long, for example --for 30m")
	}
	for flag, field := range map[string]*control.Path{"path": &req.Path, "exe": &req.Exe} {
		if !c.IsSet(flag) {
			continue
		}
		p, err := absolute(c.String(flag))
		if err != nil {
			return fmt.Errorf("--%s: %w", flag, err)
		}
		*field = control.Path(p)
	}
	if c.IsSet("user") && req.User == "" {
		return hint(usagef("--user: an empty name"), "leave --user out to match all")
	}
	return a.window(c, req)
}

func (a *app) windowClose(c *cli.Context) error {
	if err := someArgs(c, "NUMBER", 0, 1); err != nil {
		return err
	}
	req := control.WindowRequest{CloseTicket: strings.TrimSpace(c.String("ticket"))}
	if n := c.Args().First(); n != "" {
		var err error
		if req.Close, err = strconv.ParseUint(n, 10, 64); err != nil || req.Close == 0 {
			return hint(usagef("%q is no number of a window", n), "holdfast window list shows them")
		}
	}
	if (req.Close == 0) == (req.CloseTicket == "") {
		return hint(usagef("window close needs NUMBER or --ticket"), "holdfast window list shows them")
	}
	return a.window(c, req)
}

func (a *app) window(c *cli.Context, req control.WindowRequest) error {
	o, err := a.withOps(c, func(ctx context.Context, h ops) (control.Outcome, error) { return h.Window(ctx, req) })
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.json(o)
	}
	did := "open"
	if req.Ticket == "" {
		did = "closed"
	}
	for i := range o.Windows {
		a.linef("%s  %s", did, windowLine(&o.Windows[i]))
	}
	for _, n := range o.Notes {
		a.linef("%s: %s", a.color(yellow, "note"), printableText(n))
	}
	return nil
}

// windowLine writes a window on one line.
func windowLine(w *control.Window) string {
	s := fmt.Sprintf("%d, ticket %s: %s", w.Number, printableText(w.Ticket), scopeText(w))
	if left := time.Duration(w.LeftNS); left > 0 {
		s += fmt.Sprintf(", until %s (%s left)", when(w.Until), left.Round(time.Second))
	}
	s += ", opened by " + printableText(w.By)
	if len(w.Unopened) > 0 {
		s += "; does not open what blocks: rule " + printableText(list(w.Unopened))
	}
	if len(w.LetsThrough) > 0 {
		s += "; lets them through what blocks: rule " + printableText(list(w.LetsThrough))
	}
	return s
}

func scopeText(w *control.Window) string {
	s := "any path"
	if w.Path != "" {
		s = shellQuote(string(w.Path))
	}
	if w.User != "" {
		s += " by " + printableText(w.User)
	}
	if w.Exe != "" {
		s += " with " + shellQuote(string(w.Exe))
	}
	return s
}

// openWindows asks the daemon or, if none runs, the state directory.
func (a *app) openWindows(c *cli.Context, cfg config.Config) ([]control.Window, error) {
	st, err := control.NewClient(cfg.Socket).Status(c.Context)
	if err == nil || !errors.Is(err, control.ErrNotRunning) {
		return st.Windows, daemonError(err)
	}
	ws, err := daemon.Windows(cfg)
	return ws, stateError(cfg, err)
}

func (a *app) windowList(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	cfg, _, err := a.fullSettings(c)
	if err != nil { // mistakes in rules: then what a window does not open is not told
		cfg, err = a.settings(c)
	}
	if err != nil {
		return err
	}
	ws, err := a.openWindows(c, cfg)
	if err != nil {
		return err
	}
	t := &table{}
	t.add("WINDOW", "TICKET", "UNTIL", "LEFT", "COVERS", "OPENED BY", "WHAT BLOCKS")
	for i := range ws {
		w := &ws[i]
		if c.Bool("json") {
			if err := a.json(w); err != nil {
				return err
			}
			continue
		}
		blocks := "-"
		if len(w.Unopened) > 0 {
			blocks = "not opened: " + list(w.Unopened)
		}
		if len(w.LetsThrough) > 0 {
			blocks = "lets through: " + list(w.LetsThrough)
		}
		t.add(fmt.Sprint(w.Number), printableText(w.Ticket), when(w.Until), time.Duration(w.LeftNS).Round(time.Second).String(), scopeText(w), printableText(w.By), printableText(blocks))
	}
	switch {
	case c.Bool("json"):
	case len(ws) == 0:
		a.line("no window is open")
	default:
		a.print(t)
	}
	return nil
}

// windowsOf tells which open windows cover a path.
func (a *app) windowsOf(c *cli.Context, cfg config.Config, path string, x *explained) {
	ws, err := a.openWindows(c, cfg)
	if err != nil {
		x.WindowsNote = "whether a window is open is not known: " + err.Error()
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, control.ErrForbidden) {
			x.WindowsNote = "whether a window is open is for root alone"
		}
		return
	}
	x.Windows = slices.DeleteFunc(ws, func(w control.Window) bool { return w.Path != "" && !policy.Covers(string(w.Path), path) })
	if len(x.Windows) > 0 && x.Mode == event.ModeBlock {
		x.WindowsNote = "where a rule blocks, only a window of a person opens it: the kernel refuses others there as before, where the tier can"
	}
}
