package attribute

import (
	"fmt"
	"testing"
)

func TestWhatBecameOfLoginsMeanwhileIsTold(t *testing.T) {
	m := newMachine(t, Options{Proc: func(uint32) (ProcInfo, error) { return ProcInfo{}, nil }})
	init := m.init()
	ssh := m.sshd(init)
	_, _ = ssh.accept(7, 1000, "10.0.0.1:5555") // ends unseen
	was, stays := ssh.accept(6, 1000, "10.0.0.3:5555")
	records := m.records
	mon, sh := ssh.accept(8, 1001, "10.0.0.2:6666") // begins unseen
	m.restart()
	for _, r := range records {
		m.table.Remember(r)
	}
	for _, p := range []*task{init, ssh, was, stays, mon, sh} {
		p.scan()
	}
	mon.holds("10.0.0.2:6666")
	if early := m.table.Reap(m.now, 0); len(early) != 0 {
		t.Errorf("told before all are known: %+v", early)
	}
	m.records = append(m.records, m.table.Reap(m.now+gatherAfter, 0)...)
	var got string
	for _, r := range m.records {
		got += fmt.Sprintf("%s %s %s %v; ", r.Session.State, r.Reason, r.Process.Exe, r.TimeEnd != 0)
	}
	if want := "found ssh login of bob from 10.0.0.2:6666 was found /usr/sbin/sshd false; end ssh login of alice from 10.0.0.1:5555 ended while nobody saw it /usr/sbin/sshd true; "; got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	m.records = append(m.records[:0], m.table.Reap(m.now+gatherAfter, 0)...)
	if len(m.records) != 0 {
		t.Errorf("told again: %s", m.reasons())
	}
}
