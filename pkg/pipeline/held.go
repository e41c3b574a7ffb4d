package pipeline

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/coalesce"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/policy"
	"github.com/holdfast/holdfast/pkg/respond"
)

// Held lists who can change a watched file without opening it again.
func (p *Pipeline) Held() []coalesce.Holding { return p.table.Held() }

// holds records that somebody held a file before it was watched, and does what the
// rule says about that. Nothing has changed yet, so it is a record of our own.
func (p *Pipeline) holds(ctx context.Context, h *coalesce.Holding) error {
	rule, ok := p.o.Rule(h.Path)
	if !ok {
		return nil
	}
	answers := rule.Mode != event.ModeObserve && !h.Allowed && (rule.Held == policy.HeldFreeze || rule.Held == policy.HeldKill)
	rec := &event.Record{
		Time: p.o.Clock.Wall(h.At), Kind: event.RecAgent, Op: h.Op.String(), Path: text(h.Path),
		File: &event.File{
			Type: event.TypeOfMode(uint32(h.FMode)), Dev: unix.Mkdev(uint32(h.Dev>>20), uint32(h.Dev&0xfffff)), Ino: h.Ino, Gen: h.Gen, Nlink: h.Nlink,
		},
		Rule: rule.Name, Mode: rule.Mode, Verdict: event.VerdictObserved, Reason: heldReason(h, rule.Mode),
		Actor: &h.Actor, Process: &h.Process, Sensor: &event.Sensor{Tier: p.o.Tier, Hook: p.o.Hook(h.Hook)},
	}
	if h.Bytes > 0 {
		rec.Detail = map[string]string{"mapped": fmt.Sprintf("%d bytes", h.Bytes)}
	}
	p.n.held.Add(1)
	// Where there is an answer the record is durable before the deed: with its intent, which follows in the same log.
	if err := p.must(ctx, rec); err != nil || !answers {
		return err
	}
	return p.stopper.Stop(ctx, rec, respond.Holder{
		Key: h.Key, ExeDev: h.Exe[0], ExeIno: h.Exe[1], Kthread: h.Kthread, Kill: rule.Held == policy.HeldKill,
	})
}

// heldReason says what was found and what becomes of changes made by way of it.
func heldReason(h *coalesce.Holding, mode string) string {
	s := "was open for writing before it was watched: "
	then := map[string]string{
		event.ModeObserve: "writes through it are recorded",
		event.ModeRestore: "writes through it are put back",
		event.ModeBlock:   "writes through it are refused",
	}[mode]
	if h.Op == event.OpMapWrite {
		s = "was mapped for writing before it was watched: "
		if !h.Writable {
			s = "was mapped, and may be made writable there, before it was watched: "
		}
		then = map[string]string{
			event.ModeObserve: "stores are found and recorded",
			event.ModeRestore: "stores are found and put back",
			event.ModeBlock:   "stores cannot be refused, they are found and put back",
		}[mode]
	}
	if event.TypeOfMode(uint32(h.FMode)) == event.TypeBlock {
		s = "the block device below it was open for writing before it was watched: "
		if mode != event.ModeBlock {
			then = "the first write is told of, and what it changes is looked for when that is over"
		}
	}
	if h.Allowed {
		then += "; the executable is on the list of the rule"
	}
	return s + then
}

// pace bounds how much the looks at mapped files read. It belongs to the slow side.
type pace struct {
	rate    uint64 // bytes a second
	most    uint64 // bytes that may be saved up
	left    uint64
	at      uint64 // ns since boot of left
	waiting map[string]bool
}

func newPace(rate uint64, every time.Duration, now uint64) pace {
	most := uint64(float64(rate) * every.Seconds())
	return pace{rate: rate, most: most, left: most, at: now, waiting: make(map[string]bool)}
}

// take returns how long to wait before n bytes may be read, 0: now. A file larger
// than what can be saved up is read when all of that is there.
func (p *pace) take(n, now uint64) time.Duration {
	if now > p.at {
		p.left = min(p.most, p.left+uint64(float64(p.rate)*float64(now-p.at)/1e9))
		p.at = now
	}
	need := min(n, p.most)
	if p.left < need {
		return time.Duration(float64(need-p.left)/float64(p.rate)*1e9) + time.Millisecond
	}
	p.left -= need
	return 0
}

// putOff reports whether a look at a mapped file is made later, so that looks do
// not take more of the disk than they may. One is enough that waits for a path.
func (p *Pipeline) putOff(it *item) bool {
	if it.looks > 0 {
		return false // it differs, and has been paid for
	}
	path := it.change.Path
	if p.pace.waiting[path] && !it.late {
		p.n.mappedPutOff.Add(1)
		return true
	}
	e, _ := p.states.Known().Get(path)
	wait := p.pace.take(e.State.Size, p.o.Clock.Boot())
	if wait > 0 {
		p.pace.waiting[path], it.late = true, true
		p.n.mappedPutOff.Add(1)
		p.delay(wait, it)
		return true
	}
	delete(p.pace.waiting, path)
	p.n.mappedRead.Add(e.State.Size)
	return false
}

// stored hands a suspect of a rescan over to the looks at mapped files, if it is
// mapped: such a look knows who may have stored. Only where the rescan is for an
// operation on some path does that tell the truth: after a loss, or when the daemon
// was down, anybody may have written.
func (p *Pipeline) stored(it *item) bool {
	g := it.rescan.gap
	if it.looks > 0 || g == nil || !g.unplaced {
		return false
	}
	c := p.table.LookMapped(it.change.Path, p.o.Clock.Boot())
	if c == nil {
		return false
	}
	p.enqueue(c)
	it.ready = true
	return true
}

// disown takes the name from a look at a mapped file of which nothing is known, or
// what an earlier run knew.
func (p *Pipeline) disown(c *event.Change) {
	e, ok := p.states.Known().Get(c.Path)
	why := reasonDown
	switch {
	case !ok:
		why = "nothing was known of it before"
	case e.At != 0:
		return
	}
	c.Actor, c.Process, c.Key, c.Allowed, c.Why = *event.Nobody(), event.Process{}, event.ProcKey{}, false, why
}
