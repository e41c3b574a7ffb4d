package attribute

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
)

// The model keeps nothing but values: every process has a whole copy of the list
// of its ancestors, made when it was forked or executed, so that nothing that
// happens later can change it.

type step struct {
	pid  uint32
	id   string
	exe  string
	argv string
}

type model struct {
	*task
	anc     []step // parent first, to pid 1
	outside int    // so many of them, counted from pid 1, are not in the session
	copied  bool   // has executed nothing since its fork
}

func (p *model) step() step {
	return step{p.key.PID, ExecID(p.key), p.exe, strings.Join(p.argv, " ")}
}

// expected is the part of the ancestors that an answer lists.
func (p *model) expected() []step {
	out := p.anc[:len(p.anc)-p.outside]
	for i, s := range out {
		if s.pid == 1 {
			return out[:i]
		}
	}
	return out
}

// world plays random processes on a machine.
type world struct {
	m      *machine
	choose func(n int) int
	lossy  bool
	live   []*model
	dead   []*model
	peers  map[uint64]string
	logins uint32
	asked  int
	again  int // answers that were given again
	vague  int // answers that said unknown
}

func (w *world) fork(p *model, pid uint32) {
	c := &model{copied: true, outside: p.outside}
	c.anc = append([]step{p.step()}, p.anc...)
	if pid != 0 {
		c.task = p.task.forkAs(pid)
	} else {
		c.task = p.task.fork()
	}
	w.live = append(w.live, c)
}

func (w *world) exec(p *model) {
	if !p.copied {
		p.anc = append([]step{p.step()}, p.anc...)
	}
	p.copied = false
	p.task.exec(fmt.Sprintf("/bin/p%d", w.choose(50)), fmt.Sprint(w.choose(1000)))
}

func (w *world) open(p *model) {
	if p.session != 0 || p.key.PID == 1 || p.argv == nil { // a login by systemd has no address
		return
	}
	w.logins++
	peer := fmt.Sprintf("10.0.%d.%d:%d", w.logins>>8&255, w.logins&255, 1024+w.choose(60000))
	w.peers[uint64(w.logins)] = peer
	p.outside = len(p.anc)
	p.task.opens(w.logins, 1000+w.logins%2, peer, event.HowHeld)
}

func (w *world) end(i int) {
	p := w.live[i]
	if p.key.PID == 1 {
		return
	}
	p.task.exit()
	w.live = append(w.live[:i], w.live[i+1:]...)
	w.dead = append(w.dead, p)
	if len(w.dead) > 40 {
		w.dead = w.dead[1:]
	}
}

// turn does one random thing, and now and then asks about somebody.
func (w *world) turn() {
	w.m.deaf = w.lossy && w.choose(8) == 0
	i := w.choose(len(w.live))
	p := w.live[i]
	switch w.choose(10) {
	case 0, 1, 2:
		if len(w.live) > 60 {
			w.end(i)
			break
		}
		var pid uint32
		if len(w.dead) > 0 && w.choose(2) == 0 {
			pid = w.free()
		}
		w.fork(p, pid)
	case 3, 4, 5:
		w.exec(p)
	case 6:
		w.end(i)
	case 7:
		if w.choose(4) == 0 {
			w.open(p)
		}
	default:
		q := p
		if len(w.dead) > 0 && w.choose(3) == 0 {
			q = w.dead[w.choose(len(w.dead))]
		}
		w.ask(q)
	}
}

// free is a pid of an ended process that no living one has.
func (w *world) free() uint32 {
	pid := w.dead[w.choose(len(w.dead))].key.PID
	for _, p := range w.live {
		if p.key.PID == pid {
			return 0
		}
	}
	return pid
}

func (w *world) ask(p *model) {
	w.asked++
	t := w.m.t
	n, ev := w.m.table.find(p.key), p.event(event.KindFile)
	again := n != nil && n.said != nil && n.said.holds(w.m.table, ev)
	a, pr := w.m.table.Who(ev)
	if again { // what is said again is what would be found out anew
		w.again++
		n.said = nil
		if b, qr := w.m.table.Who(ev); !reflect.DeepEqual(a, b) || !reflect.DeepEqual(pr, qr) {
			t.Fatalf("said again of %s (%s)\n got %s\nwant %s", ExecID(p.key), p.exe, says(a, pr), says(b, qr))
		}
	}
	bad := func(what string, got, want any) {
		t.Helper()
		t.Fatalf("%s of %s (%s): got %v, want %v\nanswer %s", what, ExecID(p.key), p.exe, got, want, says(a, pr))
	}
	if pr.PID != p.key.PID || pr.ExecID != ExecID(p.key) {
		bad("process", pr.ExecID, ExecID(p.key))
	}
	if pr.Exe == event.Unknown && w.lossy {
		w.vague++
		if len(pr.Argv) != 0 {
			bad("arguments", pr.Argv, "none")
		}
	} else if pr.Exe != p.exe || strings.Join(pr.Argv, " ") != strings.Join(p.argv, " ") {
		bad("program", pr.Exe+" "+strings.Join(pr.Argv, " "), p.exe+" "+strings.Join(p.argv, " "))
	}
	if p.session != 0 {
		if a.Session != loginSession(p.session) || a.User != names[p.login] {
			bad("session", a.User+" "+a.Session, p.session)
		}
		if got, want := fmt.Sprintf("%s:%d", a.SourceIP, a.SourcePort), w.peers[p.session]; got != want && !(w.lossy && got == ":0") {
			bad("address", got, want)
		}
	} else if !strings.HasPrefix(a.Session, "svc-") || a.User != event.Unknown || a.SourceIP != "" {
		bad("session", a.User+" "+a.Session+" "+a.SourceIP, "a service")
	}
	w.chain(p, pr.Ancestors, bad)
}

func (w *world) chain(p *model, got []event.Ancestor, bad func(string, any, any)) {
	want := p.expected()
	if !w.lossy {
		n := min(len(want), maxAncestors)
		if len(got) != n {
			bad("ancestors", got, want)
		}
		for i, s := range want[:n] {
			if g := got[i]; g.Exe == CutMark && i == maxAncestors-1 && len(want) > maxAncestors {
				continue
			} else if g.PID != s.pid || g.ExecID != s.id || g.Exe != s.exe || strings.Join(g.Argv, " ") != s.argv {
				bad("ancestor", g, s)
			}
		}
		return
	}
	// With losses some may be missing or unknown, but those that are named are
	// ancestors, in their order, and are what they were.
	next := 0
	for _, g := range got {
		i := next
		for i < len(want) && want[i].id != g.ExecID {
			i++
		}
		switch {
		case g.Exe == CutMark:
		case g.Exe == event.Unknown && g.PID == 0: // who opened the login is not known: more may have been
		case i == len(want):
			if !w.ancestor(p, g) {
				bad("ancestor", g, want)
			}
			continue
		case g.Exe == event.Unknown:
		case g.Exe != want[i].exe || strings.Join(g.Argv, " ") != want[i].argv:
			bad("ancestor", g, want[i])
		}
		next = i
	}
}

// ancestor reports whether g is an unknown program of a true ancestor: a process
// between its fork and its exec, when the exec was lost.
func (w *world) ancestor(p *model, g event.Ancestor) bool {
	if g.Exe != event.Unknown {
		return false
	}
	for _, s := range append(p.anc, p.step()) {
		if s.pid == g.PID {
			return true
		}
	}
	return false
}

func play(t *testing.T, turns int, lossy bool, o Options, choose func(int) int) *world {
	m := newMachine(t, o)
	w := &world{m: m, choose: choose, lossy: lossy, peers: map[uint64]string{}}
	w.live = []*model{{task: m.init()}}
	w.live[0].argv = nil // pid 1: the iterator does not tell it
	for range turns {
		w.turn()
	}
	s := m.table.Stats()
	if s.Live+s.Exited > int64(m.table.o.MaxProcesses) || s.Programs > int64(4*m.table.o.MaxProcesses+keepDepth+1) {
		t.Fatalf("over the limit: %+v", s)
	}
	count(t, m.table)
	return w
}

// count checks the table's books against what it really holds.
func count(t *testing.T, tb *Table) {
	t.Helper()
	refs := map[*node]int32{}
	live := map[*session]int{}
	processes := 0
	var visit func(n *node)
	visit = func(n *node) {
		if refs[n]++; refs[n] == 1 && n.up != nil {
			visit(n.up)
		}
	}
	for _, n := range tb.pids {
		for ; n != nil; n = n.older {
			processes++
			visit(n)
			if n.exited == 0 && n.sess != nil {
				live[n.sess]++
			}
		}
	}
	if processes != tb.live.Len()+tb.exited.Len() {
		t.Fatalf("%d processes by pid, %d+%d listed", processes, tb.live.Len(), tb.exited.Len())
	}
	if len(refs) != tb.nodes {
		t.Fatalf("%d programs held, %d counted", len(refs), tb.nodes)
	}
	for n, r := range refs {
		if n.refs != r {
			t.Fatalf("program %s has %d references, %d counted", ExecID(n.key), r, n.refs)
		}
	}
	for _, s := range tb.sessions {
		if s.live != live[s] {
			t.Fatalf("session %d has %d processes, %d counted", s.id, live[s], s.live)
		}
	}
	for n := range tb.cuts {
		if refs[n] == 0 {
			t.Fatalf("the end of a chain is kept that nobody needs")
		}
	}
}

func TestRandomProcessesAreNeverMixedUp(t *testing.T) {
	for _, c := range []struct {
		name  string
		lossy bool
		o     Options
	}{
		{"all events arrive", false, Options{}},
		{"one event in eight is lost", true, Options{}},
		{"the table is far too small", true, Options{MaxProcesses: 12}},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked, vague, again := 0, 0, 0
			for seed := range uint64(200) {
				r := rand.New(rand.NewPCG(seed, 1))
				w := play(t, 800, c.lossy, c.o, r.IntN)
				asked, vague, again = asked+w.asked, vague+w.vague, again+w.again
			}
			t.Logf("%d answers, %d of them unknown, %d given again", asked, vague, again)
			if again == 0 {
				t.Error("no answer was given again")
			}
		})
	}
}

func FuzzTable(f *testing.F) {
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 2))
		b := make([]byte, 400)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		f.Add(b, seed%2 == 1)
	}
	f.Fuzz(func(t *testing.T, b []byte, lossy bool) {
		i := 0
		play(t, len(b)/4, lossy, Options{}, func(n int) int {
			if i == len(b) {
				i = 0
			}
			i++
			return int(b[i-1]) % n
		})
	})
}
