package sense_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/sense"
	"github.com/holdfast/holdfast/vmtests/holdtest"
)

func TestMain(m *testing.M) {
	holdtest.Main()
	os.Exit(m.Run())
}

// held waits for the end of scan number and returns what it told.
func (w *watcher) held(t *testing.T, number uint64, ends int) []seen {
	t.Helper()
	for range 200 {
		var out []seen
		n := 0
		w.mu.Lock()
		for _, e := range w.events {
			if e.Kind != event.KindHeld || e.Arg != number {
				continue
			}
			if e.Op == event.OpNone {
				n++
			} else {
				out = append(out, e)
			}
		}
		w.mu.Unlock()
		if n == ends {
			return out
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the end of the scan was not told")
	return nil
}

func TestAScanTellsWhoHeldWhatBeforeTheRule(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"tree/fd", "tree/map", "tree/later", "tree/none", "other/fd"} {
		p := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, make([]byte, 8192), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree := filepath.Join(dir, "tree")
	fd := holdtest.Hold(t, tree+"/fd")
	mapped := holdtest.Hold(t, tree+"/map", "map", "close")
	later := holdtest.Hold(t, tree+"/later", "map-ro", "close")
	holdtest.Hold(t, dir+"/other/fd", "map")
	reader, err := os.Open(tree + "/none")
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()

	w := watch(t)
	if _, err := w.Arm([]sense.Rule{{ID: 3, Mode: event.ModeObserve, Paths: []string{tree}}}); err != nil {
		t.Fatal(err)
	}
	if err := w.Scan(7, true); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, e := range w.held(t, 7, 2) {
		if e.Flags&event.FlagFirst == 0 {
			t.Errorf("%s of %s does not say that it is from arming", e.Op, w.place(e))
		}
		got[fmt.Sprintf("%s %s by %d", e.Op, w.place(e), e.Key.PID)] = fmt.Sprintf("mapped %v, writable now %d, %d bytes", e.Flags&event.FlagMapped != 0, e.Ret, e.Bytes)
	}
	want := map[string]string{
		fmt.Sprintf("open %s/fd by %d", tree, fd.PID()):            "mapped false, writable now 0, 0 bytes",
		fmt.Sprintf("map_write %s/map by %d", tree, mapped.PID()):  "mapped true, writable now 1, 4096 bytes",
		fmt.Sprintf("map_write %s/later by %d", tree, later.PID()): "mapped true, writable now 0, 4096 bytes",
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s: %q, want %q", k, got[k], v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("the scan told of %v", got)
	}

	// What is gone is not told of, and what is left is, again.
	if err := mapped.Do("unmap"); err != nil {
		t.Fatal(err)
	}
	if err := w.Scan(8, false); err != nil {
		t.Fatal(err)
	}
	again := make(map[string]bool)
	for _, e := range w.held(t, 8, 2) {
		again[w.place(e)] = e.Flags&event.FlagFirst == 0
	}
	if len(again) != 2 || !again[tree+"/fd"] || !again[tree+"/later"] {
		t.Errorf("the second scan told of %v, want the descriptor and the mapping that are left", again)
	}
}

func TestWhatWasOpenedUnderTheRuleIsNotTakenForOlder(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/f", make([]byte, 8192), 0o644); err != nil {
		t.Fatal(err)
	}
	w := watch(t)
	if _, err := w.Arm([]sense.Rule{{ID: 3, Mode: event.ModeObserve, Paths: []string{dir}}}); err != nil {
		t.Fatal(err)
	}
	holdtest.Hold(t, dir+"/f")
	if err := w.Scan(9, true); err != nil {
		t.Fatal(err)
	}
	for _, e := range w.held(t, 9, 2) {
		t.Errorf("%s of %s by %d (anchor %d, flags %x)", e.Op, w.place(e), e.Key.PID, e.Anchor, e.Flags)
	}
}
