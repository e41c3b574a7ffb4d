package pipeline_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/pipeline"
	"github.com/holdfast/holdfast/pkg/pipeline/pipelinetest"
)

func guardEvent(op event.Op, arg, what uint64, flags uint16) event.Event {
	now := pipelinetest.Clock{}.Boot()
	return event.Event{
		Kind: event.KindGuard, Op: op, Arg: arg, Ino: what, Flags: flags, Time: now, First: now - 5_000_000_000, Count: 3,
		Key: event.ProcKey{PID: 7, Start: 1}, Creds: event.Creds{UID: 12},
	}
}

func TestAttemptsOnTheDaemonAreRecorded(t *testing.T) {
	const exe = "/usr/sbin/holdfast"
	for _, c := range []struct {
		name                         string
		ev                           event.Event
		op, path, verdict, who, says string
	}{
		{"a signal", guardEvent(event.OpKill, uint64(unix.SIGKILL), 0, event.FlagBlocked),
			"kill", exe, event.VerdictBlocked, pipelinetest.User(7), "SIGKILL to the daemon: refused in the kernel"},
		{"a signal of the service manager", guardEvent(event.OpKill, uint64(unix.SIGTERM), 0, 0),
			"kill", exe, event.VerdictObserved, pipelinetest.User(7), "SIGTERM to the daemon: let through, it comes from the service manager"},
		{"a signal that has no name", guardEvent(event.OpKill, 40, 0, event.FlagBlocked),
			"kill", exe, event.VerdictBlocked, pipelinetest.User(7), "signal 40 to the daemon: refused in the kernel"},
		{"a signal that somebody else is the cause of", guardEvent(event.OpKill, event.GuardSigio|9, 0, event.FlagBlocked),
			"kill", exe, event.VerdictBlocked, event.Unknown, "SIGKILL to the daemon by way of F_SETOWN: refused in the kernel"},
		{"an attach", guardEvent(event.OpPtrace, 2, 0, event.FlagBlocked),
			"ptrace", exe, event.VerdictBlocked, pipelinetest.User(7), "attaching to the daemon or to its memory: refused in the kernel"},
		{"a resource limit", guardEvent(event.OpLimit, 7, 0, event.FlagBlocked),
			"limit", exe, event.VerdictBlocked, pipelinetest.User(7), "resource limit 7 of the daemon: refused in the kernel"},
		{"a priority", guardEvent(event.OpLimit, event.GuardNice, 0, event.FlagBlocked),
			"limit", exe, event.VerdictBlocked, pipelinetest.User(7), "the priority of the daemon: refused in the kernel"},
		{"a map", guardEvent(event.OpBPF, 14, 33, event.FlagBlocked),
			"bpf", "", event.VerdictBlocked, pipelinetest.User(7), "a descriptor of our BPF map 33: refused in the kernel"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := pipelinetest.NewScene(t, event.ModeObserve)
			s.Options.Exe = exe
			s.Start()
			s.Feed(c.ev)
			r := s.Wait("the attempt", func(r []event.Record) bool { return len(r) == 1 })[0]
			if r.Kind != event.RecAttempt || r.Op != c.op || r.Path != c.path || r.Verdict != c.verdict || r.Reason != c.says ||
				r.Actor.User != c.who || r.Rule != event.RuleOwn || r.Mode != event.ModeBlock || r.Count != 3 {
				t.Errorf("%+v by %+v", r, r.Actor)
			}
			if d := int64(r.TimeEnd - r.Time); d < 4_999_000_000 || d > 5_001_000_000 {
				t.Errorf("it lasts %d ns, want 5 s", d)
			}
			if known := r.Process != nil; known != (c.who != event.Unknown) {
				t.Errorf("process %+v", r.Process)
			}
		})
	}
}

// What the kernel refuses in our own places is recorded; nothing in them is
// enrolled, compared or put back, whatever rule lies around.
func TestOwnPlacesAreNeverPutBack(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeRestore)
	around := s.Options.Rule
	s.Options.Rule = func(p string) (pipeline.Rule, bool) {
		if strings.HasPrefix(p, s.At("own")) {
			return pipeline.Rule{Name: event.RuleOwn, Mode: event.ModeBlock, Own: true}, true
		}
		return around(p)
	}
	s.Options.Exe, s.Options.Reads = "/bin/act", s.At("own/index")
	s.Do(os.MkdirAll(s.At("own/index"), 0o755))
	s.Do(os.WriteFile(s.At("own/config"), []byte("old"), 0o644))
	s.Start()
	s.Do(os.WriteFile(s.At("own/config"), []byte("new"), 0o644))
	s.Do(os.WriteFile(s.At("own/second"), []byte("new"), 0o644))
	s.Do(s.P.Rescan(context.Background(), []string{s.Dir}, "test"))
	if err := s.Actor(5).Write("own/third", "not refused", os.O_CREATE); err != nil {
		t.Fatal(err)
	}
	refused := func(path string) {
		now := pipelinetest.Clock{}.Boot()
		s.Feed(event.Event{Kind: event.KindFile, Op: event.OpWrite, Flags: event.FlagBlocked, Ret: -1, Time: now, First: now, Count: 1,
			Key: event.ProcKey{PID: 6, Start: 1}, Anchor: 1, Path: []byte(path)})
	}
	refused("own/index/records-wal") // by our executable, as the scene names all: a reading verb
	refused("own/config")
	s.Stop()
	all, _ := s.Journal.Records()
	if n := len(pick(all, func(r *event.Record) bool { return r.Response != nil })); n != 0 {
		t.Errorf("%d answers", n)
	}
	if r := changes(all); len(r) != 1 || r[0].Path != s.At("own/third") || r[0].Verdict != event.VerdictUnauthorized || r[0].Rule != event.RuleOwn {
		t.Errorf("changes %+v", r)
	}
	attempts := pick(all, func(r *event.Record) bool { return r.Kind == event.RecAttempt })
	if len(attempts) != 1 || attempts[0].Path != s.At("own/config") || attempts[0].Verdict != event.VerdictBlocked || attempts[0].Rule != event.RuleOwn {
		t.Errorf("attempts %+v", attempts)
	}
	for path, want := range map[string]string{"own/config": "new", "own/second": "new", "own/third": "not refused"} {
		if b, err := os.ReadFile(s.At(path)); err != nil || string(b) != want {
			t.Errorf("%s holds %q, %v", path, b, err)
		}
	}
}
