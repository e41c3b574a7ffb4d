package rollback

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/rollback/cas"
	"github.com/holdfast/holdfast/rollback/storetest"
)

// unreadable makes the reads of a vault fail.
type unreadable struct{ f storetest.Faults }

func (u *unreadable) open(t *testing.T, vault string) *Store {
	t.Helper()
	return open1(t, vault, Options{Disk: cas.Disk{BeforeRead: u.f.Before}})
}

// TestAFailedReadOfTheVaultStoresAndTellsNothingWrong: at any read of a content, with
// any error.
func TestAFailedReadOfTheVaultStoresAndTellsNothingWrong(t *testing.T) {
	for _, fault := range []error{unix.EIO, io.ErrUnexpectedEOF, unix.EINTR} {
		t.Run(fault.Error(), func(t *testing.T) {
			p := places(t)[0]
			var u unreadable
			s := u.open(t, p.vault)
			good := map[string]string{
				filepath.Join(p.dir, "short"): "good", filepath.Join(p.dir, "empty"): "",
				filepath.Join(p.dir, "long"): storetest.Run(t, "head", "-c", "2500000", "/usr/bin/perl"),
			}
			versions := map[string]Version{}
			for path, text := range good {
				write(t, path, text)
				versions[path] = capture(t, s, path)
			}
			sync1(t, s)
			u.f.Fail(0, nil)
			failed := 0
			each := func(what string, path string, f func() error) {
				t.Helper()
				for n := 1; n <= maxSteps; n++ {
					write(t, path, "evil")
					u.f.Fail(n, fault)
					err := f()
					reached := len(u.f.Steps()) >= n
					u.f.Fail(0, nil)
					if err != nil {
						failed++
					}
					if err != nil && (fault == unix.EINTR || !errors.Is(err, fault) || !strings.Contains(err.Error(), versions[path].State.Hash.Hex()[:8]) && !strings.Contains(err.Error(), path)) {
						t.Errorf("%s of %s, read %d: %v", what, path, n, err)
					}
					if err == nil && reached && fault != unix.EINTR && what != "fsck" {
						t.Errorf("%s of %s, read %d: no error", what, path, n)
					}
					want := "evil"
					if what == "restore" && err == nil {
						want = good[path]
					}
					if read(t, path) != want {
						t.Errorf("%s of %s, read %d (%v): neither old nor new", what, path, n, err)
					}
					noLeftovers(t, p.dir)
					if !reached {
						return
					}
				}
				t.Fatal("it never ends")
			}
			for path, v := range versions {
				each("verify", path, func() error { return s.Verify(v) })
				each("restore", path, func() error { _, err := s.RestorePath(t.Context(), path, v); return err })
				each("fsck", path, func() error {
					return s.Fsck(t.Context(), true, func(p Problem) {
						if fault == unix.EINTR || p.Repaired && p.Kind != ProblemCorrupt {
							t.Errorf("fsck: %s", p)
						}
					})
				})
			}
			clean(t, s)
			for path, v := range versions {
				if _, err := s.RestorePath(t.Context(), path, v); err != nil || read(t, path) != good[path] {
					t.Errorf("when the disk answers again: %v", err)
				}
			}
			if failed == 0 && fault != unix.EINTR {
				t.Error("nothing failed: the test shows nothing")
			}
		})
	}
}

// TestAContentThatCannotBeLookedForIsNotTakenForLost: a plan says that it is not known
// whether it is kept, and a capture of the same content fails, or keeps it.
func TestAContentThatCannotBeLookedForIsNotTakenForLost(t *testing.T) {
	p := places(t)[0]
	vault := open1(t, p.vault, Options{})
	path := filepath.Join(p.dir, "f")
	write(t, path, "good")
	v := capture(t, vault, path)
	if err := vault.Close(); err != nil {
		t.Fatal(err)
	}
	var u unreadable
	s := u.open(t, p.vault)
	u.f.Fail(1, unix.EIO)
	if ok, err := s.Has(v.State.Hash); ok || !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), v.State.Hash.Hex()) {
		t.Errorf("it is there: %v, %v", ok, err)
	}
	u.f.Fail(1, unix.EIO)
	if _, err := s.Capture(t.Context(), path, Provenance{}); !errors.Is(err, unix.EIO) {
		t.Errorf("capture: %v", err)
	}
	write(t, path, "evil")
	u.f.Fail(1, unix.EIO)
	plan, err := s.PlanRestore(t.Context(), []string{path}, RestoreOptions{})
	if err != nil || len(plan.Steps) != 0 || len(plan.Conflicts) != 1 || !strings.Contains(plan.Conflicts[0].Reason, "cannot be told: look for object") {
		t.Errorf("plan: %+v, %v", plan, err)
	}
	u.f.Fail(0, nil)
	if plan, err := s.PlanRestore(t.Context(), []string{path}, RestoreOptions{}); err != nil || len(plan.Steps) != 1 || len(plan.Conflicts) != 0 {
		t.Errorf("when the disk answers again: %+v, %v", plan, err)
	}
}

// TestAFileThatCannotBeReadIsNotKept: this process's memory is a file whose first page
// answers EIO.
func TestAFileThatCannotBeReadIsNotKept(t *testing.T) {
	s := open1(t, filepath.Join(storetest.Disk(t), "vault"), Options{})
	path := fmt.Sprintf("/proc/%d/mem", os.Getpid())
	if _, err := s.Capture(t.Context(), path, Provenance{Trust: true}); !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), path) {
		t.Errorf("capture: %v", err)
	}
	if v, ok := s.Latest(path); ok {
		t.Errorf("kept: %+v", v)
	}
	clean(t, s)
}

// TestABegunPlanThatCannotBeReadIsNotRepairedAway: it may be whole.
func TestABegunPlanThatCannotBeReadIsNotRepairedAway(t *testing.T) {
	vault := filepath.Join(storetest.Disk(t), "vault")
	s := open1(t, vault, Options{})
	id, err := s.Begin(Plan{Steps: []Step{{Path: "/f", Action: ActionWrite}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(vault, "plans", id+".1")
	if err := errors.Join(os.Rename(name, name+"-aside"), os.Symlink(fmt.Sprintf("/proc/%d/mem", os.Getpid()), name)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+"-aside", filepath.Join(filepath.Dir(vault), "aside")); err != nil {
		t.Fatal(err)
	}
	var found []Problem
	if err := s.Fsck(t.Context(), true, func(p Problem) { found = append(found, p) }); err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].Kind != ProblemPlan || found[0].Repaired || !strings.Contains(found[0].Detail, unix.EIO.Error()) {
		t.Errorf("%+v", found)
	}
	if err := errors.Join(os.Remove(name), os.Rename(filepath.Join(filepath.Dir(vault), "aside"), name)); err != nil {
		t.Fatal(err)
	}
	if left, err := s.Pending(); err != nil || len(left) != 1 {
		t.Errorf("%+v, %v", left, err)
	}
}
