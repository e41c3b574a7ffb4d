package rollback

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/storetest"
)

// TestAVersionIsOfTheTimeOfItsChange: what was done at 10, 20, … seconds is captured at 15,
// 500, 501, … The truth is the list of what was written when.
func TestAVersionIsOfTheTimeOfItsChange(t *testing.T) {
	base := storetest.Disk(t)
	file, vault := filepath.Join(base, "f"), filepath.Join(base, "vault")
	var now int64
	at := func(s int64) event.Time { return event.TimeOf(time.Unix(s, 0)) }
	o := Options{Now: func() time.Time { return time.Unix(now, 0) }}
	s := open1(t, vault, o)
	done := []struct {
		changed, mtime, captured int64
		text                     string
	}{{10, 10, 15, "ten"}, {20, 20, 500, "twenty"}, {30, 30, 501, "thirty"}, {40, 45, 502, "forty-five: written again after its record"}, {0, 50, 503, "found"}, {510, 510, 509, "from the future"}}
	for _, d := range done {
		write(t, file, d.text)
		storetest.Sh(t, `touch -d "@$2" "$1"`, file, fmt.Sprint(d.mtime))
		now = d.captured
		p := Provenance{Trust: true}
		if d.changed != 0 {
			p.Time = at(d.changed)
		}
		if _, err := s.Capture(t.Context(), file, p); err != nil {
			t.Fatal(err)
		}
	}
	truth := map[int64]string{9: "", 10: "ten", 19: "ten", 20: "twenty", 29: "twenty", 30: "thirty", 44: "thirty", 45: done[3].text, 502: done[3].text, 503: "found", 508: "found", 509: "from the future", 600: "from the future"}
	check := func(s *Store) {
		t.Helper()
		for when, want := range truth {
			into := filepath.Join(t.TempDir(), "into")
			p, err := s.PlanRestore(t.Context(), []string{file}, RestoreOptions{At: at(when), Into: into})
			if want == "" {
				if err == nil {
					t.Errorf("at %d: %+v", when, p.Steps)
				}
				continue
			}
			if err != nil {
				t.Errorf("at %d: %v", when, err)
				continue
			}
			if v, ok := s.At(file, at(when)); !ok || v.State.Size != uint64(len(want)) || p.Steps[len(p.Steps)-1].Version != v.ID {
				t.Errorf("at %d: version %d of %d bytes, want %q", when, v.ID, v.State.Size, want)
			}
		}
	}
	check(s)
	sync1(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open1(t, vault, o) // from the log
	check(s)
	now = 10_000
	if _, err := s.Prune(t.Context(), Keep{Age: 9497 * time.Second}, Provenance{}, nil); err != nil { // what was followed before 503
		t.Fatal(err)
	}
	for _, when := range []int64{20, 44, 45, 502} { // the time of the change bounds what is not known any more, too
		if v, ok := s.At(file, at(when)); ok && len(s.Versions(file)) < len(done) && v.State.Size != uint64(len(truth[when])) {
			t.Errorf("after a prune, at %d: version %d", when, v.ID)
		}
	}
	if n := len(s.Versions(file)); n >= len(done) {
		t.Errorf("nothing was pruned: %d versions", n)
	}
	truth = map[int64]string{503: "found", 509: "from the future"}
	check(s)
}
