package pipeline

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/holdfast/holdfast/pkg/event"
)

// The states of gap.rescan.
const (
	rescanPending = "pending"
	rescanDone    = "done"
	rescanFailed  = "failed"
)

// The reasons of looks that nobody's event asked for.
const (
	reasonLost = "found by a rescan after lost events"
	reasonDown = "changed while the daemon was down"
	// An operation named a path that could not be followed any more: it is not
	// known whether it was in a watched tree, so the trees are asked.
	reasonUnplaced = "found by a rescan after an operation whose path could not be followed any more"
	// Operations on a directory's name and in it came in each other's way.
	reasonOrder = "found by comparing a directory that was renamed or made while others worked in it"
	reasonOther = "found by a second look; who did it was not told"
)

// doubtEvery is the least time between two rescans for unplaced events, and
// doubtShare how many times longer than such a rescan the pause after it is.
const (
	doubtEvery = 10_000_000_000 // ns
	doubtShare = 20
)

// gap is a declared loss.
type gap struct {
	lost     uint64
	from, to uint64 // ns since boot
	why      []string
	unplaced bool // events that could not be placed: no loss unless the rescan fails
}

func (g *gap) grow(n, from, to uint64, why string) {
	if g.lost == 0 || from < g.from {
		g.from = from
	}
	g.lost += n
	g.to = max(g.to, from, to)
	if !slices.Contains(g.why, why) {
		g.why = append(g.why, why)
	}
}

func (g *gap) reason() string { return strings.Join(g.why, "; ") }

// gaps collects losses, so that there is one record for many.
type gaps struct {
	every uint64

	mu    sync.Mutex // guards all below
	lost  gap
	named gap
	last  uint64 // when the last losses were given out
	doubt uint64 // when unplaced events may be given out again
}

func (g *gaps) add(n, from, to uint64, why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lost.grow(n, from, to, why)
}

func (g *gaps) unplaced(at uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.named.unplaced = true
	g.named.grow(1, at, at, "an operation's path could not be followed any more, and the watched trees could not be compared")
}

// compared ends a rescan for unplaced events that took a while.
func (g *gaps) compared(now, took uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.doubt = now + max(doubtEvery, doubtShare*took)
}

// due gives out what was collected: losses at most once in a while unless force,
// unplaced events when no rescan for earlier ones is under way or just over. At
// the end these are left: the next start compares everything.
func (g *gaps) due(now uint64, force bool) []gap {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []gap
	if g.lost.lost > 0 && (force || g.last == 0 || now >= g.last+g.every) {
		out = append(out, g.lost)
		g.lost, g.last = gap{}, now
	}
	if g.named.lost > 0 && !force && now >= g.doubt {
		out = append(out, g.named)
		g.named, g.doubt = gap{}, math.MaxUint64 // until compared
	}
	return out
}

// next returns when due has something to give, false if nothing was collected.
func (g *gaps) next() (uint64, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := uint64(math.MaxUint64)
	if g.lost.lost > 0 {
		at = 0
		if g.last != 0 {
			at = g.last + g.every
		}
	}
	if g.named.lost > 0 {
		at = min(at, g.doubt)
	}
	return at, at != math.MaxUint64
}

// declare writes a gap record and has the trees scanned that it concerns.
// Unplaced events only have them scanned: what that finds has its own records.
func (p *Pipeline) declare(ctx context.Context, g gap) error {
	trees := p.o.Trees()
	if g.unplaced {
		p.scans.begin(&job{trees: trees, reason: reasonUnplaced, gap: &g})
		return nil
	}
	p.n.gaps.Add(1)
	if err := p.append(ctx, p.gapRecord(&g, trees, rescanPending, g.reason())); err != nil {
		return fmt.Errorf("declare a gap: %w", err)
	}
	p.scans.begin(&job{trees: trees, reason: reasonLost, gap: &g})
	return nil
}

func (p *Pipeline) gapRecord(g *gap, trees []string, state, reason string) *event.Record {
	r := &event.Record{
		Time: p.o.Clock.Wall(p.o.Clock.Boot()), Kind: event.RecGap, Reason: reason,
		Sensor: &event.Sensor{Tier: p.o.Tier},
		Gap:    &event.Gap{Lost: g.lost, To: p.o.Clock.Wall(g.to), Rescan: state},
	}
	r.Gap.From = r.Gap.To - event.Time(g.to-g.from)
	for _, t := range trees {
		r.Gap.Trees = append(r.Gap.Trees, text(t))
	}
	return r
}
