package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/policy"
	"github.com/holdfast/holdfast/rollback"
)

// What is captured is read back a moment later, so many contents at once.
const (
	readBackEvery = 2 * time.Second
	readBackBatch = 1000
)

// readBack has every trusted version read back from the vault once by this
// daemon, at the rate that is configured: before that a path is captured, and not
// protected. A damaged content that the file still has is stored again.
func (d *Daemon) readBack(ctx context.Context) error {
	t := time.NewTimer(0)
	defer t.Stop()
	bad := map[string]error{}
	var seen uint64
	slowly := pace(uint64(d.cfg.Vault.Rate))
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		list, now := d.vault.Unverified(seen, readBackBatch)
		if len(list) == 0 {
			seen = now
			t.Reset(readBackEvery)
			continue
		}
		// what is listed is durable after it
		if err := d.vault.Sync(); err != nil {
			t.Reset(readBackEvery) // syncVault tells of it
			continue
		}
		fresh := d.readBackAll(ctx, list, bad, slowly)
		d.tellUnread(bad)
		t.Reset(0)
		if fresh == 0 || len(list) < readBackBatch {
			seen = now
			t.Reset(readBackEvery)
		}
	}
}

// readBackAll reads versions back and returns how many had not been found bad before.
func (d *Daemon) readBackAll(ctx context.Context, list []rollback.Version, bad map[string]error, slowly func(context.Context, uint64)) (fresh int) {
	for _, v := range list {
		d.standBack(ctx)
		err := d.vault.Verify(v)
		if err != nil && d.vault.Mend(ctx, v) {
			err = d.vault.Verify(v)
		}
		if _, known := bad[v.Path]; err == nil || !known {
			fresh++
		}
		delete(bad, v.Path)
		if err != nil {
			bad[v.Path] = err
		}
		slowly(ctx, v.State.Size)
		if ctx.Err() != nil {
			return fresh
		}
	}
	return fresh
}

// standBack waits while events or changes do, up to a second: what is read back
// now could be read back later, what finds no room in the ring is lost.
func (d *Daemon) standBack(ctx context.Context) {
	for range 10 {
		if !d.pipe.Busy() {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (d *Daemon) tellUnread(bad map[string]error) {
	for path, err := range bad {
		d.degrade("read back", fmt.Sprintf("%d paths cannot be put back, their version is damaged; one is %s: %v", len(bad), event.Text([]byte(path)), err))
		return
	}
	d.recover("read back")
}

// readiness counts what is protected at and below the path of a rule, without
// what lies below the path of another rule.
func (d *Daemon) readiness(root string) rollback.Readiness {
	r := d.vault.Readiness(root)
	all := d.rules.paths()
	for _, p := range all {
		if p == root || !policy.Within(root, p) {
			continue
		}
		nearest := true
		for _, q := range all {
			if q != p && q != root && policy.Within(root, q) && policy.Within(q, p) {
				nearest = false
			}
		}
		if nearest {
			below := d.vault.Readiness(p)
			r.Captured, r.Verified = r.Captured-below.Captured, r.Verified-below.Verified
		}
	}
	return r
}
