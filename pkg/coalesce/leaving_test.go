package coalesce

import (
	"slices"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
)

// What one event settles leaves one by one, and the receiver may deal with the
// first before the second comes.
func TestWhatHasLeftIsNotLaterThanWhatLeavesBehindIt(t *testing.T) {
	var tab *Table
	var told []string
	var oldest []uint64
	tab = New(Options{Anchors: anchors{1: "/t"}, Emit: func(c *event.Change) {
		l := tab.Later("/t/f", c.Turn)
		told = append(told, c.Op.String()+map[bool]string{true: " before another"}[l.Any])
		at, ok := tab.Oldest()
		if !ok {
			t.Errorf("nothing is on its way while %s is", c.Op)
		}
		oldest = append(oldest, at/ms)
		if tab.Stats().Pending == 0 {
			t.Errorf("nothing is pending while %s is on its way", c.Op)
		}
	}})
	for _, e := range []*event.Event{ev(1, event.OpChmod, "f"), ev(5, event.OpUnlink, "f", by(11))} {
		if err := tab.Add(e, nil); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"chmod before another", "unlink"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	if want := []uint64{1, 5}; !slices.Equal(oldest, want) {
		t.Errorf("the oldest were %v ms, want %v", oldest, want)
	}
	if _, ok := tab.Oldest(); ok || tab.Stats().Pending != 0 || tab.Later("/t/f", 0).Any {
		t.Error("something is still on its way")
	}
}

// The end of one process among many looks at what it had, and at nothing else.
func TestAProcessEndsOnlyItsOwn(t *testing.T) {
	var got []string
	tab := New(Options{Anchors: anchors{1: "/t"}, Emit: func(c *event.Change) { got = append(got, show(c)) }})
	add := func(e *event.Event) {
		if err := tab.Add(e, nil); err != nil {
			t.Fatal(err)
		}
	}
	add(ev(1, event.OpWrite, "a", by(1), through(1)))
	add(ev(1, event.OpWrite, "b", by(2), through(2)))
	add(ev(1, event.OpChmod, "c", by(1)))
	exit := func(at uint64, pid uint32) *event.Event {
		return &event.Event{Kind: event.KindExit, Time: at * ms, Key: event.ProcKey{PID: pid, Start: 1, Execs: 1}}
	}
	add(exit(2, 3))
	if len(got) != 0 {
		t.Errorf("the end of a process that has nothing gave %q", got)
	}
	add(exit(3, 1))
	if want := []string{"1 write /t/a [write] 1/0", "1 chmod /t/c [chmod] 1/0"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if s := tab.Stats(); s.Pending != 1 {
		t.Errorf("%d are pending, want 1", s.Pending)
	}
}
