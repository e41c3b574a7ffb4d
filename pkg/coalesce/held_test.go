package coalesce

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
)

// heldTable is a Table that writes down what it gives out.
type heldTable struct {
	*Table
	looks []*event.Change
	found []Holding
	scans int
	holds Holds
}

func newHeld(o Options) *heldTable {
	h := &heldTable{}
	o.Anchors = anchors{1: "/t"}
	o.Emit = func(c *event.Change) { h.looks = append(h.looks, c) }
	o.Found = func(x Holding) { h.found = append(h.found, x) }
	o.Scan = func() { h.scans++ }
	o.Holds = func(n Holds) { h.holds = n }
	h.Table = New(o)
	return h
}

// who names a process by its pid alone.
func who(e *event.Event) (event.Actor, event.Process) {
	return event.Actor{User: fmt.Sprint("user", e.Key.PID)}, event.Process{PID: e.Key.PID, Exe: "/exe"}
}

func (h *heldTable) add(t *testing.T, events ...*event.Event) {
	t.Helper()
	for _, e := range events {
		if err := h.Add(e, who); err != nil {
			t.Fatal(err)
		}
	}
}

// look returns the looks at mapped files since the last call: who is blamed.
func (h *heldTable) blamed() []string {
	var out []string
	for _, c := range h.looks {
		if c.Mapped && c.Op == event.OpOpen {
			out = append(out, fmt.Sprintf("%s by %s[%d]", c.Path, c.Actor.User, c.Key.PID))
		}
	}
	h.looks = nil
	return out
}

func is(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// scan is what a scan at ms tells: a row, or its two ends.
func scan(at uint64, op event.Op, path string, change ...func(*event.Event)) *event.Event {
	e := ev(at, op, path, change...)
	e.Kind, e.Arg = event.KindHeld, at*ms
	return e
}

func scanEnds(at uint64, change ...func(*event.Event)) []*event.Event {
	return []*event.Event{
		scan(at, event.OpNone, "", change...),
		scan(at, event.OpNone, "", append(change, flags(event.FlagMapped))...),
	}
}

func life(at uint64, kind event.Kind, pid, parent uint32) *event.Event {
	return &event.Event{Kind: kind, Time: at * ms, Key: event.ProcKey{PID: pid, Start: 1, Execs: 1}, Parent: event.ProcKey{PID: parent, Start: 1, Execs: 1}}
}

var arming = flags(event.FlagFirst)

const (
	mapped = event.OpMapWrite
	store  = event.FlagMapped
)

func TestWhatWasThereBeforeIsToldOfOnce(t *testing.T) {
	h := newHeld(Options{})
	h.add(t, ev(1, event.OpOpen, "known", through(9)))
	for at := uint64(2); at < 4; at++ {
		h.add(t, scan(at, event.OpOpen, "fd", through(5), arming), scan(at, mapped, "map", through(6), by(11), arming),
			scan(at, mapped, "map", through(6), by(11), arming), scan(at, event.OpOpen, "known", through(9), arming),
			scan(at, event.OpOpen, "gone", through(8), unlinked, arming))
		h.add(t, scanEnds(at, arming)...)
	}
	var got []string
	for _, f := range h.found {
		got = append(got, fmt.Sprintf("%s %s by %s before %v", f.Op, f.Path, f.Actor.User, f.Before))
	}
	is(t, "told", got, "open /t/fd by user10 before true", "map_write /t/map by user11 before true")
	if h.holds != (Holds{Mappings: 1, Descriptors: 1}) || len(h.Held()) != 2 {
		t.Errorf("holds %v, lists %+v", h.holds, h.Held())
	}
}

func TestAnArmingIsOverWhenAllDescriptorsAreTold(t *testing.T) {
	h := newHeld(Options{})
	var told []string
	h.o.Holds = func(n Holds) { told = append(told, fmt.Sprint("holds ", n.Descriptors)) }
	h.o.Armed = func() { told = append(told, "armed") }
	h.add(t, scan(2, event.OpOpen, "fd", through(5), arming))
	h.add(t, scanEnds(2, arming)...)
	h.add(t, scanEnds(3)...) // a later scan arms nothing
	if want := []string{"holds 1", "armed", "holds 0"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

func TestWhatALaterScanFindsIsNotCalledOlderThanTheRule(t *testing.T) {
	h := newHeld(Options{})
	h.add(t, scan(1, mapped, "f", through(5)), scan(1, event.OpOpen, "g", through(6)))
	if len(h.found) != 0 || h.holds != (Holds{Mappings: 1, Descriptors: 0}) || h.Held()[0].Before {
		t.Errorf("told %+v, holds %v", h.found, h.holds)
	}
}

func TestAMappedFileIsLookedAtByTheClockBehindAScan(t *testing.T) {
	h := newHeld(Options{MappedEvery: 10 * time.Millisecond})
	if at, ok := h.Next(); ok {
		t.Errorf("something is due at %d although nothing is mapped", at)
	}
	h.add(t, scan(1, mapped, "f", through(5), arming))
	h.add(t, scanEnds(1, arming)...)
	is(t, "what differs before anybody could tell", h.blamed(), "/t/f by unknown[0]")
	if at, ok := h.Next(); !ok || at != 11*ms {
		t.Errorf("due at %d (%v), want at 11 ms", at, ok)
	}
	h.Tick(10 * ms)
	is(t, "too early", h.blamed())
	h.Tick(11 * ms)
	is(t, "before the scan has ended", h.blamed())
	if h.scans != 1 {
		t.Errorf("%d scans were asked for, want 1", h.scans)
	}
	h.add(t, scan(12, mapped, "f", through(5)))
	h.add(t, scanEnds(12)...)
	is(t, "after it", h.blamed(), "/t/f by user10[10]")
	// a scan whose end never comes does not stop the looks
	h.Tick(21 * ms)
	h.Tick(31 * ms)
	is(t, "without an end of the scan", h.blamed(), "/t/f by user10[10]")
	if s := h.Stats(); s.HeldBlind != 1 || s.HeldLooks != 3 || s.Mappings != 1 {
		t.Errorf("counted %+v", s)
	}
}

func TestTheLastMappingThatGoesIsLookedAtAtOnce(t *testing.T) {
	ends := map[string]*event.Event{
		"last close": ev(5, event.OpClose, "f", through(5)),
		"exit":       life(5, event.KindExit, 10, 0),
		"exec":       life(5, event.KindExec, 10, 0),
		"scan":       scan(5, event.OpNone, "", flags(event.FlagMapped)),
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			h := newHeld(Options{})
			h.add(t, ev(1, mapped, "f", through(5)))
			h.Flush()
			h.looks = nil
			h.add(t, end)
			is(t, "looks", h.blamed(), "/t/f by user10[10]")
			if len(h.Held()) != 0 || h.holds != (Holds{}) {
				t.Errorf("still held: %+v, %v", h.Held(), h.holds)
			}
			if at, ok := h.Next(); ok {
				t.Errorf("the clock runs on: %d", at)
			}
		})
	}
}

func TestNobodyIsBlamedWhereSeveralCouldHaveStored(t *testing.T) {
	tests := []struct {
		name   string
		events []*event.Event
		want   string
		names  []string
	}{
		{"two map it", []*event.Event{ev(1, mapped, "f", through(5)), ev(2, mapped, "f", through(6), by(11))}, "/t/f by unknown[0]", []string{"/exe[10]", "/exe[11]"}},
		{"a child shares it", []*event.Event{ev(1, mapped, "f", through(5)), life(2, event.KindFork, 12, 10)}, "/t/f by unknown[0]", []string{"/exe[10]", "/exe[12]"}},
		{"another one did until now", []*event.Event{ev(1, mapped, "f", through(5)), ev(2, mapped, "f", through(6), by(11)), life(3, event.KindExit, 11, 0)}, "/t/f by unknown[0]", []string{"/exe[10]", "/exe[11]"}},
		{"a child did until it executed another program", []*event.Event{ev(1, mapped, "f", through(5)), life(2, event.KindFork, 12, 10), life(3, event.KindExec, 12, 0)}, "/t/f by user10[10]", []string{"/exe[10]", "children"}},
		{"a child did, and its own child until it executed another program", []*event.Event{ev(1, mapped, "f", through(5)), life(2, event.KindFork, 12, 10), life(3, event.KindFork, 13, 12), life(4, event.KindExec, 13, 0)}, "/t/f by unknown[0]", []string{"/exe[10]", "/exe[12]"}},
		{"one maps it twice", []*event.Event{ev(1, mapped, "f", through(5)), ev(2, mapped, "f", through(6))}, "/t/f by user10[10]", []string{"/exe[10]"}},
		{"another one writes into it from outside", []*event.Event{ev(1, mapped, "f", through(5)), ev(2, mapped, "f", through(5), by(11), flags(store))}, "/t/f by user10[10]", []string{"/exe[10]"}},
		{"who stores maps it, whatever was seen", []*event.Event{ev(1, mapped, "f", through(5)), ev(2, mapped, "f", through(7), by(11), flags(store), func(e *event.Event) { e.Ret = 1 })}, "/t/f by unknown[0]", []string{"/exe[10]", "/exe[11]"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHeld(Options{MappedEvery: 10 * time.Millisecond})
			h.o.Scan = nil
			h.add(t, tt.events...)
			h.Flush()
			h.looks = slices.DeleteFunc(h.looks, func(c *event.Change) bool { return c.Op != event.OpOpen })
			if len(h.looks) == 0 {
				t.Fatal("no look")
			}
			last := h.looks[len(h.looks)-1]
			for _, n := range tt.names {
				if !strings.Contains(last.Why, n) {
					t.Errorf("%q does not name %s", last.Why, n)
				}
			}
			h.looks = h.looks[len(h.looks)-1:]
			is(t, "blamed", h.blamed(), tt.want)
			// who has ended is forgotten with the look
			if strings.HasPrefix(tt.name, "another one did") {
				h.Tick(40 * ms)
				is(t, "next time", h.blamed(), "/t/f by user10[10]")
			}
		})
	}
}

func TestNobodyIsBlamedForWhatHappenedWhileEventsWereLost(t *testing.T) {
	h := newHeld(Options{MappedEvery: 10 * time.Millisecond})
	h.add(t, ev(1, mapped, "f", through(5)))
	h.Flush()
	h.looks = nil
	h.Tick(11 * ms)
	h.Lost(13 * ms)
	h.add(t, scan(12, event.OpNone, "", flags(event.FlagMapped)))
	is(t, "after a loss", h.blamed(), "/t/f by unknown[0]")
	if len(h.Held()) != 1 {
		t.Error("a scan of which events may be lost took a mapping away")
	}
	h.Tick(22 * ms)
	h.add(t, scan(22, mapped, "f", through(5)))
	h.add(t, scanEnds(22)...)
	is(t, "the next time", h.blamed(), "/t/f by user10[10]")
}

func TestAStoreIsAChangeOfWhoStores(t *testing.T) {
	h := newHeld(Options{})
	h.add(t,
		ev(1, mapped, "f", through(5)),
		ev(2, mapped, "f", through(5), flags(store), wrote(3, 0, 2)))
	h.Tick(3000 * ms)
	if len(h.looks) == 0 {
		t.Fatal("no change")
	}
	if got := show(h.looks[0]); got != "10 map_write /t/f [map_write] 4/0 partial" || !h.looks[0].Mapped {
		t.Errorf("%s, mapped %v", got, h.looks[0].Mapped)
	}
}

// Who makes a mapping need not be who stores: one who shares it may have.
func TestAMappingAloneBlamesNobodyWhoSharesIt(t *testing.T) {
	tests := []struct {
		name   string
		events []*event.Event
		want   []string
	}{
		{"made and closed", []*event.Event{ev(1, mapped, "f", through(5)), ev(2, event.OpClose, "f", through(5))}, []string{"/t/f by user10[10]"}},
		{"made, and its process ends", []*event.Event{ev(1, mapped, "f", through(5)), life(2, event.KindExit, 10, 0)}, []string{"/t/f by user10[10]"}},
		{"made, shared and closed by the child", []*event.Event{ev(1, mapped, "f", through(5)), life(2, event.KindFork, 11, 10), ev(3, event.OpClose, "f", through(5), by(11))}, []string{"/t/f by unknown[0]"}},
		{"made, shared, and settled", []*event.Event{ev(1, mapped, "f", through(5)), life(2, event.KindFork, 11, 10)}, []string{"/t/f by unknown[0]"}},
		{"made and settled", []*event.Event{ev(1, mapped, "f", through(5))}, []string{"/t/f by user10[10]"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHeld(Options{})
			h.add(t, tt.events...)
			h.Flush()
			for _, c := range h.looks {
				if c.Op != event.OpOpen {
					t.Errorf("a change that blames %d: %s", c.Key.PID, show(c))
				}
			}
			is(t, "looks", h.blamed(), tt.want...)
		})
	}
}

func TestAMappingFollowsItsFileToAnotherName(t *testing.T) {
	h := newHeld(Options{})
	h.add(t, ev(1, mapped, "d/f", through(5)), ev(2, event.OpRename, "d", to("e")))
	if got := h.Held(); len(got) != 1 || got[0].Path != "/t/e/f" {
		t.Errorf("held: %+v", got)
	}
	h.add(t, ev(3, event.OpRename, "e/f", func(e *event.Event) { e.Anchor2 = 0 }))
	if got := h.Held(); len(got) != 0 || h.holds != (Holds{}) {
		t.Errorf("still held outside: %+v, %v", got, h.holds)
	}
}

func TestADescriptorThatWasReceivedIsHeldUntilItsLastClose(t *testing.T) {
	h := newHeld(Options{})
	h.add(t, ev(1, event.OpReceive, "f", through(5), by(11)))
	if h.holds != (Holds{Mappings: 0, Descriptors: 1}) || len(h.looks) != 0 {
		t.Errorf("holds %v, changes %v", h.holds, h.looks)
	}
	h.add(t, ev(2, event.OpReceive, "g", through(6), by(11), flags(event.FlagBlocked)))
	h.add(t, ev(3, event.OpClose, "f", through(5), by(11)))
	if h.holds != (Holds{}) {
		t.Errorf("holds %v after the close, and after one that was refused", h.holds)
	}
}

func TestADifferenceThatARescanFindsInAMappedFileIsLookedAtAsAStore(t *testing.T) {
	h := newHeld(Options{})
	h.add(t, ev(1, mapped, "f", through(5)))
	h.Flush()
	h.looks = nil
	if c := h.LookMapped("/t/f", 5*ms); c == nil || c.Key.PID != 10 || !c.Mapped {
		t.Errorf("looked at as %+v", c)
	}
	if c := h.LookMapped("/t/g", 5*ms); c != nil {
		t.Errorf("a file that is not mapped is looked at as %+v", c)
	}
}

func TestHoldersAreBounded(t *testing.T) {
	h := newHeld(Options{MaxHeld: 10})
	for i := range uint64(30) {
		h.add(t, ev(i+1, mapped, fmt.Sprint("f", i), through(100+i)))
	}
	h.add(t, life(50, event.KindFork, 99, 10))
	if s := h.Stats(); s.Mappings != 10 || s.HeldOverflow != 21 {
		t.Errorf("%d mappings, %d did not fit", s.Mappings, s.HeldOverflow)
	}
	h.add(t, life(51, event.KindExit, 10, 0), life(52, event.KindExit, 99, 0))
	if len(h.held.files) != 0 || len(h.held.procs) != 0 {
		t.Errorf("something is left: %v %v", h.held.files, h.held.procs)
	}
}
