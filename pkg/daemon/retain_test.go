package daemon_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/daemon"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/rollback"
)

// records reads the whole journal of a state directory.
func records(t *testing.T, cfg config.Config) []*event.Record {
	t.Helper()
	r, err := journal.OpenReader(cfg.JournalDir())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out []*event.Record
	for {
		e, err := r.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		rec, err := journal.Decode(e.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, rec)
	}
}

// TestWhatIsDestroyedHasItsRecord: versions of long ago go, each told before, but
// for those that a record of the journal refers to or a hold keeps.
func TestWhatIsDestroyedHasItsRecord(t *testing.T) {
	dir := t.TempDir()
	cfg := config.Default()
	cfg.State, cfg.Socket, cfg.Vault.KeepVersions = filepath.Join(dir, "state"), filepath.Join(dir, "socket"), 2
	if err := os.MkdirAll(cfg.State, 0o700); err != nil {
		t.Fatal(err)
	}
	// The id of this host, as records carry it.
	h, done, err := daemon.Offline(cfg)
	if err != nil {
		t.Fatal(err)
	}
	a, b, held := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "held")
	o, err := h.Hold(t.Context(), control.HoldRequest{Paths: []control.Path{control.Path(held)}, Reason: "case 7"})
	if err != nil || len(o.Steps) != 1 || o.Steps[0].Outcome != control.StepDone {
		t.Fatalf("hold: %+v, %v", o, err)
	}
	if err := done(); err != nil {
		t.Fatal(err)
	}
	first := records(t, cfg)[0]

	at := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	s, err := rollback.Open(cfg.VaultDir(), rollback.Options{EvidenceDir: cfg.EvidenceDir(), Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		at = at.AddDate(0, 0, 1)
		for _, path := range []string{a, b, held} {
			if err := os.WriteFile(path, fmt.Appendf(nil, "%s %d", path, i), 0o600); err != nil {
				t.Fatal(err)
			}
			p := rollback.Provenance{Reason: "test", Trust: i == 1}
			if path == b && i == 3 {
				p.Record = first.ID // a record that is there still
			}
			if _, err := s.Capture(t.Context(), path, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	if h, done, err = daemon.Offline(cfg); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := done(); err != nil {
			t.Error(err)
		}
	}()
	versions := func(o control.Outcome) (list []string) {
		for _, s := range o.Steps {
			list = append(list, fmt.Sprintf("%s %d %s", filepath.Base(string(s.Path)), s.Version, s.Outcome))
		}
		return list
	}
	before := len(records(t, cfg))
	if o, err = h.Prune(t.Context(), control.PruneRequest{DryRun: true}); err != nil {
		t.Fatal(err)
	}
	if got, want := versions(o), []string{"a 1 planned", "a 3 planned", "a 4 planned", "b 1 planned"}; !slices.Equal(got, want) {
		t.Errorf("dry run %v, wanted %v", got, want)
	}
	if n := len(records(t, cfg)); n != before {
		t.Errorf("a dry run made %d records", n-before)
	}
	if o, err = h.Prune(t.Context(), control.PruneRequest{}); err != nil {
		t.Fatal(err)
	}
	var told []string
	sum := ""
	for _, r := range records(t, cfg) {
		switch {
		case r.Response == nil:
		case r.Response.Action == "destroy":
			told = append(told, filepath.Base(r.Path)+" "+r.Detail["version"]+" "+r.Before.Hash.Hex()[:8])
		case r.Response.Action == "prune":
			sum = r.Detail["versions"]
		}
	}
	var want []string
	for _, s := range o.Steps {
		want = append(want, fmt.Sprintf("%s %d %s", filepath.Base(string(s.Path)), s.Version, s.Have.Hash.Hex()[:8]))
	}
	if len(want) != 4 || !slices.Equal(told, want) || sum != "4" {
		t.Errorf("records tell of %v (%s versions), the answer of %v", told, sum, want)
	}
	if o, err = h.Prune(t.Context(), control.PruneRequest{}); err != nil || len(o.Steps) > 0 {
		t.Errorf("a second time: %v, %v", versions(o), err)
	}
	// Released, it goes, too.
	if _, err = h.Hold(t.Context(), control.HoldRequest{Release: 1, Reason: "closed"}); err != nil {
		t.Fatal(err)
	}
	if o, err = h.Prune(t.Context(), control.PruneRequest{}); err != nil || !slices.Equal(versions(o), []string{"held 1 done", "held 3 done", "held 4 done"}) {
		t.Errorf("after the release: %v, %v", versions(o), err)
	}
}
