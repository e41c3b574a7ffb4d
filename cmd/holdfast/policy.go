package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/policy"
)

func (a *app) policyCommand() *cli.Command {
	return &cli.Command{
		Name:  "policy",
		Usage: "check rules, explain which one holds, show them",
		Subcommands: []*cli.Command{
			{Name: "check", Usage: "check a policy file or directory, by default the configured rules", ArgsUsage: "[FILE]", Flags: []cli.Flag{jsonFlag()}, Action: a.policyCheck},
			{Name: "explain", Usage: "say which rule holds for a path, and why", ArgsUsage: "PATH", Flags: []cli.Flag{jsonFlag(), fileFlag()}, Action: a.policyExplain},
			{Name: "show", Usage: "print the rules as they are understood", Flags: []cli.Flag{jsonFlag(), fileFlag()}, Action: a.policyShow},
		},
	}
}

func fileFlag() cli.Flag {
	return &cli.StringFlag{Name: "file", Usage: "take the rules from `FILE` instead of the configuration"}
}

// rules loads the configured policy, or that of file.
func (a *app) rules(c *cli.Context, file string) (*policy.Policy, config.Config, error) {
	if file == "" {
		cfg, found, err := a.fullSettings(c)
		if err == nil && !found {
			err = a.configMissing()
		}
		if err != nil {
			return nil, cfg, err
		}
		p, err := cfg.Policy()
		if err != nil {
			return nil, cfg, usageError{err}
		}
		return p, cfg, nil
	}
	cfg, err := a.settings(c)
	if err != nil {
		return nil, cfg, err
	}
	p, err := policy.Load(file)
	if err != nil {
		return nil, cfg, configError(err)
	}
	p.Own = []string{cfg.State}
	return p, cfg, nil
}

func (a *app) configMissing() error {
	return hint(usagef("there is no configuration: %s does not exist", a.file), "name a file with --config, or a policy file")
}

func (a *app) policyCheck(c *cli.Context) error {
	if err := someArgs(c, "[FILE]", 0, 1); err != nil {
		return err
	}
	p, _, err := a.rules(c, c.Args().First())
	if err != nil {
		return err
	}
	fatal := 0
	for _, prob := range p.Check(policy.System(p.Own...)) {
		if prob.Fatal {
			fatal++
		}
		if c.Bool("json") {
			if err := a.json(prob); err != nil {
				return err
			}
			continue
		}
		what := a.color(yellow, "note")
		if prob.Fatal {
			what = a.color(red, "error")
		}
		a.linef("%s: %s", what, printableText(prob.String()))
		if prob.Hint != "" {
			a.linef("hint: %s", printableText(prob.Hint))
		}
	}
	if fatal > 0 {
		return usageError{fmt.Errorf("%s cannot be loaded", plural(uint64(fatal), "rule"))}
	}
	if !c.Bool("json") {
		a.linef("%s, %s: ok", plural(uint64(len(p.Rules)), "rule"), plural(uint64(countPaths(p)), "path"))
	}
	return nil
}

func countPaths(p *policy.Policy) int {
	n := 0
	for i := range p.Rules {
		n += len(p.Rules[i].Paths)
	}
	return n
}

// explained is what policy explain --json prints.
type explained struct {
	Path       string          `json:"path"`
	Rule       string          `json:"rule,omitempty"`
	Mode       string          `json:"mode,omitempty"`
	Root       string          `json:"root,omitempty"`
	Held       string          `json:"held,omitempty"`
	Pos        string          `json:"pos,omitempty"`
	Why        string          `json:"why"`
	State      string          `json:"state,omitempty"`   // new, captured, verified, armed
	Version    uint64          `json:"version,omitempty"` // that a restore brings back
	Detail     string          `json:"detail,omitempty"`  // why it is in that state
	Considered []consideration `json:"considered,omitempty"`

	Windows     []control.Window `json:"windows,omitempty"`      // open ones that cover the path
	WindowsNote string           `json:"windows_note,omitempty"` // why that is not known, or what they do not do
}

type consideration struct {
	Rule   string `json:"rule"`
	Mode   string `json:"mode"`
	Root   string `json:"root"`
	Except string `json:"except,omitempty"`
}

func (a *app) policyExplain(c *cli.Context) error {
	if err := someArgs(c, "PATH", 1, 1); err != nil {
		return err
	}
	p, cfg, err := a.rules(c, c.String("file"))
	if err != nil {
		return err
	}
	path, err := absolute(c.Args().First())
	if err != nil {
		return err
	}
	e := p.Explain(path)
	x := explained{Path: event.Text([]byte(path)), Why: e.Why}
	if e.Match != nil {
		x.Rule, x.Mode, x.Root, x.Pos = e.Match.Rule.Name, e.Match.Rule.Mode, event.Text([]byte(e.Match.Root)), e.Match.Rule.Pos
		x.Held = e.Match.Rule.Held
		if err := a.stateOf(c.Context, cfg, path, &x); err != nil {
			return err
		}
	}
	if e.Match != nil {
		a.windowsOf(c, cfg, path, &x)
	}
	for _, cand := range e.Candidates {
		x.Considered = append(x.Considered, consideration{cand.Rule.Name, cand.Rule.Mode, event.Text([]byte(cand.Root)), event.Text([]byte(cand.Except))})
	}
	if c.Bool("json") {
		err = a.json(x)
	} else {
		a.printExplained(path, &x, e)
	}
	if err == nil && e.Match == nil {
		return silent{errNotFound}
	}
	return err
}

func (a *app) printExplained(path string, x *explained, e policy.Explanation) {
	if e.Match == nil {
		a.linef("%s: %s", shellQuote(path), printableText(x.Why))
	} else {
		a.linef("%s: %s (%s), because it %s", shellQuote(path), a.color(bold, x.Mode), x.Rule, printableText(x.Why))
		color := green
		if x.State != control.PathArmed {
			color = yellow
			if x.Mode != event.ModeObserve && x.State != stateVerified {
				color = red
			}
		}
		a.linef("  %s: %s", a.color(color, x.State), printableText(x.Detail))
		if x.Pos != "" {
			a.linef("  written at %s", printableText(x.Pos))
		}
		if len(e.Match.Rule.Allow) > 0 {
			a.linef("  expected from %s", quoteAll(e.Match.Rule.Allow))
		}
		if x.Held != "" && x.Held != policy.HeldReport {
			a.linef("  held: %s: who had it open or mapped for writing before it was watched is %s", x.Held, map[string]string{policy.HeldFreeze: "stopped (SIGSTOP)", policy.HeldKill: "ended (SIGKILL)"}[x.Held])
		}
	}
	for i := range x.Windows {
		a.linef("  window %s", windowLine(&x.Windows[i]))
	}
	if x.WindowsNote != "" {
		a.linef("  %s", printableText(x.WindowsNote))
	}
	for _, k := range x.Considered {
		switch {
		case k.Except != "":
			a.linef("  considered %s (%s) for %s: left out by except %s", k.Rule, k.Mode, pathText(k.Root), pathText(k.Except))
		case k.Rule != x.Rule:
			a.linef("  considered %s (%s) for %s: less near", k.Rule, k.Mode, pathText(k.Root))
		}
	}
}

func (a *app) policyShow(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	p, _, err := a.rules(c, c.String("file"))
	if err != nil {
		return err
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		if c.Bool("json") {
			shown := *r
			shown.Paths, shown.Except, shown.Allow = texts(r.Paths), texts(r.Except), texts(r.Allow)
			err = errors.Join(err, a.json(shown))
			continue
		}
		a.linef("%s  %s  %s", a.color(bold, r.Name), r.Mode, a.color(dim, printableText(r.Pos)))
		for _, path := range r.Paths {
			a.linef("  path    %s", shellQuote(path))
		}
		for _, ex := range r.Except {
			a.linef("  except  %s", shellQuote(ex))
		}
		for _, exe := range r.Allow {
			a.linef("  allow   %s", shellQuote(exe))
		}
		if r.Held != policy.HeldReport {
			a.linef("  held    %s", r.Held)
		}
	}
	return err
}

func texts(raw []string) []string {
	var out []string
	for _, s := range raw {
		out = append(out, event.Text([]byte(s)))
	}
	return out
}

func quoteAll(words []string) string {
	var out []string
	for _, w := range words {
		out = append(out, shellQuote(w))
	}
	return list(out)
}
