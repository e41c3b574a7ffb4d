package main

import (
	"fmt"
	"io/fs"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/daemon"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/kernel"
)

func (a *app) doctorCommand() *cli.Command {
	return &cli.Command{
		Name:   "doctor",
		Usage:  "try what this kernel can do and say what each missing thing costs; exit 5 if the rules ask for more",
		Flags:  []cli.Flag{jsonFlag(), &cli.StringFlag{Name: "tier", Usage: "try the programs of this tier instead of the best one that works"}},
		Action: a.doctor,
	}
}

// finding is one capability as doctor --json prints it.
type finding struct {
	Name  string `json:"name"`
	Found bool   `json:"found"`
	Error string `json:"error,omitempty"`
	Cost  string `json:"cost,omitempty"`
	For   string `json:"for,omitempty"` // the tier that needs it; none: all do

	// Of a program of a tier only.
	Tier  string `json:"tier,omitempty"`
	Hook  string `json:"hook,omitempty"`  // the kernel's function that it is attached to
	Steps int    `json:"steps,omitempty"` // instructions that the verifier followed
}

func (a *app) doctor(c *cli.Context) error {
	if err := noArgs(c); err != nil {
		return err
	}
	cfg, found, err := a.fullSettings(c)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return hint(fmt.Errorf("doctor: %w: only root may load the programs that it tries", fs.ErrPermission), "run as root")
	}
	report := probe(c.Context)
	t := &table{}
	for _, f := range findings(cfg, report) {
		if err := a.finding(c, t, f); err != nil {
			return err
		}
	}
	tier := report.Tier
	if c.IsSet("tier") {
		tier = c.String("tier")
	}
	loaded, lacking, tried := a.doctorPrograms(c, t, tier)
	if c.Bool("json") {
		if err := a.json(map[string]string{"name": "tier", "tier": report.Tier, "release": report.Release}); err != nil {
			return err
		}
	} else {
		a.print(t)
		a.linef("best tier on linux %s: %s", report.Release, a.color(bold, orNone(report.Tier)))
		if loaded > 0 {
			a.linef("programs of tier %s: %d loaded, %d lacking", tier, loaded, lacking)
		}
	}
	if found {
		if err := a.doctorRules(cfg, report.Tier); err != nil {
			return err
		}
	}
	if report.Tier == "" {
		return hint(fmt.Errorf("no tier works on this kernel: %w", errDegraded), "a kernel with BTF (CONFIG_DEBUG_INFO_BTF=y) is the least that is needed")
	}
	if tried != nil {
		return tried
	}
	if lacking > 0 {
		return fmt.Errorf("%d programs of tier %s are lacking: %w", lacking, tier, errDegraded)
	}
	return nil
}

// findings are the capabilities, and the guard that follows from them.
func findings(cfg config.Config, report kernel.Report) []finding {
	var out []finding
	for _, k := range report.Capabilities {
		out = append(out, finding{Name: k.Name, Found: k.Found, Error: text(k.Err), Cost: k.Cost, For: k.For})
	}
	tier := cfg.Tier
	if tier == config.TierAuto {
		tier = report.Tier
	}
	guard := finding{Name: "guard", Found: cfg.Guard && canBlock(tier), Cost: "root can end the daemon and change its files"}
	switch {
	case !cfg.Guard:
		guard.Error = "it is switched off (guard: false)"
	case !guard.Found:
		guard.Error = "tier " + orNone(tier) + " cannot refuse"
	}
	return append(out, guard)
}

func canBlock(tier string) bool { return tier == config.TierLSM || tier == config.TierModifyReturn }

// doctorPrograms tries each program of tier. The table gets those that cost
// something to lack, JSON gets all.
func (a *app) doctorPrograms(c *cli.Context, t *table, tier string) (loaded, lacking int, err error) {
	if tier == "" {
		return 0, 0, nil
	}
	programs, err := daemon.Try(tier)
	if err != nil {
		return 0, 0, err
	}
	for _, p := range programs {
		if p.Err == nil {
			loaded++
		}
		if p.Cost != "" {
			lacking++
		}
		if p.Cost == "" && !c.Bool("json") {
			continue
		}
		if err := a.finding(c, t, finding{Name: p.Name, Found: p.Err == nil, Error: text(p.Err), Cost: p.Cost, Tier: tier, Hook: p.Hook, Steps: p.Steps}); err != nil {
			return loaded, lacking, err
		}
	}
	return loaded, lacking, nil
}

// finding adds f to the table, or prints it as JSON.
func (a *app) finding(c *cli.Context, t *table, f finding) error {
	if c.Bool("json") {
		return a.json(f)
	}
	state, color, cost := "yes", green, ""
	if !f.Found {
		state, color, cost = "no", yellow, "without it: "+f.Cost
		if f.Error != "" {
			cost += "  (" + f.Error + ")"
		}
	}
	t.add(f.Name, state, printableText(cost))
	t.paint(1, color)
	return nil
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func orNone(tier string) string {
	if tier == "" {
		return "none"
	}
	return tier
}

// doctorRules compares what the rules ask for with what the tier can do.
func (a *app) doctorRules(cfg config.Config, tier string) error {
	if cfg.Tier != config.TierAuto && cfg.Tier != tier {
		return fmt.Errorf("tier %s is configured, the best that works is %s: %w", cfg.Tier, orNone(tier), errDegraded)
	}
	if canBlock(tier) {
		return nil
	}
	for i := range cfg.Rules {
		if r := &cfg.Rules[i]; r.Mode == event.ModeBlock {
			return hint(fmt.Errorf("%s: rule %s says block, which tier %s cannot do: %w", r.Pos, r.Name, orNone(tier), errDegraded),
				"changes will be put back instead of refused")
		}
	}
	return nil
}
