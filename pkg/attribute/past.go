package attribute

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
)

// past is a login whose beginning an earlier daemon recorded.
type past struct {
	login       uint32
	origin, tty string
	peer        netip.AddrPort
	record      *event.Record // of its beginning
}

// Remember takes in a session record of an earlier daemon of this boot, the oldest
// first: where a login came from whose first process ended before this daemon began. It
// is called before the first event.
func (t *Table) Remember(r *event.Record) {
	if r.Kind != event.RecSession || r.Session == nil || r.Actor == nil {
		return
	}
	a := r.Actor
	number, ok := strings.CutPrefix(a.Session, "login-")
	id, err := strconv.ParseUint(number, 10, 64)
	switch {
	case !ok || err != nil || r.Session.State == event.SessionChanged:
		return
	case r.Session.State == event.SessionEnd:
		delete(t.past, id)
		return
	}
	p := past{record: r, login: a.Loginuid, origin: a.Origin, tty: a.TTY}
	if ip, err := netip.ParseAddr(a.SourceIP); err == nil {
		p.peer = netip.AddrPortFrom(ip, a.SourcePort)
	}
	t.past[id] = p
}

// recall fills in what an earlier daemon knew of s. The kernel gives the number of a
// login to no other until the machine is booted again.
func (t *Table) recall(s *session) {
	p, ok := t.past[s.id]
	if !ok || p.login != s.login || s.evidence == event.EvidenceJournal {
		return
	}
	if s.start == 0 && t.o.Wall != nil {
		t.mu.Lock()
		s.start = uint64(max(p.record.Time-t.o.Wall(1)+1, 1))
		t.mu.Unlock()
	}
	if p.origin == event.OriginUnknown {
		return
	}
	t.mu.Lock()
	s.origin, s.tty, s.peer, s.evidence = p.origin, p.tty, p.peer, event.EvidenceJournal
	t.mu.Unlock()
	t.turn++
}
