package daemon_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/daemon"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/policy"
	"github.com/holdfast/holdfast/pkg/query"
)

// many is how many files the undo has that is cut off: so many that it cannot be done
// between two looks at one of them.
const many = 1500

// cutOff has a session change many files, begins to take that back, and kills the
// daemon when the first file is back.
func cutOff(t *testing.T) (cfg config.Config, tree, before string, request control.UndoRequest) {
	t.Helper()
	top := t.TempDir()
	tree = filepath.Join(top, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	at(t, 1, fmt.Sprintf(`cd "$1"; umask 022; mkdir d; for i in $(seq -w %d); do echo "good $i" > f$i; done; echo x > d/x`, many), tree)
	cfg = config.Default()
	cfg.State, cfg.Socket = filepath.Join(top, "state"), filepath.Join(top, "socket")
	rule, err := policy.ParseWatch(tree + "=" + event.ModeObserve)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Rules = []policy.Rule{rule}
	c := spawn(t, cfg)
	before = picture(t, tree)
	at(t, 2, `cd "$1"; umask 022; for f in f*; do echo evil > $f; done; mv d e; echo evil > e/x; echo new > new`, tree)
	d := &running{cfg: cfg, client: control.NewClient(cfg.Socket)}
	d.told(t)
	request = control.UndoRequest{User: d.records(t, query.Filter{Kind: event.RecChange})[0].Actor.User}
	asked := make(chan error, 1)
	go func() {
		_, err := d.client.Undo(t.Context(), request)
		asked <- err
	}()
	first := filepath.Join(tree, fmt.Sprintf("f%04d", 1))
	for {
		if b, err := os.ReadFile(first); err == nil && strings.HasPrefix(string(b), "good") {
			break
		}
		select {
		case err := <-asked:
			t.Fatalf("the undo ended too early: %v", err)
		default:
		}
	}
	kill(t, c)
	if err := <-asked; err == nil {
		t.Fatal("the undo was not cut off")
	}
	if n := countGood(t, tree); n == 0 || n == many {
		t.Fatalf("%d of %d files are back: it was not cut off half way", n, many)
	}
	return cfg, tree, before, request
}

func countGood(t *testing.T, tree string) (n int) {
	t.Helper()
	err := filepath.WalkDir(tree, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && strings.HasPrefix(e.Name(), "f") {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if strings.HasPrefix(string(b), "good") {
				n++
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// once fails the test unless each file's coming back is on the record, once.
func once(t *testing.T, d *running, tree string) {
	t.Helper()
	done := map[string]int{}
	for _, r := range d.records(t, query.Filter{Kind: event.RecResponse}) {
		if r.Verdict == event.VerdictRestored && r.Response.Outcome == control.StepDone {
			done[strings.TrimPrefix(r.Path, tree)]++
		}
	}
	for i := 1; i <= many; i++ {
		if f := fmt.Sprintf("/f%04d", i); done[f] != 1 {
			t.Fatalf("%s is told to be back %d times", f, done[f])
		}
	}
}

func TestAnUndoThatAKillCutOffIsFinishedByTheNextDaemon(t *testing.T) {
	cfg, tree, before, request := cutOff(t)
	c := spawn(t, cfg)
	defer kill(t, c)
	if after := picture(t, tree); after != before {
		t.Errorf("the tree is not as it was before the session:\n%s", lineDiff(t, before, after))
	}
	d := &running{cfg: cfg, client: control.NewClient(cfg.Socket)}
	st, err := d.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(st.Plans) != 1 || st.Plans[0].State != control.PlanWentOn || st.Plans[0].Failed != 0 || st.Plans[0].Done == 0 || st.Plans[0].Action != "undo" {
		t.Errorf("status tells of %+v", st.Plans)
	}
	d.told(t)
	once(t, d, tree)
	for _, r := range d.records(t, query.Filter{Kind: event.RecChange}) {
		if r.Actor == nil || r.Actor.User != request.User && r.Actor.User != "root" {
			t.Errorf("what the undo did is recorded as a change: %s %s by %+v", r.Op, r.Path, r.Actor)
			break
		}
	}
	if again := d.undo(t, control.UndoRequest{User: request.User, DryRun: true}); len(again.Steps)+len(again.Conflicts) > 0 {
		t.Errorf("a second plan: %+v %+v", again.Steps, again.Conflicts)
	}
}

func TestAnUndoThatAKillCutOffIsFinishedByTheNextOneWithoutADaemon(t *testing.T) {
	cfg, tree, before, request := cutOff(t)
	ops, done, err := daemon.Offline(cfg)
	if err != nil {
		t.Fatal(err)
	}
	half := picture(t, tree) // without the temporary file the kill may have left: opening takes it away
	request.DryRun = true
	if _, err := ops.Undo(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if now := picture(t, tree); now != half {
		t.Errorf("a dry run changed the tree:\n%s", lineDiff(t, half, now))
	}
	request.DryRun = false
	if _, err := ops.Undo(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	if after := picture(t, tree); after != before {
		t.Errorf("the tree is not as it was before the session:\n%s", lineDiff(t, before, after))
	}
	if err := done(); err != nil {
		t.Fatal(err)
	}
	once(t, &running{cfg: cfg}, tree)
}
