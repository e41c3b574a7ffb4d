package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/rollback"
)

func (a *app) fsckCommand() *cli.Command {
	return &cli.Command{
		Name:  "fsck",
		Usage: "check the vault: what versions need is there, reads back, and is as it was; exit 6 if not",
		Flags: []cli.Flag{
			boolFlag("repair", "mend what can be mended; the daemon must not run"),
			jsonFlag(),
		},
		Action: a.fsck,
	}
}

func (a *app) fsck(c *cli.Context) (err error) {
	if err := noArgs(c); err != nil {
		return err
	}
	cfg, err := a.settings(c)
	if err != nil {
		return err
	}
	repair := c.Bool("repair")
	if repair && control.NewClient(cfg.Socket).Ping(c.Context) == nil {
		return hint(errors.New("fsck --repair: the daemon is running"), "holdfast stop --reason TEXT first; without --repair it reads beside the daemon")
	}
	vault, err := a.openVault(cfg)
	if repair && err == nil {
		err = vault.Close()
		if err == nil {
			vault, err = rollback.Open(cfg.VaultDir(), rollback.Options{Now: a.now, EvidenceDir: cfg.EvidenceDir(), EvidenceMax: int64(cfg.Limits.Evidence), ReserveBytes: int64(cfg.Limits.Reserve)})
		}
		if errors.Is(err, rollback.ErrLocked) {
			return hint(err, "holdfast stop --reason TEXT first; holdfast fsck without --repair reads beside it")
		}
	}
	if err != nil {
		return stateError(cfg, err)
	}
	defer func() { err = errors.Join(err, vault.Close()) }()

	found, mended, harmless := 0, 0, 0
	var printErr error
	err = vault.Fsck(c.Context, repair, func(p rollback.Problem) {
		found++
		switch {
		case p.Repaired:
			mended++
		case p.Kind == rollback.ProblemOrphan || p.Kind == rollback.ProblemStray:
			harmless++
		}
		if c.Bool("json") {
			printErr = errors.Join(printErr, a.json(p))
			return
		}
		a.printProblem(&p)
	})
	if err = errors.Join(err, printErr); err != nil {
		return fmt.Errorf("fsck %s: %w", shellQuote(cfg.VaultDir()), err)
	}
	if !c.Bool("json") {
		st := vault.Stats()
		a.linef("%s of %s, %s in %s", plural(uint64(st.Versions), "version"), plural(uint64(st.Paths), "path"), plural(uint64(st.Objects), "object"), bytesText(uint64(st.Stored)))
		if found == 0 {
			a.linef("%s", a.color(green, "clean"))
		} else {
			a.linef("%s", a.color(red, fmt.Sprintf("%s, %d mended, %d harmless", plural(uint64(found), "problem"), mended, harmless)))
		}
	}
	if found > mended+harmless {
		return silent{errUnproven}
	}
	return nil
}

func (a *app) printProblem(p *rollback.Problem) {
	color := red
	if p.Repaired || p.Kind == rollback.ProblemOrphan || p.Kind == rollback.ProblemStray {
		color = yellow
	}
	text := p.Detail
	if p.Repaired {
		text += "; mended"
	}
	a.linef("%s  %s  %s", a.color(color, pad(p.Kind, 9)), printableText(p.Object), printableText(text))
	for _, path := range p.Paths {
		a.linef("           concerns %s", shellQuote(path))
	}
}
