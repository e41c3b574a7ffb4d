package attribute

import (
	"net/netip"
	"sync"
	"time"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"golang.org/x/sys/unix"
)

// NewSystem returns options that ask this machine: users from /etc/passwd,
// control groups from the cgroup2 mount, processes from /proc, executables
// hashed with BLAKE3. self is the daemon's pid.
//
// Reading the arguments or the executable of a process can wait for that
// process's own pages, for ever if it wants so (a FUSE file system, userfaultfd).
// Both are given up after a while; the goroutine that waits is left behind, and
// their number is bounded: beyond it the answer is an error at once.
func NewSystem(self uint32) Options {
	procs, hashes := newGuard(), newGuard()
	h, peers := newHasher(), newPeerFS()
	return Options{
		Wall:   Wall(),
		User:   digest.UserName,
		Cgroup: newCgroupFS().path,
		Proc: func(pid uint32) (ProcInfo, error) {
			return within(procs, procLimit, func() (ProcInfo, error) { return readProc(pid) })
		},
		Live: func(pid uint32) (LiveInfo, error) {
			return within(procs, procLimit, func() (LiveInfo, error) { return readLive(pid) })
		},
		HashExe: func(pid uint32, path string, dev, ino uint64) (event.Hash, error) {
			return within(hashes, hashLimit, func() (event.Hash, error) { return h.exe(pid, path, dev, ino) })
		},
		HashSoon: func(pid uint32, path string, dev, ino uint64) (event.Hash, error) {
			return within(hashes, procLimit, func() (event.Hash, error) { return h.exe(pid, path, dev, ino) })
		},
		Peers: func(k event.ProcKey) ([]netip.AddrPort, error) {
			return within(procs, procLimit, func() ([]netip.AddrPort, error) { return peers.of(k) })
		},
		Self: self,
	}
}

// Wall returns the function that turns nanoseconds since boot (CLOCK_BOOTTIME)
// into a moment. The same argument gives the same result, to the nanosecond,
// until the machine's clock is set by more than a millisecond. The function may
// be used by several goroutines.
func Wall() func(boottimeNS uint64) event.Time {
	w := &wall{base: bootBase(), looked: time.Now()}
	return w.at
}

type wall struct {
	mu     sync.Mutex
	base   int64 // CLOCK_REALTIME minus CLOCK_BOOTTIME
	looked time.Time
}

func (w *wall) at(ns uint64) event.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.looked) > 100*time.Millisecond {
		w.looked = time.Now()
		if b := bootBase(); max(b-w.base, w.base-b) > int64(time.Millisecond) {
			w.base = b
		}
	}
	return event.Time(w.base + int64(ns))
}

// bootBase takes the difference of the clocks, from the narrowest of a few
// attempts: what runs in between widens them.
func bootBase() int64 {
	base, narrow := int64(0), int64(-1)
	for range 5 {
		a, r, b := clock(unix.CLOCK_BOOTTIME), clock(unix.CLOCK_REALTIME), clock(unix.CLOCK_BOOTTIME)
		if w := b - a; narrow < 0 || w < narrow {
			base, narrow = r-(a+w/2), w
		}
	}
	return base
}

// clock reads a clock that every kernel we run on has: it cannot fail.
func clock(id int32) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0
	}
	return ts.Nano()
}
