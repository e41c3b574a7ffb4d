package rollback

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/rollback/storetest"
)

// traced runs a child that has at asked before each of its calls on a file below base.
func traced(t *testing.T, verb, base string, at func(storetest.Call) storetest.Act) (died bool, err error) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe, base)
	c.Env = append(os.Environ(), childEnv+"="+verb+":0", "GODEBUG=asyncpreemptoff=1")
	died, exit, out := storetest.Trace(t, c, base, func(c storetest.Call) storetest.Act {
		if c.Object == filepath.Join(base, "records") { // the test's own
			return storetest.Act{}
		}
		return at(c)
	})
	if (exit != 0 || out != "") && !died { // it tells of conflicts, too
		err = errors.New(strings.TrimSpace(out))
	}
	return died, err
}

func reads(c storetest.Call) bool { return c.Reads }

// failRead runs a child in which the call that reads, of that number from 1, answers EIO, and
// returns that call and what the child says.
func failRead(t *testing.T, verb, base string, at int) (which string, err error) {
	t.Helper()
	n := 0
	_, err = traced(t, verb, base, func(c storetest.Call) storetest.Act {
		if reads(c) {
			n++
		}
		if n != at || !reads(c) {
			return storetest.Act{}
		}
		which = strings.Replace(c.Name+" "+c.Object, base, "", 1)
		return storetest.Act{Err: unix.EIO}
	})
	return which, err
}

// undone is the tree of a deed as an undo in which nothing fails leaves it, and how many
// calls that makes that are wanted.
func undone(t *testing.T, base string, wanted func(storetest.Call) bool, before string, changes func(*diary, string)) (want string, calls int) {
	t.Helper()
	mischief(t, base, before, changes)
	_, err := traced(t, "undo", base, func(c storetest.Call) storetest.Act {
		if wanted(c) {
			calls++
		}
		return storetest.Act{}
	})
	if err != nil {
		t.Fatal(err)
	}
	return bodies(states(t, filepath.Join(base, "files"))), calls
}

// aftermath checks what an undo left that did not get through: each file old or new, a
// vault that is whole, and that it goes on, or is done by the next one.
func aftermath(t *testing.T, base, want, bad string) {
	t.Helper()
	files := filepath.Join(base, "files")
	s := open1(t, filepath.Join(base, "state", "vault"), Options{})
	for _, p := range s.Opened().Damage {
		t.Errorf("damage: %s", p)
	}
	clean(t, s)
	noLeftovers(t, files)
	if part := either(bodies(states(t, files)), want, bad); part != "" {
		t.Errorf("neither old nor new:\n%s", part)
	}
	_, err := continueAll(s)
	if err := errors.Join(err, undoAll(s, base)); err != nil {
		t.Errorf("going on: %v", err)
	}
	if got := bodies(states(t, files)); got != want {
		t.Errorf("in the end:\n%s\nwanted:\n%s", got, want)
	}
	if left, err := s.Pending(); len(left) > 0 || err != nil {
		t.Errorf("still begun: %+v, %v", left, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAFailedReadAtAnyCallOfAnUndoLeavesOldOrNew: of the log of versions, begun plans, marks,
// contents, files and directories, their metadata among it, whoever asks for it.
func TestAFailedReadAtAnyCallOfAnUndoLeavesOldOrNew(t *testing.T) {
	for i, d := range deeds {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel() // it takes long, and not of the processor alone
			base := storetest.Temp(t)
			want, calls := undone(t, base, reads, d.before, d.changes)
			failed, step := 0, 1+2*i // most of the second are those of the first
			if !*long {
				step *= 3
			}
			for at := 1; at <= calls; at += step {
				_, bad := mischief(t, base, d.before, d.changes)
				which, err := failRead(t, "undo", base, at)
				t.Run(fmt.Sprintf("%d %s", at, which), func(t *testing.T) {
					switch got := bodies(states(t, filepath.Join(base, "files"))); {
					case err != nil:
						failed++
					case got != want:
						t.Errorf("no error, but the tree is\n%s", got)
					}
					aftermath(t, base, want, bad)
				})
			}
			t.Logf("%d of %d failed reads ended the undo", failed, calls)
			if failed < calls/(2*step) {
				t.Error("they did not fail: the test shows nothing")
			}
		})
	}
}

// TestInterruptedCallsAndShortReadsOfAnUndoAreMadeUpFor: each call that reads is interrupted
// once, and no read gives all that it was asked for.
func TestInterruptedCallsAndShortReadsOfAnUndoAreMadeUpFor(t *testing.T) {
	all := func(storetest.Call) bool { return true }
	for _, d := range deeds {
		for _, act := range []storetest.Act{{Err: unix.EINTR}, {Short: true}} {
			t.Run(fmt.Sprintf("%s, %+v", d.name, act), func(t *testing.T) {
				base := storetest.Temp(t)
				want, _ := undone(t, base, all, d.before, d.changes)
				mischief(t, base, d.before, d.changes)
				last, acted := storetest.Call{}, 0
				_, err := traced(t, "undo", base, func(c storetest.Call) storetest.Act {
					if !c.Reads || act.Err != 0 && c == last {
						last = storetest.Call{}
						return storetest.Act{}
					}
					last = c
					acted++
					return act
				})
				if err != nil {
					t.Errorf("call %d, %+v: %v", acted, last, err)
				}
				if got := bodies(states(t, filepath.Join(base, "files"))); got != want {
					t.Errorf("the tree is\n%s\nwanted\n%s", got, want)
				}
			})
		}
	}
}
