package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/event"
)

// fake answers with what it was asked, and remembers who asked.
type fake struct {
	status control.Status
	err    error
	peer   control.Peer
	undo   control.UndoRequest
	stop   control.StopRequest
	hold   control.HoldRequest
	window control.WindowRequest

	reindexed int
}

func (f *fake) Status(ctx context.Context) (control.Status, error) {
	f.peer, _ = control.PeerFrom(ctx)
	return f.status, f.err
}

func (f *fake) Restore(_ context.Context, r control.RestoreRequest) (control.Outcome, error) {
	o := control.Outcome{DryRun: r.DryRun}
	for _, p := range r.Paths {
		o.Steps = append(o.Steps, control.Step{Path: p, Action: "write", Outcome: control.StepDone})
	}
	return o, f.err
}

func (f *fake) Undo(_ context.Context, r control.UndoRequest) (control.Outcome, error) {
	f.undo = r
	return control.Outcome{}, f.err
}

func (f *fake) Trust(_ context.Context, r control.TrustRequest) (control.Outcome, error) {
	return control.Outcome{}, f.err
}

func (f *fake) Hold(_ context.Context, r control.HoldRequest) (control.Outcome, error) {
	f.hold = r
	return control.Outcome{}, f.err
}

func (f *fake) Window(_ context.Context, r control.WindowRequest) (control.Outcome, error) {
	f.window = r
	return control.Outcome{Windows: []control.Window{{Number: 3, Path: r.Path}}, Notes: []string{"n"}}, f.err
}

func (f *fake) Prune(_ context.Context, r control.PruneRequest) (control.Outcome, error) {
	return control.Outcome{DryRun: r.DryRun}, f.err
}

func (f *fake) Reindex(context.Context, control.ReindexRequest) (control.Outcome, error) {
	f.reindexed++
	return control.Outcome{}, nil
}

func (f *fake) Stop(_ context.Context, r control.StopRequest) (control.Outcome, error) {
	f.stop = r
	return control.Outcome{}, f.err
}

type hinted struct{ error }

func (h hinted) Hints() []string { return []string{"try this"} }
func (h hinted) Unwrap() error   { return h.error }

func serve(t *testing.T, h control.Handler) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- control.NewServer(h, nil).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return path
}

func TestRequestsAndAnswersSurviveTheSocket(t *testing.T) {
	f := &fake{status: control.Status{Host: "h", Tier: "lsm", Started: 1700000000123456789, Pipeline: map[string]uint64{"judge_in": 7},
		Rules: []control.RuleStatus{{Name: "etc", Paths: []control.PathStatus{{Path: "/x\xff", State: control.PathArmed, Files: 3}}}}}}
	c := control.NewClient(serve(t, f))
	got, err := c.Status(context.Background())
	if err != nil || !reflect.DeepEqual(got, f.status) {
		t.Errorf("status %+v, %v", got, err)
	}
	if f.peer.PID != int32(os.Getpid()) || f.peer.UID != uint32(os.Geteuid()) {
		t.Errorf("peer %+v is not this process", f.peer)
	}
	o, err := c.Restore(context.Background(), control.RestoreRequest{Paths: []control.Path{"/a b", "/\xfe\n"}, DryRun: true})
	if err != nil || !o.DryRun || len(o.Steps) != 2 || o.Steps[1].Path != "/\xfe\n" || o.Count(control.StepDone) != 2 {
		t.Errorf("restore %+v, %v", o, err)
	}
	hold := control.HoldRequest{Paths: []control.Path{"/\xfe"}, Release: 7, Reason: "r"}
	if _, err := c.Hold(context.Background(), hold); err != nil || !reflect.DeepEqual(f.hold, hold) {
		t.Errorf("hold %+v, %v", f.hold, err)
	}
	if o, err := c.Prune(context.Background(), control.PruneRequest{DryRun: true}); err != nil || !o.DryRun {
		t.Errorf("prune %+v, %v", o, err)
	}
	window := control.WindowRequest{Ticket: "t", ForNS: 1, Path: "/\xfe*", User: "u", Exe: "/e", Host: "h", Close: 2, CloseTicket: "c"}
	if o, err := c.Window(context.Background(), window); err != nil || f.window != window || len(o.Notes) != 1 || len(o.Windows) != 1 || o.Windows[0].Path != window.Path {
		t.Errorf("window %+v, %+v, %v", f.window, o, err)
	}
	want := control.UndoRequest{Session: "s", User: "u", Source: "::1", Exec: "e", Record: "r", Since: 1, Until: 2, Path: "/p\x80", DryRun: true, Force: true}
	if _, err := c.Undo(context.Background(), want); err != nil || f.undo != want {
		t.Errorf("undo %+v, %v", f.undo, err)
	}
	if _, err := c.Reindex(context.Background(), control.ReindexRequest{}); err != nil || f.reindexed != 1 {
		t.Errorf("reindex: %d, %v", f.reindexed, err)
	}
	if _, err := c.Stop(context.Background(), control.StopRequest{Reason: "new kernel"}); err != nil || f.stop.Reason != "new kernel" {
		t.Errorf("stop %+v, %v", f.stop, err)
	}
}

func TestErrorsKeepTheirKindAndHints(t *testing.T) {
	f := &fake{}
	c := control.NewClient(serve(t, f))
	for _, kind := range []error{control.ErrNotFound, control.ErrInvalid, control.ErrBusy, errors.New("disk on fire")} {
		f.err = hinted{fmt.Errorf("trust /x: %w", kind)}
		_, err := c.Trust(context.Background(), control.TrustRequest{Reason: "r"})
		if err == nil || err.Error() != f.err.Error() {
			t.Errorf("error %v, want %v", err, f.err)
		}
		for _, k := range []error{control.ErrNotFound, control.ErrInvalid, control.ErrBusy} {
			if errors.Is(err, k) != errors.Is(f.err, k) {
				t.Errorf("%v: is %v: %v", err, k, errors.Is(err, k))
			}
		}
		var h interface{ Hints() []string }
		if !errors.As(err, &h) || len(h.Hints()) != 1 {
			t.Errorf("%v lost its hint", err)
		}
	}
}

func TestSocketOfNobody(t *testing.T) {
	dir := t.TempDir()
	_, err := control.NewClient(filepath.Join(dir, "none")).Status(context.Background())
	if !errors.Is(err, control.ErrNotRunning) {
		t.Errorf("no socket: %v", err)
	}
	stale := filepath.Join(dir, "stale")
	leaveSocket(t, stale)
	if err := control.NewClient(stale).Ping(context.Background()); !errors.Is(err, control.ErrNotRunning) {
		t.Errorf("a socket left behind: %v", err)
	}
	l, err := control.Listen(stale)
	if err != nil {
		t.Fatalf("a socket left behind is not replaced: %v", err)
	}
	if _, err := control.Listen(stale); !errors.Is(err, control.ErrInUse) {
		t.Errorf("a second daemon: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	plain := filepath.Join(dir, "file")
	if err := os.WriteFile(plain, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := control.Listen(plain); err == nil || !strings.Contains(err.Error(), "no socket is in the way") {
		t.Errorf("a file in the way: %v", err)
	}
	if b, err := os.ReadFile(plain); string(b) != "mine" {
		t.Errorf("the file in the way was touched: %q, %v", b, err)
	}
}

func leaveSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSocketModeDoesNotFollowTheUmask(t *testing.T) {
	path := serve(t, &fake{})
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// Another user is refused even if the socket's mode and folder would let it in.
// Needs root, as all tests of the kernel side do.
func TestAnotherUserIsRefused(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "holdfast")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "s")
	l, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- control.NewServer(&fake{}, nil).Serve(ctx, l) }()
	defer func() { cancel(); <-done }()
	for _, err := range []error{os.Chmod(path, 0o777), os.Chmod(dir, 0o777)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "t")
	if err := os.WriteFile(bin, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-test.run", "TestHelperAsksAsAnother", "-test.v")
	cmd.Env = []string{"HOLDFAST_TEST_SOCKET=" + path}
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), control.ErrForbidden.Error()) {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}

// TestHelperAsksAsAnother is run by TestAnotherUserIsRefused as another user.
func TestHelperAsksAsAnother(t *testing.T) {
	path := os.Getenv("HOLDFAST_TEST_SOCKET")
	if path == "" {
		return
	}
	_, err := control.NewClient(path).Status(context.Background())
	t.Logf("answer: %v", err)
	if !errors.Is(err, control.ErrForbidden) {
		t.Errorf("error %v", err)
	}
}

func TestServeLetsARunningRequestFinish(t *testing.T) {
	slow := &slowHandler{started: make(chan struct{})}
	path := filepath.Join(t.TempDir(), "s")
	l, err := control.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- control.NewServer(slow, nil).Serve(ctx, l) }()
	answer := make(chan error, 1)
	go func() {
		_, err := control.NewClient(path).Undo(context.Background(), control.UndoRequest{Session: "s"})
		answer <- err
	}()
	<-slow.started
	cancel()
	if err := <-answer; err != nil {
		t.Errorf("the request that was running: %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("serve: %v", err)
	}
}

type slowHandler struct {
	fake
	started chan struct{}
}

func (s *slowHandler) Undo(ctx context.Context, _ control.UndoRequest) (control.Outcome, error) {
	close(s.started)
	<-ctx.Done()
	time.Sleep(50 * time.Millisecond)
	return control.Outcome{}, nil
}

func TestStatusNamesItsFieldsAsDocumented(t *testing.T) {
	b, err := json.Marshal(control.Status{Started: event.Time(1)})
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	for key, sub := range map[string][]string{
		"events":  {"seen", "sent", "skipped", "blocked", "lost", "failed", "hooks"},
		"journal": {"seq", "durable", "bytes", "segments", "checkpoint", "errors", "disk_free", "reserve"},
		"index":   {"seq", "lag"},
		"ship":    {"enabled", "shipped", "lag", "connected"},
		"vault":   {"paths", "versions", "objects", "bytes", "stored"},
	} {
		o, ok := m[key].(map[string]any)
		if !ok {
			t.Errorf("%s is %T", key, m[key])
			continue
		}
		for _, k := range sub {
			if _, ok := o[k]; !ok {
				t.Errorf("%s has no %s", key, k)
			}
		}
	}
	for _, key := range []string{"version", "host", "pid", "started", "tier", "tier_wanted", "degraded", "degraded_reasons", "armed", "rules", "queues", "pipeline", "limits"} {
		if _, ok := m[key]; !ok {
			t.Errorf("no %s", key)
		}
	}
}
