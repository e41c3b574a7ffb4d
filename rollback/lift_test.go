package rollback

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/storetest"
)

// TestAPathThatIsTooLongForASymlinkIsRestoredAndItsMarkKept: its directory is as long as a
// call takes it, and its name, too.
func TestAPathThatIsTooLongForASymlinkIsRestoredAndItsMarkKept(t *testing.T) {
	base := storetest.Disk(t)
	dir := filepath.Join(base, "files")
	for len(dir) < unix.PathMax-1-256 {
		dir += "/" + strings.Repeat("d", 255)
	}
	dir += "/" + strings.Repeat("e", unix.PathMax-3-len(dir)) // a slash and a NUL are behind it
	if len(dir) != unix.PathMax-2 {
		t.Fatalf("%d bytes", len(dir))
	}
	path := dir + "/" + strings.Repeat("f", 255)
	storetest.Sh(t, `mkdir -p "$1" && cd "$1" && echo good > "$2"`, dir, filepath.Base(path))
	vault := filepath.Join(base, "vault")
	s := open1(t, vault, Options{})
	v := capture(t, s, path)
	change := func() { storetest.Sh(t, `cd "$1" && echo evil > "$2" && chattr +i . "$2"`, dir, filepath.Base(path)) }
	t.Cleanup(func() { storetest.Sh(t, `cd "$1" && chattr -i . *`, dir) })
	change()
	r, err := s.RestorePath(t.Context(), path, v)
	if err != nil || r.After.Hash != v.State.Hash || r.Evidence == "" {
		t.Fatalf("%+v, %v", r, err)
	}
	// Cut off: the mark is there, and the flags are off.
	token := strings.Repeat("0", 16)
	if err := s.begin(token, path, event.FlagImmutable); err != nil {
		t.Fatal(err)
	}
	storetest.Sh(t, `cd "$1" && chattr -i . && touch "$2"`, dir, tempPrefix+token)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open1(t, vault, Options{})
	if o := s.Opened(); len(o.Damage) != 0 || len(o.Leftovers) != 1 {
		t.Errorf("%+v", o)
	}
	if got := storetest.Run(t, "sh", "-c", `cd "$1" && ls -A && lsattr -d . | cut -d' ' -f1`, "sh", dir); !strings.HasPrefix(got, filepath.Base(path)+"\n-") || !strings.Contains(got, "i") {
		t.Errorf("left: %s", got)
	}
}
