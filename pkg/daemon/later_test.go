package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/policy"
	"github.com/holdfast/holdfast/pkg/query"
)

// TestALargeTreeIsEnrolledWhileTheRestIsArmed: a change of what is armed is put
// back meanwhile, and what happened in the large tree is not lost.
func TestALargeTreeIsEnrolledWhileTheRestIsArmed(t *testing.T) {
	small, big := t.TempDir(), t.TempDir()
	for i := range 5100 {
		if err := os.WriteFile(filepath.Join(big, fmt.Sprint(i)), fmt.Append(nil, "content ", i), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(small, "f")
	if err := os.WriteFile(file, []byte("good"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.State, cfg.Socket = t.TempDir(), filepath.Join(t.TempDir(), "socket")
	cfg.Vault.Rate = 4 << 20 // each path counts for 4 KiB: five seconds
	cfg.Rules = []policy.Rule{{Name: "small", Paths: []string{small}, Mode: event.ModeRestore}, {Name: "big", Paths: []string{big}, Mode: event.ModeRestore}}
	d := startWith(t, cfg)
	st, err := d.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s, b := st.Rules[0].Paths[0], st.Rules[1].Paths[0]; st.Armed || s.State != control.PathArmed || b.State != control.PathEnrolling || b.Files > 5000 {
		t.Errorf("at first: armed %v, %+v, %+v", st.Armed, s, b)
	}
	if err := os.WriteFile(file, []byte("evil"), 0o600); err != nil {
		t.Fatal(err)
	}
	settled(t, file, "good")
	if st, err = d.client.Status(t.Context()); err != nil || st.Armed {
		t.Errorf("by now all is armed, %v: the test shows nothing", err)
	}
	d.until(t, "all armed", func(st control.Status) bool {
		p := st.Rules[1].Paths[0]
		return st.Armed && p.State == control.PathArmed && p.Protected == 5101 && p.Files == 5101
	})
	told := false
	for _, r := range d.records(t, query.Filter{Kind: event.RecAgent}) {
		told = told || strings.HasPrefix(r.Reason, "enrolled in the background") && strings.HasPrefix(r.Detail[big], "5101 paths, 0 ")
	}
	if !told {
		t.Error("no record tells of it")
	}
	changed := filepath.Join(big, "17")
	if err := os.WriteFile(changed, []byte("evil"), 0o600); err != nil {
		t.Fatal(err)
	}
	settled(t, changed, "content 17")
}
