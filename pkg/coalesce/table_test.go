package coalesce

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
)

const ms = uint64(time.Millisecond)

type anchors map[uint32]string

func (a anchors) Path(id uint32) (string, int, bool) { p, ok := a[id]; return p, 0, ok }

// ev is a file event below anchor 1 at a time in ms.
func ev(at uint64, op event.Op, path string, change ...func(*event.Event)) *event.Event {
	e := &event.Event{
		Kind: event.KindFile, Op: op, Time: at * ms, First: at * ms, Count: 1, Anchor: 1, Path: []byte(path),
		Key: event.ProcKey{PID: 10, Start: 1, Execs: 1}, FMode: 0o100644, Nlink: 1, Ino: 7,
	}
	for _, c := range change {
		c(e)
	}
	return e
}

func by(pid uint32) func(*event.Event)     { return func(e *event.Event) { e.Key.PID = pid } }
func through(id uint64) func(*event.Event) { return func(e *event.Event) { e.Opener = id } }
func flags(f uint16) func(*event.Event)    { return func(e *event.Event) { e.Flags |= f } }
func arg(a uint64) func(*event.Event)      { return func(e *event.Event) { e.Arg = a } }
func to(p string) func(*event.Event) {
	return func(e *event.Event) { e.Path2, e.Anchor2 = []byte(p), 1 }
}
func wrote(count, bytes uint64, first uint64) func(*event.Event) {
	return func(e *event.Event) { e.Count, e.Bytes, e.First = count, bytes, first*ms }
}
func unlinked(e *event.Event) { e.Nlink = 0 }

const created = event.FlagCreated

func show(c *event.Change) string {
	var ops []string
	for _, o := range c.Ops {
		ops = append(ops, o.String())
	}
	s := fmt.Sprintf("%d %s %s", c.Key.PID, c.Op, c.Path)
	if c.PathTo != "" {
		s += " > " + c.PathTo
	}
	s += fmt.Sprintf(" [%s] %d/%d", strings.Join(ops, " "), c.Count, c.Bytes)
	if c.Partial {
		s += " partial"
	}
	if c.Blocked {
		s += " blocked"
	}
	return s
}

func TestOperationsBecomeChanges(t *testing.T) {
	tests := []struct {
		name   string
		events []*event.Event
		tick   uint64 // ms, 0: settle everything at the end
		want   []string
		hold   time.Duration
	}{
		{"create, write and close by one opener are one create",
			[]*event.Event{
				ev(1, event.OpOpen, "f", through(5), flags(created)),
				ev(2, event.OpWrite, "f", through(5), flags(event.FlagFirst), wrote(1, 10, 2)),
				ev(3, event.OpClose, "f", through(5), wrote(4, 100, 2)),
			}, 3, []string{"10 create /t/f [create write] 5/100"}, 0},
		{"truncate at open, write and close are one write",
			[]*event.Event{
				ev(1, event.OpOpen, "f", through(5), arg(openTruncate)),
				ev(2, event.OpWrite, "f", through(5), flags(event.FlagFirst), wrote(1, 10, 2)),
				ev(3, event.OpClose, "f", through(5), wrote(1, 10, 2)),
			}, 3, []string{"10 write /t/f [truncate write] 2/10"}, 0},
		{"a truncating open that writes nothing is a truncate after a moment",
			[]*event.Event{
				ev(1, event.OpOpen, "f", through(5), arg(openTruncate)),
				ev(2, event.OpClose, "f", through(5), wrote(0, 0, 1)),
			}, 7, []string{"10 truncate /t/f [truncate] 1/0"}, 0},
		{"an open for writing that writes nothing asks for a look and is no change",
			[]*event.Event{
				ev(1, event.OpOpen, "f", through(5)),
				ev(2, event.OpClose, "f", through(5), wrote(0, 0, 1)),
			}, 2, []string{"10 open /t/f [] 0/0"}, 0},
		{"writes through an opener from before the watch are one write at the close",
			[]*event.Event{
				ev(2, event.OpWrite, "f", through(5), flags(event.FlagFirst), wrote(1, 10, 2)),
				ev(9, event.OpClose, "f", through(5), wrote(3, 30, 2)),
			}, 9, []string{"10 write /t/f [write] 3/30"}, 0},
		{"a writer that holds the file open is told of as partial, then at its close with the rest",
			[]*event.Event{
				ev(2, event.OpWrite, "f", through(5), flags(event.FlagFirst), wrote(1, 10, 2)),
				ev(90, event.OpChmod, "g", by(11)),
				ev(99, event.OpClose, "f", through(5), wrote(3, 30, 2)),
			}, 99, []string{"10 write /t/f [write] 1/10 partial", "10 write /t/f [write] 2/20", "11 chmod /t/g [chmod] 1/0"}, 0},
		{"an event of another actor on the same path settles the first change",
			[]*event.Event{
				ev(1, event.OpWrite, "f", through(5), wrote(1, 1, 1)),
				ev(2, event.OpWrite, "f", through(6), by(11), wrote(1, 2, 2)),
			}, 0, []string{"10 write /t/f [write] 1/1", "11 write /t/f [write] 1/2"}, 0},
		{"the same process with other credentials is another actor",
			[]*event.Event{
				ev(1, event.OpChmod, "f"),
				ev(2, event.OpChmod, "f", func(e *event.Event) { e.Creds.EUID = 1000 }),
			}, 0, []string{"10 chmod /t/f [chmod] 1/0", "10 chmod /t/f [chmod] 1/0"}, 0},
		{"a rename settles what is pending on both names and comes after it",
			[]*event.Event{
				ev(1, event.OpOpen, "tmp", through(5), flags(created)),
				ev(2, event.OpWrite, "tmp", through(5), wrote(1, 3, 2)),
				ev(3, event.OpChmod, "f", by(11)),
				ev(4, event.OpRename, "tmp", to("f")),
			}, 4, []string{"10 create /t/tmp [create write] 2/3", "11 chmod /t/f [chmod] 1/0", "10 rename /t/tmp > /t/f [rename] 1/0"}, 0},
		{"a rename of a directory settles what is pending below it",
			[]*event.Event{
				ev(1, event.OpChmod, "d/a"), ev(1, event.OpChmod, "dd"),
				ev(2, event.OpRename, "d", to("e"), flags(event.FlagDir)),
			}, 2, []string{"10 chmod /t/d/a [chmod] 1/0", "10 rename /t/d > /t/e [rename] 1/0"}, 0},
		{"an unlink comes after the write before it",
			[]*event.Event{
				ev(1, event.OpOpen, "f", through(5), flags(created)),
				ev(2, event.OpUnlink, "f"),
			}, 2, []string{"10 create /t/f [create] 1/0", "10 unlink /t/f [unlink] 1/0"}, 0},
		{"writes to a file without a name are no change of any tree",
			[]*event.Event{
				ev(1, event.OpUnlink, "f"),
				ev(2, event.OpWrite, "f", through(5), unlinked),
				ev(3, event.OpClose, "f", through(5), unlinked, wrote(2, 2, 2)),
			}, 0, []string{"10 unlink /t/f [unlink] 1/0"}, 0},
		{"metadata operations of one process are one change, named after the first",
			[]*event.Event{
				ev(1, event.OpChown, "f"), ev(1, event.OpChmod, "f"), ev(2, event.OpUtimes, "f"),
			}, 8, []string{"10 chown /t/f [chown chmod utimes] 3/0"}, 0},
		{"a rename from outside has no path, one to outside has no path_to",
			[]*event.Event{
				ev(1, event.OpRename, "", to("f"), func(e *event.Event) { e.Anchor = 0 }),
				ev(2, event.OpRename, "f", func(e *event.Event) { e.Anchor2 = 0 }),
			}, 0, []string{"10 rename  > /t/f [rename] 1/0", "10 rename /t/f [rename] 1/0"}, 0},
		{"refusals of one operation are one attempt, of two operations are two",
			[]*event.Event{
				ev(1, event.OpWrite, "f", flags(event.FlagBlocked)), ev(2, event.OpWrite, "f", flags(event.FlagBlocked)),
				ev(3, event.OpChmod, "f", flags(event.FlagBlocked)),
			}, 0, []string{"10 write /t/f [write] 2/0 blocked", "10 chmod /t/f [chmod] 1/0 blocked"}, 0},
		{"an operation that failed is nothing",
			[]*event.Event{ev(1, event.OpUnlink, "f", func(e *event.Event) { e.Ret = -2 })}, 0, nil, 0},
		{"exec and exit settle what their process did",
			[]*event.Event{
				ev(1, event.OpWrite, "f", through(5)),
				{Kind: event.KindExit, Time: 2 * ms, Key: event.ProcKey{PID: 10}},
				ev(3, event.OpChmod, "g", by(11)),
				{Kind: event.KindExec, Time: 4 * ms, Key: event.ProcKey{PID: 11, Execs: 2}},
			}, 4, []string{"10 write /t/f [write] 1/0", "11 chmod /t/g [chmod] 1/0"}, 0},
		{"a shell that closes the first of two descriptors before it writes makes one create",
			[]*event.Event{
				ev(1, event.OpOpen, "f", through(5), flags(created)),
				ev(1, event.OpClose, "f", through(5), wrote(0, 0, 0)),
				ev(2, event.OpWrite, "f", through(5), flags(event.FlagFirst), wrote(1, 6, 2)),
			}, 60, []string{"10 create /t/f [create write] 2/6 partial"}, 0},
		{"what goes on for longer than the limit is told of meanwhile",
			[]*event.Event{
				ev(1, event.OpChmod, "f"), ev(4, event.OpChmod, "f"), ev(7, event.OpChmod, "f"),
				ev(10, event.OpChmod, "f"), ev(13, event.OpChmod, "f"), ev(16, event.OpChmod, "f"), ev(19, event.OpChmod, "f"),
			}, 0, []string{"10 chmod /t/f [chmod] 5/0", "10 chmod /t/f [chmod] 2/0"}, 10 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			tab := New(Options{Held: 50 * time.Millisecond, Anchors: anchors{1: "/t"}, MaxHold: tt.hold, Emit: func(c *event.Change) {
				got = append(got, show(c))
			}})
			for _, e := range tt.events {
				if err := tab.Add(e, nil); err != nil {
					t.Fatal(err)
				}
				tab.Tick(e.Time)
			}
			if tt.tick != 0 {
				tab.Tick(tt.tick * ms)
			} else {
				tab.Flush()
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(tt.want, "\n  "))
			}
		})
	}
}

func TestAWriterThatStaysIsLookedAtLessAndLessOften(t *testing.T) {
	var looks []uint64
	tab := New(Options{Held: 50 * time.Millisecond, Anchors: anchors{1: "/t"}, MaxHold: time.Second, Emit: func(c *event.Change) {
		if c.Op == event.OpOpen {
			looks = append(looks, c.First/ms)
		}
	}})
	if err := tab.Add(ev(0, event.OpWrite, "f", through(5)), nil); err != nil {
		t.Fatal(err)
	}
	for now := uint64(0); now < 8000; now += 50 {
		tab.Tick(now * ms)
	}
	want := []uint64{1050, 3050, 7050}
	if !reflect.DeepEqual(looks, want) {
		t.Errorf("looks at %v ms, want %v", looks, want)
	}
}

func TestTheTableIsBounded(t *testing.T) {
	n := 0
	tab := New(Options{Anchors: anchors{1: "/t"}, MaxOpen: 8, Emit: func(*event.Change) { n++ }})
	for i := range 100 {
		if err := tab.Add(ev(1, event.OpWrite, fmt.Sprint(i), through(uint64(i+1))), nil); err != nil {
			t.Fatal(err)
		}
	}
	s := tab.Stats()
	if s.Pending != 8 || s.Openers != 8 || s.Overflow != 184 {
		t.Errorf("%+v", s)
	}
	if n < 92 {
		t.Errorf("%d changes came out of 92 that had no room", n)
	}
	tab.Flush()
	if s := tab.Stats(); s.Pending != 0 {
		t.Errorf("%+v", s)
	}
}

func TestWhatIsForgottenLeavesNothingBehind(t *testing.T) {
	tab := New(Options{Anchors: anchors{1: "/t"}, Emit: func(*event.Change) {}})
	for i := range 50 {
		f := fmt.Sprint(i)
		for _, e := range []*event.Event{
			ev(1, event.OpOpen, f, through(uint64(i+1)), flags(created)),
			ev(2, event.OpWrite, f, through(uint64(i+1))),
			ev(3, event.OpRename, f, to(f+"x")),
			ev(4, event.OpWrite, f+"x", through(uint64(i+1))),
			ev(5, event.OpClose, f+"x", through(uint64(i+1)), wrote(2, 0, 2)),
		} {
			if err := tab.Add(e, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	tab.Flush()
	if len(tab.pending)+len(tab.openers)+len(tab.procs)+len(tab.paths)+len(tab.due) != 0 ||
		tab.entries.Len() != 0 || tab.opened.Len() != 0 {
		t.Errorf("left: %d pending %d openers %v %v %d due", len(tab.pending), len(tab.openers), tab.procs, tab.paths, len(tab.due))
	}
}

func TestEventsWithoutAPlaceAreSaidToBe(t *testing.T) {
	tab := New(Options{Anchors: anchors{1: "/t"}, Watched: func(p string) bool { return p != "/t/except" }, Emit: func(c *event.Change) {
		t.Errorf("change %s", show(c))
	}})
	tests := []struct {
		name string
		ev   *event.Event
		want error
	}{
		{"a cut path", ev(1, event.OpChmod, "f", flags(event.FlagTruncated)), ErrCut},
		{"a name and nobody to follow it", ev(1, event.OpChmod, "f", flags(event.FlagNamed)), ErrUnresolved},
		{"a path that climbs", ev(1, event.OpUnlink, "../f"), ErrUnresolved},
		{"an anchor that is not known any more", ev(1, event.OpUnlink, "f", func(e *event.Event) { e.Anchor = 9 }), nil},
		{"an excepted path", ev(1, event.OpUnlink, "except"), nil},
		{"no anchor at all", ev(1, event.OpUnlink, "f", func(e *event.Event) { e.Anchor = 0 }), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tab.Add(tt.ev, nil); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	tab.Flush()
	if s := tab.Stats(); s.Cut != 1 || s.Unresolved != 2 || s.Skipped != 3 {
		t.Errorf("%+v", s)
	}
}

func TestWhoIsAskedOncePerChange(t *testing.T) {
	asked := 0
	tab := New(Options{Anchors: anchors{1: "/t"}, Emit: func(c *event.Change) {
		if c.Actor.User != "ann" {
			t.Errorf("actor %+v", c.Actor)
		}
	}})
	who := func(*event.Event) (event.Actor, event.Process) {
		asked++
		return event.Actor{User: "ann"}, event.Process{}
	}
	for i := range 10 {
		if err := tab.Add(ev(uint64(i), event.OpWrite, "f", through(1)), who); err != nil {
			t.Fatal(err)
		}
	}
	tab.Flush()
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

func BenchmarkFoldWrite(b *testing.B) {
	tab := New(Options{Anchors: anchors{1: "/t"}, Emit: func(*event.Change) {}})
	e := ev(1, event.OpWrite, "some/directory/file", through(5))
	b.ReportAllocs()
	for b.Loop() {
		if err := tab.Add(e, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreateWriteClose(b *testing.B) {
	tab := New(Options{Anchors: anchors{1: "/t"}, Emit: func(*event.Change) {}})
	open := ev(1, event.OpOpen, "some/directory/file", through(5), flags(created))
	write := ev(1, event.OpWrite, "some/directory/file", through(5))
	closed := ev(2, event.OpClose, "some/directory/file", through(5), wrote(1, 0, 1))
	b.ReportAllocs()
	for b.Loop() {
		for _, e := range []*event.Event{open, write, closed} {
			if err := tab.Add(e, nil); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/3, "ns/event")
}

// The receiver may be done with a change before its sender has noticed that it took it.
func TestWhatIsBeingHandedOnIsToldOfUntilItIsTaken(t *testing.T) {
	var tab *Table
	var seen []Later
	tab = New(Options{Anchors: anchors{1: "/t"}, Emit: func(c *event.Change) {
		seen = append(seen, tab.Later("/t/a", c.Turn-1), tab.Later("/t/b", c.Turn-1), tab.Later("/t/a/below", c.Turn-1))
		for _, p := range []string{"/t/a", "/t/a/below"} {
			if l := tab.Later(p, c.Turn); l.Any {
				t.Errorf("a change is later than itself: %+v", l)
			}
		}
	}})
	if err := tab.Add(ev(1, event.OpRename, "a", to("b"), arg(renameExchange)), nil); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 3 || seen[0].MovedTo != "/t/b" || seen[1].MovedTo != "/t/a" || !seen[1].Name || seen[2].MovedTo != "/t/b/below" {
		t.Errorf("%+v", seen)
	}
	if l := tab.Later("/t/a", 0); l.Any {
		t.Errorf("afterwards: %+v", l)
	}
}

func TestAWriterIsFollowedWithTheDirectoryThatItIsIn(t *testing.T) {
	var looks []string
	tab := New(Options{Held: 50 * time.Millisecond, Anchors: anchors{1: "/t"}, MaxHold: time.Second, Emit: func(c *event.Change) {
		if c.Op == event.OpOpen {
			looks = append(looks, c.Path)
		}
	}})
	for _, e := range []*event.Event{
		ev(0, event.OpWrite, "d/f", through(5)),
		ev(1, event.OpWrite, "e/g", through(6)),
		ev(200, event.OpRename, "d", to("e"), flags(event.FlagDir), arg(renameExchange)),
	} {
		tab.Tick(e.Time) // both writers are known to stay by then
		if err := tab.Add(e, nil); err != nil {
			t.Fatal(err)
		}
	}
	for now := uint64(200); now < 2000; now += 50 {
		tab.Tick(now * ms)
	}
	slices.Sort(looks)
	if want := []string{"/t/d/g", "/t/e/f"}; !slices.Equal(slices.Compact(looks), want) {
		t.Errorf("looks at %v, want %v", looks, want)
	}
}
