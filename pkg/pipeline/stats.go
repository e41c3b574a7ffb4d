package pipeline

import (
	"sync/atomic"

	"github.com/holdfast/holdfast/pkg/coalesce"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/rehash"
	"github.com/holdfast/holdfast/pkg/respond"
)

// counters are the pipeline's own.
type counters struct {
	events, spoilt, lost, gaps                atomic.Uint64
	changes, unchanged, looks, attempts, self atomic.Uint64
	refused, unkept, rescans, rescansFailed   atomic.Uint64
	held, mappedRead, mappedPutOff            atomic.Uint64
	unpromoted                                atomic.Uint64
	comparedAll, restless                     atomic.Uint64
	processes, crowded                        atomic.Uint64
}

// Stats is what the daemon shows as counters of the stages.
type Stats struct {
	Events        uint64 // decoded
	Spoilt        uint64 // could not be decoded
	Lost          uint64 // anywhere on the way; each is in a gap record
	Gaps          uint64 // gap records
	Changes       uint64 // recorded
	Unchanged     uint64 // operations that left no difference
	Looks         uint64 // looks without an operation that found no difference
	Attempts      uint64 // refused, recorded
	Self          uint64 // changes of our own that left what we know
	Refused       uint64 // times that the journal took a record only later
	Unkept        uint64 // versions that the vault could not keep
	Rescans       uint64
	RescansFailed uint64
	Held          uint64 // recorded: what was there before a rule
	MappedRead    uint64 // bytes that looks at mapped files read
	MappedPutOff  uint64 // such looks that waited for their turn
	Processes     uint64 // records of executions and ends
	Crowded       uint64 // that found no room: each is in a gap record

	// Waiting is what is still to be done about what was told so far: events,
	// changes, second looks and rescans. Doubt is the moment of the first operation
	// whose path could not be followed and for which the trees have not been compared
	// yet. Both 0: all of it is recorded.
	Waiting uint64
	Doubt   event.Time

	// Aside is what waits behind large files, these included; Large is how many of
	// these there were.
	Aside, AsideLimit int
	Large             uint64

	HandoverUsed, HandoverSize int
	HandoverDropped            uint64
	QueueLen, QueueLimit       int
	QueueDropped               uint64

	Coalesce coalesce.Stats
	Rehash   rehash.Stats
	Respond  respond.Stats
	Stop     respond.StopStats
}

// Stats returns the counters.
func (p *Pipeline) Stats() Stats {
	// What moves on meanwhile must not be missed: each place is asked before the one
	// that comes behind it, and the slow side, which also puts things off, must have
	// waited all the time.
	turn := p.turns.Load()
	var s Stats
	s.Waiting = uint64(p.lane.n.Load()) // first: only the slow side sends anything there
	s.HandoverUsed, s.HandoverSize, s.HandoverDropped = p.in.stats()
	s.Coalesce = p.table.Stats()
	s.QueueLen, s.QueueDropped = p.queue.stats()
	n, doubt := p.gaps.waiting()
	s.Doubt = doubt
	s.Waiting += n + uint64(s.HandoverUsed) + uint64(s.Coalesce.Pending) + uint64(s.QueueLen) + uint64(p.delayed.n.Load()) + uint64(p.scans.open.Load())
	if turn%2 != 0 || p.turns.Load() != turn {
		s.Waiting++
	}
	p.count(&s)
	return s
}

// Busy reports whether events or changes wait for their turn.
func (p *Pipeline) Busy() bool {
	used, _, _ := p.in.stats()
	n, _ := p.queue.stats()
	return used > 0 || n > 0
}

// count fills in what was done until now.
func (p *Pipeline) count(s *Stats) {
	n := &p.n
	s.Events, s.Spoilt, s.Lost, s.Gaps = n.events.Load(), n.spoilt.Load(), n.lost.Load(), n.gaps.Load()
	s.Changes, s.Unchanged, s.Looks = n.changes.Load(), n.unchanged.Load(), n.looks.Load()
	s.Attempts, s.Self, s.Refused = n.attempts.Load(), n.self.Load(), n.refused.Load()
	s.Unkept, s.Rescans, s.RescansFailed = n.unkept.Load(), n.rescans.Load(), n.rescansFailed.Load()
	s.Processes, s.Crowded = n.processes.Load(), n.crowded.Load()
	s.Held, s.MappedRead, s.MappedPutOff = n.held.Load(), n.mappedRead.Load(), n.mappedPutOff.Load()
	s.Aside, s.Large, _ = p.lane.stats()
	s.AsideLimit = p.o.Behind
	s.QueueLimit, s.Rehash, s.Stop = p.queue.limit, p.states.Stats(), p.stopper.Stats()
	if p.responder != nil {
		s.Respond = p.responder.Stats()
	}
}

// Limit is a bound, and how often it was hit since the start.
type Limit struct {
	Name       string
	Value, Hit uint64
}

// Limits lists the bounds of the stages that Stats do not show as queues. What
// becomes of what lies beyond one is told where the bound is defined.
func (p *Pipeline) Limits() []Limit {
	c := p.table.Stats()
	_, large, full := p.lane.stats()
	l := []Limit{
		{"bytes that are read or put back before the next change is looked at", p.o.Large, large},
		{"changes that wait for a large file at once", uint64(p.o.Behind), full},
		{"descriptors and mappings remembered of before a rule", coalesce.DefaultMaxHeld, c.HeldOverflow},
		{"files being changed at once", coalesce.DefaultMaxOpen, c.Overflow},
		{"path bytes of an event", 4096, c.Cut},
		{"second looks put off at once", maxDelayed, p.delayed.hit.Load()},
		{"directories compared one by one at once", compareMany, p.n.comparedAll.Load()},
		{"records of processes that wait at once", uint64(p.o.Queue / 2), p.n.crowded.Load()},
		{"looks at a path that never comes to rest", restless, p.n.restless.Load()},
	}
	if p.responder != nil {
		s := p.responder.Stats()
		l = append(l, Limit{"restores of one path in " + p.o.FlapWindow.String(), uint64(p.o.FlapLimit), s.Flapping},
			Limit{"paths whose restores are counted", respond.MaxFlaps, s.Uncounted},
			Limit{"paths put back in a minute before nothing is promoted or pruned", respond.DefaultStorm, s.Storms},
			Limit{"promotions that wait for the end of a mass change", maxFrozen, p.n.unpromoted.Load()})
	}
	return l
}

// Map returns the counters under the names that status and metrics use.
func (s Stats) Map() map[string]uint64 {
	return map[string]uint64{
		"decode_events": s.Events, "decode_spoilt": s.Spoilt,
		"pipeline_waiting": s.Waiting, "pipeline_doubt": uint64(s.Doubt), "pipeline_lost": s.Lost, "pipeline_gaps": s.Gaps,
		"pipeline_large": s.Large, "pipeline_behind_large": uint64(s.Aside),
		"pipeline_rescans": s.Rescans, "pipeline_rescans_failed": s.RescansFailed,
		"pipeline_handover_dropped": s.HandoverDropped, "pipeline_queue_dropped": s.QueueDropped,
		"coalesce_events": s.Coalesce.Events, "coalesce_skipped": s.Coalesce.Skipped, "coalesce_failed": s.Coalesce.Failed,
		"coalesce_unresolved": s.Coalesce.Unresolved, "coalesce_cut": s.Coalesce.Cut, "coalesce_opens": s.Coalesce.Opens,
		"coalesce_changes": s.Coalesce.Changes, "coalesce_overflow": s.Coalesce.Overflow,
		"coalesce_pending": uint64(s.Coalesce.Pending), "coalesce_openers": uint64(s.Coalesce.Openers),
		"rehash_reads": s.Rehash.Reads, "rehash_spared": s.Rehash.Spared, "rehash_unread": s.Rehash.Unread,
		"rehash_late": s.Rehash.Late, "rehash_unstable": s.Rehash.Unstable, "rehash_paths": uint64(s.Rehash.Paths),
		"rehash_unchanged": s.Unchanged, "rehash_looks": s.Looks, "rehash_unkept": s.Unkept,
		"judge_changes": s.Changes, "judge_attempts": s.Attempts, "judge_self": s.Self,
		"respond_done": s.Respond.Done, "respond_failed": s.Respond.Failed,
		"respond_skipped": s.Respond.Skipped, "respond_flapping": s.Respond.Flapping,
		"held_before": s.Held, "held_mappings": uint64(s.Coalesce.Mappings), "held_descriptors": uint64(s.Coalesce.Descriptors),
		"held_overflow": s.Coalesce.HeldOverflow, "held_looks": s.Coalesce.HeldLooks, "held_looks_blind": s.Coalesce.HeldBlind,
		"held_read_bytes": s.MappedRead, "held_put_off": s.MappedPutOff,
		"respond_stopped": s.Stop.Done, "respond_not_stopped": s.Stop.Refused + s.Stop.Failed,
		"journal_refused":    s.Refused,
		"attribute_recorded": s.Processes, "attribute_crowded": s.Crowded,
	}
}
