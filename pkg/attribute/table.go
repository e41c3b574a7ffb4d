package attribute

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/internal/chain"
)

// Options are what a Table needs of the machine. A nil function means that the
// machine cannot be asked: the answers that depend on it are unknown or absent.
// NewSystem fills in all of them.
type Options struct {
	// Wall turns nanoseconds since boot into a moment. Wall and User may be called
	// by several goroutines at once.
	Wall func(boottimeNS uint64) event.Time
	// User names a uid, "" if it has no name.
	User func(uid uint32) string
	// HashExe hashes the executable (dev, ino) of a process. It fails when it
	// cannot read that very inode.
	HashExe func(pid uint32, path string, dev, ino uint64) (event.Hash, error)
	// HashSoon is the same, but does not wait for long. Several goroutines may call
	// it at once.
	HashSoon func(pid uint32, path string, dev, ino uint64) (event.Hash, error)
	// Cgroup is the path of a cgroup below the mount of the v2 hierarchy, "" if
	// the cgroup is gone.
	Cgroup func(id uint64) string
	// Proc reads /proc/PID.
	Proc func(pid uint32) (ProcInfo, error)
	// Live reads what /proc/PID tells of a process that every event would.
	Live func(pid uint32) (LiveInfo, error)

	// Peers are the other ends of the connections that a process holds and did not
	// open itself.
	Peers func(k event.ProcKey) ([]netip.AddrPort, error)

	Processes    string // Processes*: whose execs and exits are records; "" is none
	MaxProcesses int    // 131072 if 0
	KeepExited   uint64 // ns that an ended process stays known for late events; 30 s if 0
	Self         uint32 // pid of the daemon: never dropped while it lives; 0 for none
}

// Table knows the processes and sessions of the machine.
type Table struct {
	o Options

	pids   map[uint32]*node // newest process of each pid; older ones hang on node.older
	live   chain.List[node]
	exited chain.List[node]
	nodes  int           // programs held, by pids or as ancestors
	cuts   map[*node]cut // ends of chains that were cut
	held   map[proc]*held
	coming map[proc]coming

	services map[proc]*service
	learnt   uint64 // ns since boot of the last process that was told of as older than us
	gathered bool   // those that are older than what was told are complete

	groups map[uint64]*cgroup

	past  map[uint64]past
	first uint64 // ns since boot of the first event of a process
	turn  uint64 // moves on when something is learnt that may change an answer

	pending []*event.Record // to be given out
	given   []*event.Record // by the last call
	steps   []*node         // scratch of chain

	mu       sync.Mutex // guards sessions and the fields of its values
	sessions map[uint64]*session
	ended    []uint64 // sessions that are over, oldest first

	n counters
}

type counters struct {
	live, exited, nodes, sessions                   atomic.Int64
	evicted, evictedLive, lost, cut, reaped, unheld atomic.Uint64
	procRead, procRefused, hashed, hashError        atomic.Uint64
	folded, unasked                                 atomic.Uint64
}

// Stats are counts since the table was made, and of what it holds now.
type Stats struct {
	Live     int64 // processes that run
	Exited   int64 // processes that ended and are still known
	Programs int64 // programs held for them and as ancestors
	Sessions int64 // logins that run

	Evicted     uint64 // ended processes dropped early for want of room
	EvictedLive uint64 // running ones
	Cut         uint64 // chains of ancestors that were shortened, to MaxAbove at most
	Unheld      uint64 // connections of before the daemon that found no room: MaxHolders processes
	Lost        uint64 // programs whose fork or exec was never reported
	Reaped      uint64 // processes whose end was never reported
	ProcRead    uint64 // programs completed from /proc
	ProcRefused uint64 // times that /proc had no answer about that very program
	Hashed      uint64 // executables hashed, or found in the cache of hashes
	HashErrors  uint64
	Folded      uint64 // changes of credentials to some that the same program had before
	Unasked     uint64 // processes of services whose connections could not be looked at, or not in time
}

const (
	defaultMaxProcesses = 131072
	defaultKeepExited   = 30_000_000_000
	programsPerProcess  = 4    // MaxProcesses times this bounds the programs held
	maxEnded            = 4096 // ended sessions kept for late events
	maxGroups           = 16384
)

// New returns an empty table.
func New(o Options) *Table {
	if o.MaxProcesses <= 0 {
		o.MaxProcesses = defaultMaxProcesses
	}
	if o.KeepExited == 0 {
		o.KeepExited = defaultKeepExited
	}
	return &Table{
		o:        o,
		pids:     map[uint32]*node{},
		cuts:     map[*node]cut{},
		held:     map[proc]*held{},
		coming:   map[proc]coming{},
		services: map[proc]*service{},
		groups:   map[uint64]*cgroup{},
		sessions: map[uint64]*session{},
		past:     map[uint64]past{},
	}
}

// Stats returns the counters. It may be called from any goroutine.
func (t *Table) Stats() Stats {
	c := &t.n
	return Stats{
		Live: c.live.Load(), Exited: c.exited.Load(), Programs: c.nodes.Load(), Sessions: c.sessions.Load(),
		Evicted: c.evicted.Load(), EvictedLive: c.evictedLive.Load(), Cut: c.cut.Load(), Unheld: c.unheld.Load(), Lost: c.lost.Load(),
		Reaped: c.reaped.Load(), ProcRead: c.procRead.Load(), ProcRefused: c.procRefused.Load(),
		Hashed: c.hashed.Load(), HashErrors: c.hashError.Load(), Folded: c.folded.Load(), Unasked: c.unasked.Load(),
	}
}

func (t *Table) wall(ns uint64) event.Time {
	if t.o.Wall == nil || ns == 0 {
		return 0
	}
	return t.o.Wall(ns)
}

// user names uid: by its number if the machine has no name for it, and as
// unknown if it is unset.
func (t *Table) user(uid uint32) string {
	if uid == event.Unset {
		return event.Unknown
	}
	if t.o.User != nil {
		if n := t.o.User(uid); n != "" {
			return n
		}
	}
	return fmt.Sprint(uid)
}
