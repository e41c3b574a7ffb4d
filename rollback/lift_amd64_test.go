package rollback

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/storetest"
)

const (
	flagged = `cd "$1"; echo one > f; chattr +i f; echo two > g; chattr +a g; echo h > h; mkdir d; echo x > d/x; chattr +i d`
	noDump  = 0x40 // d of chattr(1), which no step sets
)

// unflag is what mallory did to files whose flags forbid it.
func unflag(h *diary, root string) {
	h.do("mallory", "write", root+"/f", "", `chattr -i "$1"; echo evil >> "$1"; chattr +i "$1"`)
	h.do("mallory", "chmod", root+"/g", "", `chattr -a "$1"; chmod 777 "$1"; setfattr -n user.x -v y "$1"; chattr +a "$1"`)
	h.do("mallory", "write", root+"/h", "", `echo evil >> "$1"; chattr +i "$1"`)
	h.do("mallory", "create", root+"/new", "", `echo evil > "$1"; chattr +i "$1"`)
	h.do("mallory", "unlink", root+"/d/x", "", `chattr -i "${1%/x}"; rm "$1"; chattr +i "${1%/x}"`)
}

// flagsOf gives what is at each path.
func flagsOf(t *testing.T, files string) map[string]event.State {
	t.Helper()
	out := map[string]event.State{}
	for _, p := range []string{"f", "g", "h", "new", "d", "d/x"} {
		st, err := digest.StatPath(filepath.Join(files, p))
		if err != nil {
			t.Fatal(err)
		}
		out[p] = st
	}
	return out
}

// TestFlagsThatAKilledUndoTookOffComeBack: it is killed at each call that changes something.
// Then the next start puts back what it took off; what somebody else has set meanwhile stays.
func TestFlagsThatAKilledUndoTookOffComeBack(t *testing.T) {
	base := storetest.Disk(t)
	files := filepath.Join(base, "files")
	clear := func() { // else it cannot be removed
		storetest.Sh(t, `[ ! -d "$1" ] || chattr -R -i -a "$1"`, base)
	}
	t.Cleanup(clear)
	changes := func(c storetest.Call) bool { return !c.Reads }
	want, calls := undone(t, base, changes, flagged, unflag)
	last := flagsOf(t, files)
	if last["f"].Flags&held != event.FlagImmutable || last["g"].Flags&held != event.FlagAppend || last["h"].Flags&held != 0 || last["d"].Flags&held != event.FlagImmutable {
		t.Fatalf("after an undo: %+v", last)
	}
	lifts, step := 0, 1
	if !*long {
		step = 4
	}
	for at := 1; at <= calls; at += step {
		for _, other := range []bool{false, true} {
			clear()
			mischief(t, base, flagged, unflag)
			bad, n, which := flagsOf(t, files), 0, ""
			died, err := traced(t, "undo", base, func(c storetest.Call) storetest.Act {
				if changes(c) {
					n++
				}
				if n != at || !changes(c) {
					return storetest.Act{}
				}
				which = strings.Replace(c.Name+" "+c.Object, base, "", 1)
				return storetest.Act{Kill: true}
			})
			if !died {
				t.Fatalf("call %d: %v", at, err)
			}
			killed := flagsOf(t, files)
			for p, st := range killed {
				if was := bad[p]; st.Ino == was.Ino && was.Flags&held&^st.Flags != 0 && last[p].Flags != st.Flags {
					lifts++
				}
				if other && st.Exists && st.Flags&held == 0 { // else none can be set
					set(t, filepath.Join(files, p), noDump)
				}
			}
			s := open1(t, filepath.Join(base, "state", "vault"), Options{})
			for _, p := range s.Opened().Damage {
				t.Errorf("call %d, %s: %s", at, which, p)
			}
			for p, st := range flagsOf(t, files) {
				was := bad[p]
				if st.Ino == was.Ino && was.Flags&held&^st.Flags != 0 && last[p].Flags&held != st.Flags&held {
					t.Errorf("call %d, %s: %s has flags %s and had %s", at, which, p, st.FlagsText(), was.FlagsText())
				}
				if p == "d" && was.Flags&^st.Flags&held != 0 {
					t.Errorf("call %d, %s: the directory has flags %s and had %s", at, which, st.FlagsText(), was.FlagsText())
				}
			}
			begun, err := continueAll(s)
			if !other {
				if err := errors.Join(err, undoAll(s, base)); err != nil {
					t.Errorf("call %d, %s: going on: %v", at, which, err)
				}
				if got := bodies(states(t, files)); got != want {
					t.Errorf("call %d, %s: in the end:\n%s\nwanted:\n%s", at, which, got, want)
				}
			} else {
				left := false
				for p, st := range flagsOf(t, files) {
					if !killed[p].Exists || killed[p].Flags&held != 0 {
						continue
					}
					if st.Ino != killed[p].Ino || st.Flags&noDump == 0 {
						t.Errorf("call %d, %s: of %s the flag that somebody set is gone", at, which, p)
					}
					st.Flags &^= noDump
					w := last[p]
					left = left || st.Exists != w.Exists || st.Mode != w.Mode || st.Flags != w.Flags || st.Size != w.Size
				}
				if left && begun > 0 && !errors.Is(err, ErrRaced) {
					t.Errorf("call %d, %s: not all is as it was, and nobody says so: %v", at, which, err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if marks, err := os.ReadDir(filepath.Join(base, "state", "vault", "intents")); err != nil || len(marks) > 0 {
				t.Errorf("call %d, %s: marks are left: %v, %v", at, which, marks, err)
			}
		}
	}
	t.Logf("%d calls; flags were off after %d kills", calls, lifts)
	if lifts == 0 {
		t.Error("no flag was off: the test shows nothing")
	}
}

// TestFlagsAreBackAfterAnUndoThatFailed: at any call that changes something, but for the one
// that puts them back: then the mark stays.
func TestFlagsAreBackAfterAnUndoThatFailed(t *testing.T) {
	base := storetest.Disk(t)
	files := filepath.Join(base, "files")
	clear := func() { storetest.Sh(t, `[ ! -d "$1" ] || chattr -R -i -a "$1"`, base) }
	t.Cleanup(clear)
	below := func(c storetest.Call) bool { return !c.Reads && strings.HasPrefix(c.Object, files) }
	_, calls := undone(t, base, below, flagged, unflag)
	last, step := flagsOf(t, files), 1
	if !*long {
		step = 3
	}
	for at := 1; at <= calls; at += step {
		clear()
		mischief(t, base, flagged, unflag)
		bad, n, which := flagsOf(t, files), 0, storetest.Call{}
		_, _ = traced(t, "undo", base, func(c storetest.Call) storetest.Act {
			if below(c) {
				n++
			}
			if n != at || !below(c) {
				return storetest.Act{}
			}
			which = c
			return storetest.Act{Err: unix.EIO}
		})
		for range 2 {
			marks, err := os.ReadDir(filepath.Join(base, "state", "vault", "intents"))
			if err != nil {
				t.Fatal(err)
			}
			for p, st := range flagsOf(t, files) {
				was := bad[p]
				if st.Ino == was.Ino && was.Flags&held&^st.Flags != 0 && last[p].Flags&held != st.Flags&held && len(marks) == 0 {
					t.Errorf("call %d, %+v: %s has flags %s and had %s", at, which, p, st.FlagsText(), was.FlagsText())
				}
			}
			s := open1(t, filepath.Join(base, "state", "vault"), Options{})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// set sets flags beside those of a file.
func set(t *testing.T, path string, flags uint32) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	now, err := digest.GetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(now|flags))
	}
	if err != nil {
		t.Fatal(err)
	}
}
