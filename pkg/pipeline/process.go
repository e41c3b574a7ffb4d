package pipeline

import (
	"github.com/holdfast/holdfast/pkg/event"
)

// Finisher is an Attributor that completes records of processes. Finish is called on
// the slow side, while the fast side calls the rest.
type Finisher interface{ Finish(r *event.Record) }

// crowded is what found no room: of the fast side alone.
type crowded struct {
	n        uint64
	from, to event.Time
}

// putProcess queues a record of stage 3. Those of sessions go as changes do; the others
// may fill half of the queue: who starts many processes must not push out what changes files. What finds
// no room is counted, and told by a record; no change is missing, and nothing compared.
func (p *Pipeline) putProcess(r *event.Record, hook uint16) {
	if r.Sensor == nil {
		r.Sensor = &event.Sensor{Tier: p.o.Tier, Hook: p.o.Hook(hook)}
	}
	if r.Kind == event.RecSession {
		p.put(&item{record: r})
		return
	}
	if p.queue.putBelow(&item{record: r}, p.o.Queue/2, false) {
		p.n.processes.Add(1)
		return
	}
	p.n.crowded.Add(1)
	c := &p.crowded
	if c.n++; c.n == 1 {
		c.from = r.Time
	}
	c.to = r.Time
}

// tellCrowded declares the records that found no room.
func (p *Pipeline) tellCrowded() {
	c := p.crowded
	if c.n == 0 {
		return
	}
	r := &event.Record{
		Time: c.to, Kind: event.RecGap, Reason: whys()[event.CauseProcesses], Sensor: &event.Sensor{Tier: p.o.Tier},
		Gap: &event.Gap{Lost: c.n, From: c.from, To: c.to, Causes: []string{event.CauseProcesses}},
	}
	if p.queue.putBelow(&item{record: r}, p.o.Queue, false) {
		p.n.gaps.Add(1)
		p.crowded = crowded{}
	}
}
