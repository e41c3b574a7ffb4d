package daemon

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/pkg/attribute"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/pipeline"
	"github.com/holdfast/holdfast/pkg/sense"
	"github.com/holdfast/holdfast/rollback"
)

// Status implements control.Handler.
func (d *Daemon) Status(context.Context) (control.Status, error) {
	d.mu.Lock() // first: who waits for it must not see what was in the way
	armed := d.armed && len(d.later) == 0
	d.mu.Unlock()
	ps := d.pipe.Stats()
	s := control.Status{
		Armed:   armed,
		Version: d.o.Version, Host: d.host, HostID: d.hostID, Boot: d.boot, PID: os.Getpid(), Started: event.TimeOf(d.started), State: d.cfg.State,
		Tier: d.tier, TierWanted: d.cfg.Tier, Guard: d.guardStatus(), Rules: d.ruleStatus(), Pipeline: ps.Map(),
	}
	deep, err := d.eventStatus(&s)
	if err != nil {
		return s, err
	}
	used, size := d.sensor.RingUse()
	s.Queues = []control.Queue{
		{Name: "ring", Len: used, Limit: size, Dropped: s.Events.Lost},
		{Name: "handover", Len: ps.HandoverUsed, Limit: ps.HandoverSize, Dropped: ps.HandoverDropped},
		{Name: "changes", Len: ps.QueueLen, Limit: ps.QueueLimit, Dropped: ps.QueueDropped},
		{Name: "behind large files", Len: ps.Aside, Limit: ps.AsideLimit},
	}
	s.Gaps = gapsOf(d.pipe.Losses())
	js := d.journal.Stats()
	s.Journal = control.Journal{
		Seq: js.Seq, First: js.First, Durable: js.Durable, Keys: js.Keys, KeySince: js.KeyTime, Bytes: uint64(js.Bytes), Segments: js.Segments, Checkpoint: js.CheckpointSize, Signed: js.CheckpointTime,
		Errors: js.Errors, Refused: js.Full, LastError: js.LastError, DiskFree: js.DiskFree, Reserve: uint64(js.Reserve),
	}
	d.indexStatus(&s)
	d.shipStatus(&s)
	d.publishStatus(&s)
	if s.Plans, err = d.planStatus(); err != nil {
		s.DegradedReasons = append(s.DegradedReasons, "a restore or undo that was cut off cannot go on: "+err.Error())
	}
	vs := d.vault.Stats()
	s.Vault = control.Vault{
		Paths: uint64(vs.Paths), Versions: uint64(vs.Versions), Objects: uint64(vs.Objects), Bytes: uint64(vs.Bytes), Stored: uint64(vs.Stored),
		Retention: d.retention(),
	}
	as := d.table.Stats()
	s.Pipeline["attribute_live"], s.Pipeline["attribute_sessions"] = uint64(as.Live), uint64(as.Sessions)
	s.Pipeline["attribute_lost"], s.Pipeline["attribute_evicted"] = as.Lost, as.Evicted
	s.Pipeline["attribute_folded"] = as.Folded
	held := d.pipe.Held()
	s.Held = d.heldStatus(held)
	for _, p := range d.sensor.OnDemand() {
		s.OnDemand = append(s.OnDemand, control.Program{Name: p.Program, Attached: p.Attached, Reasons: p.Reasons, Times: p.Times})
	}
	s.Limits = []control.Limit{
		{Name: "processes remembered", Value: uint64(d.cfg.Limits.Processes), Hit: as.Evicted + as.EvictedLive},
		{Name: "programs remembered above a process", Value: attribute.MaxAbove, Hit: as.Cut},
		{Name: "processes with connections of before the start", Value: attribute.MaxHolders, Hit: as.Unheld},
		{Name: "milliseconds a second to look for the connections of services", Value: 100, Hit: as.Unasked},
		{Name: "files with names outside the watched trees", Value: sense.MaxLinks, Hit: d.unlinked.Load()},
		{Name: "directories between a rule and a file on its file system", Value: 64, Hit: deep},
		{Name: "bytes of displaced files", Value: uint64(d.cfg.Limits.Evidence), Hit: vs.EvidenceDropped},
	}
	for _, l := range d.pipe.Limits() {
		s.Limits = append(s.Limits, control.Limit(l))
	}
	s.Windows = d.openWindowsShown()
	s.DegradedReasons = append(append(append(d.reasons(), s.DegradedReasons...), d.troubles(&s)...), d.unblocked(held)...)
	s.DegradedReasons = append(s.DegradedReasons, d.unenrolled()...)
	s.Degraded = len(s.DegradedReasons) > 0
	return s, nil
}

// Reindex implements control.Handler.
func (d *Daemon) Reindex(context.Context, control.ReindexRequest) (control.Outcome, error) {
	d.index.Rebuild()
	return control.Outcome{}, nil
}

// reasons lists why the daemon does less than it was configured to do.
func (d *Daemon) reasons() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]string, 0, len(d.degraded))
	for _, r := range d.degraded {
		out = append(out, r)
	}
	slices.Sort(out)
	return out
}

// troubles are the reasons that show in the counters of this moment.
func (d *Daemon) troubles(s *control.Status) []string {
	var out []string
	if d.journal.Stats().Failing {
		out = append(out, "records cannot be written: "+s.Journal.LastError)
	}
	if s.Journal.Reserve == 0 {
		out = append(out, "the disk of the state directory is full: only critical records are written, from the space kept back for them; free some")
	}
	if n := len(s.Gaps.Open); n > 0 {
		g := s.Gaps.Open[0]
		out = append(out, fmt.Sprintf("%d gaps are not healed: changes since %s may lack their record (%s)", n, g.From, strings.Join(g.Causes, ", ")))
	} else if n := s.Gaps.Waiting; n > 0 {
		out = append(out, fmt.Sprintf("%d events were lost and are about to be declared", n))
	}
	if storm := d.pipe.Storm(); storm.On {
		out = append(out, fmt.Sprintf("a mass change is under way: %d paths had to be put back; nothing becomes trusted and nothing is pruned until it is over", storm.Paths))
	}
	if n, one := d.pipe.ReadOnly(); n > 0 {
		out = append(out, fmt.Sprintf("%d paths are not as they should be and lie on a read-only file system; they are put back when it can be written to; one is %s", n, event.Text([]byte(one))))
	}
	rivals := d.pipe.Rivals()
	for i, path := range slices.Sorted(maps.Keys(rivals)) {
		if i == 5 {
			out = append(out, fmt.Sprintf("and %d more files that two programs manage", len(rivals)-i))
			break
		}
		out = append(out, event.Text([]byte(path))+": "+rivals[path])
	}
	for _, p := range s.Plans {
		if p.State == control.PlanWaits {
			out = append(out, fmt.Sprintf("%s of %d paths, begun %s, was cut off: it goes on at the next start, or before the next restore or undo", p.Action, p.Steps, p.Begun))
		}
	}
	if s.Ship.Enabled && !s.Ship.Connected && s.Ship.LastError != "" {
		out = append(out, "records are not shipped: "+s.Ship.LastError)
	}
	for _, p := range s.Published {
		if p.LastError != "" {
			out = append(out, fmt.Sprintf("checkpoints are not sent to %s: %s", p.To, p.LastError))
		}
	}
	return out
}

func gapsOf(l pipeline.Losses) control.Gaps {
	show := func(g pipeline.Gap) control.Gap {
		c := control.Gap{ID: g.ID, From: g.From, To: g.To, Lost: g.Lost, Causes: g.Causes, Tries: g.Tries, Open: g.Open}
		for _, t := range g.Trees {
			c.Trees = append(c.Trees, event.Text([]byte(t)))
		}
		return c
	}
	out := control.Gaps{Causes: l.Causes, Waiting: l.Waiting, Healed: l.Healed, Open: []control.Gap{}}
	for _, g := range l.Open {
		out.Open = append(out.Open, show(g))
	}
	if l.Last != nil {
		g := show(*l.Last)
		out.Last = &g
	}
	return out
}

// eventStatus fills in the counters. What lay too deep to be placed is of no known
// interest, nor are requests of io_uring: that counts as skipped. What lay too deep is returned: it is a limit.
func (d *Daemon) eventStatus(s *control.Status) (deep uint64, err error) {
	hooks, err := d.sensor.Counters()
	if err != nil {
		return 0, err
	}
	for _, h := range hooks {
		c := control.Counters{
			Seen: h.Seen, Sent: h.Sent, Skipped: h.Skipped + h.Deep, Folded: h.Folded, Blocked: h.Blocked, Lost: h.Lost, Failed: h.Failed,
		}
		s.Events.Hooks = append(s.Events.Hooks, control.Hook{Name: h.Hook, Counters: c})
		s.Events.Seen += c.Seen
		s.Events.Sent += c.Sent
		s.Events.Skipped += c.Skipped
		s.Events.Folded += c.Folded
		s.Events.Blocked += c.Blocked
		s.Events.Lost += c.Lost
		s.Events.Failed += c.Failed
		if h.Hook != sense.HookRing {
			deep += h.Deep
		}
	}
	return deep, nil
}

// ruleStatus tells of each path of each rule how far it is in force.
func (d *Daemon) ruleStatus() []control.RuleStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []control.RuleStatus
	for _, r := range d.rules.policy.Rules {
		rs := control.RuleStatus{Name: r.Name, Mode: r.Mode, EffectiveMode: d.rules.mode[r.Name], Reason: d.rules.weakened[r.Name]}
		for _, p := range r.Paths {
			rs.Paths = append(rs.Paths, d.pathStatus(p))
		}
		out = append(out, rs)
	}
	return out
}

func (d *Daemon) pathStatus(p string) control.PathStatus {
	ps := control.PathStatus{Path: control.Path(p), State: control.PathArmed}
	e, ok := d.enrolled[p]
	if r := d.readiness(p); ok || r != (rollback.Readiness{}) {
		ps.New, ps.Captured, ps.Protected = uint64(len(e.Errors)+len(d.untrusted(&e))), uint64(r.Captured), uint64(r.Verified)
		ps.Files = ps.New + ps.Captured + ps.Protected
	}
	later := slices.Contains(d.later, p)
	if !ok || !d.armed || later {
		ps.State = control.PathEnrolling
	}
	if !d.armed || !ok && !later {
		ps.Reason = "not watched yet"
	}
	for _, u := range d.unarmed {
		switch {
		case u.Path != p:
		case u.Err != nil:
			ps.State, ps.Reason = control.PathFailed, u.Err.Error()
		default:
			ps.State, ps.Reason = control.PathWaiting, "does not exist yet"
		}
	}
	return ps
}

func (d *Daemon) indexStatus(s *control.Status) {
	is := d.index.Stats()
	s.Index = control.Index{Seq: is.Seq, Lag: is.Behind, Bytes: uint64(is.Bytes), LastError: is.LastError}
}

func (d *Daemon) shipStatus(s *control.Status) {
	if d.shipper == nil {
		return
	}
	ss := d.shipper.Stats()
	s.Ship = control.Ship{Enabled: true, Connected: ss.Connected, Shipped: ss.Shipped, Lag: ss.Lag, Retries: ss.Retries, LastError: ss.LastError}
}
