package pipeline

import (
	"context"
	"fmt"
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
)

// gap is a declared loss.
type gap struct {
	lost     uint64
	from, to uint64 // ns since boot
	why      []string
	unplaced bool // events that could not be placed: a rescan would not tell more
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
	last  uint64 // when the last ones were given out
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
	g.named.grow(1, at, at, "an operation's path could not be followed any more, so it is not known whether it was in a watched tree")
}

// due gives out what was collected, at most once in a while unless force.
func (g *gaps) due(now uint64, force bool) []gap {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.lost.lost == 0 && g.named.lost == 0 || !force && g.last != 0 && now < g.last+g.every {
		return nil
	}
	g.last = now
	var out []gap
	if g.lost.lost > 0 {
		out = append(out, g.lost)
	}
	if g.named.lost > 0 {
		out = append(out, g.named)
	}
	g.lost, g.named = gap{}, gap{}
	return out
}

// next returns when due has something to give, false if nothing was collected.
func (g *gaps) next() (uint64, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.lost.lost == 0 && g.named.lost == 0 {
		return 0, false
	}
	if g.last == 0 {
		return 0, true
	}
	return g.last + g.every, true
}

// declare writes a gap record and has the trees scanned that it concerns.
func (p *Pipeline) declare(ctx context.Context, g gap) error {
	p.n.gaps.Add(1)
	trees := p.o.Trees()
	state := rescanPending
	if g.unplaced {
		state = ""
	}
	if err := p.append(ctx, p.gapRecord(&g, trees, state, g.reason())); err != nil {
		return fmt.Errorf("declare a gap: %w", err)
	}
	if !g.unplaced {
		p.scans.begin(job{trees: trees, reason: reasonLost, gap: &g})
	}
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
