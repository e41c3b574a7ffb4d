package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/event"
)

func (a *app) statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "say what the daemon watches, how, and whether anything was lost; exit 5 while degraded",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "wait", Usage: "wait until the daemon is `STATE`; the one state is armed"},
			&cli.DurationFlag{Name: "timeout", Usage: "wait no longer than `DURATION`", DefaultText: "for ever"},
			jsonFlag(),
		},
		Action: a.status,
	}
}

func (a *app) status(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	if w := c.String("wait"); w != "" && w != control.PathArmed {
		return hint(usagef("--wait: unknown state %q", w), "use --wait armed")
	}
	cfg, err := a.settings(c)
	if err != nil {
		return err
	}
	ctx := c.Context
	if d := c.Duration("timeout"); d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	st, err := askStatus(ctx, control.NewClient(cfg.Socket), c.IsSet("wait"))
	if err != nil {
		return daemonError(err)
	}
	if c.Bool("json") {
		if err := a.json(st); err != nil {
			return err
		}
	} else {
		a.printStatus(&st)
	}
	if st.Degraded {
		return silent{errDegraded}
	}
	return nil
}

// askStatus asks once, or with wait until the daemon is armed. A daemon that has
// not made its socket yet is waited for too.
func askStatus(ctx context.Context, client *control.Client, wait bool) (control.Status, error) {
	var before error // why the last question that was answered in time was not enough
	for {
		st, err := client.Status(ctx)
		switch {
		case err == nil && (!wait || st.Armed):
			return st, nil
		case ctx.Err() != nil && before != nil:
			return st, fmt.Errorf("wait for armed: %w", before)
		case err != nil && (!wait || !errors.Is(err, control.ErrNotRunning)) && ctx.Err() == nil:
			return st, err
		}
		if before = err; err == nil {
			before = waiting(&st)
		}
		select {
		case <-ctx.Done():
			return st, fmt.Errorf("wait for armed: %w", before)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// waiting says what keeps a daemon from being armed.
func waiting(st *control.Status) error {
	for _, r := range st.Rules {
		for _, p := range r.Paths {
			if p.State == control.PathEnrolling || p.State == control.PathFailed {
				return fmt.Errorf("rule %s: %s is %s (%d of %d files protected) %s", r.Name, shellQuote(string(p.Path)), p.State, p.Protected, p.Files, p.Reason)
			}
		}
	}
	return errors.New("not armed yet")
}

func (a *app) printStatus(st *control.Status) {
	state, color := "armed", green
	switch {
	case !st.Armed:
		state, color = "not armed yet", yellow
	case st.Degraded:
		state, color = "armed, degraded", yellow
	}
	a.linef("%s  holdfast %s on %s, pid %d, since %s", a.color(color, state), st.Version, st.Host, st.PID, when(st.Started))
	tier := st.Tier
	if st.TierWanted != "" && st.TierWanted != st.Tier && st.TierWanted != "auto" {
		tier += " (wanted: " + st.TierWanted + ")"
	}
	a.linef("tier   %s", tier)
	if st.Guard.On {
		a.linef("guard  on")
	} else {
		a.linef("guard  %s: %s; root can end the daemon and change its files", a.color(yellow, "off"), printableText(st.Guard.Reason))
	}
	for _, r := range st.DegradedReasons {
		a.linef("       %s %s", a.color(yellow, "degraded:"), printableText(r))
	}
	a.line("")
	a.printRules(st)
	a.line("")
	a.printLosses(st)
	a.line("")
	a.printStores(st)
}

func (a *app) printRules(st *control.Status) {
	t := &table{}
	t.add("RULE", "MODE", "STATE", "FILES", "PROTECTED", "PATH")
	for _, r := range st.Rules {
		mode := r.Mode
		if r.EffectiveMode != "" && r.EffectiveMode != r.Mode {
			mode = r.EffectiveMode + " (not " + r.Mode + ")"
		}
		for _, p := range r.Paths {
			t.add(r.Name, mode, p.State, fmt.Sprint(p.Files), fmt.Sprint(p.Protected), strings.TrimSpace(shellQuote(string(p.Path))+"  "+printableText(p.Reason)))
			switch p.State {
			case control.PathArmed:
				t.paint(2, green)
				if p.Protected < p.Files && mode != event.ModeObserve {
					t.paint(4, red)
				}
			case control.PathFailed:
				t.paint(2, red)
			default:
				t.paint(2, yellow)
			}
		}
	}
	a.print(t)
}

// printLosses says in plain words whether the record is complete.
func (a *app) printLosses(st *control.Status) {
	e := st.Events
	a.linef("events  %d seen by %s: %d sent, %d not of interest, %d refused", e.Seen, plural(uint64(len(e.Hooks)), "hook"), e.Sent, e.Skipped, e.Blocked)
	if st.Losses() == 0 {
		a.linef("losses  %s", a.color(green, "none"))
	} else {
		var parts []string
		add := func(n uint64, what string) {
			if n > 0 {
				parts = append(parts, fmt.Sprintf("%d %s", n, what))
			}
		}
		add(e.Lost, "events found no room in the kernel's buffer")
		add(e.Failed, "events could not be put together")
		for _, q := range st.Queues {
			add(q.Dropped, "events found the queue "+q.Name+" full")
		}
		add(st.Journal.Refused, "records found the journal's queue full")
		a.linef("losses  %s", a.color(red, strings.Join(parts, "; ")))
		a.line("        each is declared by a gap record: holdfast log --kind gap")
	}
	a.printGaps(&st.Gaps)
	for _, q := range st.Queues {
		if q.Len*10 >= q.Limit*8 && q.Limit > 0 {
			a.linef("queue   %s is filling up: %d of %d", q.Name, q.Len, q.Limit)
		}
	}
	for _, l := range st.Limits {
		if l.Hit > 0 {
			a.linef("limit   %s (%d) was reached %s", l.Name, l.Value, plural(l.Hit, "time"))
		}
	}
	for _, p := range st.OnDemand {
		if p.Attached {
			a.linef("program %s is attached: %s", p.Name, cmp.Or(strings.Join(p.Reasons, ", "), "no reason any more, it goes soon"))
		}
	}
	for _, h := range st.Held {
		how, since := "open", ""
		if h.Mapped {
			how = "mapped"
		}
		if h.Before {
			since = ", since before it was watched"
		}
		a.linef("held    %s is %s for writing by %s[%d]%s", shellQuote(string(h.Path)), how, printableText(h.Exe), h.PID, since)
	}
	a.printStages(st.Pipeline)
}

// printGaps says why something may have been missed, and whether that is healed.
func (a *app) printGaps(g *control.Gaps) {
	var parts []string
	for _, cause := range slices.Sorted(maps.Keys(g.Causes)) {
		parts = append(parts, fmt.Sprintf("%s %d", cause, g.Causes[cause]))
	}
	if len(parts) > 0 {
		a.linef("        lost by cause: %s", strings.Join(parts, ", "))
	}
	if g.Last == nil && len(g.Open) == 0 {
		return
	}
	if len(g.Open) == 0 {
		a.linef("gaps    %s, the last: %s", a.color(green, "all healed"), gapLine(g.Last))
		return
	}
	a.linef("gaps    %s, %d healed", a.color(red, plural(uint64(len(g.Open)), "gap")+" open"), g.Healed)
	for i := range g.Open {
		line := gapLine(&g.Open[i])
		if n := g.Open[i].Tries; n > 0 {
			line += fmt.Sprintf("; compared %s, not all could be", plural(uint64(n), "time"))
		}
		a.linef("        %s", line)
	}
}

func gapLine(g *control.Gap) string {
	s := fmt.Sprintf("%s to %s, %s", when(g.From), when(g.To), strings.Join(g.Causes, ", "))
	if g.Lost > 0 {
		s += ", " + plural(g.Lost, "event")
	}
	if len(g.Trees) > 0 {
		s += ", under " + quoteAll(g.Trees)
	}
	return s
}

// printStages prints the counters that moved, a line for each stage.
func (a *app) printStages(counters map[string]uint64) {
	keys := slices.Sorted(maps.Keys(counters))
	for i := 0; i < len(keys); {
		stage, _, _ := strings.Cut(keys[i], "_")
		var moved []string
		for ; i < len(keys) && strings.HasPrefix(keys[i], stage+"_"); i++ {
			if n := counters[keys[i]]; n != 0 {
				moved = append(moved, fmt.Sprintf("%s %d", strings.TrimPrefix(keys[i], stage+"_"), n))
			}
		}
		if i < len(keys) && keys[i] == stage { // a counter without a part
			moved = append(moved, fmt.Sprint(counters[stage]))
			i++
		}
		if len(moved) > 0 {
			a.linef("%s %s", pad(stage, 9), strings.Join(moved, ", "))
		}
	}
}

func (a *app) printStores(st *control.Status) {
	j := st.Journal
	line := fmt.Sprintf("journal %s, %s in %s, signed up to %d", plural(j.Seq, "record"), bytesText(j.Bytes), plural(uint64(j.Segments), "segment"), j.Checkpoint)
	if n := j.Seq - min(j.Seq, j.Durable); n > 0 {
		line += fmt.Sprintf(", %d not on disk yet", n)
	}
	if j.First > 1 {
		line += fmt.Sprintf(", the first %d expired", j.First-1)
	}
	a.line(line)
	if j.Keys > 0 {
		a.linef("        signing with key %d since %s", j.Keys, when(j.KeySince))
	}
	a.linef("        %s free, %s kept back", bytesText(j.DiskFree), bytesText(j.Reserve))
	if j.Errors > 0 {
		a.linef("        %s", a.color(red, plural(j.Errors, "write error")+", last: "+printableText(j.LastError)))
	}
	for i := range st.Windows {
		a.linef("window  %s", windowLine(&st.Windows[i]))
	}
	for _, p := range st.Plans {
		line := fmt.Sprintf("%s of %s, begun %s: %s", p.Action, plural(uint64(p.Steps), "path"), when(p.Begun), p.State)
		if p.State == control.PlanWentOn {
			line += fmt.Sprintf(" after it was cut off: %d done before, %d then, %d failed", p.Before, p.Done, p.Failed)
		}
		a.linef("plan    %s", line)
	}
	a.linef("index   %s", lagText(st.Index.Lag))
	if st.Index.LastError != "" {
		a.linef("        %s", a.color(yellow, printableText(st.Index.LastError)))
	}
	if s := st.Ship; s.Enabled {
		state := "connected"
		if !s.Connected {
			state = a.color(yellow, "not connected")
		}
		a.linef("ship    %s, up to record %d, %s", state, s.Shipped, lagText(s.Lag))
		if s.LastError != "" {
			a.linef("        last error: %s", printableText(s.LastError))
		}
	} else {
		a.line("ship    off: no ClickHouse is configured")
	}
	for _, p := range st.Published {
		a.linef("proof   checkpoint of record %d sent to %s", p.Size, printableText(p.To))
		if p.LastError != "" {
			a.linef("        last error: %s", printableText(p.LastError))
		}
	}
	v := st.Vault
	a.linef("vault   %s of %s, %s in %s of disk", plural(v.Versions, "version"), plural(v.Paths, "path"), bytesText(v.Bytes), bytesText(v.Stored))
	a.line(retentionText(&v.Retention))
}

// retentionText tells for how long versions stay.
func retentionText(r *control.Retention) string {
	text := fmt.Sprintf("        kept: the newest %d of each path", r.KeepVersions)
	if r.KeepDays > 0 {
		text += fmt.Sprintf(", and for %s after it was replaced", plural(uint64(r.KeepDays), "day"))
	} else {
		text += ", and all for ever"
	}
	if r.Holds > 0 {
		text += fmt.Sprintf("; %s: holdfast hold list", plural(uint64(r.Holds), "hold"))
	}
	if r.Pruned != 0 {
		text += fmt.Sprintf("; pruned %s: %s, %s", when(r.Pruned), plural(uint64(r.Versions), "version"), bytesText(uint64(r.Bytes)))
	}
	return text
}

func lagText(lag uint64) string {
	if lag == 0 {
		return "up to date"
	}
	return plural(lag, "record") + " behind"
}
