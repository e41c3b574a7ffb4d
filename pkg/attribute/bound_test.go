package attribute

import (
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
)

func TestTheTableKeepsToItsLimit(t *testing.T) {
	m := newMachine(t, Options{MaxProcesses: 50})
	init := m.init()
	for range 500 {
		init.run("/bin/true").exit()
		if s := m.table.Stats(); s.Live+s.Exited > 50 || s.Programs > 4*50+keepDepth+1 {
			t.Fatalf("holds %+v", s)
		}
	}
	s := m.table.Stats()
	if s.EvictedLive != 0 || s.Evicted != 500-49 || s.Live != 1 {
		t.Errorf("%+v: want only ended processes dropped", s)
	}
}

func TestRunningProcessesAreDroppedLastAndCounted(t *testing.T) {
	m := newMachine(t, Options{MaxProcesses: 10})
	init := m.init()
	parent := init.run("/bin/parent")
	child := parent.run("/bin/child")
	for range 50 {
		init.run("/bin/sleep")
	}
	s := m.table.Stats()
	if s.EvictedLive != 53-10 || s.Live != 10 {
		t.Errorf("%+v", s)
	}
	// init has children and stays; what was dropped is unknown.
	if _, p := init.writes(); p.Exe != init.exe {
		t.Errorf("init is %q", p.Exe)
	}
	if _, p := child.writes(); p.Exe != event.Unknown || len(p.Ancestors) != 1 || p.Ancestors[0].Exe != event.Unknown || p.Ancestors[0].PID != parent.key.PID {
		t.Errorf("dropped child is %q with ancestors %v", p.Exe, p.Ancestors)
	}
}

func TestEndedProcessesAreForgottenAfterAWhile(t *testing.T) {
	m := newMachine(t, Options{})
	init := m.init()
	p := init.run("/bin/true")
	p.exit()
	if _, a := p.writes(); a.Exe != "/bin/true" {
		t.Fatalf("a late write is by %q", a.Exe)
	}
	m.now += defaultKeepExited
	init.run("/bin/other")
	if s := m.table.Stats(); s.Exited != 0 || s.Evicted != 0 || s.Programs != 3 {
		t.Errorf("%+v: want 2 processes with 3 programs", s)
	}
}

func TestAChainThatForksForEverIsCutAndSaysSo(t *testing.T) {
	m := newMachine(t, Options{})
	_, sh := m.sshd(m.init()).accept(7, 1000, "10.0.0.1:5555")
	p := sh.run("/usr/bin/sudo").fork().become(0).exec("/opt/daemon")
	for range 2000 {
		c := p.fork()
		p.exit()
		p = c
	}
	m.now += defaultKeepExited
	m.init().fork()
	if s := m.table.Stats(); s.Programs > MaxAbove+20 || s.Cut == 0 {
		t.Errorf("%+v: want no more than the depth", s)
	}
	a, pr := p.writes()
	if len(pr.Ancestors) != maxAncestors || pr.Ancestors[maxAncestors-1].Exe != CutMark {
		t.Errorf("%d ancestors, the last is %+v", len(pr.Ancestors), pr.Ancestors[len(pr.Ancestors)-1])
	}
	if strings.Join(a.Via, " ") != "sudo" || a.User != "alice" || a.SourceIP != "10.0.0.1" {
		t.Errorf("actor %+v", a)
	}
}

func TestAServiceThatForksForEverKeepsItsSession(t *testing.T) {
	m := newMachine(t, Options{})
	p := m.init().fork().group(6, "/system.slice/x.service").exec("/opt/daemon")
	first, _ := p.writes()
	for range 1000 {
		c := p.fork()
		p.exit()
		p = c.exec("/opt/daemon")
	}
	last, _ := p.writes()
	if first.Session != last.Session {
		t.Errorf("session %q became %q", first.Session, last.Session)
	}
}

func TestShortChainsAreWhole(t *testing.T) {
	m := newMachine(t, Options{})
	p := m.init().run("/bin/a")
	for range maxAncestors {
		p = p.run("/bin/a")
	}
	if _, pr := p.writes(); len(pr.Ancestors) != maxAncestors || pr.Ancestors[maxAncestors-1].Exe != "/bin/a" {
		t.Errorf("%d ancestors, the last is %+v", len(pr.Ancestors), pr.Ancestors[len(pr.Ancestors)-1])
	}
}

func TestConnectionsThatFindNoRoomAreCounted(t *testing.T) {
	m := newMachine(t, Options{})
	ev := m.init().event(event.KindSocket)
	for i := range uint32(MaxHolders + 3) {
		ev.Key = event.ProcKey{PID: 10 + i, Start: 1000 + uint64(i)}
		m.observe(ev)
	}
	if n := m.table.Stats().Unheld; n != 3 {
		t.Errorf("%d found no room, want 3", n)
	}
}
