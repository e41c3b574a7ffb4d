package pipeline

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/rehash"
	"github.com/holdfast/holdfast/pkg/respond"
)

// maxFrozen bounds the paths whose promotion waits for the end of a mass change.
// Beyond it versions are kept without being trusted, and counted.
const maxFrozen = 1 << 16

// Storm tells whether a mass change is under way, in which nothing is promoted and
// nothing is to be pruned.
func (p *Pipeline) Storm() respond.Storm {
	if p.responder == nil {
		return respond.Storm{}
	}
	return p.responder.Storm()
}

// Rivals lists by path which programs keep undoing what is put back.
func (p *Pipeline) Rivals() map[string]string {
	if p.responder == nil {
		return nil
	}
	return p.responder.Rivals()
}

// ReadOnly tells how many paths cannot be put back because their file system is
// read-only, and one of them.
func (p *Pipeline) ReadOnly() (n int, one string) {
	if p.responder == nil {
		return 0, ""
	}
	return p.responder.ReadOnly()
}

// stormed records that a mass change has begun.
func (p *Pipeline) stormed(s respond.Storm) {
	p.o.Log.Warn("a mass change is under way", "stage", "respond", "paths", s.Paths)
	p.delay(0, &item{record: p.stormRecord(s.Since, fmt.Sprintf(
		"mass change: %d paths had to be put back within a minute; restores go on, nothing becomes trusted and nothing is pruned until it is over", s.Paths))})
}

func (p *Pipeline) stormRecord(at uint64, reason string) *event.Record {
	return &event.Record{Time: p.o.Clock.Wall(at), Kind: event.RecAgent, Op: "storm", Reason: reason, Sensor: &event.Sensor{Tier: p.o.Tier}}
}

// calm ends a mass change once it is over: the fast side looks each second.
func (p *Pipeline) calm() {
	if p.responder == nil || !p.responder.Storm().On {
		return
	}
	s, over := p.responder.StormOver()
	if !over {
		return
	}
	now := p.o.Clock.Boot()
	p.put(&item{call: p.thaw})
	p.put(&item{record: p.stormRecord(now, fmt.Sprintf("the mass change is over: %d paths in %s", s.Paths, time.Duration(now-s.Since).Round(time.Second)))})
}

// keepVersion hands a version to the vault. One that is to be trusted waits for
// that while a mass change is under way.
func (p *Pipeline) keepVersion(ctx context.Context, path string, s event.State, in rehash.Intake, pr Provenance) error {
	if pr.Trust && p.responder.Storm().On {
		pr.Trust = false
		pr.Reason += ", to be trusted when the mass change is over"
		if len(p.frozen) < maxFrozen {
			p.frozen = append(p.frozen, path)
		} else {
			p.n.unpromoted.Add(1)
		}
	}
	var err error
	p.aside(ctx, s.Size, func() { err = p.o.Vault.Keep(path, s, in, pr) })
	return err
}

// thaw promotes what waited for the end of a mass change, where it is still there.
func (p *Pipeline) thaw(context.Context) {
	for _, path := range p.frozen {
		want, ok := p.o.Vault.Latest(path)
		known, is := p.states.Known().Get(path)
		if !ok || is != want.Exists || is && !known.State.Same(&want) {
			continue // it was changed since, or put back
		}
		p.kept(path, p.o.Vault.Promote(path, "it waited until the mass change was over"))
	}
	p.frozen = nil
}
