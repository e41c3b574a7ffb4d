package attribute

import "github.com/holdfast/holdfast/pkg/event"

// service is a run outside any login: a process below init with all that came from
// it, or what runs in a container.
type service struct {
	root  event.ProcKey // names it (see Table.root)
	box   string        // container
	start uint64        // ns since boot; of root
	live  int           // processes that run
	procs uint64
	execs uint64
	found bool // older than what was told of it: its members are not counted yet
}

// serves makes the process of n, which is in no login, a member of its service. It
// returns nil where there is none: for init, kernel threads, and what is not known.
func (t *Table) serves(n *node) *service {
	if n.sess != nil || outermost(n) || !n.is(flagTabled) || n.exited != 0 {
		return nil
	}
	box := t.cgroup(n.cgroup).container
	if n.svc != nil && n.svc.box == box {
		return n.svc
	}
	c := t.chain(n)
	if end := c[len(c)-1]; !t.gathered && (end.unresolved() || end.is(flagLate)) && !outermost(end) {
		return nil // what it came from may be told yet
	}
	k := t.root(c)
	s := t.services[procOf(k)]
	if s == n.svc && s != nil {
		return s
	}
	if s == nil {
		s = &service{root: k, box: box, start: k.Start, found: procOf(k) != procOf(n.key) || n.image.flags&imageProc != 0}
		t.services[procOf(k)] = s
	}
	t.enter(n, s)
	return s
}

func (t *Table) enter(n *node, s *service) {
	old := n.svc
	n.svc = s
	s.live++
	s.procs++
	if old != nil {
		t.quit(old, n, 0)
	}
}

// served tells of a service that begins with the program n.
func (t *Table) served(n *node, now uint64) {
	s := t.serves(n)
	if s == nil {
		return
	}
	if s.execs++; s.execs > 1 || s.found || procOf(s.root) != procOf(n.key) {
		return
	}
	s.start = now
	t.tell(t.serviceRecord(s, n, 0, event.SessionStart))
}

// quit counts a process out, and ends the service with the last one. now is 0 if it
// goes on elsewhere.
func (t *Table) quit(s *service, n *node, now uint64) {
	if s.live--; s.live > 0 {
		return
	}
	if t.services[procOf(s.root)] == s {
		delete(t.services, procOf(s.root))
	}
	if !s.found && s.execs > 0 {
		t.tell(t.serviceRecord(s, n, max(now, n.since, 1), event.SessionEnd))
	}
}

// gatherAfter is how long after the last process that was told of as older than us all
// of them are known: they come one right after the other.
const gatherAfter = 5_000_000_000 // ns

// gather counts the members of services that are older than what was told, once: the
// ends of these are known from then on.
func (t *Table) gather(now uint64) {
	if t.gathered || t.learnt == 0 || now < t.learnt+gatherAfter {
		return
	}
	t.gathered = true
	for n := range t.live.All() {
		t.serves(n)
	}
	for _, s := range t.services {
		if s.found {
			s.found, s.execs = false, max(s.execs, 1)
		}
	}
	t.settle(now)
}

// serviceRecord makes a record about s; n is the process that began or ended it.
func (t *Table) serviceRecord(s *service, n *node, end uint64, state string) *event.Record {
	ev := event.Event{Key: n.key, TID: n.key.PID, Login: event.Unset, Cgroup: n.cgroup, Creds: t.may(n).ids.Creds}
	c := t.chain(n)
	a := t.actor(&ev, n, nil, c)
	a.Session = serviceSession(s.root)
	p := t.process(&ev, n, c, false)
	name := program(n.image, "")
	switch {
	case p.Container != "":
		name = "container " + p.Container
	case p.Unit != "":
		name = p.Unit + " (" + text(name) + ")"
	}
	verb := " began"
	if state == event.SessionEnd {
		verb = " ended"
	}
	return &event.Record{Kind: event.RecSession, Time: t.wall(s.start), TimeEnd: t.wall(end), Reason: name + verb, Actor: &a, Process: &p,
		Session: &event.Session{State: state, Processes: s.procs, Execs: s.execs}}
}
