package daemon_test

import (
	"fmt"
	"os"
	"os/exec"
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

// must runs a program as root.
func must(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// The state directory lies on an ext4 that gives itself up, as it does after an error of its disk: whoever has files of it
// open may write no more. The daemon lives and says that nothing can be recorded; it answers nothing, because an answer is
// recorded before it is given. Once the disk is back it declares what is missing, puts back, and the records tell the tree as it is.
func TestAReadOnlyDiskUnderTheStateIsToldAndMadeUpFor(t *testing.T) {
	top := t.TempDir()
	disk, tree, image := filepath.Join(top, "disk"), filepath.Join(top, "tree"), filepath.Join(top, "image")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	must(t, "mkfs.ext4", "-q", image, "128M")
	must(t, "mount", "-o", "loop", image, disk)
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	const files = 200
	cfg, name, service := onDisk(t, disk, tree, files)
	d := spawn(t, cfg)
	at := &running{cfg: cfg, client: control.NewClient(cfg.Socket)}

	must(t, "mount", "-o", "remount,abort", disk)
	if err := os.WriteFile(filepath.Join(disk, "probe"), nil, 0o600); err == nil {
		t.Fatal("the disk takes a file")
	}
	for i := range files {
		if err := os.WriteFile(name(i), fmt.Appendf(nil, "second content of %d\n", i), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(service, []byte("require_login no\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	at.until(t, "said that nothing can be recorded", func(s control.Status) bool {
		return s.Degraded && strings.Contains(strings.Join(s.DegradedReasons, "\n"), "read-only")
	})
	at.until(t, "armed still", func(s control.Status) bool { return s.Armed })
	kill(t, d) // what it holds in memory goes with it, as when the machine is started anew

	must(t, "umount", disk)
	must(t, "sh", "-c", `e2fsck -fp "$1" || [ $? -le 1 ]`, "sh", image)
	must(t, "mount", "-o", "loop", image, disk)
	d = spawn(t, cfg)
	at.until(t, "whole again", func(s control.Status) bool {
		return !s.Degraded && s.Pipeline["pipeline_waiting"] == 0 && len(s.Gaps.Open) == 0 && s.Gaps.Waiting == 0 && s.Journal.Durable == s.Journal.Seq
	})
	settled(t, service, "require_login yes\n")
	last, gaps := map[string]string{}, 0
	for _, r := range at.records(t, query.Filter{}) {
		if r.Kind == event.RecGap {
			gaps++
			t.Log(r.Reason, *r.Gap)
		}
		if r.Kind == event.RecChange && r.After != nil {
			last[r.Path] = r.After.Hash.String()
		}
	}
	if gaps == 0 {
		t.Error("no gap is declared")
	}
	for i := range files {
		if last[name(i)] == "" || i%50 == 0 && last[name(i)] != b3sum(t, fmt.Sprintf("second content of %d\n", i)) {
			t.Errorf("the records leave %s at %q", name(i), last[name(i)])
		}
	}
	kill(t, d)
	if sum, err := journal.Verify(t.Context(), cfg.JournalDir(), "", func(p journal.Problem) {
		if p.Kind != journal.ProblemUnsealed { // it was killed
			t.Error(p)
		}
	}); err != nil {
		t.Error(sum, err)
	}
}

// TestWhatLiesOnAReadOnlyFileSystemIsPutBackWhenItCanBeWrittenTo, and told of once
// until then.
func TestWhatLiesOnAReadOnlyFileSystemIsPutBackWhenItCanBeWrittenTo(t *testing.T) {
	tree := t.TempDir()
	mount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("none", tree, "tmpfs", flags, "size=1m"); err != nil {
			t.Fatal(err)
		}
	}
	mount(0)
	t.Cleanup(func() {
		if err := unix.Unmount(tree, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	file := filepath.Join(tree, "f")
	write(t, file, "good")
	cfg := config.Default()
	cfg.State, cfg.Socket = t.TempDir(), filepath.Join(t.TempDir(), "socket")
	cfg.Rules = []policy.Rule{{Name: "r", Paths: []string{tree}, Mode: event.ModeRestore}}
	startWith(t, cfg).stop()
	write(t, file, "evil")
	mount(unix.MS_REMOUNT | unix.MS_RDONLY)
	d := startWith(t, cfg)
	d.until(t, "told of", func(st control.Status) bool {
		return strings.Contains(strings.Join(st.DegradedReasons, "; "), "read-only file system")
	})
	failed := query.Filter{Kind: event.RecResponse, Verdict: event.VerdictRestoreFailed}
	if r := d.wait(t, failed, 1)[0]; !strings.HasPrefix(r.Reason, "read-only file system") || r.Path != file {
		t.Errorf("%s: %s", r.Path, r.Reason)
	}
	mount(unix.MS_REMOUNT)
	d.until(t, "put back", func(st control.Status) bool { return len(st.DegradedReasons) == 0 })
	settled(t, file, "good")
	d.wait(t, query.Filter{Kind: event.RecResponse, Verdict: event.VerdictRestored}, 1)
	if all := d.records(t, failed); len(all) != 1 {
		t.Errorf("%d records of it", len(all))
	}
}
