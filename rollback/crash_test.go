package rollback

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/cas"
	"github.com/holdfast/holdfast/rollback/storetest"
)

// childEnv tells this test binary that it is a child: "capture:N", "restore:N" and so
// on, to die instead of step N. Its last argument is the test's directory, with
// files/ and state/vault.
const childEnv = "HOLDFAST_ROLLBACK_CHILD"

func child(what, dir string) error {
	verb, n, _ := strings.Cut(what, ":")
	step, err := strconv.Atoi(n)
	if err != nil {
		return err
	}
	var f storetest.Faults
	s, err := Open(filepath.Join(dir, "state", "vault"), sealed(Options{Disk: cas.Disk{Before: f.Before}}))
	for range 100 { // a process that a parallel test starts has a copy of the lock until it executes (fork(2))
		if !errors.Is(err, ErrLocked) {
			break
		}
		time.Sleep(20 * time.Millisecond)
		s, err = Open(filepath.Join(dir, "state", "vault"), sealed(Options{Disk: cas.Disk{Before: f.Before}}))
	}
	if err != nil {
		return err
	}
	f.Kill(step)
	switch verb {
	case "capture":
		err = captureAll(s, filepath.Join(dir, "files"))
	case "restore":
		err = restoreAll(s, filepath.Join(dir, "files"))
	case "apply":
		err = applyAll(s, filepath.Join(dir, "files"))
	case "prune":
		err = pruneAll(s)
	case "undo":
		var p Plan
		if p, err = planUndoAll(s, dir); err == nil {
			for _, c := range p.Conflicts {
				fmt.Fprintln(os.Stderr, c)
			}
			err = carryOut(s, p)
		}
	case "continue":
		_, err = continueAll(s)
	}
	return errors.Join(err, s.Close())
}

// captureAll keeps all files of a directory, in two batches.
func captureAll(s *Store, dir string) error {
	ents, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for i, e := range ents {
		if _, err := s.Capture(context.Background(), filepath.Join(dir, e.Name()), Provenance{Trust: true}); err != nil {
			return err
		}
		if i == len(ents)/2 {
			if err := s.Sync(); err != nil {
				return err
			}
		}
	}
	return s.Sync()
}

// restoreAll brings every path below dir back that has a trusted version.
func restoreAll(s *Store, dir string) error {
	for _, p := range s.Paths(dir) {
		v, ok := s.Trusted(p)
		if !ok {
			continue
		}
		if _, err := s.RestorePath(context.Background(), p, v); err != nil {
			return err
		}
	}
	return nil
}

// applyAll does the same by one plan.
func applyAll(s *Store, dir string) error {
	p, err := s.PlanRestore(context.Background(), []string{dir}, RestoreOptions{Recursive: true})
	if err != nil {
		return err
	}
	return s.Apply(context.Background(), p, nil)
}

// die runs a child that is to die at a step and reports whether it did.
func die(t *testing.T, verb string, step int, dir string) bool {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe, dir)
	c.Env = append(os.Environ(), childEnv+"="+verb+":"+strconv.Itoa(step))
	out, err := c.CombinedOutput()
	if err == nil {
		return false
	}
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		if ws, ok := ee.Sys().(syscall.WaitStatus); ok && ws.Signal() == unix.SIGKILL {
			return true
		}
	}
	t.Fatalf("child at step %d: %v\n%s", step, err, out)
	return false
}

// maxSteps bounds the loops over steps: no operation here has as many.
const maxSteps = 400

const sample = `cd "$1"; echo one > a; echo two > b; cp a same; : > empty; ln -s a link; mkdir dir
	head -c 1500000 /bin/bash > long; truncate -s 100K sparse; setfattr -n user.x -v y a`

func TestKillingACaptureAtAnyStepLeavesAWholeVault(t *testing.T) {
	dir := storetest.Disk(t)
	files, vault := filepath.Join(dir, "files"), filepath.Join(dir, "state", "vault")
	mkdirs(t, files, filepath.Dir(vault))
	storetest.Sh(t, sample, files)
	steps := 0
	for n := 1; ; n++ {
		if n > maxSteps {
			t.Fatal("it never ends")
		}
		storetest.Run(t, "rm", "-rf", vault)
		died := die(t, "capture", n, dir)
		s := open1(t, vault, Options{})
		clean(t, s)
		if len(s.Opened().Damage) > 0 {
			t.Errorf("step %d: %v", n, s.Opened().Damage)
		}
		for _, p := range s.Paths("") {
			if v, ok := s.Trusted(p); !ok || s.Verify(v) != nil {
				t.Errorf("step %d: version of %s: %v", n, p, s.Verify(v))
			}
		}
		if err := captureAll(s, files); err != nil {
			t.Fatalf("after a crash at step %d: %v", n, err)
		}
		clean(t, s)
		if got := len(s.Paths("")); got != 8 {
			t.Errorf("step %d: %d paths", n, got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if !died {
			break
		}
		steps++
	}
	t.Logf("killed at each of %d steps", steps)
	if steps < 30 {
		t.Errorf("only %d steps: are they counted?", steps)
	}
}

func TestAFailureAtAnyStepOfACaptureCanBeTriedAgain(t *testing.T) {
	for _, fault := range []error{unix.EIO, unix.ENOSPC, unix.EINTR, cas.ErrTorn} {
		t.Run(fault.Error(), func(t *testing.T) {
			dir := storetest.Temp(t)
			files := filepath.Join(dir, "files")
			mkdirs(t, files)
			storetest.Sh(t, sample, files)
			for n := 1; ; n++ {
				if n > maxSteps {
					t.Fatal("it never ends")
				}
				vault := filepath.Join(dir, fmt.Sprint("vault", n))
				s, f := openFaulty(t, vault)
				f.Fail(n, fault)
				err := captureAll(s, files)
				reached := len(f.Steps()) >= n
				f.Fail(0, nil)
				if err == nil {
					clean(t, s) // a failure that was worked around, or none
				}
				if err != nil && fault == unix.EINTR {
					t.Errorf("step %d was interrupted, and the capture ended: %v", n, err)
				}
				if err := captureAll(s, files); err != nil {
					t.Fatalf("again after step %d: %v", n, err)
				}
				clean(t, s)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				r, err := OpenReadOnly(vault)
				if err != nil {
					t.Fatal(err)
				}
				clean(t, r)
				if got := len(r.Paths("")); got != 8 || len(r.Opened().Damage) > 0 {
					t.Errorf("step %d: %d paths, damage %v", n, got, r.Opened().Damage)
				}
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
				if !reached {
					return
				}
			}
		})
	}
}

// scenes are restores that are interrupted. $1 is the directory of the files.
var scenes = []struct{ name, make, tamper string }{
	{"a changed file", `echo good > "$1/f"; chown 1:2 "$1/f"; chmod 640 "$1/f"`, `printf evil > "$1/f"`},
	{"a changed set-id program", `cp /bin/true "$1/f"; chmod 4755 "$1/f"; setcap cap_net_raw=ep "$1/f"; setfacl -m u:3:r "$1/f"`, `echo evil >> "$1/f"`},
	{"a deleted file below deleted directories", `mkdir -p "$1/x/y"; echo good > "$1/x/y/f"`, `rm -r "$1/x"`},
	{"a symlink that became a file", `ln -s good "$1/f"`, `rm "$1/f"; echo evil > "$1/f"`},
	{"a file that became a tree", `echo good > "$1/f"`, `rm "$1/f"; mkdir -p "$1/f/g"; echo evil > "$1/f/g/h"`},
	{"a directory that became a file", `mkdir -m 2750 "$1/d"; chown 3:4 "$1/d"`, `rmdir "$1/d"; echo evil > "$1/d"`},
	{"an immutable file in an immutable directory", `mkdir "$1/d"; echo good > "$1/d/f"; chattr +i "$1/d/f"; chattr +i "$1/d"`,
		`chattr -i "$1/d" "$1/d/f"; echo evil > "$1/d/f"; chattr +i "$1/d/f" "$1/d"`},
	{"a new file where nothing was", `:`, `echo evil > "$1/new"`},
	{"one of two names of a file replaced", `echo good > "$1/f"; ln "$1/f" "$1/g"`, `rm "$1/f"; echo evil > "$1/f"`},
	{"a file with two names, one of them replaced and the other immutable", `echo good > "$1/f"; ln "$1/f" "$1/g"; chattr +i "$1/f"`,
		`chattr -i "$1/f"; rm "$1/f"; echo evil > "$1/f"; chattr +i "$1/g"`},
	{"by a plan: many files, two names of one, directories", `cd "$1"; for i in 1 2 3 4 5 6 7 8 9; do echo $i > f$i; done; ln f1 g; mkdir d; echo x > d/x; ln -s x d/l`,
		`cd "$1"; echo evil > f1; rm f2; ln -s f1 f2; for i in 3 4 5 6 7 8 9; do echo evil > f$i; done; rm -r d`},
}

// again brings the files of a scene back in the scene's way.
func again(scene string) (verb string, f func(*Store, string) error) {
	if strings.HasPrefix(scene, "by a plan") {
		return "apply", applyAll
	}
	return "restore", restoreAll
}

// interrupt prepares one scene: captured, durable, tampered with.
func interrupt(t *testing.T, dir, vault, make, tamper string) (good, bad string) {
	t.Helper()
	if strings.Contains(make, "chattr") {
		storetest.Loosen(t, dir)
	}
	if err := errors.Join(os.RemoveAll(dir), os.RemoveAll(filepath.Dir(vault))); err != nil {
		t.Fatal(err)
	}
	mkdirs(t, dir, filepath.Dir(vault))
	s := open1(t, vault, Options{})
	if _, err := s.Absent(filepath.Join(dir, "new"), Provenance{Trust: true}); err != nil {
		t.Fatal(err)
	}
	storetest.Sh(t, make, dir)
	for _, p := range below(t, dir) {
		capture(t, s, p)
	}
	good = states(t, dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	storetest.Sh(t, tamper, dir)
	return good, states(t, dir)
}

// below lists all paths below dir, parents first.
func below(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if p != dir {
			out = append(out, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// states describes all paths below dir, as digest reads them: its own tests
// compare that with other programs.
func states(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	for _, p := range below(t, dir) {
		st, err := digest.ReadPath(t.Context(), p, nil)
		if err != nil {
			t.Fatal(err)
		}
		st.Ino, st.Nlink = 0, 0
		if st.Type == event.TypeDir {
			st.Mtime = 0
		}
		flags := st.FlagsText()
		st.Flags = 0
		j, err := json.MarshalIndent(st, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "== %s\n%s\nflags %s\n", strings.TrimPrefix(p, dir), j, flags)
	}
	return out.String()
}

// noFlags drops what a restore takes off before and puts on after the exchange.
func noFlags(tree string) string {
	var out []string
	for _, l := range strings.Split(tree, "\n") {
		if !strings.HasPrefix(l, "flags") {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}

// between reports whether every path of a tree is as in one of two others, or
// absent: a restore of several paths stops between two of them.
func between(tree, good, bad string) string {
	for _, part := range strings.Split(noFlags(tree), "== ")[1:] {
		if !strings.Contains(noFlags(good), "== "+part) && !strings.Contains(noFlags(bad), "== "+part) {
			return part
		}
	}
	return ""
}

func TestKillingARestoreAtAnyStepLeavesOldOrNew(t *testing.T) {
	for i, sc := range scenes {
		t.Run(sc.name, func(t *testing.T) {
			base := storetest.Disk(t)
			if i%2 == 0 {
				base = storetest.Temp(t)
			}
			files, vault := filepath.Join(base, "files"), filepath.Join(base, "state", "vault")
			steps := 0
			verb, restore := again(sc.name)
			for n := 1; ; n++ {
				if n > maxSteps {
					t.Fatal("it never ends")
				}
				good, bad := interrupt(t, files, vault, sc.make, sc.tamper)
				died := die(t, verb, n, base)
				s := open1(t, vault, Options{})
				for _, p := range s.Opened().Damage {
					t.Errorf("step %d: %s", n, p)
				}
				noLeftovers(t, files)
				if part := between(states(t, files), good, bad); part != "" {
					t.Errorf("killed at step %d: neither old nor new:\n%s", n, part)
				}
				madeUp(t, s, files, n, good, restore)
				if !died {
					break
				}
				steps++
			}
			if steps < 2 {
				t.Errorf("only %d steps", steps)
			}
		})
	}
}

// madeUp restores once more after a crash at step n, compares, and closes the vault.
func madeUp(t *testing.T, s *Store, files string, n int, good string, restore func(*Store, string) error) {
	t.Helper()
	clean(t, s)
	if err := restore(s, files); err != nil {
		t.Errorf("after a crash at step %d: %v", n, err)
	}
	if got := states(t, files); got != good {
		t.Errorf("after a crash at step %d and a second restore:\n%s\nwanted:\n%s", n, got, good)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// faults are what a disk may answer at any step. What is interrupted is just tried
// again, so that nobody learns of it.
var faults = []struct {
	name   string
	err    unix.Errno
	onward bool // at all later steps, too
}{
	{"EIO", unix.EIO, false},
	{"EIO from then on", unix.EIO, true},
	{"ENOSPC", unix.ENOSPC, false},
	{"ENOSPC from then on", unix.ENOSPC, true},
	{"EINTR", unix.EINTR, false},
}

func TestAFailureAtAnyStepOfARestoreLeavesOldOrNew(t *testing.T) {
	for i, sc := range scenes {
		for k, fault := range faults {
			t.Run(sc.name+", "+fault.name, func(t *testing.T) {
				base := storetest.Temp(t)
				_, restore := again(sc.name)
				files, vault := filepath.Join(base, "files"), filepath.Join(base, "state", "vault")
				if k == 0 && i%3 == 0 {
					vault = filepath.Join(storetest.Disk(t), "state", "vault")
				}
				for n := 1; ; n++ {
					if n > maxSteps {
						t.Fatal("it never ends")
					}
					good, bad := interrupt(t, files, vault, sc.make, sc.tamper)
					s, f := openFaulty(t, vault)
					f.Fail(n, fault.err)
					if fault.onward {
						f.FailFrom(n, fault.err)
					}
					err := restore(s, files)
					reached := len(f.Steps()) >= n
					f.Fail(0, nil)
					tree := states(t, files)
					if err != nil && fault.err == unix.EINTR {
						t.Errorf("step %d was interrupted, and the restore ended: %v", n, err)
					}
					if err == nil && withoutTemps(tree) != good {
						t.Errorf("step %d: no error, but the tree is\n%s", n, tree)
					}
					if part := between(withoutTemps(tree), good, bad); part != "" {
						t.Errorf("failed at step %d (%v): neither old nor new:\n%s", n, err, part)
					}
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					s = open1(t, vault, Options{})
					clean(t, s)
					noLeftovers(t, files)
					if err := restore(s, files); err != nil {
						t.Errorf("after a failure at step %d: %v", n, err)
					}
					if got := states(t, files); got != good {
						t.Errorf("after a failure at step %d and a second restore:\n%s\nwanted:\n%s", n, got, good)
					}
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					if !reached {
						return
					}
				}
			})
		}
	}
}

// withoutTemps drops temporary names that a failed restore leaves for the next
// Open.
func withoutTemps(tree string) string {
	var out []string
	for _, part := range strings.Split(tree, "== ") {
		if !strings.Contains(strings.SplitN(part, "\n", 2)[0], "/"+tempPrefix) {
			out = append(out, part)
		}
	}
	return strings.Join(out, "== ")
}

// TestNothingIsNamedBeforeItIsDurable checks the order of the steps: what a power
// cut must not find the other way round.
func TestNothingIsNamedBeforeItIsDurable(t *testing.T) {
	for _, files := range []int{3, 3 * 64} {
		t.Run(fmt.Sprint(files, " files"), func(t *testing.T) {
			p := places(t)[0]
			s, f := openFaulty(t, p.vault)
			f.Fail(0, nil) // forget the steps of Open
			for i := range files {
				write(t, filepath.Join(p.dir, fmt.Sprint(i)), fmt.Sprint("content ", i))
				capture(t, s, filepath.Join(p.dir, fmt.Sprint(i)))
			}
			sync1(t, s)
			written := map[string]bool{} // temps not synced yet
			names, dirs := 0, map[string]bool{}
			for _, step := range f.Steps() {
				op, object, _ := strings.Cut(step, " ")
				switch {
				case op == "write" && !strings.HasSuffix(object, ".log"):
					written[object] = true
				case op == "fsync" && strings.HasSuffix(object, ".log"):
				case op == "fsync":
					delete(written, object)
					delete(dirs, object)
				case op == "syncfs":
					clear(written)
					clear(dirs)
				case op == "mkdir":
					names-- // the rename before it found no directory
				case op == "rename":
					if len(written) > 0 {
						t.Fatalf("%s while %d contents are not durable", step, len(written))
					}
					names++
					dirs[strings.SplitN(object, "/", 2)[0]] = true
				case op == "write":
					if len(dirs) > 0 || names != files {
						t.Fatalf("the log is written while %d of %d objects are named and %d directories are not durable", names, files, len(dirs))
					}
				}
			}
			if names != files {
				t.Errorf("%d names for %d files", names, files)
			}
		})
	}
}

func TestARestoreIsDurableBeforeItIsVisible(t *testing.T) {
	p := places(t)[0]
	s, f := openFaulty(t, p.vault)
	file := filepath.Join(p.dir, "f")
	write(t, file, "good")
	v := capture(t, s, file)
	write(t, file, "evil")
	f.Fail(0, nil)
	if _, err := s.RestorePath(t.Context(), file, v); err != nil {
		t.Fatal(err)
	}
	var ops []string
	for _, step := range f.Steps() {
		op, _, _ := strings.Cut(step, " ")
		ops = append(ops, op)
	}
	want := "tmpfile write chmod utimes fsync symlink link exchange rename utimes fsync unlink"
	if got := strings.Join(ops, " "); got != want {
		t.Errorf("steps  %s\nwanted %s", got, want)
	}
}

// TestKillingARestoreOfMetadataAtAnyStepIsMadeUpForByTheNext: it sets one thing after the
// other on the inode that is there. What is left half done still differs, so whoever
// compares next puts the rest back; the content is never touched, and no set-id bit is on
// a file of another owner meanwhile.
func TestKillingARestoreOfMetadataAtAnyStepIsMadeUpForByTheNext(t *testing.T) {
	const make = `cd "$1"; cp /bin/true f; chown 1:2 f; chmod 4755 f; setcap cap_net_raw=ep f; setfacl -m u:3:r f; setfattr -n user.x -v y f
		touch -d @1234567890.123456789 f; mkdir -m 2750 d; setfattr -n user.x -v y d; chown 3:4 d; chattr +i f`
	const tamper = `cd "$1"; chattr -i f; chown 5:6 f d; chmod 600 f; chmod 777 d; setfattr -n user.x -v z f; setfattr -n user.more -v z f; setfattr -x user.x d; touch f; chattr +a f`
	base := storetest.Disk(t)
	files, vault := filepath.Join(base, "files"), filepath.Join(base, "state", "vault")
	file := filepath.Join(files, "f")
	steps := 0
	for n := 1; ; n++ {
		if n > maxSteps {
			t.Fatal("it never ends")
		}
		good, bad := interrupt(t, files, vault, make, tamper)
		content := storetest.Run(t, "b3sum", "--no-names", file)
		died := die(t, "restore", n, base)
		s := open1(t, vault, Options{})
		for _, p := range s.Opened().Damage {
			t.Errorf("step %d: %s", n, p)
		}
		noLeftovers(t, files)
		if got := storetest.Run(t, "b3sum", "--no-names", file); got != content {
			t.Errorf("killed at step %d: the content has changed", n)
		}
		var st syscall.Stat_t
		if err := syscall.Stat(file, &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode&unix.S_ISUID != 0 && st.Uid != 1 {
			t.Errorf("killed at step %d: set-id for user %d", n, st.Uid)
		}
		if now := states(t, files); now != good && now != bad {
			steps++
		}
		madeUp(t, s, files, n, good, restoreAll)
		if !died {
			break
		}
	}
	storetest.Loosen(t, files)
	if steps < 5 {
		t.Errorf("only %d states in between: the test shows nothing", steps)
	}
}
