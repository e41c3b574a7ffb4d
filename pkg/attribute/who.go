package attribute

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
)

const (
	maxAncestors = 32
	// CutMark is the Exe of a last ancestor that stands for those left out.
	CutMark = "(more)"
	// CutArg is the last of the arguments of a program whose other ones did not fit.
	CutArg = "(cut)"
)

// Who tells who is behind a file event. The answer shares no memory with the event;
// its lists are shared with other answers and must not be changed, so that many
// changes by one program take little memory. It may read /proc about a process whose fork or exec was
// not reported, and hash the executable of a program at its first change.
func (t *Table) Who(ev *event.Event) (event.Actor, event.Process) {
	if n := t.find(ev.Key); n != nil && n.said != nil && n.said.holds(t, ev) {
		t.expire(ev.Time)
		a, p := n.said.actor, n.said.process
		p.TID = ev.TID
		return a, p
	}
	n, known := t.ensure(ev)
	if n.cgroup != ev.Cgroup {
		n.cgroup = ev.Cgroup
		t.turn++
	}
	if n.image.ino == 0 {
		n.image.dev, n.image.ino = ev.ExeDev, ev.ExeIno
	}
	if alive := t.fill(n); !known && !alive {
		t.retire(n, ev.Time) // its end may never be reported: it does not count as running
	}
	n = t.setSession(n, ev)
	defer t.done(n)
	c := t.known(n)
	s := n.sess
	a := t.actor(ev, n, s, c)
	if s == nil && !ev.Kthread {
		a.Peers = t.peers(c)
	}
	p := t.process(ev, n, c, true)
	n.share(&a, &p)
	t.expire(ev.Time)
	if n.is(flagTabled) && n.exited == 0 && (s == nil || !s.found) && !c[len(c)-1].unresolved() {
		n.said = &said{asked: askedBy(ev), turn: t.turn, until: ev.Time + sayAgain, actor: a, process: p}
	}
	return a, p
}

// said is the last answer about a program that runs. It is given again while the
// question is the same and nothing was learnt that may change it: what is not
// known to the end is looked for each time.
type said struct {
	asked   asked
	turn    uint64 // Table.turn of the answer
	until   uint64 // ns since boot
	actor   event.Actor
	process event.Process
}

// sayAgain is for how long an answer is given again: names of users, the clock and
// what can be found out about control groups change without an event.
const sayAgain = 1_000_000_000 // ns

// asked is all of an event that an answer depends on, but for the key and the thread.
type asked struct {
	creds          event.Creds
	session        uint64
	cgroup         uint64
	exeDev, exeIno uint64
	login, audit   uint32
	mntNS          uint32
	tty            [len(event.Event{}.TTY)]byte
	comm           [len(event.Event{}.Comm)]byte
	kthread        bool
}

func askedBy(ev *event.Event) asked {
	return asked{ev.Creds, ev.Session, ev.Cgroup, ev.ExeDev, ev.ExeIno, ev.Login, ev.Audit, ev.MntNS, ev.TTY, ev.Comm, ev.Kthread}
}

func (s *said) holds(t *Table, ev *event.Event) bool {
	return s.turn == t.turn && ev.Time < s.until && s.asked == askedBy(ev)
}

// share replaces lists of an answer by those of the one before where they are equal.
func (n *node) share(a *event.Actor, p *event.Process) {
	if n.said == nil {
		return
	}
	if o := n.said.actor.Via; slices.Equal(o, a.Via) {
		a.Via = o
	}
	if o := n.said.actor.Peers; slices.Equal(o, a.Peers) {
		a.Peers = o
	}
	same := func(x, y event.Ancestor) bool {
		return x.PID == y.PID && x.ExecID == y.ExecID && x.Exe == y.Exe && x.User == y.User && slices.Equal(x.Argv, y.Argv)
	}
	if o := n.said.process.Ancestors; slices.EqualFunc(o, p.Ancestors, same) {
		p.Ancestors = o
	}
}

// ensure returns the program that an event is about; if it was never reported,
// it is made from what the event says. known is false then.
func (t *Table) ensure(ev *event.Event) (n *node, known bool) {
	if n = t.find(ev.Key); n != nil {
		return n, true
	}
	t.n.lost.Add(1)
	img := &image{dev: ev.ExeDev, ino: ev.ExeIno}
	cur := t.current(ev.Key)
	switch {
	case cur == nil:
		return t.orphan(ev, img), false
	case cur.key.Execs < ev.Key.Execs:
		n = t.node(ev.Key, cur, img)
		t.note(n, ev)
		t.succeed(cur, n)
		return n, true
	}
	n = t.between(ev.Key)
	n.image = img
	t.note(n, ev)
	return n, true
}

// fill completes a program from /proc, once. It reports whether the process was
// found there.
func (t *Table) fill(n *node) bool {
	i := n.image
	if i.exe != "" && i.flags&imagePartial == 0 || n.is(flagLooked) || n.is(flagKthread) {
		return false
	}
	n.flags |= flagLooked
	if t.o.Proc == nil || t.current(n.key) == nil || t.current(n.key).key != n.key {
		return false // /proc shows a later program, or another process
	}
	p, err := t.o.Proc(n.key.PID)
	if err != nil || p.Ticks != n.key.Start/nsPerTick {
		t.n.procRefused.Add(1)
		return false
	}
	if i.ino != 0 && !sameInode(p.ExeDev, p.ExeIno, i.dev, i.ino) {
		t.n.procRefused.Add(1)
		return true
	}
	if i.exe == "" {
		i.exe = p.Exe
		t.place(n)
	}
	i.flags |= imageProc
	if i.argv == "" || i.flags&imageCut != 0 {
		i.argv = string(p.Argv)
	}
	if i.cwd == "" {
		i.cwd = p.Cwd
	}
	if i.ino == 0 {
		i.dev, i.ino = p.ExeDev, p.ExeIno
	}
	i.flags &^= imagePartial | imageCut
	i.split = nil
	t.turn++
	t.n.procRead.Add(1)
	return true
}

func (t *Table) actor(ev *event.Event, n *node, s *session, c []*node) event.Actor {
	cr := &ev.Creds
	a := event.Actor{
		User: t.user(ev.Login), Loginuid: ev.Login,
		UID: cr.UID, EUID: cr.EUID, SUID: cr.SUID, FSUID: cr.FSUID,
		GID: cr.GID, EGID: cr.EGID, FSGID: cr.FSGID,
		TTY: ttyText(ev.TTYString()),
	}
	part, whole := inSession(c)
	a.Via = t.via(part, whole, idsOf(cr))
	switch {
	case s != nil:
		// The person is who opened the session, also if root wrote another
		// number to loginuid since.
		a.User = t.person(s)
		a.Session, a.Origin, a.Evidence = loginSession(s.id), s.origin, s.evidence
		if s.peer.IsValid() {
			a.SourceIP, a.SourcePort = s.peer.Addr().String(), s.peer.Port()
		}
	case ev.Kthread:
		a.Session = kernelSession
		a.Origin, a.Evidence = t.service(ev, c)
	default:
		a.Session = serviceSession(t.root(c))
		a.Origin, a.Evidence = t.service(ev, c)
	}
	return a
}

func (t *Table) process(ev *event.Event, n *node, c []*node, hash bool) event.Process {
	g := t.cgroup(ev.Cgroup)
	p := event.Process{
		PID: ev.Key.PID, TID: ev.TID, ExecID: ExecID(ev.Key), Comm: text(ev.CommString()),
		Start: t.wall(ev.Key.Start), Unit: g.unit, Cgroup: g.path, Container: g.container,
	}
	if ev.MntNS != 0 {
		p.MntNS = "mnt:[" + strconv.FormatUint(uint64(ev.MntNS), 10) + "]"
	}
	i := n.image
	if !n.is(flagKthread) {
		p.Exe, p.Argv, p.Cwd, p.Script = exeText(i), i.args(), text(i.cwd), i.scriptText()
		switch {
		case i.exe == "":
			p.Evidence = event.EvidenceNone
		case i.flags&imageProc != 0:
			p.Evidence = event.EvidenceProcScan
		}
		if hash {
			t.hash(n)
		}
		if i.hash != nil {
			p.ExeHash = *i.hash
		}
	}
	p.Ancestors = t.ancestors(c)
	return p
}

// hash has the executable of n hashed, once.
func (t *Table) hash(n *node) {
	i := n.image
	if i.flags&imageHashed != 0 || t.o.HashExe == nil || i.ino == 0 {
		return
	}
	i.flags |= imageHashed
	h, err := t.o.HashExe(n.key.PID, i.exe, i.dev, i.ino)
	if err != nil {
		t.n.hashError.Add(1)
		return
	}
	t.n.hashed.Add(1)
	i.hash = &h
}

// ancestors lists the rest of the session, parent first.
func (t *Table) ancestors(c []*node) []event.Ancestor {
	part, _ := inSession(c)
	var out []event.Ancestor
	uid, name := event.Unset, ""
	for i := 1; i < len(part); i++ {
		n, below := part[i], part[i-1]
		if n.is(flagCopy) && procOf(n.key) == procOf(below.key) {
			continue // what the process was between its fork and its exec
		}
		if len(out) == maxAncestors {
			out[maxAncestors-1] = event.Ancestor{Exe: CutMark}
			return out
		}
		t.fill(n)
		real := n.ids.uid
		if below.is(flagCopy) {
			real = below.ids.uid // it had these when it forked
		}
		if real != uid || name == "" {
			uid, name = real, t.user(real)
		}
		a := event.Ancestor{PID: n.key.PID, Exe: exeText(n.image), Argv: n.image.args(), User: name}
		if !n.is(flagUnnamed) {
			a.ExecID = ExecID(n.key)
		}
		out = append(out, a)
	}
	top := part[len(part)-1]
	end, s := top.up, top.sess
	var more event.Ancestor
	switch {
	case end != nil && end.is(flagCut) && end.sess == s:
		more = event.Ancestor{Exe: CutMark}
	case s != nil && procOf(top.key) == s.opener:
		return out
	case end != nil && end.is(flagStub) && !end.is(flagCut) && !outermost(end):
		more = event.Ancestor{PID: end.key.PID, Exe: event.Unknown}
	case s != nil: // what began it in its login has ended, and nobody saw it
		more = event.Ancestor{Exe: event.Unknown}
	default:
		return out
	}
	if len(out) == maxAncestors {
		out[maxAncestors-1] = event.Ancestor{Exe: CutMark}
		return out
	}
	return append(out, more)
}

// scriptText is the script's path, absolute where its directory is known: the kernel
// has it as the process named it.
func (i *image) scriptText() string {
	if i.script == "" || i.script[0] == '/' || i.cwd == "" {
		return text(i.script)
	}
	return text(path.Join(i.cwd, i.script))
}

// args splits the arguments, once.
func (i *image) args() []string {
	if i.split == nil && i.argv != "" {
		i.split = i.arguments()
	}
	return i.split
}

func (i *image) arguments() []string {
	s := i.argv
	s = strings.TrimSuffix(s, "\x00")
	n := strings.Count(s, "\x00") + 1
	if i.flags&imageCut != 0 {
		n++
	}
	out := make([]string, 0, n)
	for {
		a, rest, more := strings.Cut(s, "\x00")
		out = append(out, text(a))
		if !more {
			break
		}
		s = rest
	}
	if i.flags&imageCut != 0 {
		out = append(out, CutArg)
	}
	return out
}

// text is event.Text of what the kernel wrote, without a copy if there is
// nothing to escape.
func text(s string) string {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '\\' {
			return event.Text([]byte(s))
		}
	}
	return s
}
