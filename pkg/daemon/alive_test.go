package daemon_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
)

func TestAQuietHostSaysThatItIsThere(t *testing.T) {
	cfg := config.Default()
	cfg.State, cfg.Socket = t.TempDir(), filepath.Join(t.TempDir(), "socket")
	cfg.Journal.AliveEvery = 100 * time.Millisecond
	d := startWith(t, cfg)
	var alive []*event.Record
	for n := 1; len(alive) < 3; n++ {
		alive = nil
		for _, r := range d.wait(t, query.Filter{Kind: event.RecAgent}, n) {
			if r.Reason == "alive" {
				alive = append(alive, r)
			}
		}
	}
	if got := alive[0].Detail; got["lost"] != "0" || got["changes"] != "0" || got["degraded"] == "" || got["up"] == "" {
		t.Errorf("it says %v", got)
	}
}
