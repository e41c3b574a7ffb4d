package daemon_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/daemon"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/policy"
	"github.com/holdfast/holdfast/pkg/query"
	"github.com/holdfast/holdfast/pkg/window"
)

// watching is a configuration of a tree with one file, conf, that is put back.
func watching(t *testing.T) (cfg config.Config, tree string) {
	t.Helper()
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	tree = filepath.Join(top, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(tree, "conf"), "first\n")
	rule, err := policy.ParseWatch(tree + "=" + event.ModeRestore)
	if err != nil {
		t.Fatal(err)
	}
	cfg = config.Default()
	cfg.State, cfg.Socket, cfg.Rules = filepath.Join(top, "state"), filepath.Join(top, "socket"), []policy.Rule{rule}
	return cfg, tree
}

func (r *running) window(t *testing.T, req control.WindowRequest) control.Outcome {
	t.Helper()
	out, err := r.client.Window(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// expected changes conf as somebody and waits for the n-th record of an expected change.
func (r *running) expected(t *testing.T, loginuid int, tree, text string, n int) *event.Record {
	t.Helper()
	at(t, loginuid, `echo `+text+` > "$1/conf"`, tree)
	got := r.wait(t, query.Filter{Kind: event.RecChange, Verdict: event.VerdictExpected}, n)
	settled(t, filepath.Join(tree, "conf"), text+"\n")
	return got[n-1]
}

// refused changes conf as somebody and waits until it is put back.
func (r *running) refused(t *testing.T, loginuid int, tree, back string) {
	t.Helper()
	n := len(r.records(t, query.Filter{Kind: event.RecResponse, Verdict: event.VerdictRestored}))
	at(t, loginuid, `echo evil > "$1/conf"`, tree)
	r.wait(t, query.Filter{Kind: event.RecResponse, Verdict: event.VerdictRestored}, n+1)
	settled(t, filepath.Join(tree, "conf"), back+"\n")
}

// A whole daemon, killed and started again while a window is open. The persons are set
// by the kernel (loginuid), not by us.
func TestInAWindowAPersonsChangeBecomesTrustedAndAfterItTheSameIsPutBack(t *testing.T) {
	cfg, tree := watching(t)
	const alice, bob = 2, 3
	process := spawn(t, cfg)
	d := &running{cfg: cfg, client: control.NewClient(cfg.Socket)}
	d.refused(t, alice, tree, "first")
	who := d.records(t, query.Filter{Kind: event.RecChange})[0].Actor.User
	opened := d.window(t, control.WindowRequest{Ticket: "CHG-7", ForNS: int64(time.Hour), Path: control.Path(tree), User: who}).Windows[0]

	r := d.expected(t, alice, tree, "second", 1)
	if r.Detail["ticket"] != "CHG-7" || r.Detail["window_record"] != opened.Record || r.Actor.User != who || !strings.Contains(r.Reason, "window 1, ticket CHG-7") {
		t.Errorf("%s %v by %s", r.Reason, r.Detail, r.Actor.User)
	}
	d.refused(t, bob, tree, "second")
	kill(t, process)
	process = spawn(t, cfg)
	st, err := d.client.Status(t.Context())
	if err != nil || len(st.Windows) != 1 || st.Windows[0].Number != 1 || st.Windows[0].LeftNS <= 0 || st.Windows[0].LeftNS >= opened.LeftNS {
		t.Fatalf("after it was killed: %+v, %v", st.Windows, err)
	}
	d.expected(t, alice, tree, "third", 2)
	d.refused(t, bob, tree, "third")

	if out := d.window(t, control.WindowRequest{Close: 1}); len(out.Windows) != 1 {
		t.Errorf("closed: %+v", out)
	}
	d.refused(t, alice, tree, "third")
	_, err = d.client.Window(t.Context(), control.WindowRequest{CloseTicket: "CHG-7"})
	if !errors.Is(err, control.ErrNotFound) {
		t.Errorf("closed again: %v", err)
	}

	d.window(t, control.WindowRequest{Ticket: "short", ForNS: int64(2 * time.Second)})
	d.expected(t, bob, tree, "fourth", 3)
	d.until(t, "without a window", func(s control.Status) bool { return len(s.Windows) == 0 })
	d.refused(t, bob, tree, "fourth")
	var told []string
	for range 100 { // the end is recorded within a second
		told = nil
		for _, r := range d.records(t, query.Filter{Kind: event.RecResponse}) {
			if strings.HasPrefix(r.Response.Action, "window") {
				told = append(told, r.Response.Action+" "+r.Response.Outcome+" "+r.Detail["ticket"])
				if r.Actor == nil || r.Process == nil || r.Response.Action != window.ActionEnd && r.Process.PID != uint32(os.Getpid()) {
					t.Errorf("%s of %s does not tell who: %+v", r.Response.Action, r.Detail["ticket"], r.Process)
				}
			}
		}
		if len(told) == 7 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	want := []string{
		"window_open intended CHG-7", "window_open done CHG-7", "window_close intended CHG-7", "window_close done CHG-7",
		"window_open intended short", "window_open done short", "window_end done short",
	}
	slices.Sort(told)
	slices.Sort(want)
	if !slices.Equal(told, want) {
		t.Errorf("records of windows: %q", told)
	}
	kill(t, process)
}

func TestAWindowThatNoRecordTellsOfIsNotInForce(t *testing.T) {
	cfg, tree := watching(t)
	d := startWith(t, cfg)
	other := filepath.Join(filepath.Dir(tree), "elsewhere")
	out := d.window(t, control.WindowRequest{Ticket: "T", ForNS: int64(time.Hour), Path: control.Path(other)})
	if len(out.Notes) != 1 || !strings.Contains(out.Notes[0], "no rule watches anything there") {
		t.Errorf("notes: %q", out.Notes)
	}
	d.stop()
	file := filepath.Join(cfg.State, "windows")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, strings.Replace(string(b), other, tree, 1))
	d = startWith(t, cfg)
	st, err := d.client.Status(t.Context())
	if err != nil || len(st.Windows) != 0 || !strings.Contains(strings.Join(st.DegradedReasons, "\n"), "window 1, ticket T is not in force: no record tells of its opening") {
		t.Errorf("%+v %q, %v", st.Windows, st.DegradedReasons, err)
	}
	d.refused(t, 2, tree, "first")
}

func TestWithoutADaemonAWindowIsOpenedForTheNextOne(t *testing.T) {
	cfg, tree := watching(t)
	cfg.Rules = append(cfg.Rules, policy.Rule{Name: "hard", Paths: []string{filepath.Join(tree, "hard")}, Mode: event.ModeBlock})
	startWith(t, cfg).stop()
	h, done, err := daemon.Offline(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []control.WindowRequest{
		{Ticket: "T", ForNS: int64(time.Hour), Host: "another"}, {ForNS: int64(time.Hour)}, {Ticket: "T"}, {Ticket: "T", ForNS: int64(time.Hour), Path: "x"},
	} {
		if _, err := h.Window(t.Context(), bad); !errors.Is(err, control.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	out, err := h.Window(t.Context(), control.WindowRequest{Ticket: "T", ForNS: int64(time.Hour), Host: host})
	if err != nil || len(out.Windows) != 1 || !slices.Equal(out.Windows[0].Unopened, []string{"hard"}) || len(out.Notes) != 1 || !strings.Contains(out.Notes[0], "rule hard blocks") {
		t.Errorf("%+v, %v", out, err)
	}
	if err := done(); err != nil {
		t.Fatal(err)
	}
	if ws, err := daemon.Windows(cfg); err != nil || len(ws) != 1 || ws[0].Ticket != "T" || ws[0].LeftNS <= 0 {
		t.Errorf("%+v, %v", ws, err)
	}
	startWith(t, cfg).expected(t, 2, tree, "second", 1)
}

// What was approved is trusted, so that an undo of it is against the trusted state.
func TestAnUndoOfWhatAWindowApprovedStaysOverARestartAndIsWhatIsPutBack(t *testing.T) {
	cfg, tree := watching(t)
	const alice, bob = 2, 3
	write(t, filepath.Join(tree, "old"), "old\n")
	process := spawn(t, cfg)
	d := &running{cfg: cfg, client: control.NewClient(cfg.Socket)}
	before := picture(t, tree)
	d.window(t, control.WindowRequest{Ticket: "T", ForNS: int64(time.Hour)})
	at(t, alice, `cd "$1"; echo second > conf; rm old; echo new > new; mkdir d; mv new d/new; mv d e`, tree)
	d.told(t)
	d.window(t, control.WindowRequest{CloseTicket: "T"})
	user := d.records(t, query.Filter{Kind: event.RecChange})[0].Actor.User
	if out := d.undo(t, control.UndoRequest{User: user}); len(out.Conflicts) > 0 {
		t.Errorf("conflicts: %+v", out.Conflicts)
	}
	kill(t, process)
	d = startWith(t, cfg)
	d.told(t)
	if after := picture(t, tree); after != before {
		t.Errorf("after a restart:\n%s", lineDiff(t, before, after))
	}
	if found := d.records(t, query.Filter{Kind: event.RecChange, Verdict: event.VerdictUnauthorized}); len(found) > 0 {
		t.Errorf("%d changes were found, the first of %s", len(found), found[0].Path)
	}
	d.refused(t, bob, tree, "first")
	d.told(t)
	if after := picture(t, tree); after != before {
		t.Errorf("after somebody's change:\n%s", lineDiff(t, before, after))
	}
}
