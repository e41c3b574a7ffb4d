package rollback

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/storetest"
)

const day = 24 * time.Hour

// clock is a time that a test sets.
type clock struct{ now time.Time }

func newClock() *clock { return &clock{time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)} }

func (c *clock) at(days int) time.Time {
	return time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(days) * day)
}

// keepText keeps a regular file of that content as a version of path.
func keepText(t testing.TB, s *Store, path, text string, p Provenance) Version {
	t.Helper()
	in := s.Intake()
	if _, err := in.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	st := event.State{Exists: true, Type: event.TypeRegular, Mode: 0o644, Size: uint64(len(text)), Hash: digest.Sum([]byte(text))}
	v, err := s.CaptureState(path, st, in, p)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func ids(s *Store, path string) []uint64 {
	out := []uint64{}
	for _, v := range s.Versions(path) {
		out = append(out, v.ID)
	}
	return out
}

func prune(t testing.TB, s *Store, k Keep) Pruned {
	t.Helper()
	done, err := s.Prune(t.Context(), k, Provenance{Reason: "test"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func TestPruneLeavesWhatARuleKeeps(t *testing.T) {
	// Version n of /f is made on day n, by record r/n; on day 100 is pruned.
	for _, c := range []struct {
		name    string
		keep    Keep
		trusted uint64
		hold    string
		gone    bool // the last version says that nothing is there
		want    []uint64
	}{
		{"without an age all stay", Keep{Versions: 1}, 0, "", false, []uint64{1, 2, 3, 4, 5, 6}},
		{"of the old the newest stays", Keep{Age: 10 * day}, 0, "", false, []uint64{6}},
		{"the newest three stay", Keep{Age: 10 * day, Versions: 3}, 0, "", false, []uint64{4, 5, 6}},
		{"the trusted one stays", Keep{Age: 10 * day, Versions: 1}, 2, "", false, []uint64{2, 6}},
		{"what was in force within the age stays", Keep{Age: 96*day + time.Hour, Versions: 1}, 0, "", false, []uint64{3, 4, 5, 6}},
		{"what was replaced later than that", Keep{Age: 96*day - time.Hour, Versions: 1}, 0, "", false, []uint64{4, 5, 6}},
		{"what a record made, and what it found, stays", Keep{Age: 10 * day, Referred: func(r string) bool { return r == "r/4" }}, 0, "", false, []uint64{3, 4, 6}},
		{"all stays under a hold of the path", Keep{Age: 10 * day}, 0, "/d/f", false, []uint64{1, 2, 3, 4, 5, 6}},
		{"all stays under a hold of a directory above", Keep{Age: 10 * day}, 0, "/d", false, []uint64{1, 2, 3, 4, 5, 6}},
		{"a hold of another path keeps nothing", Keep{Age: 10 * day}, 0, "/d/fi", false, []uint64{6}},
		{"a path that is gone is forgotten", Keep{Age: 10 * day}, 0, "", true, []uint64{}},
		{"not while its end is young", Keep{Age: 95*day - time.Hour}, 0, "", true, []uint64{5, 6}},
		{"nor if it was trusted", Keep{Age: 10 * day}, 1, "", true, []uint64{1, 6}},
		{"nor while a record tells of its end", Keep{Age: 10 * day, Referred: func(r string) bool { return r == "r/6" }}, 0, "", true, []uint64{5, 6}},
	} {
		t.Run(c.name, func(t *testing.T) {
			vault, now := filepath.Join(storetest.Temp(t), "vault"), newClock()
			s := open1(t, vault, Options{Now: func() time.Time { return now.now }})
			for i := 1; i <= 6; i++ {
				now.now = now.at(i)
				p := Provenance{Record: fmt.Sprint("r/", i), Trust: c.trusted == uint64(i)}
				if i == 6 && c.gone {
					if _, err := s.Absent("/d/f", p); err != nil {
						t.Fatal(err)
					}
					continue
				}
				keepText(t, s, "/d/f", fmt.Sprint("content ", i), p)
			}
			if c.hold != "" {
				if _, err := s.Hold(c.hold, Provenance{Reason: "case 7"}); err != nil {
					t.Fatal(err)
				}
			}
			now.now = now.at(100)
			var told []uint64
			done, err := s.Prune(t.Context(), c.keep, Provenance{}, func(vs []Version) error {
				for _, v := range vs {
					told = append(told, v.ID)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := ids(s, "/d/f"); !reflect.DeepEqual(got, c.want) {
				t.Errorf("left are %v, wanted %v", got, c.want)
			}
			if len(told) != 6-len(c.want) || done.Versions != len(told) || done.Objects < len(told)-1 {
				t.Errorf("told of %v, %+v", told, done)
			}
			clean(t, s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open1(t, vault, Options{})
			if got := ids(s, "/d/f"); !reflect.DeepEqual(got, c.want) {
				t.Errorf("after opening it again left are %v, wanted %v", got, c.want)
			}
			if v, ok := s.Trusted("/d/f"); ok != (c.trusted != 0) || ok && (v.ID != c.trusted || s.Verify(v) != nil) {
				t.Errorf("trusted is %d, %v", v.ID, s.Verify(v))
			}
			clean(t, s)
		})
	}
}

func TestWhatWasDestroyedIsNotTakenForWhatWasThereBefore(t *testing.T) {
	vault, now := filepath.Join(storetest.Temp(t), "vault"), newClock()
	s := open1(t, vault, Options{Now: func() time.Time { return now.now }})
	for i := 1; i <= 6; i++ {
		now.now = now.at(i)
		keepText(t, s, "/f", fmt.Sprint("content ", i), Provenance{Trust: i == 2})
	}
	now.now = now.at(100)
	prune(t, s, Keep{Age: day, Versions: 2}) // 2, 5 and 6 are left
	for range 3 {
		for d, want := range map[int]uint64{1: 0, 2: 2, 3: 0, 4: 0, 5: 5, 6: 6, 50: 6} {
			at := event.TimeOf(now.at(d).Add(time.Hour))
			v, ok := s.At("/f", at)
			if v.ID != want || ok == (want == 0) || s.Destroyed("/f", at) != (want == 0) {
				t.Errorf("on day %d there was version %d, %v; destroyed %v; wanted %d", d, v.ID, ok, s.Destroyed("/f", at), want)
			}
		}
		plan, err := s.PlanRestore(t.Context(), []string{"/f"}, RestoreOptions{At: event.TimeOf(now.at(3).Add(time.Hour))})
		if err != nil || len(plan.Steps) > 0 || len(plan.Conflicts) != 1 {
			t.Errorf("plan %+v, %v", plan, err)
		}
		s.sync.Lock()
		err = s.rewriteLog() // and the same from a log written anew
		s.sync.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open1(t, vault, Options{Now: func() time.Time { return now.now }})
	}
}

func TestAHoldLastsUntilItIsReleased(t *testing.T) {
	vault, now := filepath.Join(storetest.Temp(t), "vault"), newClock()
	s := open1(t, vault, Options{Now: func() time.Time { return now.now }})
	reopen := func() {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open1(t, vault, Options{Now: func() time.Time { return now.now }})
	}
	for i := range 5 {
		keepText(t, s, "/d/f", fmt.Sprint(i), Provenance{})
	}
	h, err := s.Hold("/d", Provenance{Reason: "case 7", Record: "r/1"})
	if err != nil || h.ID != 1 {
		t.Fatal(h, err)
	}
	if _, err := s.Hold("/d/f", Provenance{Reason: "case 8"}); err != nil {
		t.Fatal(err)
	}
	keepText(t, s, "/d/f", "a later one", Provenance{})
	now.now = now.at(1000)
	for i, left := range []int{6, 6, 1} {
		if i > 0 {
			if _, err := s.Release(uint64(i), Provenance{Reason: "closed"}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Release(uint64(i), Provenance{Reason: "again"}); !errors.Is(err, ErrNoHold) {
				t.Errorf("released twice: %v", err)
			}
		}
		reopen()
		prune(t, s, Keep{Age: day})
		if got := len(s.Versions("/d/f")); got != left {
			t.Errorf("%d holds released: %d versions are left, wanted %d", i, got, left)
		}
		s.sync.Lock()
		err := s.rewriteLog()
		s.sync.Unlock()
		if err != nil {
			t.Fatal(err)
		}
	}
	reopen()
	want := Hold{ID: 1, Path: "/d", Time: h.Time, Reason: "case 7", Record: "r/1", Released: event.TimeOf(now.at(1000)), Why: "closed"}
	if all := s.Holds(); len(all) != 2 || all[0] != want {
		t.Errorf("holds %+v", all)
	}
	if _, err := s.Release(3, Provenance{}); !errors.Is(err, ErrNoHold) {
		t.Errorf("a hold that never was: %v", err)
	}
}

func TestContentsGoWhenTheirGraceIsOver(t *testing.T) {
	vault, now := filepath.Join(storetest.Temp(t), "vault"), newClock()
	s := open1(t, vault, Options{Now: func() time.Time { return now.now }})
	long := string(longText(3 << 20))
	keepText(t, s, "/long", long, Provenance{})
	keepText(t, s, "/long", long+"more", Provenance{Trust: true})
	keepText(t, s, "/a", "shared", Provenance{})
	keepText(t, s, "/b", "shared", Provenance{})
	keepText(t, s, "/b", "its own", Provenance{})
	keepText(t, s, "/b", "now", Provenance{})
	sync1(t, s)
	all := s.Stats()
	now.now = now.at(100)
	keep := Keep{Age: day, Grace: 2 * day}
	if done := prune(t, s, keep); done.Versions != 3 || done.Objects != 0 || done.Waiting != 3 {
		t.Errorf("at once: %+v", done) // the list and last chunk of the first /long, "its own"
	}
	if got := s.Stats().Objects; got != all.Objects {
		t.Errorf("%d objects are left of %d within the time of grace", got, all.Objects)
	}
	// What comes back within the time stays.
	keepText(t, s, "/c", "its own", Provenance{})
	now.now = now.at(101)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open1(t, vault, Options{Now: func() time.Time { return now.now }})
	if done := prune(t, s, keep); done.Objects != 0 || done.Waiting != 2 {
		t.Errorf("a day later: %+v", done)
	}
	now.now = now.at(102)
	done := prune(t, s, keep)
	if done.Objects != 2 || done.Waiting != 0 {
		t.Errorf("two days later: %+v", done)
	}
	if st := s.Stats(); st.Objects != all.Objects-2 || all.Stored-st.Stored != done.Bytes || done.Bytes == 0 {
		t.Errorf("%+v of %+v are left, %+v are gone", st, all, done)
	}
	clean(t, s)
	for _, p := range s.Paths("") {
		v, _ := s.Latest(p)
		if err := s.Verify(v); err != nil {
			t.Error(err)
		}
	}
}

func longText(n int) []byte {
	b := make([]byte, 0, n+32)
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, "%d %x\n", i, i*2654435761)
	}
	return b[:n]
}

// TestReadersComeInWhileTheLogIsWrittenAnew.
func TestReadersComeInWhileTheLogIsWrittenAnew(t *testing.T) {
	vault := filepath.Join(storetest.Temp(t), "vault")
	s := open1(t, vault, Options{})
	keepText(t, s, "/f", "content", Provenance{Trust: true})
	sync1(t, s)
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				done <- n
				return
			default:
			}
			s.sync.Lock()
			if err := s.rewriteLog(); err != nil {
				t.Error(err)
			}
			s.sync.Unlock()
			n++
		}
	}()
	for range 300 {
		r, err := OpenReadOnly(vault)
		if err != nil {
			t.Error(err)
			continue
		}
		if v, ok := r.Trusted("/f"); !ok || r.Verify(v) != nil || len(r.Opened().Damage) > 0 {
			t.Errorf("version %v, %v, damage %v", v.ID, ok, r.Opened().Damage)
		}
		clean(t, r)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	if n := <-done; n < 10 {
		t.Errorf("written anew %d times only", n)
	}
}

// TestASweepWaitsForCapturesThatHaveBegun: what one has found stored, its version
// names a moment later.
func TestASweepWaitsForCapturesThatHaveBegun(t *testing.T) {
	s := open1(t, filepath.Join(storetest.Temp(t), "vault"), Options{})
	old := keepText(t, s, "/f", "content", Provenance{})
	keepText(t, s, "/f", "another", Provenance{})
	sync1(t, s)
	s.keeping.RLock() // as CaptureState does
	if err := s.objects.Put(old.State.Hash, []byte("content")); err != nil {
		t.Fatal(err)
	}
	pruned := make(chan error, 1)
	go func() {
		_, err := s.Prune(context.Background(), Keep{Age: 1}, Provenance{}, nil)
		pruned <- err
	}()
	select {
	case err := <-pruned:
		t.Errorf("it did not wait: %v", err)
		pruned <- err
	case <-time.After(200 * time.Millisecond):
	}
	v, err := s.record("/g", old.State, nil, Provenance{})
	s.keeping.RUnlock()
	if err := errors.Join(err, <-pruned, s.Verify(v)); err != nil {
		t.Error(err)
	}
	if got := ids(s, "/f"); len(got) != 1 {
		t.Errorf("versions %v are left", got)
	}
	clean(t, s)
}

// TestCapturesGoOnWhileContentsAreSwept: what a capture finds stored must not be
// taken away before its version is known.
func TestCapturesGoOnWhileContentsAreSwept(t *testing.T) {
	s := open1(t, filepath.Join(storetest.Temp(t), "vault"), Options{})
	long := longText(2 << 20)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for g := range 2 {
		wg.Go(func() {
			for i := range 60 {
				path := fmt.Sprint("/", g)
				keepText(t, s, path, fmt.Sprint("content ", i%5), Provenance{})
				if i%10 == 0 {
					keepText(t, s, path, string(long[:len(long)-i%3]), Provenance{})
				}
			}
		})
	}
	swept := make(chan int)
	go func() {
		n := 0
		for ctx.Err() == nil {
			done, err := s.Prune(context.Background(), Keep{Age: 1}, Provenance{}, nil)
			if err != nil {
				t.Error(err)
				break
			}
			n += done.Objects
		}
		swept <- n
	}()
	wg.Wait()
	stop()
	if n := <-swept; n == 0 {
		t.Error("nothing was swept meanwhile")
	}
	sync1(t, s)
	clean(t, s)
}
