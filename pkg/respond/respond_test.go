package respond

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
)

// fake is a vault and a journal that write down what is asked of them, in order.
type fake struct {
	trusted map[string]event.State
	there   map[string]bool
	links   map[string][]string
	linked  map[string]bool
	fail    error
	refuse  error
	log     []string
	reasons []string
	clock   uint64
}

func (f *fake) Trusted(p string) (event.State, uint64, bool) {
	s, ok := f.trusted[p]
	return s, 3, ok
}

func (f *fake) Restore(_ context.Context, p string, v uint64) (Done, error) {
	f.log = append(f.log, fmt.Sprintf("restore %s@%d", p, v))
	f.clock += 5
	return Done{After: f.trusted[p], Evidence: "/e" + p}, f.fail
}

func (f *fake) Remove(_ context.Context, p string) (Done, error) {
	f.log = append(f.log, "remove "+p)
	return Done{Evidence: "/e" + p}, f.fail
}

func (f *fake) Links(p string, _ uint64) []string { return f.links[p] }

func (f *fake) Linked(a, b string) bool { return f.linked[a+" "+b] }

func (f *fake) Relink(_ context.Context, p, from string) (Done, error) {
	f.log = append(f.log, "relink "+p+" to "+from)
	return Done{}, f.fail
}

func (f *fake) Below(dir string) []string {
	var out []string
	for p := range f.trusted {
		if strings.HasPrefix(p, dir+"/") {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

func (f *fake) Append(_ context.Context, r *event.Record) error { return f.note("", r) }
func (f *fake) AppendDurable(_ context.Context, r *event.Record) error {
	return f.note("durably ", r)
}

func (f *fake) note(how string, r *event.Record) error {
	if f.refuse != nil {
		return f.refuse
	}
	f.reasons = append(f.reasons, r.Reason)
	s := how + r.Response.Action + " " + r.Path + " " + r.Response.Outcome
	if r.Verdict != "" {
		s += " " + r.Verdict
	}
	f.log = append(f.log, s)
	return nil
}

var file, dir = event.State{Exists: true, Type: event.TypeRegular}, event.State{Exists: true, Type: event.TypeDir}

func newFake() (*fake, *Responder) {
	f := &fake{
		trusted: map[string]event.State{"/t/f": file, "/t/d": dir, "/t/d/x": file, "/t/d/s": dir, "/t/d/s/y": file, "/t/not": {}},
		there:   map[string]bool{"/t": true, "/t/new": true, "/t/not": true, "/t/f": true},
		clock:   100,
	}
	return f, New(Options{
		Vault: f, Journal: f, Now: func() uint64 { return f.clock }, Wall: func(b uint64) event.Time { return event.Time(b) },
		Exists: func(p string) bool { return f.there[p] }, Limit: 2, Window: time.Minute,
	})
}

func TestStepsAreChosenByTheTrustedState(t *testing.T) {
	tests := []struct {
		name    string
		targets []Target
		want    []string
	}{
		{"a file with a trusted version is restored", []Target{{Path: "/t/f"}}, []string{"restore /t/f"}},
		{"a new file goes to the evidence", []Target{{Path: "/t/new", Foreign: true}}, []string{"quarantine /t/new"}},
		{"a new file that has gone again needs nothing", []Target{{Path: "/t/gone", Foreign: true}}, nil},
		{"a file where the trusted version says nothing goes to the evidence", []Target{{Path: "/t/not"}}, []string{"quarantine /t/not"}},
		{"an old file of which nothing is kept is left alone", []Target{{Path: "/t/unkept"}}, []string{"restore /t/unkept: no trusted version of it is kept"}},
		{"missing directories come first", []Target{{Path: "/t/d/s/y"}}, []string{"restore /t/d", "restore /t/d/s", "restore /t/d/s/y"}},
		{"a directory comes back with all below it", []Target{{Path: "/t/d", Whole: true}}, []string{"restore /t/d", "restore /t/d/s", "restore /t/d/s/y", "restore /t/d/x"}},
		{"a directory that is only mended comes alone", []Target{{Path: "/t/d"}}, []string{"restore /t/d"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, r := newFake()
			var got []string
			for _, s := range r.Plan(tt.targets) {
				line := s.Action + " " + s.Path
				if s.Refused != "" {
					line += ": " + s.Refused
				}
				got = append(got, line)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestTheIntentIsDurableBeforeTheDeedAndTheOutcomeComesAfter(t *testing.T) {
	f, r := newFake()
	out, err := r.Answer(t.Context(), &event.Record{ID: "h/b/1"}, 90, 0, r.Plan([]Target{{Path: "/t/f"}, {Path: "/t/new", Foreign: true}}))
	if err != nil || len(out) != 2 || out[0].Err != nil || out[0].Done.After.Type != event.TypeRegular {
		t.Errorf("%+v %v", out, err)
	}
	want := []string{
		"durably restore /t/f intended", "restore /t/f@3", "restore /t/f done restored",
		"durably quarantine /t/new intended", "remove /t/new", "quarantine /t/new done restored",
	}
	if !slices.Equal(f.log, want) {
		t.Errorf("got %q, want %q", f.log, want)
	}
}

func TestNothingIsDoneWithoutADurableIntent(t *testing.T) {
	f, r := newFake()
	f.refuse = errors.New("disk full")
	_, err := r.Answer(t.Context(), &event.Record{ID: "h/b/1"}, 90, 0, r.Plan([]Target{{Path: "/t/f"}}))
	if !errors.Is(err, f.refuse) || len(f.log) != 0 {
		t.Errorf("%v %q", err, f.log)
	}
}

func TestAFailureIsRecordedDurablyAndTriedAgainForAWhile(t *testing.T) {
	f, r := newFake()
	f.fail = errors.New("it is a mount point")
	for try := range maxTries + 1 {
		f.log, f.clock = nil, f.clock+uint64(time.Hour)
		out, err := r.Answer(t.Context(), &event.Record{ID: "h/b/1"}, 90, try, r.Plan([]Target{{Path: "/t/f"}}))
		if err != nil || len(out) != 1 || !errors.Is(out[0].Err, f.fail) {
			t.Fatalf("%+v %v", out, err)
		}
		if last := f.log[len(f.log)-1]; last != "durably restore /t/f failed restore_failed" {
			t.Errorf("%q", last)
		}
		want := f.clock + uint64(time.Second)<<try
		if try == maxTries {
			want = 0
		}
		if out[0].Retry != want {
			t.Errorf("try %d: again at %d, want %d", try, out[0].Retry, want)
		}
	}
}

func TestTheBreakerStopsAPathAndLetsGoAfterItsWindow(t *testing.T) {
	f, r := newFake()
	tripped := func() bool {
		s := r.Plan([]Target{{Path: "/t/f"}})
		return s[0].Refused != ""
	}
	if tripped() || tripped() {
		t.Error("tripped within the limit")
	}
	if !tripped() || !tripped() {
		t.Error("not tripped above the limit")
	}
	if s := r.Plan([]Target{{Path: "/t/new", Foreign: true}}); s[0].Refused != "" {
		t.Error("another path is stopped too")
	}
	f.clock += uint64(time.Minute)
	if tripped() {
		t.Error("still tripped after the window")
	}
	if n := r.Stats().Flapping; n != 2 {
		t.Errorf("%d refusals counted", n)
	}
}

func TestTheBreakerForgetsPathsThatAreQuiet(t *testing.T) {
	b := breaker{limit: 1, window: 10, paths: map[string]*flap{}}
	for i := range MaxFlaps + 10 {
		if _, tripped := b.count(fmt.Sprint(i), uint64(i)); tripped {
			t.Fatal("tripped")
		}
	}
	if n := b.uncounted.Load(); len(b.paths) > MaxFlaps || n != 0 {
		t.Errorf("%d paths, %d not counted", len(b.paths), n)
	}
}

func TestTheBreakerSaysWhatItCannotCount(t *testing.T) {
	b := breaker{limit: 1, window: 10, paths: map[string]*flap{}}
	for i := range MaxFlaps + 10 {
		b.count(fmt.Sprint(i), 5)
	}
	if n := b.uncounted.Load(); n != 10 {
		t.Errorf("%d restores were not counted, want 10", n)
	}
}

func TestOtherNamesOfARestoredFileAreMadeNamesOfItAgain(t *testing.T) {
	f := &fake{trusted: map[string]event.State{"/a": file, "/b": file, "/c": file, "/observed": file},
		links: map[string][]string{"/a": {"/b", "/c", "/observed"}}, linked: map[string]bool{"/c /a": true},
		there: map[string]bool{"/a": true, "/b": true, "/c": true}}
	r := New(Options{Vault: f, Journal: f, Now: func() uint64 { return f.clock }, Wall: func(b uint64) event.Time { return event.Time(b) },
		Exists: func(p string) bool { return f.there[p] }, Restores: func(p string) bool { return p != "/observed" }})
	steps := r.Plan([]Target{{Path: "/a", Mode: event.ModeRestore}})
	if _, err := r.Answer(context.Background(), &event.Record{ID: "x"}, 0, 0, steps); err != nil {
		t.Fatal(err)
	}
	want := []string{"durably restore /a intended", "restore /a@3", "restore /a done restored",
		"durably relink /b intended", "relink /b to /a", "relink /b done restored"}
	if !slices.Equal(f.log, want) {
		t.Errorf("log    %q\nwanted %q", f.log, want)
	}
}
