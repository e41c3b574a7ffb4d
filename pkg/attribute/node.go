package attribute

import (
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/internal/chain"
)

// proc identifies a process through all its execs.
type proc struct {
	pid   uint32
	start uint64
}

func procOf(k event.ProcKey) proc { return proc{k.PID, k.Start} }

// ids are the credentials that a program began with.
type ids struct{ uid, euid, suid, gid, egid, sgid uint32 }

func idsOf(c *event.Creds) ids { return ids{c.UID, c.EUID, c.SUID, c.GID, c.EGID, c.SGID} }

const (
	flagCopy    uint8 = 1 << iota // made by fork: runs the program of the node above
	flagStub                      // only a key: the program was not known when the node below was made
	flagCut                       // a stub that stands for ancestors that were dropped
	flagKthread                   // a kernel thread
	flagLooked                    // /proc was asked
	flagTabled                    // the present program of a process in pids
	flagLate                      // its exec was not reported: it may have begun before since
	flagUnnamed                   // some program of its process: the number of execs is not known
)

// node is one program running in one process.
//
//	                 up                 up
//	sed (12, exec) ----> bash (12, copy) ----> bash (10, exec) ----> ...
//
// up is the program that this one came from: the one that the same process ran
// before (exec), or the one that forked the process (fork). refs counts the
// nodes whose up this is, plus one while it is in pids; at 0 the node is let go.
type node struct {
	key    event.ProcKey
	up     *node
	image  *image
	sess   *session
	svc    *service         // nil in a login, and where it was not looked for
	place  chain.Link[node] // in Table.live or Table.exited
	older  *node            // the process that had this pid before
	cgroup uint64
	since  uint64 // ns since boot at which it began, 0 if before the daemon
	exited uint64 // ns since boot, 0 while it lives
	ids    ids
	now    *powers // nil: ids, and no more is known
	said   *said   // nil: nothing that can be said again
	refs   int32
	depth  uint16
	flags  uint8
}

func (n *node) is(f uint8) bool { return n.flags&f != 0 }

// unresolved reports whether n stands for a program that may become known.
func (n *node) unresolved() bool { return n.is(flagStub) && !n.is(flagCut) }

// image is what a program is, shared by the copies that fork makes of it.
// exe, argv and cwd are as the kernel has them; argv is separated by NUL.
type image struct {
	exe, argv, cwd string
	script         string   // the file that was executed, if exe is its interpreter
	split          []string // argv, for answers; nil: not asked for
	dev, ino       uint64   // of the executable, as kernel dev_t
	hash           *event.Hash
	flags          uint8
}

const (
	imagePartial uint8 = 1 << iota // argv or cwd are missing: /proc may have them
	imageCut                       // argv was cut by the wire's limit
	imageProc                      // completed from /proc
	imageHashed                    // the hash was asked for
)

// current returns the present program of the process k, nil if it is not known.
func (t *Table) current(k event.ProcKey) *node {
	n := t.pids[k.PID]
	for n != nil && n.key.Start != k.Start {
		n = n.older
	}
	return n
}

// find returns the program with exactly this key.
func (t *Table) find(k event.ProcKey) *node {
	n := t.current(k)
	for n != nil && n.key != k {
		n = n.up
		if n != nil && (n.key.PID != k.PID || n.key.Start != k.Start || n.is(flagStub)) {
			return nil
		}
	}
	return n
}

// node makes a program that came from up.
func (t *Table) node(k event.ProcKey, up *node, img *image) *node {
	n := &node{key: k, image: img}
	if up != nil {
		if up.depth >= MaxAbove || t.nodes >= t.o.MaxProcesses*programsPerProcess && !up.is(flagStub) {
			whole := up
			up = t.cutChain(whole)
			t.done(whole)
		}
		up.refs++
		n.up, n.depth, n.sess, n.cgroup = up, up.depth+1, up.sess, up.cgroup
	}
	t.nodes++
	t.n.nodes.Store(int64(t.nodes))
	return n
}

// stub makes a node that is only a key.
func (t *Table) stub(k event.ProcKey) *node {
	n := t.node(k, nil, nil)
	n.flags = flagStub
	return n
}

// release drops one reference to n, and lets go of what is held by none.
func (t *Table) release(n *node) {
	for n != nil {
		if n.refs--; n.refs > 0 {
			return
		}
		if n.is(flagCut) {
			delete(t.cuts, n)
		}
		up := n.up
		n.up = nil
		t.nodes--
		n = up
	}
	t.n.nodes.Store(int64(t.nodes))
}

// done lets go of a program that was made in passing and is held by nothing.
func (t *Table) done(n *node) {
	if n.refs == 0 {
		n.refs = 1
		t.release(n)
	}
}

// admit puts the first known program of a process into the table.
func (t *Table) admit(n *node, now uint64) {
	if o := t.pids[n.key.PID]; o != nil {
		if o.exited == 0 && o.key.Start < n.key.Start {
			t.n.reaped.Add(1) // the pid was given away: its end was not reported
			t.retire(o, now)
		}
		n.older = o
	}
	t.pids[n.key.PID] = n
	n.refs++
	n.flags |= flagTabled
	t.live.Push(&n.place, n)
	if n.sess != nil {
		n.sess.live++
		n.sess.procs++
	}
	t.room()
}

// succeed makes n, whose up is o, the present program of o's process.
func (t *Table) succeed(o, n *node) {
	n.svc, o.svc = o.svc, nil
	n.flags |= flagTabled
	n.refs++
	n.exited = o.exited
	n.older, o.older = o.older, nil
	t.relink(o, n)
	if o.exited == 0 {
		t.live.Replace(&o.place, &n.place, n)
	} else {
		t.exited.Replace(&o.place, &n.place, n)
	}
	o.flags &^= flagTabled
	t.release(o)
}

// relink makes whatever points at o among the processes of its pid point at n.
func (t *Table) relink(o, n *node) {
	p := t.pids[o.key.PID]
	if p == o {
		if n == nil {
			delete(t.pids, o.key.PID)
		} else {
			t.pids[o.key.PID] = n
		}
		return
	}
	for p.older != o {
		p = p.older
	}
	p.older = n
}

// retire marks the process of n as ended.
func (t *Table) retire(n *node, now uint64) {
	if n.exited != 0 {
		return
	}
	n.exited, n.said = max(now, 1), nil
	n.place.Leave()
	t.exited.Push(&n.place, n)
	if n.sess != nil {
		t.leave(n.sess, n, now)
	}
	if n.svc != nil {
		t.quit(n.svc, n, now)
	}
}

// drop forgets the process of n. Its programs stay as ancestors of others.
func (t *Table) drop(n *node) {
	n.place.Leave()
	if s := n.svc; s != nil && n.exited == 0 {
		s.found = true // its end cannot be told
		t.quit(s, n, 0)
	}
	if n.exited == 0 && n.sess != nil { // it goes on unseen: the session's end will not be known
		n.sess.unsure = true
		n.sess.live--
	}
	t.relink(n, n.older)
	n.older = nil
	n.flags &^= flagTabled
	delete(t.held, procOf(n.key))
	t.release(n)
}

// expire forgets what ended long ago.
func (t *Table) expire(now uint64) {
	for n := t.exited.First(); n != nil && n.exited+t.o.KeepExited < now; n = t.exited.First() {
		t.drop(n)
	}
	t.n.live.Store(int64(t.live.Len()))
	t.n.exited.Store(int64(t.exited.Len()))
}

// evictScan is how many running processes are looked at for one without
// children, before the oldest is dropped.
const evictScan = 64

// room keeps the table below its limit: it drops the process that ended first,
// and if none has ended the oldest one that runs and has no children.
func (t *Table) room() {
	for t.live.Len()+t.exited.Len() > t.o.MaxProcesses {
		if n := t.exited.First(); n != nil {
			t.n.evicted.Add(1)
			t.drop(n)
			continue
		}
		t.n.evictedLive.Add(1)
		t.drop(t.victim())
	}
}

func (t *Table) victim() *node {
	i := 0
	for n := range t.live.All() {
		if i == evictScan || n.place.Next() == nil {
			break
		}
		if n.refs == 1 && n.key.PID != t.o.Self && n.key.PID != 1 {
			return n
		}
		i++
	}
	v := t.live.First()
	for v.place.Next() != nil && (v.key.PID == t.o.Self || v.key.PID == 1) {
		v = v.place.Next()
	}
	return v
}
