package attribute

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
)

// selfKey is the key of this process, from /proc.
func selfKey(t *testing.T) event.ProcKey {
	t.Helper()
	p, err := readProc(uint32(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	return event.ProcKey{PID: uint32(os.Getpid()), Start: p.Ticks * nsPerTick}
}

func TestPeersAreThoseWhoConnected(t *testing.T) {
	for _, c := range []struct{ network, listen string }{{"tcp4", "127.0.0.1:0"}, {"tcp6", "[::1]:0"}, {"tcp", ":0"}} {
		t.Run(c.network, func(t *testing.T) {
			l, err := net.Listen(c.network, c.listen)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			to := l.Addr().(*net.TCPAddr)
			if to.IP.IsUnspecified() {
				to.IP = net.IPv4(127, 0, 0, 1) // mapped
			}
			out, err := net.Dial("tcp", to.String())
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			in, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			got, err := readPeers(selfKey(t))
			if err != nil {
				t.Fatal(err)
			}
			want := unmap(netip.MustParseAddrPort(out.LocalAddr().String()))
			if fmt.Sprint(got) != fmt.Sprint([]netip.AddrPort{want}) {
				t.Errorf("peers %v, want %v alone: %v was connected to", got, want, out.RemoteAddr())
			}
		})
	}
}

func TestPeersOfAnotherProcessThatHasThePidAreNotAsked(t *testing.T) {
	k := selfKey(t)
	k.Start += 5 * nsPerTick
	if got, err := readPeers(k); err == nil {
		t.Errorf("%v", got)
	}
}

func TestPeersAreAskedForWithinABudget(t *testing.T) {
	now := time.Unix(1000, 0)
	f := newPeerFS()
	f.now = func() time.Time { now = now.Add(peersCost); return now }
	k := selfKey(t)
	if _, err := f.of(k); err != nil {
		t.Fatal(err)
	}
	if _, err := f.of(k); err != nil {
		t.Errorf("what is known is not given again: %v", err)
	}
	other := event.ProcKey{PID: 1, Start: 1}
	for range 2 { // each costs as much as may be spent
		_, _ = f.of(other)
	}
	if _, err := f.of(other); err != errBusy {
		t.Errorf("%v, want %v", err, errBusy)
	}
	now = now.Add(time.Second)
	if _, err := f.of(k); err != nil {
		t.Errorf("a second later: %v", err)
	}
}

func TestAServiceNamesItsPeersAsCandidates(t *testing.T) {
	asked := map[string][]netip.AddrPort{}
	m := newMachine(t, Options{Peers: func(k event.ProcKey) ([]netip.AddrPort, error) {
		p, ok := asked[ExecID(event.ProcKey{PID: k.PID, Start: k.Start})]
		if !ok {
			return nil, errBusy
		}
		return p, nil
	}})
	key := func(p *task) string { return ExecID(event.ProcKey{PID: p.key.PID, Start: p.key.Start}) }
	init := m.init()
	www := init.fork().group(3, "/system.slice/nginx.service").exec("/usr/sbin/nginx")
	worker := www.fork()
	cgi := worker.run("/usr/lib/cgi-bin/upload")
	asked[key(worker)] = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.7:5000"), netip.MustParseAddrPort("192.0.2.9:1")}
	asked[key(cgi)] = nil
	a, p := cgi.writes()
	if got, want := fmt.Sprint(a.Peers), "[192.0.2.7:5000 192.0.2.9:1]"; got != want || a.SourceIP != "" || p.Unit != "nginx.service" {
		t.Errorf("peers %s, want %s; address %q, unit %q", got, want, a.SourceIP, p.Unit)
	}
	if s := m.table.Stats(); s.Unasked != 1 { // nginx itself
		t.Errorf("%d could not be asked", s.Unasked)
	}
	var many []netip.AddrPort
	for i := range uint16(30) {
		many = append(many, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), 1000+i))
	}
	busy := init.run("/usr/sbin/proxy")
	asked[key(busy)] = many
	if a, _ := busy.writes(); len(a.Peers) != maxPeers+1 || a.Peers[0] != "192.0.2.1:1000" || a.Peers[maxPeers] != CutMark {
		t.Errorf("peers of many: %v", a.Peers)
	}
	mon, sh := m.sshd(init).accept(7, 1000, "10.0.0.1:5555")
	asked[key(mon)], asked[key(sh)] = asked[key(worker)], asked[key(worker)]
	if a, _ := sh.writes(); a.Peers != nil {
		t.Errorf("a login has peers: %v", a.Peers)
	}
}
