package daemon

import (
	"context"
	"strconv"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
)

// sayAlive writes a record each journal.alive_every: where nothing happens, the log
// still grows and is signed, so that a quiet host differs from one that was silenced.
func (d *Daemon) sayAlive(ctx context.Context) error {
	if d.cfg.Journal.AliveEvery == 0 {
		return nil
	}
	t := time.NewTicker(d.cfg.Journal.AliveEvery)
	defer t.Stop()
	last := d.pipe.Stats()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		s := d.pipe.Stats()
		if _, err := d.journal.Append(&event.Record{
			Time: now(), Kind: event.RecAgent, Reason: "alive", Sensor: &event.Sensor{Tier: d.tier},
			Detail: map[string]string{
				"up":       time.Since(d.started).Round(time.Second).String(),
				"changes":  count(s.Changes - last.Changes),
				"attempts": count(s.Attempts - last.Attempts),
				"lost":     count(s.Lost - last.Lost),
				"waiting":  count(s.Waiting),
				"degraded": strconv.Itoa(len(d.reasons())),
			},
		}); err != nil {
			d.degrade("alive", "the record that the daemon is there could not be written: "+err.Error())
			continue
		}
		d.recover("alive")
		last = s
	}
}

func count(n uint64) string { return strconv.FormatUint(n, 10) }
