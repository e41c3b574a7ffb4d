package attribute

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
)

func TestSessionRecords(t *testing.T) {
	const addr = "10.0.0.1:5555"
	for _, c := range []struct {
		name string
		run  func(m *machine, init *task)
		want string
	}{
		{"a login begins with its first process and ends with its last",
			func(m *machine, init *task) {
				mon, sh := m.sshd(init).accept(7, 1000, addr)
				job := sh.run("/usr/bin/nohup", "job")
				sh.exit()
				sh.parent.exit()
				mon.exit()
				job.exit()
			},
			"ssh login of alice from 10.0.0.1:5555; ssh login of alice from 10.0.0.1:5555 ended"},
		{"a login that still has a process has not ended",
			func(m *machine, init *task) {
				mon, sh := m.sshd(init).accept(7, 1000, addr)
				sh.run("/usr/bin/nohup", "job")
				sh.exit()
				sh.parent.exit()
				mon.exit()
			},
			"ssh login of alice from 10.0.0.1:5555"},
		{"a login without a socket says so",
			func(m *machine, init *task) { m.sshd(init).accept(7, 1000, "") },
			"ssh login of alice from an unknown address"},
		{"a console login names the terminal",
			func(m *machine, init *task) {
				l := init.fork()
				l.tty = "tty1"
				l.exec("/bin/login").opens(2, 0, "", event.HowNone)
			},
			"console login of root on tty1"},
		{"a cron job begins and ends",
			func(m *machine, init *task) {
				j := init.run("/usr/sbin/cron").fork().opens(3, 1000, "", event.HowNone)
				c := j.fork()
				c.exit()
				j.exit()
			},
			"cron job of alice; cron job of alice ended"},
		{"an unknown program that sets loginuid is named",
			func(m *machine, init *task) { init.run("/opt/pamlogin").opens(3, 1000, "", event.HowNone) },
			"login of alice by pamlogin"},
		{"root who writes another loginuid into the session is reported",
			func(m *machine, init *task) {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				r := sh.run("/usr/bin/sudo").fork().become(0).exec("/usr/bin/tee")
				r.opens(7, 1001, "", event.HowNone)
			},
			"ssh login of alice from 10.0.0.1:5555; loginuid set to bob inside the ssh login of alice from 10.0.0.1:5555"},
		{"a job of a cron that somebody's session began is its owner's",
			func(m *machine, init *task) {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				j := sh.run("/usr/bin/sudo").fork().become(0).exec("/usr/sbin/cron").fork()
				j.rewrites(9, 1001)
				c := j.run("/bin/sh")
				if a, _ := c.writes(); a.User != "bob" || a.Session != "login-9" || a.Origin != event.OriginCron || a.SourceIP != "" {
					m.t.Errorf("the job is put down to %+v", a)
				}
				c.exit()
				j.exit()
			},
			"ssh login of alice from 10.0.0.1:5555; cron job of bob; cron job of bob ended"},
		{"what only calls itself cron is no daemon of jobs",
			func(m *machine, init *task) {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				sh.run("/usr/bin/sudo").fork().become(0).exec("/tmp/cron").rewrites(9, 1001)
			},
			"ssh login of alice from 10.0.0.1:5555; loginuid set to bob inside the ssh login of alice from 10.0.0.1:5555"},
		{"a login inside a login is a session of its own",
			func(m *machine, init *task) {
				_, sh := m.sshd(init).accept(7, 1000, addr)
				in := sh.run("/usr/bin/sudo").fork().become(0).exec("/usr/sbin/sshd").run("/usr/sbin/sshd", "-R")
				in.opens(8, 1001, "10.0.0.9:1", event.HowHeld)
				in.exit()
			},
			"ssh login of alice from 10.0.0.1:5555; ssh login of bob from 10.0.0.9:1; ssh login of bob from 10.0.0.9:1 ended"},
		{"an end that was not reported shows when the pid is given again",
			func(m *machine, init *task) {
				j := init.run("/usr/sbin/cron").fork().opens(3, 1000, "", event.HowNone)
				init.forkAs(j.key.PID)
			},
			"cron job of alice; cron job of alice ended"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, Options{})
			c.run(m, m.init())
			if got := m.reasons(); got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestSessionRecordsSayWhoWhenAndWhere(t *testing.T) {
	m := newMachine(t, Options{})
	mon, sh := m.sshd(m.init()).accept(7, 1000, "10.0.0.1:5555")
	sh.exit()
	sh.parent.exit()
	running := m.table.Sessions()
	mon.exit()
	if len(m.records) != 3 || m.records[0].Reason != "ssh.service (sshd) began" {
		t.Fatalf("%d records, want 3", len(m.records))
	}
	m.records = m.records[1:]
	begin, end := m.records[0], m.records[1]
	if begin.Kind != event.RecSession || begin.Op != "" || begin.TimeEnd != 0 || begin.Time == 0 {
		t.Errorf("begin: kind %q op %q time %v to %v", begin.Kind, begin.Op, begin.Time, begin.TimeEnd)
	}
	if end.Time != begin.Time || end.TimeEnd != wallOf(m.now) {
		t.Errorf("end: from %v to %v, want from %v to %v", end.Time, end.TimeEnd, begin.Time, wallOf(m.now))
	}
	// the monitor, the person's process and the shell, which alone executed anything since the login
	if b, e := *begin.Session, *end.Session; b != (event.Session{State: "start", Processes: 1}) || e != (event.Session{State: "end", Processes: 3, Execs: 1}) {
		t.Errorf("%+v, then %+v", b, e)
	}
	for _, r := range m.records {
		a := r.Actor
		if a.User != "alice" || a.Loginuid != 1000 || a.Session != "login-7" || a.Origin != "ssh" || a.SourceIP != "10.0.0.1" || a.SourcePort != 5555 {
			t.Errorf("actor %+v", a)
		}
		if r.Process.PID != mon.key.PID || r.Process.Exe != "/usr/sbin/sshd" {
			t.Errorf("process %+v", r.Process)
		}
	}
	want := Session{ID: "login-7", User: "alice", Loginuid: 1000, Origin: "ssh", Evidence: "accepted_socket",
		Source: netip.MustParseAddrPort("10.0.0.1:5555"), Start: begin.Time}
	if !reflect.DeepEqual(running, []Session{want}) {
		t.Errorf("running: %+v, want %+v", running, want)
	}
	want.End = end.TimeEnd
	if got := m.table.Sessions(); !reflect.DeepEqual(got, []Session{want}) {
		t.Errorf("ended: %+v, want %+v", got, want)
	}
	if n := m.table.Stats().Sessions; n != 0 {
		t.Errorf("%d sessions run, want 0", n)
	}
}

// The kernel side notices a login at the next event of the process. If that is an
// exec, the login comes with the key of the new program and before its report.
// The users of a container are its own: uid 1000 of this machine is somebody else.
func TestALoginInAContainerIsNamedByItsNumber(t *testing.T) {
	m := newMachine(t, Options{})
	init := m.init()
	id := strings.Repeat("ab", 32)
	ssh := init.fork().group(9, "/machine.slice/libpod-"+id+".scope").exec("/usr/sbin/sshd", "-D")
	mon := ssh.run("/usr/sbin/sshd", "-R").opens(7, 1000, "10.0.0.1:5555", event.HowHeld)
	sh := mon.fork().become(1000).fork().exec("/bin/sh")
	if a, _ := sh.writes(); a.User != "1000" || a.Loginuid != 1000 || a.SourceIP != "10.0.0.1" {
		t.Errorf("the login in the container is put down to %+v", a)
	}
	if got, want := m.reasons(), "ssh login of 1000 of the container "+id+" from 10.0.0.1:5555"; got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	m.restart()
	for _, p := range []*task{init, ssh, mon, sh.parent, sh} {
		p.scan()
	}
	mon.holds("10.0.0.1:5555")
	if a, _ := sh.writes(); a.User != "1000" || a.SourceIP != "10.0.0.1" {
		t.Errorf("after a restart the login in the container is put down to %+v", a)
	}
}

func TestALoginThatIsNoticedAtAnExecIsByTheProgramBefore(t *testing.T) {
	m := newMachine(t, Options{})
	job := m.init().run("/usr/sbin/atd").fork()
	job.key.Execs++
	job.comm = "sh"
	job.opens(4, 1000, "", event.HowNone)
	job.key.Execs--
	job.become(1000).exec("/bin/sh", "-c", "x")
	want := "alice 1000/1000 login-4 at - login | /bin/sh -c x"
	if got := says(job.writes()); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	if got := m.reasons(); got != "at job of alice" || m.last(event.RecSession).Process.Exe != "/usr/sbin/atd" {
		t.Errorf("%s by %+v", got, m.last(event.RecSession).Process)
	}
	if n := m.table.Stats().Lost; n != 0 {
		t.Errorf("%d programs lost, want none", n)
	}
}

func TestTheListOfSessionsMayBeReadMeanwhile(t *testing.T) {
	m := newMachine(t, Options{})
	ssh := m.sshd(m.init())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 1000 {
			m.table.Sessions()
			m.table.Stats()
		}
	}()
	for n := range uint32(200) {
		mon, sh := ssh.accept(n+1, 1000, "10.0.0.1:5555")
		sh.run("/bin/true").exit()
		sh.exit()
		sh.parent.exit()
		mon.exit()
	}
	<-done
	if n := len(m.table.Sessions()); n != 200 {
		t.Errorf("%d sessions", n)
	}
}

func TestTheServiceSessionIsStableOverExecs(t *testing.T) {
	m := newMachine(t, Options{})
	p := m.init().run("/bin/sh", "run")
	a, _ := p.writes()
	c := p.run("/usr/bin/helper")
	p.exec("/usr/sbin/nginx")
	b, _ := p.writes()
	d, _ := c.writes()
	want := "svc-" + ExecID(event.ProcKey{PID: p.key.PID, Start: p.key.Start})
	want = want[:len(want)-len("-0")]
	if a.Session != want || b.Session != want || d.Session != want {
		t.Errorf("sessions %q, %q, %q, want %q", a.Session, b.Session, d.Session, want)
	}
}

func TestTheAnswerHasAllIdsOfTheEvent(t *testing.T) {
	m := newMachine(t, Options{})
	_, sh := m.sshd(m.init()).accept(7, 1000, "10.0.0.1:5555")
	sh.cwd, sh.creds = "/tmp", event.Creds{UID: 1, EUID: 2, SUID: 3, FSUID: 4, GID: 5, EGID: 6, SGID: 7, FSGID: 8}
	ev := sh.event(event.KindFile)
	ev.TID = 4242
	copy(ev.Comm[:], "worker\x01")
	a, p := m.table.Who(ev)
	wantA := event.Actor{User: "alice", Loginuid: 1000, UID: 1, EUID: 2, SUID: 3, FSUID: 4, GID: 5, EGID: 6, FSGID: 8, Via: []string{"unknown"},
		Session: "login-7", Origin: "ssh", TTY: "pts/0", SourceIP: "10.0.0.1", SourcePort: 5555, Evidence: "accepted_socket"}
	if !reflect.DeepEqual(a, wantA) {
		t.Errorf("actor\n got %+v\nwant %+v", a, wantA)
	}
	if p.TID != 4242 || p.PID != sh.key.PID || p.Comm != `worker\x01` || p.MntNS != "mnt:[4026531840]" || p.Start != wallOf(sh.key.Start) ||
		p.Unit != "session-7.scope" || p.Cgroup != "/user.slice/user-1000.slice/session-7.scope" || p.ExecID != ExecID(sh.key) {
		t.Errorf("process %+v", p)
	}
	if a := p.Ancestors[0]; a.PID != sh.parent.key.PID || a.User != "alice" || a.Exe != "/usr/sbin/sshd" || a.ExecID != ExecID(sh.parent.key) ||
		!reflect.DeepEqual(a.Argv, []string{"sshd", "-D", "-R"}) {
		t.Errorf("ancestor %+v", a)
	}
}

func TestTheAnswerSharesNoMemoryWithTheEvent(t *testing.T) {
	m := newMachine(t, Options{})
	_, sh := m.sshd(m.init()).accept(7, 1000, "10.0.0.1:5555")
	p := sh.fork()
	p.exe, p.argv = "/usr/bin/cat", []string{"cat", "a"}
	p.key.Execs++
	ev := p.told(event.KindExec, true)
	m.observe(ev)
	for i := range ev.Argv {
		ev.Argv[i] = 'x'
	}
	for i := range ev.Exe {
		ev.Exe[i] = 'x'
	}
	if _, q := p.writes(); q.Exe != "/usr/bin/cat" || q.Argv[0] != "cat" {
		t.Errorf("the answer changed with the event: %s %q", q.Exe, q.Argv)
	}
}

// An answer is given again only while it is the same question, and not for long.
func TestWhatChangedIsNotSaidAgain(t *testing.T) {
	m := newMachine(t, Options{})
	_, sh := m.sshd(m.init()).accept(7, 1000, "10.0.0.1:5555")
	ask := func(change func(*event.Event)) (event.Actor, event.Process) {
		ev := sh.event(event.KindFile)
		change(ev)
		return m.table.Who(ev)
	}
	ask(func(*event.Event) {})
	if _, p := ask(func(ev *event.Event) { ev.TID = 77 }); p.TID != 77 {
		t.Errorf("thread %d, want 77", p.TID)
	}
	if a, _ := ask(func(ev *event.Event) { ev.Creds.FSUID = 9 }); a.FSUID != 9 {
		t.Errorf("fsuid %d, want 9", a.FSUID)
	}
	if _, p := ask(func(ev *event.Event) { copy(ev.Comm[:], "other\x00") }); p.Comm != "other" {
		t.Errorf("name %q, want other", p.Comm)
	}
	ask(func(*event.Event) {})
	m.table.o.User = func(uint32) string { return "renamed" }
	if a, _ := ask(func(ev *event.Event) { ev.Time = m.now + 2*sayAgain }); a.User != "renamed" {
		t.Errorf("user %s two seconds after the name changed", a.User)
	}
}

func TestArgumentsThatWereCutSaySo(t *testing.T) {
	m := newMachine(t, Options{})
	p := m.init().fork()
	p.exe, p.argv = "/usr/bin/cat", []string{"cat", "a", ""}
	p.key.Execs++
	ev := p.told(event.KindExec, true)
	ev.Flags = event.FlagTruncated
	m.observe(ev)
	_, pr := p.writes()
	if want := []string{"cat", "a", "", CutArg}; !reflect.DeepEqual(pr.Argv, want) {
		t.Errorf("arguments %q, want %q", pr.Argv, want)
	}
}
