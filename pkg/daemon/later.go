package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/policy"
	"github.com/holdfast/holdfast/pkg/sense"
)

// A tree with more than one of these is enrolled in the background, when the rest
// is armed.
const (
	largePaths = 5000
	largeBytes = 256 << 20
)

// errLarge ends a walk that has seen enough.
var errLarge = errors.New("large")

// pace returns what bounds reading to so many bytes a second: it is called with
// what was read and returns when more may be. It may be called from several
// goroutines.
func pace(rate uint64) func(ctx context.Context, bytes uint64) {
	var mu sync.Mutex
	free := time.Now() // when all that was read is paid for
	return func(ctx context.Context, bytes uint64) {
		mu.Lock()
		now := time.Now()
		if free.Before(now) {
			free = now
		}
		free = free.Add(time.Duration(float64(bytes) / float64(rate) * float64(time.Second)))
		ahead := free.Sub(now)
		mu.Unlock()
		if ahead < 10*time.Millisecond {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(ahead):
		}
	}
}

// postpone takes those large trees out of what is to be armed that no run has
// enrolled, the first time; later, those that are not enrolled yet. A tree in the
// tree of another rule is never one of them: that one's events would be judged
// without knowing it.
func (d *Daemon) postpone(ctx context.Context, rs []sense.Rule, first bool) []sense.Rule {
	if first {
		all := d.rules.paths()
		var later []string
		for _, p := range all {
			nested := slices.ContainsFunc(all, func(q string) bool { return q != p && policy.Within(q, p) })
			if _, known := d.vault.Latest(p); !known && !nested && large(ctx, p) {
				later = append(later, p)
			}
		}
		d.mu.Lock()
		d.later, d.waiting = later, slices.Clone(later)
		d.mu.Unlock()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.later) == 0 {
		return rs
	}
	for i := range rs {
		rs[i].Paths = slices.DeleteFunc(slices.Clone(rs[i].Paths), func(p string) bool { return slices.Contains(d.later, p) })
	}
	return rs
}

// large reports whether a tree has much to enrol.
func large(ctx context.Context, root string) bool {
	paths, bytes := 0, int64(0)
	err := filepath.WalkDir(root, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // gone meanwhile, or unreadable
		}
		paths++
		if e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				bytes += info.Size()
			}
		}
		if paths > largePaths || bytes > largeBytes {
			return errLarge
		}
		return ctx.Err()
	})
	return errors.Is(err, errLarge)
}

// enrolLater enrols the postponed trees one after the other, at the rate that is
// configured, and has each armed and compared, which finds what changed meanwhile.
func (d *Daemon) enrolLater(ctx context.Context) error {
	slowly := pace(uint64(d.cfg.Vault.Rate))
	for {
		d.mu.Lock()
		if len(d.later) == 0 {
			d.mu.Unlock()
			return nil
		}
		root := d.later[0]
		d.mu.Unlock()
		start := time.Now()
		e, err := d.pipe.Enrol(ctx, root, slowly)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			d.degrade("enrol "+root, fmt.Sprintf("%s is not watched: it could not be enrolled: %v", event.Text([]byte(root)), err))
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(time.Minute):
			}
			continue
		}
		d.noteEnrolled(root, e)
		_, err = d.journal.Append(&event.Record{
			Time: now(), Kind: event.RecAgent, Reason: "enrolled in the background: armed from here on", Sensor: &event.Sensor{Tier: d.tier},
			Detail: map[string]string{event.Text([]byte(root)): fmt.Sprintf("%d paths, %d of them cannot be put back", e.Paths, len(e.Errors)), "seconds": strconv.Itoa(int(time.Since(start).Seconds()))},
		})
		if err != nil {
			return fmt.Errorf("record an enrolment: %w", err)
		}
		d.mu.Lock()
		d.later = d.later[1:]
		d.mu.Unlock()
		d.beneath.appear()
	}
}
