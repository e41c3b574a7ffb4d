package attribute

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// kinds lists the records of a kind, each as one line by say.
func (m *machine) kinds(kind string, say func(r *event.Record) string) string {
	var out []string
	for _, r := range m.records {
		if r.Kind == kind {
			out = append(out, say(r))
		}
	}
	return strings.Join(out, "; ")
}

// last is the last record of a kind, nil if there is none.
func (m *machine) last(kind string) *event.Record {
	for i := len(m.records) - 1; i >= 0; i-- {
		if m.records[i].Kind == kind {
			return m.records[i]
		}
	}
	return nil
}

func execLine(r *event.Record) string {
	s := r.Actor.Session
	if f := strings.Split(s, "-"); f[0] == "svc" {
		s = "svc"
	}
	return fmt.Sprintf("%s %s %s", r.Actor.User, s, strings.Join(r.Process.Argv, " "))
}

func TestWhoseExecutionsAreRecorded(t *testing.T) {
	for _, c := range []struct{ processes, want string }{
		{ProcessesNone, ""},
		{ProcessesSessions, "alice login-7 bash -l; alice login-7 sudo ls; alice login-7 ls"},
		{ProcessesAll, "unknown svc sshd -D; unknown svc sshd -D -R; alice login-7 bash -l; alice login-7 sudo ls; alice login-7 ls; unknown svc cat"},
	} {
		t.Run(c.processes, func(t *testing.T) {
			m := newMachine(t, Options{Processes: c.processes})
			init := m.init()
			_, sh := m.sshd(init).accept(7, 1000, "10.0.0.1:5555")
			sh.run("/usr/bin/sudo", "ls").fork().become(0).exec("/bin/ls")
			init.run("/bin/cat")
			if got := m.kinds(event.RecExec, execLine); got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestAnExecRecordSaysWhatWhoWould(t *testing.T) {
	m := newMachine(t, Options{Processes: ProcessesSessions})
	_, sh := m.sshd(m.init()).accept(7, 1000, "10.0.0.1:5555")
	ls := sh.run("/usr/bin/sudo", "ls").fork().become(0).exec("/bin/ls", "-l")
	r := m.last(event.RecExec)
	if r == nil || r.Time != wallOf(m.now) {
		t.Fatalf("%+v", r)
	}
	got, want := says(*r.Actor, *r.Process), says(ls.writes())
	if got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	if len(r.Process.Ancestors) != 4 || r.Process.Ancestors[1].Argv != nil || r.Process.Ancestors[0].ExecID == "" {
		t.Errorf("ancestors %+v", r.Process.Ancestors)
	}
	if _, p := ls.writes(); len(p.Ancestors[0].Argv) == 0 {
		t.Error("the arguments of the ancestors are gone from the answer about a change, too")
	}
	if f := r.File; f == nil || f.Ino != inode("/bin/ls") || f.Dev != unix.Mkdev(8, 1) {
		t.Errorf("executable %+v", r.File)
	}
}

func TestFinishAddsTheHashOfThatVeryExecutable(t *testing.T) {
	var asked []string
	o := Options{Processes: ProcessesAll, HashSoon: func(pid uint32, path string, dev, ino uint64) (event.Hash, error) {
		asked = append(asked, fmt.Sprint(pid, " ", path, " ", dev == 8<<20|1, " ", ino == inode(path)))
		if path == "/bin/gone" {
			return event.Hash{}, errOtherExe
		}
		return event.Hash{1}, nil
	}}
	m := newMachine(t, o)
	init := m.init()
	init.run("/bin/ls")
	init.run("/bin/gone")
	for _, r := range m.records {
		m.table.Finish(r)
	}
	var execs []*event.Process
	for _, r := range m.records {
		if r.Kind == event.RecExec {
			execs = append(execs, r.Process)
		}
	}
	ls, gone := execs[0], execs[1]
	if ls.ExeHash != (event.Hash{1}) || gone.ExeHash != (event.Hash{}) {
		t.Errorf("hashes %v and %v", ls.ExeHash, gone.ExeHash)
	}
	if got, want := strings.Join(asked, ", "), fmt.Sprintf("%d /bin/ls true true, %d /bin/gone true true", ls.PID, gone.PID); got != want {
		t.Errorf("asked for %s, want %s", got, want)
	}
	if s := m.table.Stats(); s.Hashed != 1 || s.HashErrors != 1 {
		t.Errorf("%+v", s)
	}
}

// The end of a session that Who brought about is not forgotten by the next event.
func TestARecordThatIsDueBetweenEventsIsGivenOut(t *testing.T) {
	m := newMachine(t, Options{})
	m.table.tell(&event.Record{Kind: event.RecSession, Reason: "due"})
	m.init().fork()
	if m.reasons() != "due" {
		t.Errorf("%q", m.reasons())
	}
}
