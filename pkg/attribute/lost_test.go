package attribute

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
)

// fakeProc is a /proc of the tasks in it.
type fakeProc map[uint32]*task

func (f fakeProc) read(pid uint32) (ProcInfo, error) {
	p := f[pid]
	if p == nil {
		return ProcInfo{}, fs.ErrNotExist
	}
	return ProcInfo{Ticks: p.key.Start / nsPerTick, Exe: p.exe, Argv: []byte(strings.Join(p.argv, "\x00") + "\x00"), Cwd: p.cwd,
		ExeDev: 8<<20 | 1, ExeIno: p.ino}, nil
}

func TestLostEventsNeverGiveAWrongAnswer(t *testing.T) {
	const addr = "10.0.0.1:5555"
	for _, c := range []struct {
		name string
		proc func(p *task) fakeProc // what /proc shows when asked about the writer
		run  func(m *machine, sh *task) *task
		want string
	}{
		{"a lost exec leaves the program unknown and the person known",
			nil,
			func(m *machine, sh *task) *task {
				c := sh.fork()
				m.deaf = true
				return c.exec("/usr/bin/sed", "-i")
			},
			"alice 1000/1000 login-7 ssh 10.0.0.1:5555 accepted_socket | unknown (none) < bash < sshd < sshd"},
		{"a lost exec is made up for by /proc if it shows that very program",
			func(p *task) fakeProc { return fakeProc{p.key.PID: p} },
			func(m *machine, sh *task) *task {
				c := sh.fork()
				m.deaf = true
				return c.exec("/usr/bin/sed", "-i")
			},
			"alice 1000/1000 login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/sed -i (proc_scan) < bash < sshd < sshd"},
		{"/proc is not believed if the process runs another executable by now",
			func(p *task) fakeProc {
				q := *p
				q.exe, q.ino = "/usr/bin/other", inode("/usr/bin/other")
				return fakeProc{p.key.PID: &q}
			},
			func(m *machine, sh *task) *task {
				c := sh.fork()
				m.deaf = true
				return c.exec("/usr/bin/sed", "-i")
			},
			"alice 1000/1000 login-7 ssh 10.0.0.1:5555 accepted_socket | unknown (none) < bash < sshd < sshd"},
		{"/proc is not believed if another process has the pid by now",
			func(p *task) fakeProc {
				q := *p
				q.key.Start += nsPerTick
				return fakeProc{p.key.PID: &q}
			},
			func(m *machine, sh *task) *task {
				c := sh.fork()
				m.deaf = true
				return c.exec("/usr/bin/sed", "-i")
			},
			"alice 1000/1000 login-7 ssh 10.0.0.1:5555 accepted_socket | unknown (none) < bash < sshd < sshd"},
		{"a lost fork and exec leave the program unknown below its parent",
			nil,
			func(m *machine, sh *task) *task {
				m.deaf = true
				return sh.run("/usr/bin/sed")
			},
			"alice 1000/1000 login-7 ssh 10.0.0.1:5555 accepted_socket | unknown (none) < bash < sshd < sshd"},
		{"a lost fork below a lost sudo says that root is unexplained",
			nil,
			func(m *machine, sh *task) *task {
				m.deaf = true
				return sh.run("/usr/bin/sudo").fork().become(0).exec("/usr/bin/sed")
			},
			"alice 0/0 [unknown] login-7 ssh 10.0.0.1:5555 accepted_socket | unknown (none) < unknown"},
		{"a lost exec of the parent does not lend the child the parent's old program",
			nil,
			func(m *machine, sh *task) *task {
				m.deaf = true
				c := sh.run("/usr/bin/perl")
				m.deaf = false
				return c.fork()
			},
			"alice 1000/1000 login-7 ssh 10.0.0.1:5555 accepted_socket | unknown (none) < unknown < unknown"},
		{"a lost end does not mix the process up with the next of that pid",
			nil,
			func(m *machine, sh *task) *task {
				old := sh.run("/usr/bin/old")
				return sh.forkAs(old.key.PID).exec("/usr/bin/new")
			},
			"alice 1000/1000 login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/new < bash < sshd < sshd"},
		{"a late write of a process is its own although the pid was given again",
			nil,
			func(m *machine, sh *task) *task {
				old := sh.run("/usr/bin/old")
				old.exit()
				sh.forkAs(old.key.PID).exec("/usr/bin/new")
				return old
			},
			"alice 1000/1000 login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/old < bash < sshd < sshd"},
		{"a late write of a program is its own although the process executed another",
			nil,
			func(m *machine, sh *task) *task {
				p := sh.run("/usr/bin/old", "1")
				q := *p
				p.exec("/usr/bin/new")
				return &q
			},
			"alice 1000/1000 login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/old 1 < bash < sshd < sshd"},
		{"a child keeps the program that forked it although that process executed another",
			nil,
			func(m *machine, sh *task) *task {
				p := sh.run("/usr/bin/make")
				c := p.run("/usr/bin/cc")
				p.exec("/usr/bin/other")
				return c
			},
			"alice 1000/1000 login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/cc < make < bash < sshd < sshd"},
		{"a child keeps its ancestors although their pids were given to others",
			nil,
			func(m *machine, sh *task) *task {
				p := sh.run("/usr/bin/make")
				c := p.run("/usr/bin/cc")
				p.exit()
				sh.forkAs(p.key.PID).exec("/usr/bin/innocent")
				return c
			},
			"alice 1000/1000 login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/cc < make < bash < sshd < sshd"},
		{"a loginuid that root wrote over does not change the person",
			nil,
			func(m *machine, sh *task) *task {
				r := sh.run("/usr/bin/sudo").fork().become(0).exec("/usr/bin/tee")
				r.login, r.audit = 1001, 99
				return r
			},
			"alice 0/0 [sudo] login-7 ssh 10.0.0.1:5555 accepted_socket | /usr/bin/tee < sudo < bash < sshd < sshd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var proc fakeProc
			m := newMachine(t, Options{Proc: func(pid uint32) (ProcInfo, error) { return proc.read(pid) }})
			_, sh := m.sshd(m.init()).accept(7, 1000, addr)
			p := c.run(m, sh)
			if c.proc != nil {
				proc = c.proc(p)
			}
			if got := says(p.writes()); got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestALostLoginIsKnownByItsProgramAndHasNoAddress(t *testing.T) {
	m := newMachine(t, Options{})
	ssh := m.sshd(m.init())
	mon := ssh.run("/usr/sbin/sshd", "-R")
	m.deaf = true
	mon.opens(7, 1000, "10.0.0.1:5555", event.HowHeld)
	m.deaf = false
	sh := mon.fork().become(1000).fork().exec("/usr/bin/bash")
	want := "alice 1000/1000 login-7 ssh - ancestor | /usr/bin/bash < sshd < sshd"
	if got := says(sh.writes()); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

// The daemon starts in the middle of logins: everything is learned from the
// iterators, in whatever order they come.
func TestARestartedDaemonGivesTheSameAnswers(t *testing.T) {
	const addr = "[2001:db8::5]:5555"
	m := newMachine(t, Options{})
	var proc fakeProc
	m.table.o.Proc = func(pid uint32) (ProcInfo, error) { return proc.read(pid) }
	init := m.init()
	ssh := m.sshd(init)
	mon, sh := ssh.accept(7, 1000, addr)
	user := sh.parent
	sudo := sh.run("/usr/bin/sudo", "bash")
	root := sudo.fork().become(0).exec("/usr/bin/bash")
	cron := init.fork().group(5, "/system.slice/cron.service").exec("/usr/sbin/cron")
	job := cron.fork().opens(8, 1001, "", event.HowNone)
	sleep := job.fork().become(1001).exec("/bin/sleep", "99")
	all := []*task{init, ssh, mon, user, sh, sudo, root, cron, job, sleep}
	proc = fakeProc{}
	for _, p := range all {
		proc[p.key.PID] = p
	}
	for _, order := range []string{"parents first", "children first", "sockets between", "somebody asks between"} {
		t.Run(order, func(t *testing.T) {
			m.restart()
			switch order {
			case "parents first":
				for _, p := range all {
					p.scan()
				}
				mon.holds(addr)
				user.holds(addr)
			case "children first":
				for i := len(all) - 1; i >= 0; i-- {
					all[i].scan()
				}
				user.holds(addr)
				mon.holds(addr)
			case "somebody asks between":
				for _, p := range all {
					p.scan()
				}
				if a, _ := sh.writes(); a.Origin != event.OriginSSH || a.SourceIP != "" {
					t.Errorf("%s from %s, and no connection was told of", a.Origin, a.SourceIP)
				}
				mon.holds(addr)
				user.holds(addr)
			case "sockets between":
				mon.holds(addr)
				user.holds(addr)
				for _, p := range all {
					p.scan()
				}
			}
			sed := root.run("/usr/bin/sed", "-i")
			want := "alice 0/0 [sudo] login-7 ssh [2001:db8::5]:5555 proc_scan | /usr/bin/sed -i < bash < sudo < bash < sshd < sshd"
			if got := says(sed.writes()); got != want {
				t.Errorf("\n got %s\nwant %s", got, want)
			}
			want = "alice 1000/1000 login-7 ssh [2001:db8::5]:5555 proc_scan | /usr/bin/bash -l (proc_scan) < sshd < sshd"
			if got := says(sh.writes()); got != want {
				t.Errorf("\n got %s\nwant %s", got, want)
			}
			want = "bob 1001/1001 login-8 cron - proc_scan | /bin/sleep 99 (proc_scan) < cron"
			if got := says(sleep.writes()); got != want {
				t.Errorf("\n got %s\nwant %s", got, want)
			}
		})
	}
}

func TestALoginWhoseSshdIsGoneHasNoOriginAfterARestart(t *testing.T) {
	m := newMachine(t, Options{})
	init := m.init()
	_, sh := m.sshd(init).accept(7, 1000, "10.0.0.1:5555")
	job := sh.run("/usr/bin/sudo", "job").fork().become(0).exec("/usr/bin/job")
	m.restart()
	init.scan()
	job.parent = init
	job.scan()
	want := "alice 0/0 [unknown] login-7 unknown - proc_scan | /usr/bin/job (proc_scan) < unknown"
	if got := says(job.writes()); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

func TestADaemonBegunInASessionDidNotOpenIt(t *testing.T) {
	for _, exe := range []string{"/usr/sbin/cron", "/usr/sbin/sshd", "/usr/sbin/atd"} {
		m := newMachine(t, Options{})
		init := m.init()
		_, sh := m.sshd(init).accept(7, 1000, "10.0.0.1:5555")
		daemon := sh.run("/usr/bin/sudo").fork().become(0).exec(exe).fork()
		job := sh.run("/usr/bin/nohup").exec("/usr/bin/job")
		m.restart()
		daemon.parent, job.parent = init, init
		for _, p := range []*task{init, daemon, job} {
			p.scan()
		}
		want := "alice 1000/1000 login-7 unknown - proc_scan | /usr/bin/job (proc_scan) < unknown"
		if got := says(job.writes()); got != want {
			t.Errorf("%s:\n got %s\nwant %s", exe, got, want)
		}
		if a, _ := daemon.writes(); a.Origin != event.OriginUnknown {
			t.Errorf("%s, which alice began, has the origin %s", exe, a.Origin)
		}
	}
}

// Any process of a login may be the first that the kernel side meets, before the iterators
// have told of the others.
func TestALoginOfBeforeIsNotTakenForANewOne(t *testing.T) {
	m := newMachine(t, Options{})
	init := m.init()
	ssh := m.sshd(init)
	mon, sh := ssh.accept(7, 1000, "10.0.0.1:5555")
	nc := sh.run("/home/alice/sshd", "-l")
	m.restart()
	init.scan()
	nc.opens(7, 1000, "9.9.9.9:9", event.HowHeld) // a connection that her own program accepted
	sh.opens(7, 1000, "", event.HowNone)
	sh.fork()
	for _, p := range []*task{ssh, mon, sh.parent, sh, nc} {
		p.scan()
	}
	mon.holds("10.0.0.1:5555")
	nc.holds("9.9.9.9:9")
	want := "alice 1000/1000 login-7 ssh 10.0.0.1:5555 proc_scan | /usr/bin/bash (proc_scan) < sshd < sshd"
	if got := says(sh.writes()); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

func TestAPersonsOwnProgramOpensNoLogin(t *testing.T) {
	m := newMachine(t, Options{})
	init := m.init()
	_, sh := m.sshd(init).accept(7, 1000, "10.0.0.1:5555")
	own := sh.run("/home/alice/sshd")
	m.restart()
	own.parent = init
	init.scan()
	own.scan()
	own.holds("9.9.9.9:9")
	want := "alice 1000/1000 login-7 unknown - proc_scan | /home/alice/sshd (proc_scan) < unknown"
	if got := says(own.writes()); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

// What the kernel no more knows, the log of the earlier daemon does.
func TestALoginWhoseSshdIsGoneIsRememberedFromTheLog(t *testing.T) {
	m := newMachine(t, Options{})
	init := m.init()
	_, sh := m.sshd(init).accept(7, 1000, "10.0.0.1:5555")
	_, over := m.sshd(init).accept(8, 1001, "10.0.0.2:5555")
	job := sh.run("/usr/bin/nohup").exec("/usr/bin/job")
	other := over.run("/usr/bin/job")
	earlier := m.records
	m.restart()
	for _, r := range earlier {
		m.table.Remember(r)
	}
	m.table.Remember(&event.Record{Kind: event.RecSession, Session: &event.Session{State: event.SessionEnd}, Actor: &event.Actor{Session: "login-8"}})
	job.parent, other.parent = init, init
	for _, p := range []*task{init, job, other} {
		p.scan()
	}
	want := "alice 1000/1000 login-7 ssh 10.0.0.1:5555 journal | /usr/bin/job (proc_scan) < unknown"
	if got := says(job.writes()); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	want = "bob 1001/1001 login-8 unknown - proc_scan | /usr/bin/job (proc_scan) < unknown"
	if got := says(other.writes()); got != want {
		t.Errorf("a session that ended:\n got %s\nwant %s", got, want)
	}
}

func TestTwoConnectionsOfALoginProcessAreNoAddress(t *testing.T) {
	m := newMachine(t, Options{})
	init := m.init()
	ssh := m.sshd(init)
	mon, sh := ssh.accept(7, 1000, "10.0.0.1:5555")
	m.restart()
	for _, p := range []*task{init, ssh, mon, sh.parent, sh} {
		p.scan()
	}
	mon.holds("10.0.0.1:5555")
	mon.holds("10.0.0.2:389")
	a, _ := sh.writes()
	if a.Origin != event.OriginSSH || a.SourceIP != "" {
		t.Errorf("origin %s from %q, want ssh from nowhere known", a.Origin, a.SourceIP)
	}
}

func TestReapEndsWhatIsGone(t *testing.T) {
	proc := fakeProc{}
	m := newMachine(t, Options{Proc: proc.read})
	init := m.init()
	mon, sh := m.sshd(init).accept(7, 1000, "10.0.0.1:5555")
	for _, p := range []*task{init, mon.parent, mon, sh.parent, sh} {
		proc[p.key.PID] = p
	}
	if r := m.table.Reap(m.tick(), 100); len(r) != 0 {
		t.Fatalf("reaped %d sessions of living processes", len(r))
	}
	for _, p := range []*task{mon, sh.parent, sh} {
		delete(proc, p.key.PID)
	}
	var ended []*event.Record
	for range 10 { // one process a call
		ended = append(ended, m.table.Reap(m.tick(), 1)...)
	}
	if len(ended) != 1 || ended[0].Reason != "ssh login of alice from 10.0.0.1:5555 ended" {
		t.Fatalf("ended %v", ended)
	}
	if s := m.table.Stats(); s.Reaped != 3 || s.Live != 2 {
		t.Errorf("reaped %d, live %d, want 3 and 2", s.Reaped, s.Live)
	}
	if _, err := proc.read(99); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}
