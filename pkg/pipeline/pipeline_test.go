package pipeline_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/pipeline/pipelinetest"
)

// changes picks the records of changes.
func changes(all []event.Record) []event.Record {
	return pick(all, func(r *event.Record) bool { return r.Kind == event.RecChange })
}

func pick(all []event.Record, want func(*event.Record) bool) (out []event.Record) {
	for i := range all {
		if want(&all[i]) {
			out = append(out, all[i])
		}
	}
	return out
}

func outcomes(all []event.Record) []event.Record {
	return pick(all, func(r *event.Record) bool { return r.Response != nil && r.Response.Outcome != "intended" })
}

// b3sum is the truth about a content.
func b3sum(t testing.TB, content string) string {
	t.Helper()
	cmd := exec.Command("b3sum", "--no-names")
	cmd.Stdin = strings.NewReader(content)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return "blake3:" + strings.TrimSpace(string(out))
}

// truth is what stat, getfattr and b3sum say of a tree: one line a path.
func truth(t testing.TB, dir string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", `cd "$1" && find . -printf '%p %y %m %U %G %l %s ' -a -type f -printf '%T@ ' -a -exec b3sum --no-names {} \; -o -printf '\n' | sed 's/^\(.* d .*\) [0-9]* *$/\1/' | sort`, "sh", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v %s", err, out)
	}
	return string(out)
}

func TestWhatAnActorDoesIsRecorded(t *testing.T) {
	tests := []struct {
		name string
		do   func(s *pipelinetest.Scene, a *pipelinetest.Actor) error
		want []string // op [ops] path > path_to
	}{
		{"create and write", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error {
			return a.Write("n", "new", os.O_CREATE)
		}, []string{"create [create write] n"}},
		{"truncate and write", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error {
			return a.Write("f", "new", os.O_TRUNC)
		}, []string{"write [truncate write] f"}},
		{"append", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error {
			return a.Write("f", "more", os.O_APPEND)
		}, []string{"write [write] f"}},
		{"chmod", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error {
			return a.Chmod("f", 0o600)
		}, []string{"chmod [chmod] f"}},
		{"unlink", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error { return a.Remove("f") },
			[]string{"unlink [unlink] f"}},
		{"rename", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error { return a.Rename("f", "g") },
			[]string{"rename [rename] f > g"}},
		{"rename over another", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error { return a.Rename("f", "d/x") },
			[]string{"rename [rename] f > x"}},
		{"hard link", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error { return a.Link("f", "g") },
			[]string{"link [link] f > g"}},
		{"mkdir", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error { return a.Mkdir("n") },
			[]string{"mkdir [mkdir] n"}},
		{"symlink", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error { return a.Symlink("f", "n") },
			[]string{"symlink [symlink] n"}},
		{"a write to a temporary file that is renamed over the real one", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error {
			return errors.Join(a.Write("f.tmp", "new", os.O_CREATE), a.Rename("f.tmp", "f"))
		}, []string{"create [create write] f.tmp", "rename [rename] f.tmp > f"}},
		{"a directory with files moved in", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error {
			return errors.Join(os.Mkdir(s.Outside+"/o", 0o755), os.WriteFile(s.Outside+"/o/p", []byte("p"), 0o600), a.MoveIn("o", "n"))
		}, []string{"rename [rename] n", "create [create] p"}},
		{"a directory with files moved out", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error {
			return a.MoveOut("d", "o")
		}, []string{"rename [rename] d"}},
		{"what is excepted is not", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error {
			return errors.Join(a.Write("except", "x", os.O_CREATE), a.Chmod("f", 0o640))
		}, []string{"chmod [chmod] f"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := pipelinetest.NewScene(t, event.ModeObserve)
			plant(s)
			s.Start()
			s.Do(tt.do(s, s.Actor(7)))
			all := s.Wait("the records", func(r []event.Record) bool { return len(changes(r)) >= len(tt.want) })
			s.Stop()
			all, _ = s.Journal.Records()
			var got []string
			for _, r := range changes(all) {
				line := r.Op + " [" + strings.Join(r.Ops, " ") + "] " + filepath.Base(r.Path)
				if r.PathTo != "" {
					line += " > " + filepath.Base(r.PathTo)
				}
				got = append(got, line)
				if r.Verdict != event.VerdictObserved || r.Rule != "r" || r.Mode != event.ModeObserve || r.Reason == "" ||
					r.Actor.User != pipelinetest.User(7) || r.Process.PID != 7 || r.Sensor.Tier != "test" || r.Sensor.Hook != "scene" ||
					r.Time == 0 || r.TimeEnd < r.Time || r.Before == nil || r.After == nil || r.File == nil {
					t.Errorf("%+v", r)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			known(s)
		})
	}
}

// plant makes the first state of a tree: f, d/x, and a symlink.
func plant(s *pipelinetest.Scene) {
	s.T.Helper()
	s.Do(os.WriteFile(s.At("f"), []byte("good"), 0o644))
	s.Do(os.Mkdir(s.At("d"), 0o755))
	s.Do(os.WriteFile(s.At("d/x"), []byte("x"), 0o600))
	s.Do(os.WriteFile(s.At("d/y"), []byte("y"), 0o4755))
	s.Do(os.Symlink("f", s.At("ln")))
}

// known fails unless what the pipeline knows is what is there.
func known(s *pipelinetest.Scene) {
	s.T.Helper()
	for _, line := range s.P.Known(s.Dir) {
		s.T.Errorf("known state: %s", line)
	}
}

func TestARecordHasTheHashesOfWhatWasThere(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeObserve)
	plant(s)
	s.Start()
	s.Do(s.Actor(7).Write("f", "new", os.O_TRUNC))
	all := s.Wait("a record", func(r []event.Record) bool { return len(r) == 1 })
	r := all[0]
	if r.Before.Hash.String() != b3sum(t, "good") || r.After.Hash.String() != b3sum(t, "new") || r.Bytes != 3 {
		t.Errorf("%+v %+v", r.Before, r.After)
	}
	var st unix.Stat_t
	s.Do(unix.Stat(s.At("f"), &st))
	if r.File.Ino != st.Ino || r.File.Dev != st.Dev {
		t.Errorf("%+v, want inode %d of %d", r.File, st.Ino, st.Dev)
	}
	v, ok := s.Store.Latest(s.At("f"))
	if !ok || v.Record != r.ID || v.Trusted || v.State.Hash != r.After.Hash {
		t.Errorf("version %+v", v)
	}
}

func TestAProtectedTreeIsPutBack(t *testing.T) {
	tests := []struct {
		name string
		do   func(s *pipelinetest.Scene, a *pipelinetest.Actor) error
		n    int // changes
	}{
		{"a write", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error { return a.Write("f", "bad", os.O_TRUNC) }, 1},
		{"a chmod", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error { return a.Chmod("d/y", 0o777) }, 1},
		{"a chmod of a directory", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error { return a.Chmod("d", 0o777) }, 1},
		{"an unlink", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error { return a.Remove("f") }, 1},
		{"an unlinked symlink", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error { return a.Remove("ln") }, 1},
		{"a new file", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error { return a.Write("n", "bad", os.O_CREATE) }, 1},
		{"a new directory", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error { return a.Mkdir("n") }, 1},
		{"a new symlink", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error { return a.Symlink("/etc/shadow", "n") }, 1},
		{"a new hard link", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error { return a.Link("f", "n") }, 1},
		{"a rename", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error { return a.Rename("f", "n") }, 1},
		{"a rename over another", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error { return a.Rename("f", "d/x") }, 1},
		{"a renamed directory", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error { return a.Rename("d", "n") }, 1},
		{"a directory moved out", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error { return a.MoveOut("d", "o") }, 1},
		{"a file moved in", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error {
			return errors.Join(os.WriteFile(s.Outside+"/o", []byte("o"), 0o600), a.MoveIn("o", "n"))
		}, 1},
		{"a file moved in over another", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error {
			return errors.Join(os.WriteFile(s.Outside+"/o", []byte("o"), 0o600), a.MoveIn("o", "f"))
		}, 1},
		{"a directory and all in it removed", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error {
			return removeAll(a, "d", "x", "y")
		}, 3},
		{"two exchanged names", func(s *pipelinetest.Scene, a *pipelinetest.Actor) error {
			if err := unix.Renameat2(unix.AT_FDCWD, s.At("f"), unix.AT_FDCWD, s.At("d/x"), unix.RENAME_EXCHANGE); err != nil {
				return err
			}
			now := pipelinetest.Clock{}.Boot()
			s.Feed(event.Event{Kind: event.KindFile, Op: event.OpRename, Anchor: 1, Anchor2: 1, Path: []byte("f"), Path2: []byte("d/x"), Arg: unix.RENAME_EXCHANGE, Time: now, First: now, Key: event.ProcKey{PID: a.PID}})
			return nil
		}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := pipelinetest.NewScene(t, event.ModeRestore)
			plant(s)
			want := truth(t, s.Dir)
			s.Start()
			s.Do(tt.do(s, s.Actor(7)))
			s.Wait("the answers", func(r []event.Record) bool {
				return len(changes(r)) >= tt.n && len(outcomes(r)) >= tt.n
			})
			s.Stop()
			if got := truth(t, s.Dir); got != want {
				t.Errorf("the tree is\n%s\nand was\n%s", got, want)
			}
			all, _ := s.Journal.Records()
			if n := len(changes(all)); n != tt.n {
				t.Errorf("%d changes", n)
			}
			for i := range all {
				r := &all[i]
				bad := r.Kind == event.RecChange && r.Verdict != event.VerdictUnauthorized ||
					r.Response != nil && r.Response.Outcome == "failed" ||
					r.Response != nil && r.Response.Outcome == "done" && (r.Verdict != event.VerdictRestored || r.Response.TookNS == 0)
				if bad {
					t.Errorf("%s", pipelinetest.Line(r))
				}
			}
			ordered(t, all)
			known(s)
		})
	}
}

// removeAll is rm -r in one process that is faster than anybody who looks.
func removeAll(a *pipelinetest.Actor, dir string, names ...string) error {
	a.S.Journal.Refuse(1 << 30)
	defer a.S.Journal.Refuse(0)
	for _, n := range names {
		if err := a.Remove(dir + "/" + n); err != nil {
			return err
		}
	}
	return a.Remove(dir)
}

// ordered fails unless each outcome follows its intent, and that its change.
func ordered(t *testing.T, all []event.Record) {
	t.Helper()
	at := map[string]int{}
	intents := map[string]int{}
	for i, r := range all {
		at[r.ID] = i
		if r.Response == nil {
			continue
		}
		if cause, ok := at[r.Response.Of]; !ok || all[cause].Kind != event.RecChange {
			t.Errorf("%s answers nothing before it", pipelinetest.Line(&r))
		}
		key := r.Response.Of + r.Path
		switch r.Response.Outcome {
		case "intended":
			intents[key]++
		case "done", "skipped":
			if intents[key] == 0 {
				t.Errorf("%s without an intent before it", pipelinetest.Line(&r))
			}
		}
	}
}

func TestTheDisplacedObjectIsKeptAsEvidence(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeRestore)
	plant(s)
	s.Start()
	s.Do(s.Actor(7).Write("f", "bad", os.O_TRUNC))
	all := s.Wait("the answer", func(r []event.Record) bool { return len(outcomes(r)) == 1 })
	o := outcomes(all)[0]
	b, err := os.ReadFile(o.Response.Evidence)
	if err != nil || string(b) != "bad" {
		t.Errorf("evidence %q: %q %v", o.Response.Evidence, b, err)
	}
}

func TestAnAllowedExecutableMakesTheNewTrustedState(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeRestore)
	plant(s)
	s.Start()
	a := s.Actor(7)
	a.Flags = event.FlagAllowed
	s.Do(a.Write("f", "v2", os.O_TRUNC))
	s.Wait("the first record", func(r []event.Record) bool { return len(r) == 1 && r[0].Verdict == event.VerdictExpected })
	s.Do(s.Actor(8).Write("f", "bad", os.O_TRUNC))
	s.Wait("the answer", func(r []event.Record) bool { return len(outcomes(r)) == 1 })
	if b, err := os.ReadFile(s.At("f")); err != nil || string(b) != "v2" {
		t.Errorf("%q %v", b, err)
	}
}

func TestARefusedOperationIsAnAttempt(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeBlock)
	plant(s)
	s.Start()
	a := s.Actor(7)
	a.Flags = event.FlagBlocked
	s.Do(a.Simple(event.OpUnlink, "f", func(string) error { return nil }))
	all := s.Wait("the record", func(r []event.Record) bool { return len(r) == 1 })
	r := all[0]
	if r.Kind != event.RecAttempt || r.Verdict != event.VerdictBlocked || r.Op != "unlink" || r.Before != nil || r.After != nil || r.Actor.User != pipelinetest.User(7) {
		t.Errorf("%+v", r)
	}
	known(s)
}

func TestOurOwnRestoresLeaveNoRecordAndAForgedOneDoes(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeObserve)
	plant(s)
	s.Start()
	self := s.Actor(pipelinetest.Self)
	s.Do(self.Simple(event.OpRename, "f", func(string) error { return nil }))
	s.Do(self.Simple(event.OpLink, ".holdfast-0123", func(string) error { return nil }))
	s.Do(self.Write("d/x", "not a restore", os.O_TRUNC))
	s.Wait("the difference", func(r []event.Record) bool { return len(r) == 1 })
	s.Stop()
	all, _ := s.Journal.Records()
	if len(all) != 1 || filepath.Base(all[0].Path) != "x" || all[0].Process.PID != pipelinetest.Self {
		t.Errorf("%v", all)
	}
	if n := s.P.Stats().Self; n != 2 {
		t.Errorf("%d of our own events vanished, want 2", n)
	}
}

func TestOurOwnEventsDoNotTakeTheBlameForOthers(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeObserve)
	plant(s)
	s.Start()
	s.Mute(true)
	s.Do(s.Actor(7).Write("f", "theirs", os.O_TRUNC))
	s.Mute(false)
	s.Do(s.Actor(pipelinetest.Self).Chmod("f", 0o644)) // our event is told of first
	time.Sleep(10 * time.Millisecond)
	s.Do(s.Actor(7).Simple(event.OpWrite, "f", func(string) error { return nil }))
	all := s.Wait("the record", func(r []event.Record) bool { return len(r) == 1 })
	time.Sleep(100 * time.Millisecond)
	all, _ = s.Journal.Records()
	if len(all) != 1 || all[0].Process.PID != 7 {
		t.Errorf("%d records, the first by %d", len(all), all[0].Process.PID)
	}
}

func TestAPathThatIsUndoneForEverIsLeftAloneForAWhile(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeRestore)
	s.Options.FlapLimit, s.Options.FlapWindow = 3, 2*time.Second
	plant(s)
	s.Start()
	a := s.Actor(7)
	for i := range 4 {
		s.Do(a.Write("f", fmt.Sprint("bad", i), os.O_TRUNC))
		s.Wait("an answer", func(r []event.Record) bool { return len(outcomes(r)) == i+1 })
	}
	all, durable := s.Journal.Records()
	last := outcomes(all)[3]
	if last.Verdict != event.VerdictRestoreFailed || !strings.Contains(last.Reason, "a person must look") || durable != len(all) {
		t.Errorf("%s, %d of %d durable", pipelinetest.Line(&last), durable, len(all))
	}
	if b, err := os.ReadFile(s.At("f")); err != nil || string(b) != "bad3" {
		t.Errorf("%q %v", b, err)
	}
	if n := s.P.Stats().Respond.Flapping; n != 1 {
		t.Errorf("%d flapping", n)
	}
	// When the time is over it is put back.
	s.Wait("the retry", func(r []event.Record) bool { return len(outcomes(r)) == 5 })
	if b, err := os.ReadFile(s.At("f")); err != nil || string(b) != "good" {
		t.Errorf("%q %v", b, err)
	}
}

func TestASessionRecordKeepsItsPlaceAmongTheChanges(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeObserve)
	plant(s)
	s.Start()
	s.Do(s.Actor(7).Remove("f"))
	s.Feed(event.Event{Kind: event.KindSession, Time: pipelinetest.Clock{}.Boot()})
	s.Do(s.Actor(7).Remove("d/x"))
	all := s.Wait("three records", func(r []event.Record) bool { return len(r) == 3 })
	if all[0].Op != "unlink" || all[1].Kind != event.RecSession || all[2].Op != "unlink" {
		t.Errorf("%v", all)
	}
}
