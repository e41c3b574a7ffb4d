package attribute

import (
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
)

const allCaps = 1<<41 - 1

// commits tells that p becomes after, as fentry/commit_creds does, and makes it so. With
// execs the program that is being executed is named.
func (p *task) commits(after event.IDs) *task {
	ev := p.event(event.KindCred)
	ev.CredHow, ev.After = event.CredCommit, after
	ev.Before = event.IDs{Creds: p.creds, Caps: p.caps, UserNS: p.userns}
	p.creds, p.caps, p.userns = after.Creds, after.Caps, after.UserNS
	p.m.observe(ev)
	return p
}

// execsAs executes a program that the file gives other credentials.
func (p *task) execsAs(after event.IDs, exe string, args ...string) *task {
	p.key.Execs++
	p.commits(after)
	p.key.Execs--
	return p.exec(exe, args...)
}

// execsDone is the same where only what was done is told.
func (p *task) execsDone(after event.IDs, exe string) *task {
	p.key.Execs++
	p.done(after)
	p.key.Execs--
	return p.exec(exe)
}

// done tells what p has become, as sys_exit does.
func (p *task) done(after event.IDs) *task {
	p.creds, p.caps, p.userns = after.Creds, after.Caps, after.UserNS
	ev := p.event(event.KindCred)
	ev.CredHow, ev.Before, ev.After = event.CredDone, after, after
	p.m.observe(ev)
	return p
}

func idsAs(uid, euid uint32, caps uint64) event.IDs {
	return event.IDs{Caps: caps, UserNS: 1, Creds: event.Creds{UID: uid, EUID: euid, SUID: euid, FSUID: euid, GID: uid, EGID: uid, SGID: uid, FSGID: uid}}
}

func credLine(r *event.Record) string {
	c := r.Credential
	return fmt.Sprintf("%s %d/%d %s > %d/%d %s by %s %v", r.Actor.User, c.Before.UID, c.Before.EUID, c.Before.Caps, c.After.UID, c.After.EUID, c.After.Caps, c.How, r.Actor.Via)
}

func TestCredentialRecords(t *testing.T) {
	alice, root := idsAs(1000, 1000, 0), idsAs(0, 0, allCaps)
	setuid := idsAs(1000, 0, allCaps)
	for _, c := range []struct {
		name string
		run  func(sh *task)
		want string
	}{
		{"sudo", func(sh *task) {
			sh.fork().execsAs(setuid, "/usr/bin/sudo", "id").commits(root).fork().exec("/usr/bin/id")
		}, "alice 1000/1000 none > 1000/0 all by sudo [sudo]; alice 1000/0 all > 0/0 all by sudo [sudo]"},
		{"sudo that goes to and fro tells of each only once", func(sh *task) {
			s := sh.fork().execsAs(setuid, "/usr/bin/sudo", "id")
			for range 5 {
				s.commits(root).commits(setuid)
			}
		}, "alice 1000/1000 none > 1000/0 all by sudo [sudo]; alice 1000/0 all > 0/0 all by sudo [sudo]"},
		{"a file with the setuid bit", func(sh *task) { sh.fork().execsAs(setuid, "/usr/bin/passwd") },
			"alice 1000/1000 none > 1000/0 all by setuid:/usr/bin/passwd [setuid:/usr/bin/passwd]"},
		{"a file with capabilities", func(sh *task) { sh.fork().execsAs(idsAs(1000, 1000, 1<<13), "/usr/bin/ping") },
			"alice 1000/1000 none > 1000/1000 cap_net_raw by filecaps:/usr/bin/ping []"},
		{"a user namespace", func(sh *task) {
			ns := alice
			ns.Caps, ns.UserNS = allCaps, 2
			sh.run("/usr/bin/unshare", "-r").commits(ns)
		}, "alice 1000/1000 none > 1000/1000 all by user_namespace []"},
		{"a root that nothing explains", func(sh *task) { sh.run("/tmp/exploit").commits(root) },
			"alice 1000/1000 none > 0/0 all by unknown [unknown]"},
		{"a program with cap_setuid may", func(sh *task) {
			sh.fork().execsAs(idsAs(1000, 1000, 1<<7), "/opt/helper").commits(idsAs(33, 33, 0))
		}, "alice 1000/1000 none > 1000/1000 cap_setuid by filecaps:/opt/helper []; alice 1000/1000 cap_setuid > 33/33 none by call [unknown]"},
		{"nothing by an execution that changes nothing", func(sh *task) { sh.fork().commits(alice).exec("/bin/ls") }, ""},
		{"capabilities of a file where only what was done is told", func(sh *task) {
			sh.run("/bin/bash").execsDone(idsAs(1000, 1000, 1<<13), "/usr/bin/ping").exec("/bin/ls")
		}, "alice 1000/1000 unknown > 1000/1000 cap_net_raw by filecaps:/usr/bin/ping []"},
		{"a user namespace where only what was done is told", func(sh *task) {
			ns := alice
			ns.Caps, ns.UserNS = allCaps, 2
			sh.run("/usr/bin/unshare", "-r").done(ns).exec("/bin/sh").fork().done(ns)
		}, "alice 1000/1000 unknown > 1000/1000 all by user_namespace []"},
		{"a user namespace that clone made", func(sh *task) {
			c := sh.run("/opt/sandbox").fork()
			c.userns, c.caps = 2, allCaps
			c.commits(event.IDs{Creds: c.creds, UserNS: 2})
		}, "alice 1000/1000 all > 1000/1000 none by user_namespace []"},
		{"a call that is told when it is done", func(sh *task) {
			sh.run("/usr/bin/su").done(root)
		}, "alice 1000/1000 none > 1000/0 unknown by su [su]; alice 1000/0 unknown > 0/0 all by su [su]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, Options{})
			mon := m.sshd(m.init()).run("/usr/sbin/sshd", "-R").opens(7, 1000, "10.0.0.1:5555", event.HowHeld)
			sh := mon.fork().commits(root).commits(alice).exec("/bin/bash")
			if strings.HasSuffix(c.name, "is told") {
				sh = mon.fork().done(root).done(alice).exec("/bin/bash")
			}
			m.records = nil
			c.run(sh)
			if got := m.kinds(event.RecCredential, credLine); got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestWhoseCredentialsAreRecorded(t *testing.T) {
	for processes, want := range map[string]string{ProcessesNone: "", ProcessesSessions: "", ProcessesAll: "user root to www-data, group 0 to 33, by call"} {
		m := newMachine(t, Options{Processes: processes})
		m.init().run("/usr/sbin/nginx").commits(idsAs(33, 33, 0))
		if got := m.kinds(event.RecCredential, func(r *event.Record) string { return r.Reason }); got != want {
			t.Errorf("%s: %q, want %q", processes, got, want)
		}
	}
}

func TestExitRecordsSayHow(t *testing.T) {
	for status, want := range map[int32]string{
		0: "0 false exit 0", 3 << 8: "3 false exit 3", 9: "137 false SIGKILL", 11 | 0x80: "139 true SIGSEGV", 40: "168 false signal 40",
	} {
		m := newMachine(t, Options{Processes: ProcessesAll})
		p := m.init().run("/bin/false")
		ev := p.event(event.KindExit)
		ev.Ret = status
		m.observe(ev)
		r := m.last(event.RecExit)
		if r == nil {
			t.Fatalf("status %d: no record", status)
		}
		if got := fmt.Sprintf("%d %v %s", r.Exit.Code, r.Exit.Core, r.Reason); got != want {
			t.Errorf("status %d is %s, want %s", status, got, want)
		}
		if r.Process.ExecID != ExecID(p.key) || r.Process.Exe != "/bin/false" || r.Time != wallOf(m.now) {
			t.Errorf("%+v", r.Process)
		}
	}
}

func TestWhoReachesIntoWhomIsRecorded(t *testing.T) {
	m := newMachine(t, Options{})
	ssh := m.sshd(m.init())
	_, alice := ssh.accept(7, 1000, "10.0.0.1:5555")
	_, bob := ssh.accept(8, 1001, "10.0.0.2:5555")
	vi := bob.run("/usr/bin/vi", "secret")
	gdb := alice.run("/usr/bin/gdb")
	reach := func(key event.ProcKey) *event.Record {
		ev := gdb.event(event.KindCred)
		ev.Op, ev.CredHow, ev.Target, ev.Before = event.OpPtrace, event.CredReach, key, event.IDs{Creds: gdb.creds}
		if key.Start != 0 {
			ev.After = event.IDs{Creds: vi.creds}
		}
		m.observe(ev)
		return m.last(event.RecCredential)
	}
	for _, c := range []struct {
		name string
		key  event.ProcKey
		want string
	}{
		{"named by the kernel", vi.key, "alice 1000 ptrace > /usr/bin/vi bob login-8 1001"},
		{"of which only the pid is known", event.ProcKey{PID: vi.key.PID}, "alice 1000 ptrace > /usr/bin/vi bob login-8 1001"},
		{"that is not known", event.ProcKey{PID: 9999}, "alice 1000 ptrace > unknown unknown  4294967295"},
		{"of another namespace", event.ProcKey{}, "alice 1000 ptrace > unknown unknown  4294967295"},
	} {
		r := reach(c.key)
		got := fmt.Sprintf("%s %d %s > %s %s %s %d", r.Actor.User, r.Actor.UID, r.Op, r.Target.Exe, r.Target.User, r.Target.Session, r.Credential.After.UID)
		if got != c.want || r.Target.UID != r.Credential.After.UID || r.Process.Exe != "/usr/bin/gdb" {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	if known := reach(vi.key).Target.ExecID; known != ExecID(vi.key) {
		t.Errorf("exec id %q, want %q", known, ExecID(vi.key))
	}
}

func TestAScriptIsToldBesideItsInterpreter(t *testing.T) {
	for _, c := range []struct{ script, want string }{
		{"", ""}, {"/opt/run.sh", "/opt/run.sh"}, {"./run.sh", "/root/run.sh"}, {"../a\nb", `/a\x0Ab`}, {"/dev/fd/3", "/dev/fd/3"},
	} {
		m := newMachine(t, Options{Processes: ProcessesAll})
		p := m.init().fork()
		p.key.Execs++
		p.exe, p.argv, p.cwd = "/bin/bash", []string{"bash", c.script}, "/root"
		ev := p.told(event.KindExec, true)
		ev.Script = []byte(c.script)
		m.observe(ev)
		if _, proc := p.writes(); proc.Script != c.want || proc.Exe != "/bin/bash" || strings.Join(proc.Argv, "") == "" {
			t.Errorf("%q is told as %q of %s %v, want %q", c.script, proc.Script, proc.Exe, proc.Argv, c.want)
		}
	}
}
