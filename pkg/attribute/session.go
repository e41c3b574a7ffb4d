package attribute

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
)

// session is one login. The fields are written by the pipeline's goroutine
// under Table.mu.
type session struct {
	id       uint64
	login    uint32
	opener   proc   // the process that loginuid was set in; zero if not known
	program  string // its executable's base name, else its comm
	origin   string
	evidence string
	box      string // the container that it was opened in: its users are not this machine's
	tty      string
	peer     netip.AddrPort
	start    uint64
	end      uint64

	told bool // its beginning, or that it was found, is recorded

	live   int // processes that run
	procs  uint64
	execs  uint64
	unsure bool // a process was dropped: the end cannot be told
	job    bool // of a daemon that another session began: the kernel side has it as part of that one
	found  bool // began before the daemon, or its beginning was lost
	asked  bool // origin was looked for since the last candidate
	cands  []event.ProcKey
}

// Session is a login as Sessions lists it.
type Session struct {
	ID       string
	User     string
	Loginuid uint32
	Origin   string
	Evidence string
	TTY      string
	Source   netip.AddrPort // not valid if not known
	Start    event.Time     // 0 if it began before the daemon and its first process is gone
	End      event.Time     // 0 while it runs
}

// Sessions lists the logins that run and those that ended lately, by start. It
// may be called from any goroutine.
func (t *Table) Sessions() []Session {
	t.mu.Lock()
	out := make([]Session, 0, len(t.sessions))
	for _, s := range t.sessions {
		out = append(out, Session{
			ID: loginSession(s.id), User: t.person(s), Loginuid: s.login, Origin: s.origin,
			Evidence: s.evidence, TTY: s.tty, Source: s.peer, Start: t.wall(s.start), End: t.wall(s.end),
		})
	}
	t.mu.Unlock()
	slices.SortFunc(out, func(a, b Session) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// sessionID is the login that an event belongs to, 0 for none. The kernel side's
// word comes first; what began before it was loaded is known by the audit
// session, which has the same numbers.
func (t *Table) sessionID(ev *event.Event, inherited *session) uint64 {
	switch {
	case ev.Session != 0:
		if a := uint64(ev.Audit); a != ev.Session && ev.Audit != event.Unset {
			if s := t.sessions[a]; s != nil && s.job {
				return a
			}
		}
		return ev.Session
	case inherited != nil:
		return inherited.id
	case ev.Login != event.Unset && ev.Audit != event.Unset && ev.Audit != 0:
		return uint64(ev.Audit)
	}
	return 0
}

// setSession makes n a member of the session that ev names. It returns the node
// to go on with (see join).
func (t *Table) setSession(n *node, ev *event.Event) *node {
	id := t.sessionID(ev, n.sess)
	if id == 0 || n.sess != nil && n.sess.id == id {
		return n
	}
	s := t.sessions[id]
	if s == nil {
		s = &session{id: id, login: ev.Login, origin: event.OriginUnknown, evidence: event.EvidenceNone, found: true}
		if ev.Kind == event.KindProc || ev.Kind == event.KindSocket || ev.Kind == event.KindSession {
			s.evidence = event.EvidenceProcScan
		}
		t.addSession(s)
	}
	return t.join(n, s, ev.Time)
}

func (t *Table) addSession(s *session) {
	t.mu.Lock()
	if len(t.sessions) >= t.o.MaxProcesses+maxEnded {
		t.forgetIdle()
	}
	t.sessions[s.id] = s
	t.mu.Unlock()
	t.n.sessions.Add(1)
}

// forgetIdle drops the sessions in which nothing is known to run: those that only
// lost processes belonged to.
func (t *Table) forgetIdle() {
	for id, s := range t.sessions {
		if s.live <= 0 && s.end == 0 {
			delete(t.sessions, id)
			t.n.sessions.Add(-1)
		}
	}
}

// join makes n a member of s. A program that has children stays what it was for
// them, and another node with the same key takes its place in the table.
func (t *Table) join(n *node, s *session, now uint64) *node {
	old := n.sess
	if old == s {
		return n
	}
	t.turn++
	if n.is(flagTabled) && n.refs > 1 {
		m := t.node(n.key, n.up, n.image)
		m.ids, m.now, m.cgroup, m.since, m.flags = n.ids, n.now, n.cgroup, n.since, n.flags
		t.succeed(n, m)
		n = m
	}
	n.sess = s
	if v := n.svc; v != nil {
		n.svc = nil
		if n.exited == 0 {
			t.quit(v, n, now)
		}
	}
	if n.exited != 0 || !n.is(flagTabled) {
		return n
	}
	if s.end != 0 { // a process of it was still there
		t.mu.Lock()
		s.end = 0
		t.mu.Unlock()
		t.n.sessions.Add(1)
	}
	s.live++
	s.procs++
	if old != nil {
		t.leave(old, n, now)
	}
	return n
}

// leave counts a process out, and ends the session with the last one.
func (t *Table) leave(s *session, n *node, now uint64) {
	if s.live--; s.live > 0 || s.end != 0 {
		return
	}
	t.resolve(s)
	t.mu.Lock()
	s.end = max(now, 1)
	s.cands = nil
	t.ended = append(t.ended, s.id)
	if len(t.ended) > maxEnded {
		if o := t.sessions[t.ended[0]]; o != nil && o.end != 0 {
			delete(t.sessions, t.ended[0])
		}
		t.ended = t.ended[1:]
	}
	t.mu.Unlock()
	t.n.sessions.Add(-1)
	if !s.unsure {
		t.pending = append(t.pending, t.sessionRecord(s, n, event.SessionEnd, s.sentence(t)+" ended"))
	}
}

// login takes in the beginning of a session.
func (t *Table) login(ev *event.Event) {
	id := t.sessionID(ev, nil)
	if id == 0 {
		return
	}
	t.turn++
	n, known := t.ensure(ev)
	defer func() { t.done(n) }()
	if !known && ev.Key.Start < t.first {
		// The kernel side met a process that it does not know from before: not a login,
		// and what the process is connected to now need not be where it came from.
		n = t.setSession(n, ev)
		t.candidate(n)
		return
	}
	setter := n
	if u := n.up; n.image.exe == "" && u != nil && !u.is(flagStub) && procOf(u.key) == procOf(n.key) {
		setter = u // the login is noticed at an exec, before that is reported
	}
	s, job := t.sessions[id], false
	if s != nil && s.end == 0 && !s.found {
		job = runsJobs(setter.image.exe) && ev.Audit != event.Unset && uint64(ev.Audit) != id
		if !job {
			n = t.join(n, s, ev.Time)
			t.rewritten(s, n, ev)
			return
		}
		id = uint64(ev.Audit)
		s = t.sessions[id]
	}
	opened := &session{id: id, login: ev.Login, opener: procOf(ev.Key), tty: ttyText(ev.TTYString()), start: ev.Time, job: job,
		box: t.cgroup(ev.Cgroup).container}
	opened.program = program(setter.image, ev.CommString())
	opened.origin, opened.evidence, opened.peer = originOf(opened.program, ev.Peer, ev.How)
	if s == nil {
		s = opened
		t.addSession(s)
	} else { // met before its beginning was reported, or the number was used again
		over := s.end != 0
		t.mu.Lock()
		opened.live, opened.unsure, opened.procs, opened.execs = s.live, s.unsure, s.procs, s.execs
		*s = *opened
		t.mu.Unlock()
		if over {
			t.n.sessions.Add(1)
		}
	}
	if m := t.join(n, s, ev.Time); setter == n {
		setter = m
	}
	s.told = true
	t.pending = append(t.pending, t.sessionRecord(s, setter, event.SessionStart, s.sentence(t)))
}

// runsJobs reports whether exe runs what people asked for at another time: a login by
// it is theirs, also where the session of somebody else began the daemon.
func runsJobs(exe string) bool {
	if o := originOfProgram(exeBase(exe)); exe == "" || o != event.OriginCron && o != event.OriginAt {
		return false
	}
	return slices.Contains(systemDirs[:], exe[:strings.LastIndexByte(exe, '/')+1])
}

// rewritten reports that a session that runs was given another loginuid, which
// does not change whose it is.
func (t *Table) rewritten(s *session, n *node, ev *event.Event) {
	if ev.Login == s.login {
		return
	}
	r := t.sessionRecord(s, n, event.SessionChanged, "loginuid set to "+t.user(ev.Login)+" inside the "+s.sentence(t))
	r.Time, r.TimeEnd = t.wall(ev.Time), 0
	t.pending = append(t.pending, r)
}

// person names who opened s: by the number where the users are those of a container.
func (t *Table) person(s *session) string {
	if s.box != "" {
		return strconv.FormatUint(uint64(s.login), 10)
	}
	return t.user(s.login)
}

// sentence says what session this is, for people.
func (s *session) sentence(t *Table) string {
	who := t.person(s)
	if s.box != "" {
		who += " of the container " + s.box
	}
	from := ""
	if s.peer.IsValid() {
		from = " from " + s.peer.String()
	}
	switch s.origin {
	case event.OriginSSH:
		if from == "" {
			from = " from an unknown address"
		}
		return "ssh login of " + who + from
	case event.OriginConsole:
		if s.tty != "" {
			return "console login of " + who + " on " + s.tty
		}
		return "console login of " + who
	case event.OriginCron:
		return "cron job of " + who
	case event.OriginAt:
		return "at job of " + who
	case event.OriginSystemd:
		return "systemd session of " + who
	}
	if s.program != "" {
		return "login of " + who + from + " by " + s.program
	}
	return "login of " + who + from
}

// sessionRecord makes a record about s; n is the process that began or ended it.
func (t *Table) sessionRecord(s *session, n *node, state, reason string) *event.Record {
	ev := event.Event{Key: n.key, TID: n.key.PID, Login: s.login, Session: s.id, Cgroup: n.cgroup}
	ev.Creds = event.Creds{UID: n.ids.uid, EUID: n.ids.euid, SUID: n.ids.suid, FSUID: n.ids.euid,
		GID: n.ids.gid, EGID: n.ids.egid, SGID: n.ids.sgid, FSGID: n.ids.egid}
	c := t.chain(n)
	a := t.actor(&ev, n, s, c)
	a.TTY = s.tty
	p := t.process(&ev, n, c, false)
	return &event.Record{Kind: event.RecSession, Time: t.wall(s.start), TimeEnd: t.wall(s.end), Reason: reason, Actor: &a, Process: &p,
		Session: &event.Session{State: state, Processes: s.procs, Execs: s.execs}}
}

// held are the connections that a process was found to hold.
type held struct{ peers []netip.AddrPort }

const (
	maxHeld    = 8     // peers kept of one process: more than one already say that it is not known
	MaxHolders = 65536 // processes
	maxCands   = 16
)

// socket takes in a connection that a process holds since before the daemon.
func (t *Table) socket(ev *event.Event) {
	n, _ := t.ensure(ev)
	n = t.setSession(n, ev)
	defer t.done(n)
	p := procOf(ev.Key)
	h := t.held[p]
	if h == nil {
		if len(t.held) >= MaxHolders {
			t.n.unheld.Add(1)
			return
		}
		h = &held{}
		t.held[p] = h
	}
	peer := unmap(ev.Peer)
	for _, o := range h.peers {
		if o == peer {
			return
		}
	}
	if len(h.peers) < maxHeld {
		h.peers = append(h.peers, peer)
	}
	if n.sess != nil {
		t.reopen(n.sess, p)
		t.candidate(n)
	}
}

// reopen has the origin of s looked for again if that was done before it was told that
// p, which opened s, holds a connection: processes are told of first.
func (t *Table) reopen(s *session, p proc) {
	if s.opener != p || s.origin != event.OriginSSH || s.peer.IsValid() {
		return
	}
	t.mu.Lock()
	s.opener, s.found = proc{}, true
	t.mu.Unlock()
	t.turn++
}

// candidate keeps n in mind as the process that may have opened its session.
func (t *Table) candidate(n *node) {
	s := n.sess
	if !s.found || originOfProgram(program(n.image, "")) == event.OriginUnknown {
		return
	}
	s.asked = false
	for _, k := range s.cands {
		if k == n.key {
			return
		}
	}
	if len(s.cands) < maxCands {
		s.cands = append(s.cands, n.key)
	}
}

// opened reports whether n, the oldest process of a session that is known, may have
// opened it as a login of that origin. A daemon that somebody in a session began, sshd or
// cron, has lost its parent, holds no connection and opened nothing. What opens a login is
// root's: a program of the person's own may be called sshd and hold any connection.
func (t *Table) opened(n *node, origin string) bool {
	if origin != event.OriginSystemd && (n.ids.uid != 0 || n.ids.euid != 0) {
		return false
	}
	switch origin {
	case event.OriginSSH, event.OriginCron, event.OriginAt:
		if h := t.held[procOf(n.key)]; h != nil && len(h.peers) > 0 {
			return true
		}
		u := t.above(n)
		return u != nil && !u.is(flagStub) && originOfProgram(program(u.image, "")) == origin
	}
	return true
}

// resolve looks for the origin of a session that began before the daemon. What
// opened it is a login program that descends from no process of the session; the
// address is the one that this process holds a connection to. Several different
// answers are no answer.
func (t *Table) resolve(s *session) {
	if !s.found || s.asked || s.opener != (proc{}) {
		return
	}
	s.asked = true
	var top *node
	origin, peer, peers := "", netip.AddrPort{}, 0
	for _, k := range s.cands {
		n := t.find(k)
		if n == nil || n.sess != s {
			continue
		}
		part, _ := inSession(t.chain(n))
		if last := part[len(part)-1]; last != n {
			continue
		}
		o := originOfProgram(program(n.image, ""))
		if !t.opened(n, o) {
			continue
		}
		if origin != "" && o != origin {
			t.recall(s)
			return
		}
		origin = o
		if top == nil || n.key.Start < top.key.Start {
			top = n
		}
		if h := t.held[procOf(k)]; h != nil {
			for _, p := range h.peers {
				if peers == 0 || p != peer {
					peers++
				}
				peer = p
			}
		}
	}
	if top == nil {
		t.recall(s)
		return
	}
	box := t.cgroup(top.cgroup).container
	t.mu.Lock()
	defer t.mu.Unlock()
	s.opener, s.program, s.origin, s.start = procOf(top.key), program(top.image, ""), origin, top.key.Start
	s.box = box
	if s.evidence == event.EvidenceNone {
		s.evidence = event.EvidenceAncestor
	}
	if peers == 1 && origin == event.OriginSSH {
		s.peer = peer
	} else if p := t.past[s.id]; p.login == s.login && p.origin == origin {
		s.peer, s.tty = p.peer, p.tty
	}
	s.asked = false
	s.found = false
	t.turn++
}
