package rollback

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast/holdfast/rollback/storetest"
)

// TestAllNamesOfAFileBecomeOneInodeAgain damages one or more of three names and
// restores one of them by a plan: ls -i tells whether they are one file.
func TestAllNamesOfAFileBecomeOneInodeAgain(t *testing.T) {
	for _, tc := range []struct{ name, damage, steps string }{
		{"the content changed in place", `echo evil >> a`, "write /a, relink /b, relink /sub/c"},
		{"one name replaced", `echo evil > x; mv x a`, "relink /a"},
		{"one name replaced by an equal file", `cp -p a x; mv x b`, "relink /b"},
		{"one name deleted", `rm sub/c`, "relink /sub/c"},
		{"a directory with a name deleted", `rm -r sub`, "relink /sub/c"},
		{"two names deleted, the third changed", `rm a b; echo evil > sub/c`, "write /a, relink /b, relink /sub/c"},
		{"all deleted", `rm -r a b sub`, "write /a, relink /b, relink /sub/c"},
		{"metadata changed", `chmod 777 a`, "meta /a"},
		{"made immutable after one was replaced", `echo evil > x; mv x a; chattr +i b`, "meta /b, relink /a"},
		{"nothing", `true`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := places(t)[0]
			s := open1(t, p.vault, Options{})
			storetest.Sh(t, `cd "$1"; echo good > a; mkdir sub; ln a b; ln a sub/c; setfattr -n user.x -v 1 a; touch -d 2001-01-01 a`, p.dir)
			for _, f := range below(t, p.dir) {
				capture(t, s, f)
			}
			want := storetest.Tree(t, p.dir)
			storetest.Sh(t, `cd "$1"; `+tc.damage, p.dir)
			plan, err := s.PlanRestore(t.Context(), []string{filepath.Join(p.dir, "a")}, RestoreOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := actions(plan, p.dir); got != tc.steps {
				t.Errorf("plan   %s\nwanted %s", got, tc.steps)
			}
			if err := s.Apply(t.Context(), plan, nil); err != nil {
				t.Fatal(err)
			}
			if got := storetest.Tree(t, p.dir); got != want {
				t.Errorf("before:\n%s\nafter:\n%s", want, got)
			}
			if got := storetest.Sh(t, `cd "$1"; stat -c %i a b sub/c | uniq | wc -l; stat -c %h a`, p.dir); got != "1\n3\n" {
				t.Errorf("inodes and names: %q", got)
			}
			if again := planAll(t, s, p.dir); len(again.Steps) > 0 {
				t.Errorf("a second plan: %s", actions(again, p.dir))
			}
			noLeftovers(t, p.dir)
		})
	}
}

func TestAnEqualFileThatWasNeverTheSameIsNoNameOfIt(t *testing.T) {
	p := places(t)[0]
	s := open1(t, p.vault, Options{})
	storetest.Sh(t, `cd "$1"; echo good > a; ln a b; cp -p a other; ln other more`, p.dir)
	for _, f := range below(t, p.dir) {
		capture(t, s, f)
	}
	v, _ := s.Trusted(filepath.Join(p.dir, "a"))
	if got := s.Links(v); len(got) != 1 || got[0] != filepath.Join(p.dir, "b") {
		t.Errorf("links of a: %q", got)
	}
	if err := os.Remove(filepath.Join(p.dir, "b")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Absent(filepath.Join(p.dir, "b"), Provenance{Trust: true}); err != nil {
		t.Fatal(err)
	}
	if got := s.Links(v); len(got) != 0 {
		t.Errorf("links of a after b was removed with leave: %q", got)
	}
}
