package rehash

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
)

// A rename stands for a mount as well: another directory is at the path.
func TestWhatIsHiddenForAWhileIsKnownAgainWhenItIsBack(t *testing.T) {
	dir := t.TempDir()
	root, away := filepath.Join(dir, "root"), filepath.Join(dir, "away")
	at := func(name string) string { return filepath.Join(root, name) }
	do(t, os.MkdirAll(at("d"), 0o755))
	for _, f := range []string{"both", "kept", "lost", "changed", "d/inner"} {
		do(t, os.WriteFile(at(f), []byte(f), 0o644))
	}
	r := New(Options{Now: func() uint64 { return 1 }})
	tree := Tree{Root: root}
	if _, errs, err := r.Enrol(t.Context(), tree); err != nil || len(errs) > 0 {
		t.Fatal(err, errs)
	}
	swap := func(wantWent, wantCame bool) {
		t.Helper()
		before, after, swapped := r.Swap(tree)
		if swapped != (wantWent || wantCame) || before.Exists != wantWent || after.Exists != wantCame {
			t.Errorf("%v: from %+v to %+v; want that it went: %v, came: %v", swapped, before, after, wantWent, wantCame)
		}
	}
	differ := func(want ...string) {
		t.Helper()
		got := make(map[string]bool)
		if _, err := r.Suspects(t.Context(), tree, func(path string) error {
			if r.Differs(t.Context(), path) {
				got[path[len(dir)+1:]] = true
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if g := slices.Sorted(maps.Keys(got)); !slices.Equal(g, want) {
			t.Errorf("%q differ, want %q", g, want)
		}
	}
	n := r.Stats().Paths

	// nothing is there, and then the same again
	do(t, os.Rename(root, away))
	swap(true, false)
	differ()
	do(t, os.Rename(away, root))
	swap(false, true)
	differ()
	if got := r.Stats().Paths; got != n {
		t.Errorf("%d paths are known, want %d", got, n)
	}

	// another directory is there for a while, and the first one does not stay as it was
	do(t, errors.Join(os.Rename(root, away), os.Mkdir(root, 0o755),
		os.WriteFile(at("both"), []byte("of the other"), 0o644), os.WriteFile(at("new"), nil, 0o644)))
	swap(false, false)
	differ("root/both", "root/new")
	do(t, r.Refresh(t.Context(), root))
	do(t, errors.Join(os.Rename(root, filepath.Join(dir, "other")), os.Rename(away, root),
		os.Remove(at("lost")), os.WriteFile(at("changed"), []byte("changes"), 0o644)))
	swap(false, false)
	differ("root/both", "root/changed", "root/lost")

	// the other one comes back
	do(t, r.Refresh(t.Context(), root))
	do(t, errors.Join(os.Rename(root, away), os.Rename(filepath.Join(dir, "other"), root)))
	swap(false, false)
	differ("root/both")
}

// What is only observed keeps what is below it when it is renamed away.
func TestARootThatWasRenamedAwayIsTheSameWhenItIsBack(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	file := filepath.Join(root, "file")
	nested := filepath.Join(root, "nested") // a tree of its own
	do(t, errors.Join(os.MkdirAll(nested, 0o755), os.WriteFile(file, []byte("text"), 0o644), os.WriteFile(filepath.Join(nested, "file"), nil, 0o644)))
	now := uint64(1)
	tree := Tree{Root: root, Skip: func(path string) bool { return path == nested || filepath.Dir(path) == nested }}
	r := New(Options{Now: func() uint64 { return now }, Returns: func(path string) (Tree, bool) { return tree, path == root }})
	if _, errs, err := r.Enrol(t.Context(), Tree{Root: nested}); err != nil || len(errs) > 0 {
		t.Fatal(err, errs)
	}
	if _, errs, err := r.Enrol(t.Context(), tree); err != nil || len(errs) > 0 {
		t.Fatal(err, errs)
	}
	do(t, os.Rename(root, root+".away"))
	now = 100
	f, err := r.Check(t.Context(), &event.Change{Op: event.OpRename, Ops: []event.Op{event.OpRename}, Path: root, Dir: true, First: 50, Last: 50, Count: 1},
		func(string) Later { return Later{} }, false)
	do(t, err)
	if !f.Changed || f.After.Exists || len(f.Below) != 0 {
		t.Errorf("%+v", f)
	}
	if e, _ := r.Known().Get(file); e.State.Exists {
		t.Error("the file is known to be there")
	}
	if e, _ := r.Known().Get(filepath.Join(nested, "file")); !e.State.Exists {
		t.Error("the file of another tree is not known any more, and will not be missed")
	}
	do(t, os.Rename(root+".away", root))
	if before, after, swapped := r.Swap(tree); !swapped || before.Exists || !after.Exists {
		t.Errorf("%v: from %+v to %+v", swapped, before, after)
	}
	same := func() {
		t.Helper()
		for _, path := range []string{root, file} {
			if r.Differs(t.Context(), path) {
				t.Errorf("%s differs", path)
			}
		}
	}
	same()

	// away and back before anybody looks
	later := func(string) Later { return Later{} }
	_, err = r.Check(t.Context(), &event.Change{Op: event.OpRename, Ops: []event.Op{event.OpRename}, Path: root, Dir: true, First: 150, Last: 150, Count: 1}, later, false)
	do(t, err)
	now = 200
	f, err = r.Check(t.Context(), &event.Change{Op: event.OpOpen, Path: root, First: 200, Last: 200}, later, false)
	do(t, err)
	if !f.Changed || f.Op != event.OpRename || len(f.Inside) != 0 || !slices.Equal(f.Compare, []string{root}) {
		t.Errorf("%+v", f)
	}
	same()
}
