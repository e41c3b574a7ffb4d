package sense_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/sense"
)

// The file that a loop device is made of is marked with the anchor of the tree on it:
// whether the tree is the same one is told by the tree.
func TestAnotherDirectoryInTheTreesPlaceOnALoopDeviceIsAnotherOne(t *testing.T) {
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "at")
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v: %s", name, args, err, out)
		}
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.WriteFile(image, nil, 0o600))
	check(os.Truncate(image, 8<<20))
	run("mkfs.ext4", "-q", image)
	check(os.Mkdir(at, 0o755))
	run("mount", "-o", "loop", image, at)
	t.Cleanup(func() { check(unix.Unmount(at, 0)) })
	tree, other, aside := filepath.Join(at, "tree"), filepath.Join(at, "other"), filepath.Join(at, "aside")
	check(os.Mkdir(tree, 0o755))
	check(os.Mkdir(other, 0o755))

	w := watch(t)
	arm := func() uint64 {
		t.Helper()
		unarmed, err := w.Arm([]sense.Rule{{Mode: event.ModeObserve, Paths: []string{tree}}})
		check(err)
		if len(unarmed) > 0 {
			t.Fatal(unarmed)
		}
		for _, a := range w.Anchors() {
			if a.Path == tree {
				return a.Inode
			}
		}
		t.Fatal("the tree has no anchor")
		return 0
	}
	first := arm()
	if again := arm(); again != first {
		t.Errorf("%#x, then %#x: nothing has changed", first, again)
	}
	check(os.Rename(tree, aside))
	check(os.Rename(other, tree))
	if second := arm(); second == first {
		t.Errorf("%#x before and after another directory got the name", first)
	}
}
