package rollback

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/cas"
	"github.com/holdfast/holdfast/rollback/storetest"
)

// TestMain runs a child's part if this process is one, and fails on descriptors
// that the tests left open.
func TestMain(m *testing.M) {
	if what := os.Getenv(childEnv); what != "" {
		if err := child(what, os.Args[len(os.Args)-1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if left := openFiles(); code == 0 && len(left) > 0 {
		fmt.Fprintln(os.Stderr, "descriptors left open:", left)
		code = 1
	}
	os.Exit(code)
}

// openFiles lists descriptors below the tests' directories.
func openFiles() []string {
	ents, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return []string{err.Error()}
	}
	var left []string
	for _, e := range ents {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && (strings.Contains(to, "/Test") || strings.Contains(to, "holdfast-test-")) {
			left = append(left, to)
		}
	}
	return left
}

// place is where a test has its files and its vault.
type place struct {
	name  string
	dir   string // watched files
	vault string
}

// places are the pairs of file systems that behave differently.
func places(t *testing.T) []place {
	t.Helper()
	disk, mem, mem2 := storetest.Disk(t), storetest.Temp(t), storetest.Temp(t)
	ps := []place{
		{"on disk", filepath.Join(disk, "files"), filepath.Join(disk, "state", "vault")},
		{"on tmpfs", filepath.Join(mem, "files"), filepath.Join(mem, "state", "vault")},
		{"on tmpfs with the vault on disk", filepath.Join(mem2, "files"), filepath.Join(disk, "state2", "vault")},
	}
	for _, p := range ps {
		mkdirs(t, p.dir, filepath.Dir(p.vault))
	}
	return ps
}

func mkdirs(t testing.TB, dirs ...string) {
	t.Helper()
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// sealedEnv has the tests seal the vaults that they open with open1.
const sealedEnv = "HOLDFAST_ROLLBACK_SEALED"

func sealed(o Options) Options {
	if os.Getenv(sealedEnv) != "" {
		o.Sealer = storetest.NewKeys("the tests'")
	}
	return o
}

func open1(t testing.TB, vault string, o Options) *Store {
	t.Helper()
	s, err := Open(vault, sealed(o))
	for range 100 { // a process that a parallel test starts has a copy of the lock until it executes (fork(2))
		if !errors.Is(err, ErrLocked) {
			break
		}
		time.Sleep(20 * time.Millisecond)
		s, err = Open(vault, sealed(o))
	}
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv(sealedEnv) != "" && s.catalog.sealed == nil {
		t.Fatal("the vault is not sealed")
	}
	t.Cleanup(func() {
		if s.lock >= 0 {
			s.release()
		}
	})
	return s
}

func openFaulty(t testing.TB, vault string) (*Store, *storetest.Faults) {
	f := &storetest.Faults{}
	return open1(t, vault, Options{Disk: cas.Disk{Before: f.Before}}), f
}

func capture(t testing.TB, s *Store, path string) Version {
	t.Helper()
	v, err := s.Capture(t.Context(), path, Provenance{Reason: "test", Trust: true})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func sync1(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
}

// clean fails the test if fsck finds anything.
func clean(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Fsck(t.Context(), false, func(p Problem) { t.Errorf("fsck: %s", p) }); err != nil {
		t.Error(err)
	}
}

// noLeftovers fails the test if a temporary name is below dir.
func noLeftovers(t testing.TB, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), tempPrefix) {
			t.Errorf("left over: %s", p)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func readState(t testing.TB, path string, sink io.Writer) event.State {
	t.Helper()
	st, err := digest.ReadPath(t.Context(), path, sink)
	if err != nil {
		t.Fatal(err)
	}
	return st
}
