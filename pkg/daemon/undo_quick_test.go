package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
)

// pairs makes a tree of as many files in each of two directories as it is told.
const pairs = `cd "$1"; mkdir d d/sub; i=0; while [ $i -lt %d ]; do echo $i > d/f$i; echo $i > d/sub/f$i; i=$((i+1)); done; touch -d 2020-01-01 d/sub/* d/sub d/* d`

// TestUndoOfAChangeOfAllFilesOfADirectoryThatWasRenamedAtOnce: the session is faster than
// the daemon reads, which finds most files gone from the names at which they were written.
// An operation of another process of this machine whose path cannot be followed meanwhile, and
// which may have written, is a conflict for each file that is found: not each time.
func TestUndoOfAChangeOfAllFilesOfADirectoryThatWasRenamedAtOnce(t *testing.T) {
	conflicts := 0
	for range 3 {
		n, late := undoRenamed(t)
		if conflicts += n; n == 0 && late {
			return
		}
	}
	if conflicts > 0 {
		t.Error("conflicts, and nobody else wrote")
	}
}

// undoRenamed returns how many conflicts there were, and whether the session was faster than
// the daemon.
func undoRenamed(t *testing.T) (conflicts int, late bool) {
	top := t.TempDir()
	tree := filepath.Join(top, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	const files = 1000
	at(t, 1, fmt.Sprintf(pairs, files), tree)
	d := start(t, filepath.Join(top, "state"), tree+"="+event.ModeObserve)
	before := picture(t, tree)
	at(t, 2, `cd "$1"; for f in d/f* d/sub/f*; do echo more >> $f; done; rm d/f1; echo new > d/new; mv d e; mv e g`, tree)
	d.told(t)
	user, unread, found := "", 0, 0
	for _, r := range d.records(t, query.Filter{Kind: event.RecChange}) {
		switch {
		case r.Found == event.FoundOrder, r.Found == event.FoundUnplaced:
			found++
		case r.After.Unread != "":
			unread++
			fallthrough
		case r.Found == "":
			user = r.Actor.User
		}
	}
	t.Logf("%d files changed: %d records of files that could not be read, %d found when their directory was compared", 2*files, unread, found)
	out := d.undo(t, control.UndoRequest{User: user})
	for _, c := range out.Conflicts {
		if !strings.Contains(c.Reason, "not known") && c.Reason != "changed since by unknown" {
			t.Errorf("conflict: %s: %s", c.Path, c.Reason)
		}
	}
	if after := picture(t, tree); len(out.Conflicts) == 0 && after != before {
		t.Errorf("the tree is not as it was before the session:\n%.2000s", lineDiff(t, before, after))
	}
	d.stop()
	return len(out.Conflicts), unread > 0
}

// TestWhatAnotherChangedInARenamedDirectoryStaysAConflict: of the files that were found by
// comparing, those that another has changed, too, are not the session's alone.
func TestWhatAnotherChangedInARenamedDirectoryStaysAConflict(t *testing.T) {
	top := t.TempDir()
	tree := filepath.Join(top, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	const files = 500
	at(t, 1, fmt.Sprintf(pairs, files), tree)
	d := start(t, filepath.Join(top, "state"), tree+"="+event.ModeObserve)
	her := login(t, 3, `cd "$1"; until cd e 2>/dev/null || cd g 2>/dev/null; do :; done; for i in 0 100 250 300 499; do echo hers >> f$i; chmod 600 sub/f$i; done`, tree)
	if err := her.Start(); err != nil {
		t.Fatal(err)
	}
	at(t, 2, `cd "$1"; for f in d/f* d/sub/f*; do echo more >> $f; done; mv d e; mv e g`, tree)
	if err := her.Wait(); err != nil {
		t.Fatal(err)
	}
	d.told(t)
	his := ""
	for _, r := range d.records(t, query.Filter{Kind: event.RecChange, Op: "rename"}) {
		his = r.Actor.User
	}
	out := d.undo(t, control.UndoRequest{User: his})
	t.Logf("%d steps, %d conflicts", len(out.Steps), len(out.Conflicts))
	for _, i := range []int{0, 100, 250, 300, 499} {
		hers := ""
		for _, f := range []string{"d/f", "g/f"} {
			if b, err := os.ReadFile(filepath.Join(tree, fmt.Sprint(f, i))); err == nil {
				hers += string(b)
			}
		}
		if !strings.HasSuffix(hers, "hers\n") {
			t.Errorf("her line of file %d is gone: %q", i, hers)
		}
		fi, err := os.Stat(filepath.Join(tree, fmt.Sprint("d/sub/f", i)))
		if err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("her mode of sub/f%d is gone: %v", i, err)
		}
	}
}
