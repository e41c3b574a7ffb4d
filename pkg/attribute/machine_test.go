package attribute

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
)

// machine plays a kernel: it keeps processes as the kernel does and tells the
// table of them, unless deaf.
type machine struct {
	t       testing.TB
	table   *Table
	now     uint64
	lastPID uint32
	deaf    bool // events are lost
	records []*event.Record
	cgroups map[uint64]string
}

// task is a process of the machine.
type task struct {
	m       *machine
	key     event.ProcKey
	parent  *task
	creds   event.Creds
	caps    uint64
	userns  uint32
	login   uint32
	audit   uint32
	session uint64
	cgroup  uint64
	kthread bool
	exe     string
	argv    []string
	cwd     string
	tty     string
	comm    string
	ino     uint64
}

var names = map[uint32]string{0: "root", 33: "www-data", 1000: "alice", 1001: "bob"}

func wallOf(ns uint64) event.Time { return event.Time(1_700_000_000_000_000_000 + int64(ns)) }

func newMachine(t testing.TB, o Options) *machine {
	m := &machine{t: t, now: 1_000_000_000, lastPID: 99, cgroups: map[uint64]string{1: "/", 2: "/init.scope"}}
	o.Wall = wallOf
	o.User = func(uid uint32) string { return names[uid] }
	o.Cgroup = func(id uint64) string { return m.cgroups[id] }
	m.table = New(o)
	return m
}

// restart gives the machine a table that knows nothing yet.
func (m *machine) restart() { m.table, m.records = New(m.table.o), nil }

func (m *machine) tick() uint64 { m.now += 1_000_000; return m.now }

func (m *machine) observe(ev *event.Event) {
	if m.deaf {
		return
	}
	m.records = append(m.records, m.table.Observe(ev)...)
	for i := range ev.Exe { // the bytes are borrowed: the table must have copied them
		ev.Exe[i] = 'X'
	}
	for i := range ev.Argv {
		ev.Argv[i] = 'X'
	}
}

// init is process 1.
func (m *machine) init() *task {
	p := &task{m: m, key: event.ProcKey{PID: 1, Execs: 2, Start: 10}, login: event.Unset, audit: event.Unset, cgroup: 2, userns: 1,
		exe: "/usr/lib/systemd/systemd", argv: []string{"/sbin/init"}, cwd: "/", comm: "systemd", ino: 1}
	p.scan()
	return p
}

func (p *task) event(kind event.Kind) *event.Event {
	ev := &event.Event{Kind: kind, Time: p.m.tick(), Key: p.key, TID: p.key.PID, Creds: p.creds, Login: p.login, Audit: p.audit,
		Session: p.session, Cgroup: p.cgroup, Kthread: p.kthread, ExeDev: 8<<20 | 1, ExeIno: p.ino, MntNS: 4026531840}
	if p.parent != nil {
		ev.Parent = p.parent.key
	}
	copy(ev.Comm[:], p.comm)
	copy(ev.TTY[:], p.tty)
	return ev
}

func (p *task) fork() *task {
	c := *p
	c.parent = p
	c.m.lastPID++
	c.key.PID = c.m.lastPID
	return c.born()
}

// forkAs forks a child that gets a pid which an earlier process had.
func (p *task) forkAs(pid uint32) *task {
	c := *p
	c.parent = p
	c.key.PID = pid
	return c.born()
}

func (p *task) born() *task {
	p.key.Start = p.m.tick()
	p.m.observe(p.event(event.KindFork))
	return p
}

func (p *task) exec(exe string, args ...string) *task {
	p.key.Execs++
	p.exe, p.argv = exe, append([]string{exe[strings.LastIndexByte(exe, '/')+1:]}, args...)
	p.comm, p.ino = p.argv[0], inode(exe)
	switch p.comm {
	case "sudo", "su", "passwd", "rootsh", "doas", "pkexec":
		p.creds.EUID, p.creds.SUID, p.creds.FSUID = 0, 0, 0
	case "crontab":
		p.creds.EGID, p.creds.SGID, p.creds.FSGID = 105, 105, 105
	}
	p.m.observe(p.told(event.KindExec, true))
	return p
}

// clones executes its own file again through a mount that is nowhere.
func (p *task) clones() *task {
	p.key.Execs++
	p.exe = ""
	p.m.observe(p.told(event.KindExec, true))
	return p
}

func inode(exe string) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range []byte(exe) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h>>8 | 1
}

func (p *task) told(kind event.Kind, argv bool) *event.Event {
	ev := p.event(kind)
	ev.Exe, ev.Cwd = []byte(p.exe), []byte(p.cwd)
	if argv {
		for _, a := range p.argv {
			ev.Argv = append(append(ev.Argv, a...), 0)
		}
	}
	return ev
}

// run forks a child that executes exe.
func (p *task) run(exe string, args ...string) *task { return p.fork().exec(exe, args...) }

func (p *task) exit() { p.m.observe(p.event(event.KindExit)) }

// become sets all ids, as setresuid and setresgid of root do.
func (p *task) become(uid uint32) *task {
	p.creds = event.Creds{UID: uid, EUID: uid, SUID: uid, FSUID: uid, GID: uid, EGID: uid, SGID: uid, FSGID: uid}
	return p
}

// opens makes p the first process of login n.
func (p *task) opens(n uint32, uid uint32, peer string, how uint8) *task {
	p.login, p.audit, p.session = uid, n, uint64(n)
	ev := p.event(event.KindSession)
	if peer != "" {
		ev.Peer = netip.MustParseAddrPort(peer)
		ev.LocalPort = 22
	}
	ev.How = how
	p.m.observe(ev)
	return p
}

// rewrites makes p write another loginuid, without a connection: the kernel side keeps
// its session.
func (p *task) rewrites(n, uid uint32) {
	p.login, p.audit = uid, n
	p.m.observe(p.event(event.KindSession))
}

// scan tells of p as the iterator does.
func (p *task) scan() { p.m.observe(p.told(event.KindProc, false)) }

// holds tells of a connection as the iterator does.
func (p *task) holds(peer string) {
	ev := p.event(event.KindSocket)
	ev.Peer, ev.LocalPort, ev.How = netip.MustParseAddrPort(peer), 22, event.HowFound
	p.m.observe(ev)
}

func (p *task) group(id uint64, path string) *task {
	p.m.cgroups[id] = path
	p.cgroup = id
	return p
}

// writes asks who it is that changes a file.
func (p *task) writes() (event.Actor, event.Process) {
	return p.m.table.Who(p.event(event.KindFile))
}

// says puts an answer on a line:
//
//	person uid/euid [via] session origin source evidence | exe args < parent < ...
func says(a event.Actor, p event.Process) string {
	src := "-"
	if a.SourceIP != "" {
		src = netip.AddrPortFrom(netip.MustParseAddr(a.SourceIP), a.SourcePort).String()
	}
	via := ""
	if len(a.Via) > 0 {
		via = fmt.Sprintf(" %v", a.Via)
	}
	session := a.Session
	if f := strings.Split(session, "-"); f[0] == "svc" {
		session = f[0] + "-" + f[1] // the start is left out
	}
	s := fmt.Sprintf("%s %d/%d%s %s %s %s %s | %s", a.User, a.UID, a.EUID, via, session, a.Origin, src, a.Evidence, p.Exe)
	if len(p.Argv) > 1 {
		s += " " + strings.Join(p.Argv[1:], " ")
	}
	if p.Evidence != "" {
		s += " (" + p.Evidence + ")"
	}
	for _, x := range p.Ancestors {
		s += " < " + x.Exe[strings.LastIndexByte(x.Exe, '/')+1:]
	}
	return s
}

// reasons are those of the records about logins.
func (m *machine) reasons() string {
	var r []string
	for _, x := range m.records {
		if x.Kind == event.RecSession && (x.Actor == nil || !strings.HasPrefix(x.Actor.Session, "svc-")) {
			r = append(r, x.Reason)
		}
	}
	return strings.Join(r, "; ")
}

// sshd is the listener; accept is what OpenSSH 9.2 does for a connection until
// the person's shell runs: monitor, user process, shell.
func (m *machine) sshd(init *task) *task {
	return init.fork().group(3, "/system.slice/ssh.service").exec("/usr/sbin/sshd", "-D")
}

func (p *task) accept(n, uid uint32, peer string) (monitor, shell *task) {
	monitor = p.run("/usr/sbin/sshd", "-D", "-R")
	monitor.opens(n, uid, peer, event.HowHeld)
	monitor.group(uint64(100+n), fmt.Sprintf("/user.slice/user-%d.slice/session-%d.scope", uid, n))
	user := monitor.fork().become(uid)
	sh := user.fork()
	sh.tty = "pts0"
	return monitor, sh.exec("/usr/bin/bash", "-l")
}
