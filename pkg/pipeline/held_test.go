package pipeline

import (
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/rehash"
)

func TestReadsOfMappedFilesKeepTheirPace(t *testing.T) {
	const sec = uint64(time.Second)
	p := newPace(100, 10*time.Second, 0) // 1000 bytes may be saved up
	steps := []struct {
		name string
		n    uint64
		now  uint64
		wait time.Duration // rounded to a tenth of a second
	}{
		{"what was saved up", 900, 0, 0},
		{"more than is left", 300, 0, 2 * time.Second},
		{"after half of the wait", 300, sec, time.Second},
		{"after the wait", 300, 2 * sec, 0},
		{"nothing is left", 100, 2 * sec, time.Second},
		{"an empty file costs nothing", 0, 2 * sec, 0},
		{"larger than all that can be saved up", 1 << 30, 3 * sec, 9 * time.Second},
		{"when all of it is there", 1 << 30, 1000 * sec, 0},
		{"and then nothing is left", 100, 1000 * sec, time.Second},
	}
	for _, s := range steps {
		if got := p.take(s.n, s.now).Round(100 * time.Millisecond); got != s.wait {
			t.Errorf("%s: wait %s, want %s", s.name, got, s.wait)
		}
	}
}

// Who maps a file need not have done what was found there before anybody had looked.
func TestAMapperIsNotBlamedForWhatWasThereBefore(t *testing.T) {
	now := uint64(5)
	p := &Pipeline{states: rehash.New(rehash.Options{Now: func() uint64 { return now }})}
	p.states.Learn("/learned", event.State{Exists: true})
	p.states.Put("/seen", event.State{Exists: true})
	for path, want := range map[string]string{"/learned": reasonDown, "/seen": "mapped", "/new": "nothing was known of it before"} {
		c := &event.Change{Path: path, Key: event.ProcKey{PID: 7}, Why: "mapped"}
		p.disown(c)
		if c.Why != want || (c.Key.PID == 7) != (path == "/seen") {
			t.Errorf("%s: %q, pid %d, want %q", path, c.Why, c.Key.PID, want)
		}
	}
}
