package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/policy"
	"github.com/holdfast/holdfast/pkg/query"
)

// fill writes to dir until no byte more fits; the file that it returns holds the room.
func fill(t testing.TB, dir string) string {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	return name
}

// The state directory lies on a disk of its own that somebody fills. The daemon lives and restores; what was not
// recorded is declared, and once there is room the records tell the tree as it is.
func TestAFullDiskUnderTheStateLosesNothingUnsaid(t *testing.T) {
	disk, tree := t.TempDir(), filepath.Join(t.TempDir(), "tree")
	if err := unix.Mount("none", disk, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	guarded, seen := filepath.Join(tree, "guarded"), filepath.Join(tree, "seen")
	for _, d := range []string{guarded, seen} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const files = 2000
	name := func(i int) string { return filepath.Join(seen, fmt.Sprint("file", i)) }
	for i := range files {
		if err := os.WriteFile(name(i), fmt.Appendf(nil, "first content of %d\n", i), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	service := filepath.Join(guarded, "service.conf")
	if err := os.WriteFile(service, []byte("require_login yes\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.State, cfg.Socket = filepath.Join(disk, "state"), filepath.Join(t.TempDir(), "socket")
	cfg.Limits.Segment, cfg.Limits.Reserve = 1<<20, 4<<20
	for _, w := range []string{guarded + "=restore", seen + "=observe"} {
		r, err := policy.ParseWatch(w)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Rules = append(cfg.Rules, r)
	}
	d := startWith(t, cfg)

	filler := fill(t, disk)
	// Each change brings a content that the vault has no room for and a record that the journal has none for.
	for i := range files {
		if err := os.WriteFile(name(i), fmt.Appendf(nil, "second content of %d %s\n", i, strings.Repeat("x", i%97)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := as(0, "", "sed", "-i", "s/yes/no/", service); err != nil {
		t.Fatal(err)
	}
	settled(t, service, "require_login yes\n")
	d.until(t, "said to be full", func(s control.Status) bool {
		return s.Degraded && strings.Contains(strings.Join(s.DegradedReasons, "\n"), "disk of the state directory is full")
	})
	if err := os.WriteFile(service, []byte("require_login never\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	settled(t, service, "require_login yes\n")

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	d.until(t, "whole again", func(s control.Status) bool {
		return !s.Degraded && s.Pipeline["pipeline_waiting"] == 0 && s.Pipeline["pipeline_doubt"] == 0 && len(s.Gaps.Open) == 0 && s.Gaps.Waiting == 0 && s.Journal.Durable == s.Journal.Seq
	})
	last := map[string]string{}
	for _, r := range d.records(t, query.Filter{}) {
		if r.Kind == event.RecGap {
			t.Log(r.Reason, *r.Gap)
		}
		if r.Kind == event.RecChange && r.After != nil {
			last[r.Path] = r.After.Hash.String()
		}
	}
	for i := range files {
		content, err := os.ReadFile(name(i))
		if err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 && last[name(i)] != b3sum(t, string(content)) || last[name(i)] == "" {
			t.Errorf("the records leave %s at %q", name(i), last[name(i)])
		}
	}
	if n := len(d.records(t, query.Filter{Path: service, Verdict: event.VerdictRestored})); n < 2 {
		t.Errorf("%d records of restores of %s, want 2", n, service)
	}
	d.stop()
	sum, err := journal.Verify(t.Context(), cfg.JournalDir(), "", func(p journal.Problem) { t.Error(p) })
	if err != nil {
		t.Error(err)
	}
	t.Logf("%+v", sum)
}
