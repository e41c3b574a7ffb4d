package attribute

import (
	"fmt"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
)

// serviceLine writes a record about a service; the start in its id is left out.
func serviceLine(r *event.Record) string {
	return fmt.Sprintf("%s %d of %s/%d", r.Reason, r.Session.Processes, r.Process.Exe, r.Session.Execs)
}

func TestServiceSessionsBeginAndEnd(t *testing.T) {
	const box = "/system.slice/docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope"
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, c := range []struct {
		name string
		run  func(m *machine, init *task)
		want string
	}{
		{"with its first program and its last process", func(m *machine, init *task) {
			d := init.fork().group(3, "/system.slice/db.service").exec("/usr/bin/db")
			w := d.run("/usr/bin/worker").fork()
			d.exit()
			w.parent.exit()
			w.exit()
		}, "db.service (db) began 1 of /usr/bin/db/1; db.service (worker) ended 3 of /usr/bin/worker/2"},
		{"not while a process is left", func(m *machine, init *task) {
			d := init.fork().group(3, "/system.slice/db.service").exec("/usr/bin/db")
			d.fork()
			d.exit()
		}, "db.service (db) began 1 of /usr/bin/db/1"},
		{"a container apart from what started it", func(m *machine, init *task) {
			d := init.fork().group(3, "/system.slice/docker.service").exec("/usr/bin/dockerd")
			c := d.run("/usr/bin/runc").group(4, box).exec("/bin/app")
			c.exit()
		}, "docker.service (dockerd) began 1 of /usr/bin/dockerd/1; container " + id + " began 1 of /bin/app/1; container " + id + " ended 1 of /bin/app/1"},
		{"not of what the kernel does itself", func(m *machine, init *task) {
			k := *init
			k.key, k.kthread, k.exe = event.ProcKey{PID: 2, Execs: 1, Start: 11}, true, ""
			k.scan()
			(&k).fork().exit()
		}, ""},
		{"of one that was there before, its end alone", func(m *machine, init *task) {
			d := *init
			d.key, d.parent, d.exe = event.ProcKey{PID: 50, Execs: 2, Start: 500}, init, "/usr/bin/db"
			d.group(3, "/system.slice/db.service")
			d.scan()
			w := d.fork()
			m.table.o.Proc = func(pid uint32) (ProcInfo, error) { return ProcInfo{}, nil }
			m.records = append(m.records, m.table.Reap(m.now+gatherAfter, 0)...)
			d.exit()
			w.exit()
		}, "db.service (db) ended 2 of /usr/bin/db/1"},
		{"of a login only what came before it", func(m *machine, init *task) {
			m.sshd(init).accept(7, 1000, "10.0.0.1:5555")
		}, "ssh.service (sshd) began 1 of /usr/sbin/sshd/1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, Options{})
			c.run(m, m.init())
			var out string
			seen := ""
			for _, r := range m.records {
				if r.Kind != event.RecSession || r.Session == nil || r.Actor.User != event.Unknown {
					continue
				}
				if out != "" {
					out += "; "
				}
				out += serviceLine(r)
				if r.Session.State == event.SessionStart {
					seen += r.Actor.Session + " "
				}
				if r.Session.State == event.SessionEnd && (r.TimeEnd == 0 || r.TimeEnd < r.Time) {
					t.Errorf("from %v to %v", r.Time, r.TimeEnd)
				}
			}
			if out != c.want {
				t.Errorf("\n got %s\nwant %s", out, c.want)
			}
		})
	}
}

// A process that executes something before its older ancestors are told of is in the
// service of these.
func TestAServiceIsNotNamedBeforeWhatItCameFromIsKnown(t *testing.T) {
	m := newMachine(t, Options{Proc: func(uint32) (ProcInfo, error) { return ProcInfo{}, nil }})
	init := m.init()
	d := init.fork().exec("/usr/bin/daemon")
	sh := d.run("/bin/sh")
	m.restart()
	job := sh.run("/bin/job")
	for _, p := range []*task{init, d, sh} {
		p.scan()
	}
	m.records = append(m.records, m.table.Reap(m.now+gatherAfter, 0)...)
	want, _ := job.writes()
	for _, p := range []*task{job, sh, d} {
		p.exit()
	}
	r := m.last(event.RecSession)
	if len(m.records) != 1 || r.Session.State != event.SessionEnd || r.Actor.Session != want.Session || r.Session.Processes != 3 {
		t.Errorf("%d records, %+v of %s, want the end of %s with three processes", len(m.records), r.Session, r.Actor.Session, want.Session)
	}
}

// The session of a change is one whose beginning was recorded.
func TestAServiceHasTheSameNameInAllRecords(t *testing.T) {
	m := newMachine(t, Options{})
	d := m.init().fork().group(3, "/system.slice/db.service").exec("/usr/bin/db")
	w := d.run("/usr/bin/worker").fork()
	d.exit()
	a, _ := w.writes()
	if began := m.records[0].Actor.Session; a.Session != began {
		t.Errorf("a change in %s, which began as %s", a.Session, began)
	}
}
