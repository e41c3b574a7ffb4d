package daemon_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/rollback"
)

// TestTrustOfWhatNoRuleCoversChangesNothingAndSaysSo compares with the vault.
func TestTrustOfWhatNoRuleCoversChangesNothingAndSaysSo(t *testing.T) {
	cfg, tree := watching(t)
	top := filepath.Dir(tree)
	outside := filepath.Join(top, "outside")
	write(t, outside, "nobody's\n")
	d := startWith(t, cfg)
	trust := func(path string) (control.Outcome, error) {
		return d.client.Trust(t.Context(), control.TrustRequest{Paths: []control.Path{control.Path(path)}, Reason: "looked at it"})
	}
	out, err := trust(outside)
	if !errors.Is(err, control.ErrNotFound) || !strings.Contains(err.Error(), "no rule covers it") || !strings.Contains(err.Error(), "nothing was changed") || len(out.Steps) > 0 {
		t.Errorf("a path that no rule covers: %+v, %v", out, err)
	}
	for _, dir := range []string{tree, filepath.Join(tree, "conf")} {
		if out, err = trust(dir); err != nil || len(out.Steps) == 0 || len(out.Notes) > 0 {
			t.Errorf("%s: %+v, %v", dir, out, err)
		}
	}
	d.stop()
	v, err := rollback.OpenReadOnly(filepath.Join(cfg.State, "vault"))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for _, p := range v.Paths("") {
		if p != tree && filepath.Dir(p) != tree {
			t.Errorf("the vault has versions of %s", p)
		}
	}
}

// TestTrustOfADirectoryAboveARuleLeavesTheRestAlone: only what a rule covers can be put back.
func TestTrustOfADirectoryAboveARuleLeavesTheRestAlone(t *testing.T) {
	cfg, tree := watching(t)
	write(t, filepath.Join(tree, "sub"), "below\n")
	cfg.Rules[0].Paths = []string{filepath.Join(tree, "conf")}
	d := startWith(t, cfg)
	out, err := d.client.Trust(t.Context(), control.TrustRequest{Paths: []control.Path{control.Path(tree)}, Reason: "looked at it"})
	if err != nil || len(out.Steps) != 1 || string(out.Steps[0].Path) != filepath.Join(tree, "conf") {
		t.Errorf("%+v, %v", out, err)
	}
	if len(out.Notes) != 1 || !strings.Contains(out.Notes[0], "no rule covers 2 of 3 paths") {
		t.Errorf("notes %q", out.Notes)
	}
}
