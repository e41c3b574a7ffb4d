package respond

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
)

func TestAStormBeginsWithTooManyPathsAndEndsWhenItIsQuiet(t *testing.T) {
	f := &fake{trusted: map[string]event.State{}, there: map[string]bool{}}
	began := 0
	r := New(Options{Vault: f, Journal: f, Now: func() uint64 { return f.clock }, Wall: func(b uint64) event.Time { return event.Time(b) },
		Exists: func(string) bool { return true }, StormLimit: 100, StormWindow: time.Minute, Stormed: func(Storm) { began++ }})
	put := func(n int, every time.Duration) {
		for range n {
			f.clock += uint64(every)
			p := fmt.Sprint("/f", f.clock)
			f.trusted[p] = file
			r.Plan([]Target{{Path: p}})
		}
	}
	f.clock = uint64(time.Hour)
	put(300, time.Second)
	if r.Storm().On || began != 0 {
		t.Fatal("60 a minute are no storm of 100 a minute")
	}
	f.clock += uint64(time.Hour)
	put(101, 100*time.Millisecond)
	if s := r.Storm(); !s.On || began != 1 || s.Paths != 101 {
		t.Fatalf("%+v, began %d times", s, began)
	}
	f.clock += uint64(59 * time.Second)
	put(1, 0)
	if _, over := r.StormOver(); over {
		t.Error("over within the window")
	}
	f.clock += uint64(2 * time.Minute)
	if s, over := r.StormOver(); !over || s.Paths != 102 || r.Storm().On {
		t.Errorf("%+v %v", s, over)
	}
	if _, over := r.StormOver(); over {
		t.Error("over twice")
	}
}

func TestTwoManagersOfOneFileAreToldOf(t *testing.T) {
	for _, tc := range []struct {
		name  string
		exe   func(i int) string
		hash  func(i int) byte
		every time.Duration
		want  bool
	}{
		{"the same program and content each half hour", func(int) string { return "/usr/bin/puppet" }, func(int) byte { return 1 }, 30 * time.Minute, true},
		{"the same program with other contents", func(int) string { return "/usr/bin/vim" }, func(i int) byte { return byte(i) }, time.Minute, false},
		{"others with the same content", func(i int) string { return fmt.Sprint("/bin/", i) }, func(int) byte { return 1 }, time.Minute, false},
		{"every second day", func(int) string { return "/usr/bin/puppet" }, func(int) byte { return 1 }, 48 * time.Hour, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fake{trusted: map[string]event.State{"/f": file}, there: map[string]bool{"/f": true}}
			r := New(Options{Vault: f, Journal: f, Now: func() uint64 { return f.clock }, Wall: func(b uint64) event.Time { return event.Time(b) },
				Exists: func(string) bool { return true }})
			for i := range 4 {
				f.clock += uint64(tc.every)
				cause := &event.Record{ID: "c", Path: "/f", Process: &event.Process{Exe: tc.exe(i)},
					After: &event.State{Exists: true, Hash: event.Hash{tc.hash(i)}}}
				if _, err := r.Answer(context.Background(), cause, 0, 0, r.Plan([]Target{{Path: "/f"}})); err != nil {
					t.Fatal(err)
				}
			}
			told := strings.Contains(strings.Join(f.reasons, "\n"), "two managers")
			if _, listed := r.Rivals()["/f"]; told != tc.want || listed != tc.want {
				t.Errorf("told %v, listed %v, want %v: %q", told, listed, tc.want, f.reasons)
			}
		})
	}
}
