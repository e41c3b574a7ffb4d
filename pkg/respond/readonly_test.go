package respond

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

func TestOnAReadOnlyFileSystemOneRecordTellsAndThePathWaits(t *testing.T) {
	f := &fake{trusted: map[string]event.State{"/w/f": {Exists: true}}, there: map[string]bool{"/w/f": true}}
	f.fail = fmt.Errorf("create %q: %w", "/w", unix.EROFS)
	ro := true
	r := New(Options{
		Vault: f, Journal: f, Now: func() uint64 { return f.clock }, Wall: func(n uint64) event.Time { return event.Time(n) },
		Exists: func(p string) bool { return f.there[p] }, ReadOnly: func(string) bool { return ro },
	})
	cause := &event.Record{ID: "c", Path: "/w/f"}
	out, err := r.Answer(t.Context(), cause, 0, 0, r.Plan([]Target{{Path: "/w/f"}}))
	if err != nil || len(out) != 1 || out[0].Retry == 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	if last := f.reasons[len(f.reasons)-1]; !strings.HasPrefix(last, "read-only file system") || !strings.Contains(last, `"/w"`) {
		t.Errorf("the record says %q", last)
	}
	records := len(f.log)
	for range 100 {
		f.clock = out[0].Retry
		if at, waits := r.Waits("/w/f"); !waits || at <= f.clock {
			t.Fatalf("%d, %v", at, waits)
		}
	}
	if n, one := r.ReadOnly(); n != 1 || one != "/w/f" || len(f.log) != records {
		t.Errorf("%d wait, %q; %d records more", n, one, len(f.log)-records)
	}
	ro, f.fail = false, nil
	if _, waits := r.Waits("/w/f"); waits {
		t.Error("it waits though it can be written to")
	}
	if n, _ := r.ReadOnly(); n != 0 {
		t.Errorf("%d wait still", n)
	}
	if out, err = r.Answer(t.Context(), cause, 0, 1, r.Plan([]Target{{Path: "/w/f"}})); err != nil || out[0].Err != nil {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestAReadOnlyVaultIsNoReadOnlyTarget(t *testing.T) {
	f := &fake{trusted: map[string]event.State{"/w/f": {Exists: true}}, fail: unix.EROFS}
	r := New(Options{
		Vault: f, Journal: f, Now: func() uint64 { return f.clock }, Wall: func(n uint64) event.Time { return event.Time(n) },
		Exists: func(string) bool { return true }, ReadOnly: func(string) bool { return false },
	})
	out, err := r.Answer(t.Context(), &event.Record{ID: "c", Path: "/w/f"}, 0, maxTries, r.Plan([]Target{{Path: "/w/f"}}))
	if n, _ := r.ReadOnly(); err != nil || out[0].Retry != 0 || n != 0 {
		t.Errorf("%+v, %v, %d wait", out, err, n)
	}
}

// TestTheKernelTellsWhatIsReadOnly asks it about a mount, also below a missing directory.
func TestTheKernelTellsWhatIsReadOnly(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	paths := []string{filepath.Join(dir, "f"), filepath.Join(dir, "d/f"), filepath.Join(dir, "gone/deep/f")}
	for _, ro := range []bool{false, true, false} {
		flags := uintptr(unix.MS_REMOUNT)
		if ro {
			flags |= unix.MS_RDONLY
		}
		if err := unix.Mount("none", dir, "", flags, ""); err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			if onReadOnly(p) != ro {
				t.Errorf("%s: %v, mounted read-only %v", p, !ro, ro)
			}
		}
	}
}
