package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/rollback"
)

// diffFlag makes restore and undo print what a plan would change.
func diffFlag() cli.Flag {
	return boolFlag("diff", "with --dry-run: print what each step would change")
}

// planDiffs prints for each planned step what differs between what is there and
// what would be. The content that is there is read from the path, or
// from the vault if the plan moves it there first.
func (a *app) planDiffs(c *cli.Context, o *control.Outcome) (err error) {
	cfg, err := a.settings(c)
	if err != nil {
		return err
	}
	vault, err := a.openVault(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, vault.Close()) }()
	for i := range o.Steps {
		s := &o.Steps[i]
		if s.Have == nil || s.Want == nil || s.Action == rollback.ActionRename || s.Action == rollback.ActionRelink {
			continue
		}
		a.linef("%s: %s", shellQuote(string(s.Path)), s.Action)
		for _, name := range s.Have.Diff(s.Want) {
			a.metaDiff(name, s.Have, s.Want)
		}
		if s.Have.Hash == s.Want.Hash || s.Have.Hash.IsZero() && s.Want.Hash.IsZero() {
			continue
		}
		have := side{name: "now", state: *s.Have, hash: s.Have.Hash, vault: vault}
		if live, err := pick(c.Context, vault, string(s.Path), "now"); err == nil && live.hash == have.hash {
			have = live
		}
		if !s.Want.Hash.IsZero() {
			ok, err := vault.Has(s.Want.Hash)
			if err != nil {
				return fmt.Errorf("show the plan: %w", err)
			}
			if !ok {
				a.line("  the content is put together from several when the step is taken")
				continue
			}
		}
		want := side{name: "then", state: *s.Want, hash: s.Want.Hash, vault: vault}
		if err := a.contentDiff(string(s.Path), &have, &want); err != nil {
			return fmt.Errorf("show the plan: %w", err)
		}
	}
	return nil
}
