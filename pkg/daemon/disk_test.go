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

// onDisk is a configuration with the state on a disk of its own, and two watched trees: one with an observed number of
// files, name(0) and so on, one with a service's configuration that is put back.
func onDisk(t *testing.T, disk, tree string, files int) (cfg config.Config, name func(int) string, service string) {
	t.Helper()
	guarded, seen := filepath.Join(tree, "guarded"), filepath.Join(tree, "seen")
	name = func(i int) string { return filepath.Join(seen, fmt.Sprint("file", i)) }
	service = filepath.Join(guarded, "service.conf")
	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	try(os.MkdirAll(guarded, 0o755))
	try(os.MkdirAll(seen, 0o755))
	for i := range files {
		try(os.WriteFile(name(i), fmt.Appendf(nil, "first content of %d\n", i), 0o640))
	}
	try(os.WriteFile(service, []byte("require_login yes\n"), 0o640))
	cfg = config.Default()
	cfg.State, cfg.Socket = filepath.Join(disk, "state"), filepath.Join(t.TempDir(), "socket")
	for _, w := range []string{guarded + "=restore", seen + "=observe"} {
		r, err := policy.ParseWatch(w)
		try(err)
		cfg.Rules = append(cfg.Rules, r)
	}
	return cfg, name, service
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
	const files = 2000
	cfg, name, service := onDisk(t, disk, tree, files)
	cfg.Limits.Segment, cfg.Limits.Reserve = 1<<20, 4<<20
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
