package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/policy"
	"github.com/holdfast/holdfast/pkg/query"
)

// TestALargeTreeIsEnrolledWhileTheRestIsArmed: a change of what is armed is put
// back meanwhile.
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
	d.until(t, "told of", func(control.Status) bool { // the index follows a little later
		for _, r := range d.records(t, query.Filter{Kind: event.RecAgent}) {
			if strings.HasPrefix(r.Reason, "enrolled in the background") && strings.HasPrefix(r.Detail[big], "5101 paths, 0 of them cannot be put back, 0 had") {
				return true
			}
		}
		return false
	})
	changed := filepath.Join(big, "17")
	write(t, changed, "evil")
	settled(t, changed, "content 17")
}

// bigTree makes a tree that is enrolled in the background.
func bigTree(t *testing.T) (string, config.Config) {
	t.Helper()
	big := t.TempDir()
	for i := range 5100 {
		write(t, filepath.Join(big, fmt.Sprint(i)), fmt.Sprint("content ", i))
	}
	cfg := config.Default()
	cfg.State, cfg.Socket = t.TempDir(), filepath.Join(t.TempDir(), "socket")
	cfg.Vault.Rate = 8 << 20
	cfg.Rules = []policy.Rule{{Name: "big", Paths: []string{big}, Mode: event.ModeRestore}}
	return big, cfg
}

func bigStatus(st control.Status) control.PathStatus { return st.Rules[0].Paths[0] }

// TestWhatChangesBeforeItIsEnrolledIsRecordedAndNotTrusted: a tree is watched before its
// content is in the vault.
func TestWhatChangesBeforeItIsEnrolledIsRecordedAndNotTrusted(t *testing.T) {
	big, cfg := bigTree(t)
	d := startWith(t, cfg)
	late, early, gone, fresh := filepath.Join(big, "999"), filepath.Join(big, "0"), filepath.Join(big, "998"), filepath.Join(big, "new")
	at(t, 2, `cd "$1"; printf evil >999; printf 'evil too' >new; rm 998`, big)
	for path, op := range map[string]string{late: "write", fresh: "create", gone: "unlink"} {
		r := d.wait(t, query.Filter{Kind: event.RecChange, Path: path}, 1)[0]
		if r.Verdict != event.VerdictUnauthorized || r.Process == nil || r.Actor.Loginuid != 2 || r.Op != op && !strings.Contains(strings.Join(r.Ops, " "), op) {
			t.Errorf("%s: %s by %+v: %s, %s", r.Op, path, r.Actor, r.Verdict, r.Reason)
		}
		if r.Before == nil || r.Before.Exists != (path != fresh) || path == late && (r.Before.Size != 11 || r.Before.Unread == "") {
			t.Errorf("before %s: %+v", path, r.Before)
		}
	}
	st, err := d.client.Status(t.Context())
	if err != nil || st.Armed || bigStatus(st).State != control.PathEnrolling {
		t.Fatalf("by now all is enrolled: the test shows nothing: %+v, %v", bigStatus(st), err)
	}
	d.until(t, "one is kept", func(st control.Status) bool { return bigStatus(st).Protected > 100 })
	write(t, early, "evil") // it is in the vault already
	settled(t, early, "content 0")
	st = d.until(t, "all but two enrolled", func(st control.Status) bool {
		p := bigStatus(st)
		return st.Armed && p.State == control.PathArmed && p.New == 2 && p.Protected == 5099
	})
	if why := strings.Join(st.DegradedReasons, "; "); !strings.Contains(why, "2 paths below "+big+" changed after they were watched") {
		t.Errorf("status says %q", why)
	}
	for path, want := range map[string]string{late: "evil", fresh: "evil too"} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v", path, got, err)
		}
	}
	if _, err := d.client.Trust(t.Context(), control.TrustRequest{Paths: []control.Path{control.Path(late)}, Reason: "it is right"}); err != nil {
		t.Fatal(err)
	}
	d.until(t, "one is trusted", func(st control.Status) bool { return bigStatus(st).New == 1 && bigStatus(st).Protected == 5100 })
	write(t, late, "worse")
	settled(t, late, "evil")
}

// TestAnEnrolmentThatWasKilledGoesOn: what changed before the kill, and after it, is
// trusted no more than if it had gone through.
func TestAnEnrolmentThatWasKilledGoesOn(t *testing.T) {
	big, cfg := bigTree(t)
	cfg.Vault.Rate = 2 << 20
	c := launch(t, cfg)
	client := control.NewClient(cfg.Socket)
	under := false
	for range 600 {
		if st, err := client.Status(t.Context()); err == nil && bigStatus(st).Captured+bigStatus(st).Protected > 100 {
			under = !st.Armed
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	before, down := filepath.Join(big, "999"), filepath.Join(big, "998")
	write(t, before, "evil")
	d := &running{cfg: cfg, client: client}
	d.wait(t, query.Filter{Kind: event.RecChange, Path: before}, 1)
	kill(t, c)
	if !under {
		t.Fatal("all was enrolled before the kill: the test shows nothing")
	}
	write(t, down, "evil")
	touched := filepath.Join(big, "997")
	if err := os.Chmod(touched, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Vault.Rate = 64 << 20
	d = startWith(t, cfg)
	st := d.until(t, "all but three enrolled", func(st control.Status) bool {
		p := bigStatus(st)
		return st.Armed && p.State == control.PathArmed && p.New == 3 && p.Protected == 5098
	})
	if len(st.DegradedReasons) == 0 {
		t.Error("status has nothing to say")
	}
	found := d.wait(t, query.Filter{Kind: event.RecChange, Path: down}, 1)[0]
	if found.Verdict != event.VerdictUnauthorized || found.Found == "" {
		t.Errorf("%+v", found)
	}
	mode := d.wait(t, query.Filter{Kind: event.RecChange, Path: touched}, 1)[0]
	if mode.Op != "chmod" || mode.Before.Mode != 0o644 || mode.After.Mode != 0o600 || !strings.Contains(mode.Before.Unread, "whether it changed is not known") || mode.After.Hash.IsZero() {
		t.Errorf("%s of %s, from %+v to %+v", mode.Op, mode.Path, mode.Before, mode.After)
	}
	good := filepath.Join(big, "17")
	write(t, good, "evil")
	settled(t, good, "content 17")
	d.stop()
	if left, err := os.ReadDir(filepath.Join(cfg.State, "enrolling")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	// A later start knows which ones they are.
	startWith(t, cfg).until(t, "three are red", func(st control.Status) bool { return st.Armed && bigStatus(st).New == 3 })
}
