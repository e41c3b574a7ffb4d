package rollback

import (
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/rollback/storetest"
)

// eachRead has a child's part done once for each call of it that reads, with that call
// failed, and once with each of them interrupted. before makes what it works on; after checks
// what is left: err is what the child says.
func eachRead(t *testing.T, verb, base string, before func(), after func(t *testing.T, err error)) {
	t.Helper()
	calls := 0
	before()
	_, err := traced(t, verb, base, func(c storetest.Call) storetest.Act {
		if reads(c) {
			calls++
		}
		return storetest.Act{}
	})
	after(t, err)
	if err != nil {
		t.Fatal(err)
	}
	step, failed := 1, 0
	if !*long {
		step = max(1, calls/20)
	}
	for at := 1; at <= calls; at += step {
		before()
		which, err := failRead(t, verb, base, at)
		if err != nil {
			failed++
		}
		t.Run(fmt.Sprintf("%d %s", at, which), func(t *testing.T) { after(t, err) })
	}
	t.Logf("%d calls that read; of those that failed %d ended it", calls, failed)
	if failed == 0 {
		t.Error("they did not fail: the test shows nothing")
	}
	before()
	last := storetest.Call{}
	_, err = traced(t, verb, base, func(c storetest.Call) storetest.Act {
		if !reads(c) || c == last {
			last = storetest.Call{}
			return storetest.Act{}
		}
		last = c
		return storetest.Act{Err: unix.EINTR}
	})
	if err != nil {
		t.Errorf("interrupted at each: %v", err)
	}
	after(t, err)
}

// TestAFailedReadOfACaptureKeepsNothingWrong: what it kept reads back, and what it did not keep
// is an error.
func TestAFailedReadOfACaptureKeepsNothingWrong(t *testing.T) {
	base := storetest.Temp(t)
	files, vault := filepath.Join(base, "files"), filepath.Join(base, "state", "vault")
	text := map[string]string{"empty": "", "short": "good", "sparse": "", "long": string(longText(2 << 20))}
	before := func() {
		storetest.Sh(t, `rm -rf "$1" "$2"`, files, filepath.Dir(vault))
		mkdirs(t, files, filepath.Dir(vault))
		for name, s := range text {
			write(t, filepath.Join(files, name), s)
		}
		storetest.Sh(t, `cd "$1"; truncate -s 3M sparse; setfattr -n trusted.x -v y short; ln -s short link; mkfifo pipe`, files)
		if s := open1(t, vault, Options{}); s.Close() != nil {
			t.Fatal("close")
		}
	}
	eachRead(t, "capture", base, before, func(t *testing.T, err error) {
		s := open1(t, vault, Options{})
		clean(t, s)
		if len(s.Opened().Damage) > 0 {
			t.Error(s.Opened().Damage)
		}
		for _, name := range []string{"empty", "short", "sparse", "long", "link", "pipe"} {
			path := filepath.Join(files, name)
			v, ok := s.Trusted(path)
			now := readState(t, path, nil)
			switch {
			case !ok && err == nil:
				t.Errorf("%s is not kept, and there was no error", name)
			case ok && (len(diff(&now, &v.State)) > 0 || s.Verify(v) != nil):
				t.Errorf("%s: kept with other %v: %v", name, diff(&now, &v.State), s.Verify(v))
			}
		}
		if err := captureAll(s, files); err != nil {
			t.Errorf("when the disk answers again: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestAFailedReadOfAPruneDestroysNothingThatStays: and the next one ends it.
func TestAFailedReadOfAPruneDestroysNothingThatStays(t *testing.T) {
	base := storetest.Temp(t)
	made, vault := filepath.Join(base, "made"), filepath.Join(base, "state", "vault")
	mkdirs(t, filepath.Dir(vault))
	prunable(t, made)
	before := func() { storetest.Sh(t, `rm -rf "$2"; cp -a "$1" "$2"`, made, vault) }
	eachRead(t, "prune", base, before, func(t *testing.T, err error) {
		s := open1(t, vault, Options{})
		if done := pruned(t, s); !done && err == nil {
			t.Errorf("no error, and not all that may go is gone: %+v", s.Stats())
		}
		if err := pruneAll(s); err != nil || !pruned(t, s) {
			t.Errorf("when the disk answers again: %v, %+v", err, s.Stats())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestAFailedReadWhileAPlanGoesOnLeavesOldOrNew: the plan was killed half way before.
func TestAFailedReadWhileAPlanGoesOnLeavesOldOrNew(t *testing.T) {
	for _, d := range deeds {
		t.Run(d.name, func(t *testing.T) {
			base := storetest.Temp(t)
			changes := func(c storetest.Call) bool { return !c.Reads }
			want, calls := undone(t, base, changes, d.before, d.changes)
			bad := ""
			before := func() {
				_, bad = mischief(t, base, d.before, d.changes)
				n := 0
				died, err := traced(t, "undo", base, func(c storetest.Call) storetest.Act {
					if changes(c) {
						n++
					}
					return storetest.Act{Kill: n == calls*2/3 && changes(c)}
				})
				if !died {
					t.Fatalf("it was not killed: %v", err)
				}
			}
			eachRead(t, "continue", base, before, func(t *testing.T, err error) {
				if got := bodies(states(t, filepath.Join(base, "files"))); err == nil && got != want {
					t.Errorf("no error, but the tree is\n%s", got)
				}
				aftermath(t, base, want, bad)
			})
		})
	}
}
