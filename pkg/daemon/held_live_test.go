package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/policy"
	"github.com/holdfast/holdfast/pkg/query"
	"github.com/holdfast/holdfast/vmtests/holdtest"
)

// heldTree is a directory with a file of two pages.
func heldTree(t *testing.T) (dir, file string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "tree")
	file = filepath.Join(dir, "f")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("trusted "+strings.Repeat("x", 8184)), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, file
}

func startHeld(t *testing.T, dir, mode, held string) *running {
	t.Helper()
	cfg := config.Default()
	cfg.State, cfg.Socket = filepath.Join(t.TempDir(), "state"), filepath.Join(t.TempDir(), "socket")
	cfg.Limits.MappedInterval = time.Second
	cfg.Rules = []policy.Rule{{Name: "held", Paths: []string{dir}, Mode: mode, Held: held}}
	return startWith(t, cfg)
}

// begins waits until a file begins with a text.
func begins(t *testing.T, file, text string) {
	t.Helper()
	var got string
	for range 200 {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got = string(b[:min(len(b), len(text))]); got == text {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s begins with %q, want %q", file, got, text)
}

// reports returns the record of what a process held before the rule.
func (r *running) reports(t *testing.T, op string, pid int) *event.Record {
	t.Helper()
	for range 200 {
		for _, rec := range r.records(t, query.Filter{Kind: event.RecAgent, Op: op}) {
			if rec.Process != nil && int(rec.Process.PID) == pid {
				return rec
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("no record says that process %d held it (%s)", pid, op)
	return nil
}

// read waits until n mapped files have been read and found as they were: from then
// on a difference is somebody's.
func (r *running) read(t *testing.T, n uint64) {
	t.Helper()
	for range 200 {
		st, err := r.client.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st.Pipeline["rehash_looks"] >= n && st.Pipeline["held_looks"] >= n {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("mapped files are not looked at")
}

func TestStoresThroughAMappingOlderThanTheRuleArePutBackInTheNameOfWhoMapsIt(t *testing.T) {
	dir, file := heldTree(t)
	h := holdtest.Hold(t, file, "map", "close")
	r := startHeld(t, dir, event.ModeRestore, policy.HeldReport)
	rec := r.reports(t, "map_write", h.PID())
	if rec.Path != file || rec.Rule != "held" || !strings.Contains(rec.Reason, "mapped for writing before") {
		t.Errorf("reported as %+v", rec)
	}
	r.read(t, 1)
	if err := h.Do("store=SECRETLY"); err != nil {
		t.Fatal(err)
	}
	begins(t, file, "trusted ")
	changes := r.wait(t, query.Filter{Kind: event.RecChange}, 1)
	c := changes[0]
	if c.Path != file || c.Op != "map_write" || c.Process == nil || int(c.Process.PID) != h.PID() || c.Verdict != event.VerdictUnauthorized {
		t.Errorf("recorded as %s of %s by %+v, verdict %s: %s", c.Op, c.Path, c.Process, c.Verdict, c.Reason)
	}
	if !strings.Contains(c.Reason, "no other process had it mapped") {
		t.Errorf("the reason does not say how the actor is known: %s", c.Reason)
	}
	if c.After == nil || c.After.Hash.String() != b3sum(t, "SECRETLY"+strings.Repeat("x", 8184)) {
		t.Errorf("after is %+v", c.After)
	}
}

func TestAStoreIsNobodysIfTwoProcessesMayHaveMadeIt(t *testing.T) {
	dir, file := heldTree(t)
	one, two := holdtest.Hold(t, file, "map"), holdtest.Hold(t, file, "map")
	r := startHeld(t, dir, event.ModeObserve, policy.HeldReport)
	r.reports(t, "map_write", one.PID())
	r.reports(t, "map_write", two.PID())
	r.read(t, 2)
	if err := two.Do("store=whose?"); err != nil {
		t.Fatal(err)
	}
	c := r.wait(t, query.Filter{Kind: event.RecChange}, 1)[0]
	if c.Process != nil || c.Actor.User != event.Unknown || c.Op != "map_write" {
		t.Errorf("recorded as %s by %+v (%+v)", c.Op, c.Actor, c.Process)
	}
	for _, h := range []*holdtest.Holder{one, two} {
		if !strings.Contains(c.Reason, fmt.Sprintf("[%d]", h.PID())) {
			t.Errorf("the reason does not name process %d: %s", h.PID(), c.Reason)
		}
	}
}

func TestAMappingMadeUnderTheRuleIsLookedAtWhileItLasts(t *testing.T) {
	dir, file := heldTree(t)
	r := startHeld(t, dir, event.ModeObserve, policy.HeldReport)
	h := holdtest.Hold(t, file, "map", "close")
	for i, text := range []string{"first", "other", "third"} {
		if err := h.Do("store=" + text); err != nil {
			t.Fatal(err)
		}
		recs := r.wait(t, query.Filter{Kind: event.RecChange}, i+1)
		c := recs[len(recs)-1]
		if c.Op != "map_write" || c.Process == nil || int(c.Process.PID) != h.PID() {
			t.Errorf("%s: %s by %+v: %s", text, c.Op, c.Process, c.Reason)
		}
	}
	// The last store is found when the mapping goes, whatever the clock says.
	if err := h.Do("store=fourth"); err != nil {
		t.Fatal(err)
	}
	if err := h.End(); err != nil {
		t.Fatal(err)
	}
	r.wait(t, query.Filter{Kind: event.RecChange}, 4)
	for range 100 {
		st, err := r.client.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st.Pipeline["held_mappings"] == 0 && len(st.Held) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Error("status still lists the mapping of a process that has ended")
}

func TestAWriteThroughAnOlderDescriptorIsPutBackInTheNameOfTheWriter(t *testing.T) {
	dir, file := heldTree(t)
	h := holdtest.Hold(t, file)
	r := startHeld(t, dir, event.ModeRestore, policy.HeldReport)
	r.reports(t, "open", h.PID())
	if err := h.Do("write=tampered"); err != nil {
		t.Fatal(err)
	}
	begins(t, file, "trusted ")
	c := r.wait(t, query.Filter{Kind: event.RecChange}, 1)[0]
	if c.Op != "write" || c.Process == nil || int(c.Process.PID) != h.PID() {
		t.Errorf("recorded as %s by %+v", c.Op, c.Process)
	}
}

// stateOf is the state letter of a process, as the kernel prints it.
func stateOf(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))[0]
}

func TestWhoHeldAFileIsFrozenOrEndedAsTheRuleSays(t *testing.T) {
	tests := []struct {
		held, action, state string
	}{{policy.HeldFreeze, "freeze", "T"}, {policy.HeldKill, "kill", "Z"}}
	for _, tt := range tests {
		t.Run(tt.held, func(t *testing.T) {
			dir, file := heldTree(t)
			guilty := holdtest.Hold(t, file, "map")
			r := startHeld(t, dir, event.ModeRestore, tt.held)
			cause := r.reports(t, "open", guilty.PID())
			var steps []string
			for _, rec := range r.wait(t, query.Filter{Kind: event.RecResponse}, 2) {
				if rec.Response.Of == cause.ID {
					steps = append(steps, rec.Response.Action+" "+rec.Response.Outcome)
				}
			}
			if want := []string{tt.action + " intended", tt.action + " done"}; !slices.Equal(steps, want) {
				t.Errorf("answered with %q, want %q", steps, want)
			}
			if got := stateOf(t, guilty.PID()); got != tt.state {
				t.Errorf("the holder is in state %s, want %s", got, tt.state)
			}
			if tt.held == policy.HeldFreeze {
				if err := syscall.Kill(guilty.PID(), syscall.SIGCONT); err != nil {
					t.Fatal(err)
				}
				if err := guilty.Do("sync"); err != nil {
					t.Errorf("it does not go on: %v", err)
				}
			}
		})
	}
}
