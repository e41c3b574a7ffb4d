package attribute

import (
	"slices"

	"github.com/holdfast/holdfast/pkg/event"
)

// settle tells, once all processes are known that lived before us, which logins were
// found without a record of their beginning, and which have ended meanwhile.
func (t *Table) settle(now uint64) {
	first := map[*session]*node{}
	for n := range t.live.All() {
		if s := n.sess; s != nil && (first[s] == nil || n.key.Start < first[s].key.Start) {
			first[s] = n
		}
	}
	for n := range t.live.All() {
		s := n.sess
		if s == nil || first[s] != n || s.told {
			continue
		}
		s.told = true
		if _, ok := t.past[s.id]; ok {
			continue
		}
		t.known(n)
		t.tell(t.sessionRecord(s, n, event.SessionFound, s.sentence(t)+" was found"))
	}
	var over []uint64
	for id := range t.past {
		if t.sessions[id] == nil {
			over = append(over, id)
		}
	}
	slices.Sort(over)
	for _, id := range over {
		r := *t.past[id].record
		facts := *r.Session
		facts.State = event.SessionEnd
		t.tell(&event.Record{Kind: r.Kind, Time: r.Time, TimeEnd: t.wall(now), Reason: r.Reason + " ended while nobody saw it",
			Actor: r.Actor, Process: r.Process, Session: &facts})
		delete(t.past, id)
	}
}
