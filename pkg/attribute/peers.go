package attribute

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

const (
	maxPeers     = 16   // named in a record; CutMark stands for the others
	maxServed    = 4    // processes of a service that are asked: the one that acts, and those above it
	maxFDs       = 4096 // descriptors looked at
	maxSockets   = 8 << 20
	peersEvery   = time.Second            // a process is asked again
	peersCost    = 100 * time.Millisecond // in each second: what is left is not asked for, and counted
	maxPeersKept = 4096
)

// peers returns the other ends of the connections that a service holds: who may have
// asked for what it does. They are looked for a moment after it was done.
func (t *Table) peers(c []*node) []string {
	if t.o.Peers == nil {
		return nil
	}
	var out []string
	asked := 0
	for i, n := range c {
		if outermost(n) || n.is(flagStub) || n.sess != nil || asked == maxServed {
			break
		}
		if i > 0 && procOf(n.key) == procOf(c[i-1].key) {
			continue
		}
		if cur := t.current(n.key); cur == nil || cur.exited != 0 {
			continue
		}
		asked++
		list, err := t.o.Peers(n.key)
		if err != nil {
			t.n.unasked.Add(1)
			continue
		}
		for _, p := range list {
			if s := p.String(); !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	slices.Sort(out)
	if len(out) > maxPeers {
		out = append(out[:maxPeers:maxPeers], CutMark)
	}
	return out
}

var errFDs = errors.New("too many descriptors to look at")

// peerFS finds connections in /proc. It may be used by one goroutine at a time.
type peerFS struct {
	now func() time.Time

	mu    sync.Mutex
	since time.Time // begin of the second that spent is of
	spent time.Duration
	kept  map[proc]keptPeers
}

type keptPeers struct {
	at    time.Time
	peers []netip.AddrPort
}

func newPeerFS() *peerFS { return &peerFS{now: time.Now, kept: map[proc]keptPeers{}} }

// of returns the peers of the connections that the process k holds and that it, or who
// gave them to it, accepted: those on a port where its network listens.
func (f *peerFS) of(k event.ProcKey) ([]netip.AddrPort, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if o, ok := f.kept[procOf(k)]; ok && now.Sub(o.at) < peersEvery {
		return o.peers, nil
	}
	if now.Sub(f.since) >= time.Second {
		f.since, f.spent = now, 0
	}
	if f.spent > peersCost {
		return nil, errBusy
	}
	peers, err := readPeers(k)
	f.spent += f.now().Sub(now)
	if err != nil {
		return nil, err
	}
	if len(f.kept) >= maxPeersKept {
		clear(f.kept)
	}
	f.kept[procOf(k)] = keptPeers{now, peers}
	return peers, nil
}

func readPeers(k event.ProcKey) ([]netip.AddrPort, error) {
	dir := "/proc/" + strconv.FormatUint(uint64(k.PID), 10)
	d, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(d)
	stat, err := readAt(d, "stat", 4096)
	if err != nil {
		return nil, fmt.Errorf("read %s/stat: %w", dir, err)
	}
	if ticks, err := startTicks(stat); err != nil || ticks != k.Start/nsPerTick {
		return nil, fmt.Errorf("read %s/stat: another process", dir)
	}
	held, err := socketsAt(d)
	if err != nil || len(held) == 0 {
		return nil, err
	}
	var out []netip.AddrPort
	for _, name := range [...]string{"net/tcp", "net/tcp6"} {
		table, err := readAt(d, name, maxSockets)
		if err != nil {
			continue // without IPv6 there is no such file
		}
		out = append(out, inbound(table, held)...)
	}
	return out, nil
}

// socketsAt lists the inodes of the sockets that a process has open.
func socketsAt(d int) (map[uint64]bool, error) {
	fd, err := unix.Openat(d, "fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open descriptors: %w", err)
	}
	defer unix.Close(fd)
	held := map[uint64]bool{}
	buf := make([]byte, 16<<10)
	for looked := 0; ; {
		if looked > maxFDs {
			return nil, errFDs
		}
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			return nil, fmt.Errorf("list descriptors: %w", err)
		}
		if n == 0 {
			break
		}
		_, _, names := unix.ParseDirent(buf[:n], -1, nil)
		looked += len(names)
		for _, name := range names {
			to, err := readlinkAt(fd, name)
			if err != nil {
				continue // closed meanwhile
			}
			if s, ok := strings.CutPrefix(to, "socket:["); ok {
				if ino, err := strconv.ParseUint(strings.TrimSuffix(s, "]"), 10, 64); err == nil {
					held[ino] = true
				}
			}
		}
	}
	return held, nil
}

// inbound reads /proc/net/tcp or tcp6 (proc(5)).
func inbound(table []byte, held map[uint64]bool) []netip.AddrPort {
	const listen, established, closeWait = "0A", "01", "08"
	ports := map[uint16]bool{}
	type conn struct {
		peer netip.AddrPort
		port uint16
	}
	var conns []conn
	for line := range bytes.Lines(table) {
		f := bytes.Fields(line)
		if len(f) < 10 || len(f[3]) != 2 {
			continue
		}
		state := string(f[3])
		if state != listen && state != established && state != closeWait {
			continue
		}
		local, ok := hexAddr(f[1])
		if !ok {
			continue
		}
		if state == listen {
			ports[local.Port()] = true
			continue
		}
		ino, err := strconv.ParseUint(string(f[9]), 10, 64)
		if err != nil || !held[ino] {
			continue
		}
		if peer, ok := hexAddr(f[2]); ok {
			conns = append(conns, conn{peer, local.Port()})
		}
	}
	var out []netip.AddrPort
	for _, c := range conns {
		if ports[c.port] {
			out = append(out, c.peer)
		}
	}
	return out
}

// hexAddr reads "0100007F:0016": words of the machine's byte order.
func hexAddr(b []byte) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(string(b), ":")
	raw, err := hex.DecodeString(host)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || err2 != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	a, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), ok
}
