package rehash

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestFilesWithNamesOutsideAreFoundAndForgotten(t *testing.T) {
	dir := t.TempDir()
	tree, out := filepath.Join(dir, "tree"), filepath.Join(dir, "out")
	do(t, errors.Join(os.MkdirAll(filepath.Join(tree, "d"), 0o755), os.Mkdir(out, 0o755)))
	at := func(name string) string { return filepath.Join(tree, name) }
	for _, f := range []string{"alone", "inside", "d/outside", "both"} {
		do(t, os.WriteFile(at(f), []byte(f), 0o644))
	}
	do(t, errors.Join(os.Link(at("inside"), at("inside2")), os.Link(at("d/outside"), filepath.Join(out, "o")),
		os.Link(at("both"), at("both2")), os.Link(at("both"), filepath.Join(out, "b"))))
	r := New(Options{Now: func() uint64 { return 1 }})
	if _, errs, err := r.Enrol(t.Context(), Tree{Root: tree}); err != nil || len(errs) > 0 {
		t.Fatal(err, errs)
	}
	outside := func() []string {
		paths, missed := r.Outside(t.Context())
		if missed != 0 {
			t.Errorf("%d missed", missed)
		}
		return paths
	}
	if got, want := outside(), []string{at("both"), at("d/outside")}; !slices.Equal(got, want) {
		t.Fatalf("%q, want %q", got, want)
	}
	do(t, errors.Join(os.Remove(filepath.Join(out, "b")), os.Remove(filepath.Join(out, "o"))))
	if got := outside(); len(got) != 0 {
		t.Errorf("%q, want none: their other names are gone", got)
	}
	gen := r.Links()
	do(t, os.Link(at("alone"), filepath.Join(out, "a")))
	if r.Differs(t.Context(), at("alone")) {
		t.Error("a link makes no difference to a file")
	}
	if got, want := outside(), []string{at("alone")}; !slices.Equal(got, want) || r.Links() == gen {
		t.Errorf("%q, want %q; links %d, before %d", got, want, r.Links(), gen)
	}
}
