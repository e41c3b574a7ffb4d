package ship_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/ship"
	"github.com/holdfast/holdfast/pkg/ship/shiptest"
)

const host = "h"

func record(hostID string, seq uint64) []byte { return fmt.Appendf(nil, "%s %d", hostID, seq) }

func number(b []byte) (hostID string, seq uint64) {
	if _, err := fmt.Sscanf(string(b), "%s %d", &hostID, &seq); err != nil {
		panic(err)
	}
	return hostID, seq
}

func newJournal(n uint64) *shiptest.Journal {
	j := &shiptest.Journal{}
	for i := uint64(1); i <= n; i++ {
		j.Append(record(host, i))
	}
	return j
}

func quick(dir string) ship.Options {
	return ship.Options{
		HostID: host, PositionFile: filepath.Join(dir, "position"), BatchRows: 10,
		FlushEvery: 2 * time.Millisecond, ConfirmEvery: 4 * time.Millisecond, Poll: time.Millisecond,
		BackoffMin: time.Millisecond, BackoffMax: 4 * time.Millisecond,
	}
}

// run starts a shipper; the returned function stops it and waits for its end.
func run(t *testing.T, src ship.Source, dst ship.Sink, o ship.Options) (*ship.Shipper, func()) {
	t.Helper()
	s, err := ship.New(src, dst, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return s, stop
}

// await polls until ok; a test that waits in vain fails with the state it saw.
func await(t *testing.T, s *ship.Shipper, what string, ok func(ship.Stats) bool) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	for !ok(s.Stats()) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s: %+v", what, s.Stats())
		}
		time.Sleep(time.Millisecond)
	}
}

func confirmed(n uint64) func(ship.Stats) bool {
	return func(st ship.Stats) bool { return st.Confirmed == n }
}

// check fails unless dst holds each of the records 1 to n once and as it is.
func check(t *testing.T, dst *shiptest.Sink, from, n uint64) {
	t.Helper()
	rows := dst.Rows(host)
	if uint64(len(rows)) != n-from+1 {
		t.Errorf("%d rows, want %d", len(rows), n-from+1)
	}
	for i, r := range rows {
		if want := from + uint64(i); r.Seq != want || !bytes.Equal(r.Bytes, record(host, want)) {
			t.Fatalf("row %d is record %d %q, want %d", i, r.Seq, r.Bytes, want)
		}
	}
}

func TestMemorySink(t *testing.T) { shiptest.RunSink(t, &shiptest.Sink{Number: number}, record) }

func TestShip(t *testing.T) {
	t.Run("everything arrives once, in order, and later records follow", func(t *testing.T) {
		j, dst := newJournal(95), &shiptest.Sink{Number: number}
		s, stop := run(t, j, dst, quick(t.TempDir()))
		await(t, s, "95 records", confirmed(95))
		for i := uint64(96); i <= 120; i++ {
			j.Append(record(host, i))
		}
		await(t, s, "120 records", confirmed(120))
		stop()
		check(t, dst, 1, 120)
		if st := s.Stats(); st.Lag != 0 || st.Retries != 0 || st.Repaired != 0 || st.LastError != "" {
			t.Errorf("stats after a quiet run: %+v", st)
		}
	})
	t.Run("an outage costs nothing but time, and is told", func(t *testing.T) {
		var down sync.Mutex
		bad := errors.New("no such server")
		off := true
		dst := &shiptest.Sink{Number: number, Fail: func(string) error {
			down.Lock()
			defer down.Unlock()
			if off {
				return bad
			}
			return nil
		}}
		s, stop := run(t, newJournal(50), dst, quick(t.TempDir()))
		await(t, s, "retries", func(st ship.Stats) bool { return st.Retries > 3 })
		if st := s.Stats(); st.Connected || st.LastError != bad.Error() || st.Lag != 50 || st.Newest != 50 {
			t.Errorf("stats in the outage: %+v", st)
		}
		down.Lock()
		off = false
		down.Unlock()
		await(t, s, "50 records", confirmed(50))
		if st := s.Stats(); !st.Connected || st.LastError != "" {
			t.Errorf("stats after the outage: %+v", st)
		}
		stop()
		check(t, dst, 1, 50)
	})
	t.Run("a second start sends nothing again", func(t *testing.T) {
		dir, j, dst := t.TempDir(), newJournal(40), &shiptest.Sink{Number: number}
		for range 3 {
			s, stop := run(t, j, dst, quick(dir))
			await(t, s, "40 records", confirmed(40))
			stop()
		}
		check(t, dst, 1, 40)
	})
	t.Run("checkpoints follow the records under them", func(t *testing.T) {
		j, dst, o := newJournal(30), &shiptest.Sink{Number: number}, quick(t.TempDir())
		o.Checkpoint = func() ([]byte, error) { return []byte("holdfast.journal/h\n30\nroot\n\n— signature\n"), nil }
		s, stop := run(t, j, dst, o)
		await(t, s, "the checkpoint", func(st ship.Stats) bool { return st.Checkpoint == 30 })
		stop()
		if got := dst.Checkpoints(); len(got) != 1 || got[0] != 30 {
			t.Errorf("checkpoints %v, want [30]", got)
		}
	})
}

// TestChangesOfKey: whoever has the first key follows the others from what arrived, so each arrives, before what its successor signs.
func TestChangesOfKey(t *testing.T) {
	note := func(size int, next string) []byte {
		return fmt.Appendf(nil, "holdfast.journal/h\n%d\nroot\n%s\n— signature\n", size, next)
	}
	dir, j, dst := t.TempDir(), newJournal(30), &shiptest.Sink{Number: number}
	all := [][]byte{note(0, "next a\n"), note(10, "next b\n"), note(30, "next c\n"), note(31, "next d\n")}
	given := 0
	var points []string // at which the sink was asked to store one
	dst.Fail = func(point string) error {
		if point == "checkpoint" {
			if points = append(points, point); len(points)%2 == 1 {
				return errors.New("try again")
			}
		}
		return nil
	}
	for range 2 { // a second start sends none again
		given = 0
		o := quick(dir)
		o.Checkpoint = func() ([]byte, error) { return note(30, ""), nil }
		o.CheckEvery = 5 * time.Millisecond
		o.Changes = func() ([][]byte, error) {
			fresh := all[given:]
			given = len(all)
			return fresh, nil
		}
		s, stop := run(t, j, dst, o)
		await(t, s, "the checkpoint", func(st ship.Stats) bool { return st.Checkpoint == 30 })
		stop()
	}
	handed, err := dst.Handed(t.Context(), "h", all)
	if err != nil || len(handed) != 3 { // of the fourth the records are not there yet
		t.Errorf("%d changes of key, %v, want 3", len(handed), err)
	}
	if len(points) != 2*4+2 { // three and the checkpoint, each after a failure; then the checkpoint
		t.Errorf("%d notes were sent", len(points))
	}
}

func TestBrokenCheckpoint(t *testing.T) {
	for _, note := range []string{"x", "a\nb\nc\n", "a\n-1\nc"} {
		j, dst, o := newJournal(30), &shiptest.Sink{Number: number}, quick(t.TempDir())
		o.Checkpoint = func() ([]byte, error) { return []byte(note), nil }
		s, stop := run(t, j, dst, o)
		await(t, s, "30 records and an error", func(st ship.Stats) bool {
			return st.Confirmed == 30 && strings.Contains(st.LastError, "checkpoint")
		})
		stop()
	}
}

func TestRepair(t *testing.T) {
	cases := []struct {
		name    string
		damage  func(dir string, dst *shiptest.Sink)
		present uint64 // oldest record that must be there afterwards
	}{
		{"rows that the server lost from the end come again although their tokens are remembered",
			func(_ string, d *shiptest.Sink) { d.Lose(host, func(n uint64) bool { return n > 35 }) }, 1},
		{"with the position file lost, holes in the middle are filled",
			func(dir string, d *shiptest.Sink) {
				_ = os.Remove(filepath.Join(dir, "position"))
				d.Lose(host, func(n uint64) bool { return n%7 == 0 })
			}, 1},
		{"with everything lost, everything comes again",
			func(_ string, d *shiptest.Sink) { d.Lose(host, func(uint64) bool { return true }) }, 1},
		{"a torn position file is as good as none",
			func(dir string, d *shiptest.Sink) {
				_ = os.WriteFile(filepath.Join(dir, "position"), []byte("holdfast-ship 1 60 51 6"), 0o600)
				d.Lose(host, func(n uint64) bool { return n > 55 })
			}, 1},
		{"another host's position file is not believed",
			func(dir string, d *shiptest.Sink) {
				b, _ := os.ReadFile(filepath.Join(dir, "position"))
				_ = os.WriteFile(filepath.Join(dir, "position"), bytes.Replace(b, []byte(" 60 "), []byte(" 61 "), 1), 0o600)
			}, 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir, j, dst := t.TempDir(), newJournal(60), &shiptest.Sink{Number: number}
			s, stop := run(t, j, dst, quick(dir))
			await(t, s, "60 records", confirmed(60))
			stop()
			c.damage(dir, dst)
			for i := uint64(61); i <= 70; i++ {
				j.Append(record(host, i))
			}
			s, stop = run(t, j, dst, quick(dir))
			await(t, s, "70 records", confirmed(70))
			stop()
			check(t, dst, c.present, 70)
		})
	}
	t.Run("what was acknowledged but never kept is sent again", func(t *testing.T) {
		dst := &shiptest.Sink{Number: number}
		lost := false
		dst.Fail = func(point string) error {
			if point == "sent" && !lost && len(dst.Rows(host)) >= 30 {
				lost = true
				dst.Lose(host, func(n uint64) bool { return n > 20 && n <= 30 })
			}
			return nil
		}
		s, stop := run(t, newJournal(60), dst, quick(t.TempDir()))
		await(t, s, "60 records", confirmed(60))
		stop()
		check(t, dst, 1, 60)
		if st := s.Stats(); st.Repaired == 0 {
			t.Error("nothing is counted as repaired")
		}
	})
	t.Run("what the journal dropped before it was shipped is counted", func(t *testing.T) {
		j, dst := newJournal(60), &shiptest.Sink{Number: number}
		j.Drop(21)
		s, stop := run(t, j, dst, quick(t.TempDir()))
		await(t, s, "60 records", confirmed(60))
		stop()
		check(t, dst, 21, 60)
		if st := s.Stats(); st.Skipped != 20 {
			t.Errorf("Skipped is %d, want 20", st.Skipped)
		}
	})
}

func TestUnreadable(t *testing.T) {
	j, dst := newJournal(60), &shiptest.Sink{Number: number}
	j.Lose(23, 24, 25)
	dir := t.TempDir()
	s, stop := run(t, j, dst, quick(dir))
	await(t, s, "60 records", confirmed(60))
	if st := s.Stats(); st.Skipped != 3 {
		t.Errorf("Skipped is %d, want 3", st.Skipped)
	}
	stop()
	for _, hint := range []bool{true, false} {
		if !hint {
			_ = os.Remove(filepath.Join(dir, "position"))
		}
		s, stop = run(t, j, dst, quick(dir))
		await(t, s, "60 records again", confirmed(60))
		stop()
	}
	if n := len(dst.Rows(host)); n != 57 {
		t.Errorf("%d rows, want the 57 that can be read", n)
	}
}

func TestWrongLog(t *testing.T) {
	other := func(n uint64) *shiptest.Journal {
		j := &shiptest.Journal{}
		for i := uint64(1); i <= n; i++ {
			j.Append(fmt.Appendf(nil, "%s %d of another log", host, i))
		}
		return j
	}
	cases := []struct {
		name string
		j    *shiptest.Journal
		want error
	}{
		{"a journal that was begun anew is refused", other(80), ship.ErrOtherLog},
		{"a journal that is an old copy is refused", newJournal(40), ship.ErrAhead},
		{"an empty journal is refused where the server has records", newJournal(0), ship.ErrAhead},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dst := &shiptest.Sink{Number: number}
			s, stop := run(t, newJournal(60), dst, quick(t.TempDir()))
			await(t, s, "60 records", confirmed(60))
			stop()
			s, stop = run(t, c.j, dst, quick(t.TempDir()))
			await(t, s, "an error", func(st ship.Stats) bool { return st.LastError != "" })
			stop()
			if st := s.Stats(); !strings.Contains(st.LastError, c.want.Error()) {
				t.Errorf("error %q, want %q", st.LastError, c.want)
			}
			check(t, dst, 1, 60)
		})
	}
}

// TestFaults fails at random points, before and behind what the sink does, and
// starts anew now and then: nothing may be lost or doubled.
func TestFaults(t *testing.T) {
	for seed := uint64(1); seed <= 20; seed++ {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			var mu sync.Mutex
			rnd := rand.New(rand.NewPCG(seed, 2))
			faults := 200
			dst := &shiptest.Sink{Number: number, Fail: func(point string) error {
				mu.Lock()
				defer mu.Unlock()
				if faults > 0 && rnd.IntN(4) == 0 {
					faults--
					return errors.New("fault at " + point)
				}
				return nil
			}}
			dir, j := t.TempDir(), newJournal(300)
			for restart := range 5 {
				s, stop := run(t, j, dst, quick(dir))
				mu.Lock()
				life := time.Duration(rnd.IntN(15)) * time.Millisecond
				mu.Unlock()
				time.Sleep(life)
				if restart == 4 {
					mu.Lock()
					faults = 0
					mu.Unlock()
					await(t, s, "300 records", confirmed(300))
				}
				stop()
			}
			check(t, dst, 1, 300)
		})
	}
}

func TestOptions(t *testing.T) {
	if _, err := ship.New(newJournal(0), &shiptest.Sink{}, ship.Options{}); err == nil {
		t.Error("no host id, no error")
	}
	s, err := ship.New(newJournal(0), &shiptest.Sink{}, ship.Options{HostID: "h", PositionFile: "/nonexistent/position"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "shipping position") {
		t.Errorf("a position file that cannot be made: %v", err)
	}
}
