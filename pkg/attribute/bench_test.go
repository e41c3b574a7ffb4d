package attribute

import (
	"fmt"
	"reflect"
	"runtime"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
)

// cycle is the events of one short process: fork, exec, exit.
func cycle(init *task) (fork, exec, exit *event.Event) {
	c := *init
	c.parent = init
	c.key.PID = 5000
	fork = c.event(event.KindFork)
	c.key.Execs++
	c.exe, c.argv, c.cwd = "/usr/bin/sed", []string{"sed", "-i", "s/PermitRootLogin no/PermitRootLogin yes/", "/etc/ssh/sshd_config"}, "/root"
	exec = c.told(event.KindExec, true)
	exit = c.event(event.KindExit)
	return fork, exec, exit
}

// BenchmarkObserve is one short process: three events.
func BenchmarkObserve(b *testing.B) {
	m := newMachine(b, Options{})
	_, sh := m.sshd(m.init()).accept(7, 1000, "10.0.0.1:5555")
	fork, exec, exit := cycle(sh)
	b.ReportAllocs()
	for b.Loop() {
		now := m.tick()
		for _, ev := range [...]*event.Event{fork, exec, exit} {
			ev.Key.Start, ev.Time = now, now
			ev.Key.PID = uint32(5000 + now/1_000_000%30000)
			m.table.Observe(ev)
		}
	}
}

func BenchmarkWho(b *testing.B) {
	for _, hash := range []bool{false, true} {
		b.Run(fmt.Sprintf("system=%v", hash), func(b *testing.B) {
			m := newMachine(b, Options{})
			if hash {
				m.table = New(NewSystem(0))
			}
			_, sh := m.sshd(m.init()).accept(7, 1000, "10.0.0.1:5555")
			p := sh.run("/usr/bin/sudo", "sed").fork().become(0).exec("/usr/bin/sed", "-i", "s/a/b/", "/etc/x")
			ev := p.event(event.KindFile)
			b.ReportAllocs()
			for b.Loop() {
				m.table.Who(ev)
			}
		})
	}
}

// BenchmarkLive fills a table with 100,000 running processes (fork and exec with
// 60 bytes of arguments), each a service of its own, has as many short ones run through
// it as seen says, and looks the running ones up one after the other.
func BenchmarkLive(b *testing.B) {
	for _, seen := range []int{0, 1_000_000} {
		b.Run(fmt.Sprintf("seen=%d", seen), func(b *testing.B) { benchmarkLive(b, seen) })
	}
}

func benchmarkLive(b *testing.B, seen int) {
	const live = 100_000
	var before, after runtime.MemStats
	m := newMachine(b, Options{})
	init := m.init()
	runtime.GC()
	runtime.ReadMemStats(&before)
	events := make([]event.Event, live)
	for i := range live {
		c := *init
		c.parent = init
		c.key.PID, c.key.Start = uint32(1000+i), m.tick()
		m.table.Observe(c.event(event.KindFork))
		c.key.Execs++
		c.exe, c.argv, c.cwd = "/usr/lib/some/program", []string{"program", fmt.Sprintf("--number=%d", i), "--with", "some more arguments to carry"}, "/var/lib/some"
		m.table.Observe(c.told(event.KindExec, true))
		events[i] = event.Event{Kind: event.KindFile, Key: c.key, Login: event.Unset, Audit: event.Unset, Time: m.now, Cgroup: 2}
	}
	fork, exec, exit := cycle(init)
	for range seen {
		m.now += 100_000 // 10,000 a second
		for _, ev := range [...]*event.Event{fork, exec, exit} {
			ev.Key.Start, ev.Time = m.now, m.now
			ev.Key.PID = uint32(200_000 + m.now/100_000%30000)
			m.table.Observe(ev)
		}
	}
	kept := len(events) * int(reflect.TypeFor[event.Event]().Size())
	runtime.GC()
	runtime.ReadMemStats(&after)
	if s := m.table.Stats(); s.Live != live+1 || s.EvictedLive != 0 {
		b.Fatalf("%+v", s)
	}
	for i := range events {
		events[i].Time = m.now
	}
	i := 0
	for b.Loop() {
		if _, p := m.table.Who(&events[i*7919%live]); p.Exe == event.Unknown {
			b.Fatal("a running process is not known any more")
		}
		i++
	}
	b.ReportMetric(float64(int(after.HeapAlloc-before.HeapAlloc)-kept)/live, "B/process")
}

// BenchmarkSeen runs 1,000,000 short processes through one table and reports
// what it holds at the end.
func BenchmarkSeen(b *testing.B) {
	for b.Loop() {
		m := newMachine(b, Options{MaxProcesses: 50_000})
		_, sh := m.sshd(m.init()).accept(7, 1000, "10.0.0.1:5555")
		fork, exec, exit := cycle(sh)
		for range 1_000_000 {
			m.now += 100_000 // 10,000 a second
			for _, ev := range [...]*event.Event{fork, exec, exit} {
				ev.Key.Start, ev.Time = m.now, m.now
				ev.Key.PID = uint32(5000 + m.now/100_000%30000)
				m.table.Observe(ev)
			}
		}
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		b.ReportMetric(float64(s.HeapAlloc)/1e6, "MB-held")
		st := m.table.Stats()
		b.ReportMetric(float64(st.Exited), "ended-kept")
		runtime.KeepAlive(m)
	}
}
