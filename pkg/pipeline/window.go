package pipeline

import (
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/window"
)

// window returns the approved window that covers a finding, nil if none does. It goes
// by when the change was done and by who did it, as its record has them. What a look
// found that no event told of was done by nobody who is known, between the last moment
// at which it cannot have been done yet and now.
func (p *Pipeline) window(f *find) *window.Window {
	c := f.change
	if p.o.Windows == nil || c.Blocked || !p.o.Windows.May(f.Path) {
		return nil
	}
	r := p.record(f.item, &f.Finding, &judgement{})
	ch := window.Change{Paths: append([]string{f.Path}, f.names...), Actor: r.Actor, Process: r.Process, First: int64(c.First), Last: int64(c.Last)}
	// A name that is given up counts where something belongs there: it would be put back.
	if f.From != nil && (p.o.Vault == nil || p.lacks(f.From.Path)) {
		ch.Paths = append(ch.Paths, f.From.Path)
	}
	for _, path := range ch.Paths {
		// There only a person is let through: what somebody else did was meant to be refused.
		rule, ok := p.o.Rule(path)
		if rule.Own {
			return nil
		}
		ch.Person = ch.Person || ok && rule.Mode == event.ModeBlock
	}
	switch {
	case p.foreign(f.item, &f.Finding):
		since, ok := changedAt(&f.Finding)
		if r.Gap != nil {
			since, ok = r.Time, true
		}
		if !ok {
			return nil
		}
		ch.Last = int64(p.o.Clock.Boot())
		ch.First = ch.Last - int64(p.o.Clock.Wall(uint64(ch.Last))-since)
	case f.rescan != nil && f.rescan.by != nil:
		ch.First = min(ch.First, int64(f.rescan.by.Time))
	case c.Mapped && c.Op == event.OpOpen:
		if f.late {
			return nil
		}
		ch.First -= int64(p.o.MappedEvery) // it may have been stored since the look before
	}
	if w, ok := p.o.Windows.Covering(&ch); ok {
		return &w
	}
	return nil
}
