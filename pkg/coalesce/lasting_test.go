package coalesce

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
)

// step is an event, or a tick at a time in ms where there is none.
type step struct {
	ev   *event.Event
	tick uint64
}

func TestWritesAreAskedForWhenAFileStaysOpen(t *testing.T) {
	exit := func(at uint64) *event.Event {
		return &event.Event{Kind: event.KindExit, Time: at * ms, Key: event.ProcKey{PID: 10, Start: 1, Execs: 1}}
	}
	open := ev(1, event.OpOpen, "f", through(5))
	tests := []struct {
		name    string
		steps   []step
		writers []int // as told
		want    []string
	}{
		{"a file that is closed soon asks for nothing, and its close has it looked at",
			[]step{{ev: open}, {tick: 500}, {ev: ev(600, event.OpClose, "f", through(5))}, {tick: 5000}},
			nil, []string{"10 open /t/f [] 0/0"}},
		{"a file that stays open asks, is looked at once, and no more",
			[]step{{ev: open}, {tick: 1100}, {tick: 2200}, {tick: 60000}},
			[]int{1}, []string{"10 open /t/f [] 0/0 partial"}},
		{"its close ends that",
			[]step{{ev: open}, {tick: 1100}, {tick: 2200}, {ev: ev(3000, event.OpClose, "f", through(5))}, {tick: 4000}},
			[]int{1, 0}, []string{"10 open /t/f [] 0/0 partial", "10 open /t/f [] 0/0"}},
		{"a write that is told of makes the look needless",
			[]step{{ev: open}, {tick: 1100}, {ev: ev(1200, event.OpWrite, "f", through(5), flags(event.FlagFirst))}, {tick: 1800}},
			[]int{1}, []string{"10 write /t/f [write] 1/0 partial"}},
		{"a child that inherited the descriptor keeps it asked for",
			[]step{{ev: open}, {ev: exit(20)}, {tick: 1100}, {tick: 2200}, {ev: ev(3000, event.OpClose, "f", through(5))}},
			[]int{1, 0}, []string{"10 open /t/f [] 0/0 partial", "10 open /t/f [] 0/0"}},
		{"a file that was made and stays open is told of, and then looked at",
			[]step{{ev: ev(1, event.OpOpen, "f", through(5), flags(created))}, {tick: 600}, {tick: 1100}, {tick: 2200}},
			[]int{1}, []string{"10 create /t/f [create] 1/0", "10 open /t/f [] 0/0 partial"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			var writers []int
			tab := New(Options{
				Anchors: anchors{1: "/t"}, Emit: func(c *event.Change) { got = append(got, show(c)) },
				Holds: func(n Holds) { writers = append(writers, n.Writers) }, Lasting: time.Second,
			})
			for _, s := range tt.steps {
				if s.ev == nil {
					tab.Tick(s.tick * ms)
				} else if err := tab.Add(s.ev, nil); err != nil {
					t.Fatal(err)
				}
			}
			if !slices.Equal(got, tt.want) || !slices.Equal(writers, tt.writers) {
				t.Errorf("told %q and %v writers, want %q and %v", got, writers, tt.want, tt.writers)
			}
		})
	}
}

func TestWhatIsToldAheadIsLookedAtLater(t *testing.T) {
	var got []string
	tab := New(Options{Anchors: anchors{1: "/t"}, Emit: func(c *event.Change) { got = append(got, show(c)) }})
	for _, e := range []*event.Event{
		ev(1, event.OpMkdir, "snapshot", flags(event.FlagAhead)), ev(1, event.OpSetflags, "f", flags(event.FlagAhead)),
	} {
		if err := tab.Add(e, nil); err != nil {
			t.Fatal(err)
		}
	}
	if tab.Tick(400 * ms); len(got) != 0 {
		t.Errorf("%q was looked at before it can be over", got)
	}
	tab.Tick(600 * ms)
	if want := []string{"10 mkdir /t/snapshot [mkdir] 1/0", "10 setflags /t/f [setflags] 1/0"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestAFileWithoutAPlaceIsFoundByItsInode(t *testing.T) {
	var got []string
	known := map[uint64]string{7: "/t/dir/f", 8: "/elsewhere/f"}
	tab := New(Options{
		Anchors: anchors{1: "/t"}, Emit: func(c *event.Change) { got = append(got, show(c)) },
		Watched: func(p string) bool { return p == "/t" || below(p, "/t") },
		Inode:   func(ev *event.Event) (string, bool) { p, ok := known[ev.Ino]; return p, ok },
	})
	astray := func(ino uint64) *event.Event {
		e := ev(1, event.OpChmod, "", flags(event.FlagAstray))
		e.Ino = ino
		return e
	}
	for ino, want := range map[uint64]error{7: nil, 8: nil, 9: ErrUnresolved} {
		if err := tab.Add(astray(ino), nil); !errors.Is(err, want) {
			t.Errorf("inode %d: %v, want %v", ino, err, want)
		}
	}
	tab.Flush()
	if want := []string{"10 chmod /t/dir/f [chmod] 1/0"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestWhoEmptiesAFileThatHeHasOpenIsWaitedFor(t *testing.T) {
	var got []*event.Change
	tab := New(Options{Anchors: anchors{1: "/t"}, Emit: func(c *event.Change) { got = append(got, c) }, Lasting: time.Second})
	for _, e := range []*event.Event{
		ev(1, event.OpOpen, "f", through(5)), ev(2, event.OpTruncate, "f", through(5)),
	} {
		if err := tab.Add(e, nil); err != nil {
			t.Fatal(err)
		}
	}
	if tab.Tick(100 * ms); len(got) != 0 {
		t.Fatalf("%s was settled before its close", show(got[0]))
	}
	if err := tab.Add(ev(101, event.OpClose, "f", through(5)), nil); err != nil {
		t.Fatal(err)
	}
	tab.Flush()
	if len(got) != 1 || show(got[0]) != "10 truncate /t/f [truncate] 1/0" || !got[0].Opened {
		t.Errorf("told %d changes, want one that says that it was opened", len(got))
	}
}
