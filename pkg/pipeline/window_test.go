package pipeline_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/pipeline/pipelinetest"
	"github.com/holdfast/holdfast/pkg/window"
)

// windows gives a scene a set of approved windows.
func windows(s *pipelinetest.Scene) *window.Set {
	s.T.Helper()
	set, err := window.Open(window.Options{
		File: filepath.Join(s.T.TempDir(), "windows"), Boot: "b", Now: func() int64 { return int64(pipelinetest.Clock{}.Boot()) },
		Wall: func() event.Time { return event.TimeOf(time.Now()) }, Vouch: func(*window.Window) error { return nil },
	})
	s.Do(err)
	s.Options.Windows = set
	return set
}

func open(s *pipelinetest.Scene, set *window.Set, w window.Window) window.Window {
	s.T.Helper()
	w.Ticket = "T"
	w, err := set.New(w, time.Hour)
	w.Record = "h/b/1"
	s.Do(err)
	s.Do(set.Add(w))
	return w
}

// verdicts are those of changes, by the name of the path or the one that was given.
func verdicts(all []event.Record) map[string]string {
	out := map[string]string{}
	for _, r := range changes(all) {
		path := r.Path
		if r.PathTo != "" {
			path = r.PathTo
		}
		out[filepath.Base(path)] = r.Verdict
	}
	return out
}

func content(s *pipelinetest.Scene, path, want string) {
	s.T.Helper()
	if b, err := os.ReadFile(s.At(path)); err != nil || string(b) != want {
		s.T.Errorf("%s is %q, %v; want %q", path, b, err, want)
	}
}

// trusts fails unless a restore would bring back this content.
func trusts(s *pipelinetest.Scene, path, want string) {
	s.T.Helper()
	v, ok := s.Store.Trusted(s.At(path))
	if got := v.State.Hash.String(); !ok || got != b3sum(s.T, want) {
		s.T.Errorf("the trusted content of %s is %s, want %q", path, got, want)
	}
}

func TestInAWindowChangesAreExpectedTrustedAndStay(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeRestore)
	set := windows(s)
	plant(s)
	s.Start()
	w := open(s, set, window.Window{Path: s.At("d"), User: pipelinetest.User(7)})
	s.Do(s.Actor(7).Write("d/x", "approved", os.O_TRUNC))
	s.Do(s.Actor(7).Remove("d/y"))
	s.Do(s.Actor(7).Write("f", "elsewhere", os.O_TRUNC))
	s.Wait("three changes and one restore", func(r []event.Record) bool { return len(changes(r)) == 3 && len(outcomes(r)) == 1 })
	s.Do(s.Actor(8).Write("d/x", "somebody else", os.O_TRUNC))
	s.Wait("another restore", func(r []event.Record) bool { return len(outcomes(r)) == 2 })
	s.Do(set.Remove(w.Number))
	s.Do(s.Actor(7).Write("d/x", "too late", os.O_TRUNC))
	s.Wait("the last restore", func(r []event.Record) bool { return len(outcomes(r)) == 3 })
	s.Stop()
	all, _ := s.Journal.Records()
	var expected []event.Record
	for _, r := range changes(all) {
		if r.Verdict == event.VerdictExpected {
			expected = append(expected, r)
		} else if r.Detail != nil {
			t.Errorf("%s names a window", pipelinetest.Line(&r))
		}
	}
	if len(expected) != 2 {
		t.Errorf("%d changes are expected: %v", len(expected), verdicts(all))
	}
	for _, r := range expected {
		if r.Reason != "approved: window 1, ticket T" || r.Detail["window"] != "1" || r.Detail["ticket"] != "T" || r.Detail["window_record"] != "h/b/1" {
			t.Errorf("%s %v", pipelinetest.Line(&r), r.Detail)
		}
	}
	content(s, "d/x", "approved")
	content(s, "f", "good")
	trusts(s, "d/x", "approved")
	if v, ok := s.Store.Trusted(s.At("d/y")); !ok || v.State.Exists {
		t.Errorf("the trusted state of what was removed: %+v, %v", v, ok)
	}
	known(s)
}

func TestWhereARuleBlocksOnlyAWindowOfAPersonCoversWhatWasNotRefused(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeBlock)
	set := windows(s)
	plant(s)
	s.Start()
	open(s, set, window.Window{Path: s.At("d")})
	open(s, set, window.Window{Path: s.At("d/x"), User: pipelinetest.User(7)})
	s.Do(s.Actor(7).Write("d/x", "approved", os.O_TRUNC))
	s.Do(s.Actor(7).Write("d/y", "by nobody who is named there", os.O_TRUNC))
	s.Wait("two changes and one restore", func(r []event.Record) bool { return len(changes(r)) == 2 && len(outcomes(r)) == 1 })
	s.Stop()
	all, _ := s.Journal.Records()
	for name, want := range map[string]string{"x": event.VerdictExpected, "y": event.VerdictUnauthorized} {
		if got := verdicts(all)[name]; got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	content(s, "d/x", "approved")
	content(s, "d/y", "y")
	trusts(s, "d/x", "approved")
}

// The slow side stands still while a window ends, and while another one begins.
func TestAChangeIsJudgedByWhenItWasDone(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeRestore)
	set := windows(s)
	plant(s)
	s.Start()
	s.Journal.Refuse(1 << 30)
	a := s.Actor(7)
	s.Do(a.Write("d/y", "before", os.O_TRUNC))
	time.Sleep(100 * time.Millisecond)
	w := open(s, set, window.Window{})
	s.Do(a.Write("d/x", "within", os.O_TRUNC))
	time.Sleep(100 * time.Millisecond)
	s.Do(set.Remove(w.Number))
	s.Do(a.Write("f", "after", os.O_TRUNC))
	s.Journal.Refuse(0)
	all := s.Wait("three changes, two restores", func(r []event.Record) bool { return len(changes(r)) == 3 && len(outcomes(r)) == 2 })
	want := map[string]string{"y": event.VerdictUnauthorized, "x": event.VerdictExpected, "f": event.VerdictUnauthorized}
	for name, v := range verdicts(all) {
		if v != want[name] {
			t.Errorf("%s is %s", name, v)
		}
	}
	content(s, "d/x", "within")
	content(s, "d/y", "y")
	content(s, "f", "good")
}

// What is half in a window is not in it: else a half would be put back.
func TestARenameIsCoveredAtBothNamesOrNotAtAll(t *testing.T) {
	for _, tt := range []struct {
		name     string
		scope    string
		from, to string
		want     string
	}{
		{"out of the scope", "d", "d/x", "x", event.VerdictUnauthorized},
		{"into the scope", "d", "f", "d/f", event.VerdictUnauthorized},
		{"within the scope", "d", "d/x", "d/z", event.VerdictExpected},
		{"over another one", "d", "d/x", "d/y", event.VerdictExpected},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := pipelinetest.NewScene(t, event.ModeRestore)
			set := windows(s)
			plant(s)
			before := truth(t, s.Dir)
			s.Start()
			open(s, set, window.Window{Path: s.At(tt.scope)})
			s.Do(s.Actor(7).Rename(tt.from, tt.to))
			s.Wait("the change", func(r []event.Record) bool {
				return len(changes(r)) == 1 && (tt.want == event.VerdictExpected || truth(t, s.Dir) == before)
			})
			s.Stop()
			all, _ := s.Journal.Records()
			for name, v := range verdicts(all) {
				if v != tt.want {
					t.Errorf("%s is %s", name, v)
				}
			}
			if _, err := os.Lstat(s.At(tt.from)); (err == nil) != (tt.want != event.VerdictExpected) {
				t.Errorf("the old name: %v", err)
			}
			known(s)
		})
	}
}

// tick is more than what the time of an inode's last change is behind: it goes by the
// timer's ticks (linux v6.1 kernel/time/timekeeping.c:ktime_get_coarse_real_ts64).
const tick = 20 * time.Millisecond

// What nobody is known to have done is covered by a window that asks for nobody.
func TestWhatAComparisonFindsIsCoveredByAPathAlone(t *testing.T) {
	for _, tt := range []struct {
		name string
		w    window.Window
		want string
	}{
		{"a path alone", window.Window{}, event.VerdictExpected},
		{"a person", window.Window{User: pipelinetest.User(7)}, event.VerdictUnauthorized},
		{"a program", window.Window{Exe: "/bin/act"}, event.VerdictUnauthorized},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := pipelinetest.NewScene(t, event.ModeRestore)
			set := windows(s)
			plant(s)
			s.Start()
			open(s, set, tt.w)
			time.Sleep(tick)
			s.Do(os.WriteFile(s.At("f"), []byte("hidden"), 0o644)) // nobody tells of it
			s.Feed(event.Event{Kind: event.KindFile, Op: event.OpUnlink, Flags: event.FlagNamed, Base: []byte("/"), Path: []byte("/gone/f"), Time: pipelinetest.Clock{}.Boot()})
			all := s.Wait("the change", func(r []event.Record) bool { return len(changes(r)) == 1 })
			if c := changes(all)[0]; c.Verdict != tt.want {
				t.Errorf("%s", pipelinetest.Line(&c))
			}
		})
	}
}

// Between the last moment at which all was seen and the look the daemon was down: only
// a window that was open for all of that time covers what changed then.
func TestWhatChangedWhileDownIsCoveredByAWindowThatWasOpenAllTheTime(t *testing.T) {
	for _, before := range []bool{true, false} {
		s := pipelinetest.NewScene(t, event.ModeRestore)
		set := windows(s)
		plant(s)
		s.Start()
		if before {
			open(s, set, window.Window{})
		}
		s.Stop()
		clock := pipelinetest.Clock{}
		s.Down = clock.Wall(clock.Boot())
		time.Sleep(2 * time.Millisecond)
		if !before {
			open(s, set, window.Window{})
		}
		s.Do(os.WriteFile(s.At("f"), []byte("while down"), 0o644))
		s.Start()
		want := map[bool]string{true: event.VerdictExpected, false: event.VerdictUnauthorized}[before]
		all := s.Wait("the change", func(r []event.Record) bool { return len(changes(r)) == 1 })
		if c := changes(all)[0]; c.Verdict != want || c.Found != event.FoundWhileDown {
			t.Errorf("the window was open before: %v: %s", before, pipelinetest.Line(&c))
		}
		s.Stop()
	}
}

func TestAFileWithSeveralNamesIsCoveredAtAllOrNone(t *testing.T) {
	for scope, want := range map[string]string{"d": event.VerdictUnauthorized, "": event.VerdictExpected} {
		s := pipelinetest.NewScene(t, event.ModeRestore)
		set := windows(s)
		plant(s)
		s.Do(os.Link(s.At("d/x"), s.At("other")))
		s.Start()
		open(s, set, window.Window{Path: s.At(scope)})
		s.Do(s.Actor(7).Write("d/x", "new", os.O_TRUNC))
		s.Wait("both names", func(r []event.Record) bool {
			return len(changes(r)) == 2 && (want == event.VerdictExpected || len(outcomes(r)) >= 2)
		})
		s.Stop()
		all, _ := s.Journal.Records()
		for name, v := range verdicts(all) {
			if v != want {
				t.Errorf("scope %q: %s is %s", scope, name, v)
			}
		}
		kept := map[string]string{event.VerdictUnauthorized: "x", event.VerdictExpected: "new"}[want]
		content(s, "d/x", kept)
		content(s, "other", kept)
		known(s)
	}
}
