package daemon_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/policy"
)

// until asks for the status until it is as wanted.
func (r *running) until(t *testing.T, what string, ok func(control.Status) bool) control.Status {
	t.Helper()
	var st control.Status
	for range 300 {
		var err error
		if st, err = r.client.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
		if ok(st) {
			return st
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("half a minute later not %s: %+v, %q", what, st.Rules, st.DegradedReasons)
	return st
}

// TestAPathIsProtectedWhenItsVersionWasReadBack: a version that is damaged counts
// as none, unless the file has the content still.
func TestAPathIsProtectedWhenItsVersionWasReadBack(t *testing.T) {
	dir := t.TempDir()
	cfg := config.Default()
	cfg.State, cfg.Socket = t.TempDir(), filepath.Join(t.TempDir(), "socket")
	cfg.Rules = []policy.Rule{{Name: "r", Paths: []string{dir}, Mode: event.ModeObserve}}
	for _, name := range []string{"whole", "changed"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	counts := func(captured, protected uint64) func(control.Status) bool {
		return func(st control.Status) bool {
			p := st.Rules[0].Paths[0]
			return p.Captured == captured && p.Protected == protected && p.Files == 3 && p.New == 0
		}
	}
	d := startWith(t, cfg)
	d.until(t, "all protected", counts(0, 3))
	d.stop()

	for _, name := range []string{"whole", "changed"} {
		h := digest.Sum([]byte(name)).Hex()
		if err := os.WriteFile(filepath.Join(cfg.VaultDir(), "objects", h[:2], h), []byte("damage"), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "changed"), []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	d = startWith(t, cfg)
	d.until(t, "one of them mended", func(st control.Status) bool {
		told := slices.ContainsFunc(st.DegradedReasons, func(r string) bool {
			return strings.Contains(r, "1 paths cannot be put back") && strings.Contains(r, filepath.Join(dir, "changed"))
		})
		return counts(1, 2)(st) && told
	})
	if _, err := d.client.Trust(t.Context(), control.TrustRequest{Paths: []control.Path{control.Path(filepath.Join(dir, "changed"))}, Reason: "looked at it"}); err != nil {
		t.Fatal(err)
	}
	d.until(t, "all protected by trust in what is there", func(st control.Status) bool { return counts(0, 3)(st) && len(st.DegradedReasons) == 0 })
}
