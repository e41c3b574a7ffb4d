package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/daemon"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/policy"
	"github.com/holdfast/holdfast/rollback"
)

func (a *app) runCommand() *cli.Command {
	return &cli.Command{
		Name:  "run",
		Usage: "run the daemon in the foreground",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "watch", Usage: "watch `PATH=MODE` too (observe, restore or block); may be repeated"},
			&cli.StringFlag{Name: "tier", Usage: "see events through `NAME`: " + list(config.Tiers())},
			&cli.StringFlag{Name: "log-level", Usage: "log from `LEVEL` on: debug, info, warn, error"},
		},
		Action: a.runDaemon,
	}
}

func (a *app) runDaemon(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	cfg, err := a.daemonSettings(c)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return hint(fmt.Errorf("run: %w: Holdfast loads programs into the kernel and changes files of all users", fs.ErrPermission), "run as root")
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
		return usagef("log level: %w", err)
	}
	log := slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}))
	return runError(cfg, runDaemon(c.Context, cfg, log))
}

// daemonSettings is the configuration with the flags of run laid over it.
func (a *app) daemonSettings(c *cli.Context) (config.Config, error) {
	cfg, found, err := a.fullSettings(c)
	if err != nil {
		return cfg, err
	}
	watches := c.StringSlice("watch")
	if !found && len(watches) == 0 {
		return cfg, hint(usagef("there is no configuration: %s does not exist", a.file),
			"name a tree with --watch PATH=MODE, for example holdfast run --watch /etc=restore", "or name a file with --config")
	}
	for _, w := range watches {
		r, err := watchRule(w)
		if err != nil {
			return cfg, usageError{err}
		}
		cfg.Rules = append(cfg.Rules, r)
	}
	if t := c.String("tier"); t != "" {
		if !slices.Contains(config.Tiers(), t) {
			return cfg, hint(usagef("--tier: unknown tier %q", t), "use "+list(config.Tiers()))
		}
		cfg.Tier = t
	}
	if l := c.String("log-level"); l != "" {
		cfg.LogLevel = l
	}
	if err := cfg.Check(); err != nil {
		return cfg, usageError{err}
	}
	if len(cfg.Rules) == 0 {
		return cfg, hint(usagef("there are no rules: nothing would be watched"), "add rules: to the configuration or a file to "+shellQuote(cfg.RulesDir)+", or use --watch PATH=MODE")
	}
	return cfg, nil
}

// watchRule reads --watch. A relative path is taken from the working directory,
// as a shell's user means it.
func watchRule(s string) (policy.Rule, error) {
	if i := strings.LastIndexByte(s, '='); i > 0 && !filepath.IsAbs(s) {
		abs, err := filepath.Abs(s[:i])
		if err != nil {
			return policy.Rule{}, fmt.Errorf("--watch %s: %w", s, err)
		}
		s = abs + s[i:]
	}
	i := strings.LastIndexByte(s, '=')
	if i <= 0 {
		return policy.ParseWatch(s)
	}
	// A shell gives bytes; a rule holds text.
	return policy.ParseWatch(event.Text([]byte(s[:i])) + s[i:])
}

// runError adds what to do to the reasons why a daemon does not start.
func runError(cfg config.Config, err error) error {
	switch {
	case errors.Is(err, control.ErrInUse):
		return hint(err, "holdfast status asks it; give a second daemon its own --socket and --state")
	case errors.Is(err, journal.ErrLocked), errors.Is(err, rollback.ErrLocked):
		return hint(err, "another holdfast uses "+shellQuote(cfg.State)+": stop it, or give this one its own --state")
	case errors.Is(err, daemon.ErrTier):
		return hint(err, "holdfast doctor says what this kernel can do; --tier auto takes the best that works")
	case errors.Is(err, journal.ErrTampered), errors.Is(err, journal.ErrKey):
		return hint(err, "holdfast verify names what is wrong; keep the state directory as evidence and start with another --state")
	case errors.Is(err, journal.ErrOtherHost):
		return hint(err, "this state directory was written on another machine: use another --state, and keep this one to read it with holdfast log --state")
	}
	return stateError(cfg, err)
}
