package rollback

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/storetest"
)

// prunable fills a vault with versions of which most go, so many that the log is
// written anew, too.
func prunable(t *testing.T, vault string) {
	t.Helper()
	now := newClock()
	s := open1(t, vault, Options{Now: func() time.Time { return now.now }})
	now.now = now.at(-4000) // long ago by any clock
	for i := range 1100 {
		st := event.State{Exists: true, Type: event.TypeSymlink, Mode: 0o777, Target: []byte(fmt.Sprint(i))}
		if _, err := s.CaptureState("/link", st, s.Intake(), Provenance{Trust: i == 0}); err != nil {
			t.Fatal(err)
		}
	}
	long := string(longText(2 << 20))
	for i, text := range []string{long, "one", "two", long + "more", "three"} {
		keepText(t, s, "/f", text, Provenance{Trust: i == 3})
	}
	if _, err := s.Hold("/g", Provenance{Reason: "case 7"}); err != nil {
		t.Fatal(err)
	}
	keepText(t, s, "/g", "held", Provenance{})
	keepText(t, s, "/g", "newest", Provenance{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func pruneAll(s *Store) error {
	_, err := s.Prune(context.Background(), Keep{Age: day}, Provenance{}, nil)
	return err
}

// pruned fails the test unless what must stay is there, and reports whether all
// that may go is gone.
func pruned(t *testing.T, s *Store) bool {
	t.Helper()
	clean(t, s)
	if len(s.Opened().Damage) > 0 {
		t.Error(s.Opened().Damage)
	}
	for path, kept := range map[string][]uint64{"/link": {1, 1100}, "/f": {4, 5}, "/g": {1, 2}} {
		for _, id := range kept {
			if v, ok := s.Version(path, id); !ok || s.Verify(v) != nil {
				t.Errorf("version %d of %s: %v, %v", id, path, ok, s.Verify(v))
			}
		}
	}
	if len(s.Holds()) != 1 {
		t.Errorf("holds %v", s.Holds())
	}
	st := s.Stats()
	return st.Versions == 6 && st.Objects == 8
}

func TestKillingAPruneAtAnyStepLeavesAWholeVault(t *testing.T) {
	dir := storetest.Temp(t)
	made, vault := filepath.Join(dir, "made"), filepath.Join(dir, "state", "vault")
	mkdirs(t, filepath.Dir(vault))
	prunable(t, made)
	steps := 0
	for n := 1; ; n++ {
		if n > maxSteps {
			t.Fatal("it never ends")
		}
		storetest.Run(t, "rm", "-rf", vault)
		storetest.Run(t, "cp", "-a", made, vault)
		died := die(t, "prune", n, dir)
		s := open1(t, vault, Options{})
		if done := pruned(t, s); done == died && n < 3 {
			t.Errorf("step %d: done %v", n, done)
		}
		if n%2 == 0 {
			err := s.Fsck(t.Context(), true, func(p Problem) {
				if p.Kind != ProblemOrphan {
					t.Errorf("step %d: repair: %s", n, p)
				}
			})
			if err != nil {
				t.Error(err)
			}
			pruned(t, s)
		}
		if err := pruneAll(s); err != nil {
			t.Errorf("after a crash at step %d: %v", n, err)
		}
		if !pruned(t, s) {
			t.Errorf("after a crash at step %d and a second prune: %+v", n, s.Stats())
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
	if steps < 10 {
		t.Errorf("only %d steps", steps)
	}
}

func TestAFailureAtAnyStepOfAPruneLeavesAWholeVault(t *testing.T) {
	dir := storetest.Temp(t)
	made, vault := filepath.Join(dir, "made"), filepath.Join(dir, "state", "vault")
	mkdirs(t, filepath.Dir(vault))
	prunable(t, made)
	for _, errno := range []unix.Errno{unix.EIO, unix.ENOSPC, unix.EINTR} {
		for n := 1; ; n++ {
			storetest.Run(t, "rm", "-rf", vault)
			storetest.Run(t, "cp", "-a", made, vault)
			s, f := openFaulty(t, vault)
			f.Fail(n, errno)
			err := pruneAll(s)
			reached := len(f.Steps()) >= n
			if (reached && errno != unix.EINTR) != (err != nil) {
				t.Errorf("%v at step %d: reached %v, but the prune says %v", errno, n, reached, err)
			}
			f.Fail(0, nil)
			pruned(t, s)
			// The same process goes on.
			keepText(t, s, "/later", "later", Provenance{})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open1(t, vault, Options{})
			pruned(t, s)
			if v, ok := s.Latest("/later"); !ok || s.Verify(v) != nil {
				t.Errorf("%v at step %d: what was kept later is lost", errno, n)
			}
			if err := pruneAll(s); err != nil {
				t.Errorf("after %v at step %d: %v", errno, n, err)
			}
			pruned(t, s)
			if st := s.Stats(); st.Versions != 7 || st.Objects != 9 {
				t.Errorf("after %v at step %d and a second prune: %+v", errno, n, st)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if !reached || n > maxSteps {
				break
			}
		}
	}
}
