package coalesce

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
)

// The tier that follows calls by name looks where a name leads when the call is over:
// a root is known by its inode then, and may have its name again.
func TestARenameOfARootIsPlacedWheneverItIsLookedAt(t *testing.T) {
	w := newWorld(t)
	tree, aside := filepath.Join(w.dir, "w"), filepath.Join(w.dir, "aside")
	above := root(t, tree, "w", 1)
	above.Above = true
	for _, back := range []bool{false, true} {
		w.SetRoots([]Root{root(t, tree, "", 1), above})
		do(t, os.Rename(tree, aside))
		if back {
			do(t, os.Rename(aside, tree))
		}
		var got []string
		tab := New(Options{
			Anchors: anchors{1: tree}, Resolver: w.Resolver, Emit: func(c *event.Change) { got = append(got, show(c)) },
			Watched: func(p string) bool { return Within(tree, p) },
		})
		e := ev(1, event.OpRename, "", flags(event.FlagNamed))
		e.Anchor, e.Path, e.Path2, e.Base, e.Base2 = 0, []byte(tree), []byte(aside), []byte("/"), []byte("/")
		do(t, tab.Add(e, nil))
		if want := []string{"10 rename " + tree + " [rename] 1/0"}; !slices.Equal(got, want) || e.Flags&event.FlagAppeared == 0 {
			t.Errorf("back %v: told %q, want %q and that the rules are to be armed again: %#x", back, got, want, e.Flags)
		}
		if !back {
			do(t, os.Rename(aside, tree))
		}
	}
}

func TestANameThatCannotBeFollowedMayBeTheOneThatIsWaitedFor(t *testing.T) {
	w := newWorld(t)
	gone := filepath.Join(w.dir, "o", "gone", "x")
	for _, waits := range []bool{false, true} {
		roots := []Root{root(t, filepath.Join(w.dir, "w"), "", 1)}
		if waits {
			first := root(t, filepath.Join(w.dir, "o", "gone"), "gone", 0)
			first.Above = true
			roots = append(roots, first)
		}
		w.SetRoots(roots)
		tab := New(Options{Anchors: anchors{1: w.dir + "/w"}, Resolver: w.Resolver, Emit: func(*event.Change) {}})
		e := ev(1, event.OpRename, "", flags(event.FlagNamed))
		e.Anchor, e.Path, e.Path2, e.Base, e.Base2 = 0, []byte(gone), []byte(gone+".other"), []byte("/"), []byte("/")
		if err := tab.Add(e, nil); err == nil {
			t.Fatal("it was placed")
		}
		if got := e.Flags&event.FlagAppeared != 0; got != waits {
			t.Errorf("waiting %v: the rules are to be armed again: %v", waits, got)
		}
	}
}

func TestARenameOfARootThatTheKernelSideFoundByItsInodeHasTheRulesArmedAgain(t *testing.T) {
	tree := "/w"
	for what, c := range map[string]struct {
		anchor, anchor2 uint32
		path, path2     string
		flags           uint16
		want            bool
	}{
		"a root goes":                      {anchor: 1, flags: event.FlagDir, want: true},
		"another gets its name":            {anchor2: 1, flags: event.FlagDir, want: true},
		"a root goes into another tree":    {anchor: 1, anchor2: 2, path2: "d", flags: event.FlagDir, want: true},
		"a directory in a tree":            {anchor: 1, anchor2: 1, path: "a", path2: "b", flags: event.FlagDir},
		"a file that is watched by itself": {anchor2: 1},
		"it was refused":                   {anchor: 1, flags: event.FlagDir | event.FlagBlocked},
	} {
		tab := New(Options{Anchors: anchors{1: tree, 2: "/v"}, Emit: func(*event.Change) {}, Watched: func(string) bool { return true }})
		e := ev(1, event.OpRename, "", flags(c.flags))
		e.Anchor, e.Anchor2, e.Path, e.Path2 = c.anchor, c.anchor2, []byte(c.path), []byte(c.path2)
		do(t, tab.Add(e, nil))
		if got := e.Flags&event.FlagAppeared != 0; got != c.want {
			t.Errorf("%s: the rules are to be armed again: %v", what, got)
		}
	}
}
