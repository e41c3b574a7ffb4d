package attribute

import (
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
)

// Observe takes in a process event and returns the records to append, in order. The
// list is valid until the next call. Events that tell nothing of processes are
// ignored. The event's bytes are copied.
func (t *Table) Observe(ev *event.Event) []*event.Record {
	if t.first == 0 {
		t.first = ev.Time
	}
	switch ev.Kind {
	case event.KindFork:
		t.fork(ev)
	case event.KindExec:
		t.exec(ev)
	case event.KindExit:
		t.exit(ev)
	case event.KindProc:
		t.learnt = ev.Time
		t.learn(ev)
	case event.KindSession:
		t.login(ev)
	case event.KindSocket:
		t.socket(ev)
	case event.KindCred:
		t.credential(ev)
	}
	t.expire(ev.Time)
	return t.taken()
}

// taken gives out the records that are due, Who's among them.
func (t *Table) taken() []*event.Record {
	out := t.pending
	t.pending, t.given = t.given[:0], out
	return out
}

// fork links the child to the program that forked it, of which it is a copy.
func (t *Table) fork(ev *event.Event) {
	parent := t.parent(ev)
	if parent != nil {
		defer t.done(parent)
	}
	if parent != nil && parent.is(flagTabled) && ev.Session != 0 {
		parent = t.setSession(parent, ev) // a child is in its parent's session
	}
	if cur := t.current(ev.Key); cur != nil {
		t.adopt(cur, parent) // the iterator, or a later event, was faster
		return
	}
	img := &image{dev: ev.ExeDev, ino: ev.ExeIno}
	if parent != nil && parent.image != nil && !parent.is(flagStub) {
		img = parent.image
	}
	n := t.node(ev.Key, parent, img)
	n.flags |= flagCopy
	t.note(n, ev)
	t.inherit(n, parent, ev)
	t.admit(n, ev.Time)
	if n = t.setSession(n, ev); n.sess == nil && parent != nil && parent.svc != nil && parent.is(flagTabled) {
		t.enter(n, parent.svc)
	}
}

// adopt gives a process that was met before its fork was reported its parent.
func (t *Table) adopt(cur, parent *node) {
	if parent == nil || cur.up != nil && !cur.up.is(flagStub) {
		return
	}
	t.turn++
	old := cur.up
	parent.refs++
	cur.up = parent
	if old != nil {
		t.release(old)
	}
}

// parent returns the forking program of a fork event; it is made if it was never
// reported. nil if the event names none that can be true.
func (t *Table) parent(ev *event.Event) *node {
	k := ev.Parent
	if k.PID == 0 || k.Start >= ev.Key.Start {
		return nil
	}
	if n := t.find(k); n != nil {
		return n
	}
	t.n.lost.Add(1)
	// The child is a copy: what the event says of its executable and its ids is
	// true of the parent.
	img := &image{dev: ev.ExeDev, ino: ev.ExeIno}
	cur := t.current(k)
	switch {
	case cur == nil:
		n := t.node(k, nil, img)
		t.note(n, ev)
		t.admit(n, ev.Time)
		return n
	case cur.key.Execs < k.Execs:
		n := t.node(k, cur, img)
		t.note(n, ev)
		t.succeed(cur, n)
		return n
	}
	return t.between(k)
}

// exec puts a new program above the one that the process ran until now.
func (t *Table) exec(ev *event.Event) {
	img := imageOf(ev)
	n := t.find(ev.Key)
	if n != nil {
		if n = t.complete(n, img, ev); n != nil {
			t.began(n, nil, ev)
		}
		return
	}
	cur := t.current(ev.Key)
	switch {
	case cur == nil: // its fork was not reported
		t.n.lost.Add(1)
		n = t.orphan(ev, img)
	case cur.key.Execs < ev.Key.Execs:
		n = t.node(ev.Key, cur, img)
		t.note(n, ev)
		t.succeed(cur, n)
	default:
		return // older than what is known: nothing refers to it
	}
	t.began(t.setSession(n, ev), cur, ev)
}

// began tells of a program that was executed, after old in the same process.
func (t *Table) began(n, old *node, ev *event.Event) {
	t.place(n)
	if n.sess != nil {
		n.sess.execs++
	} else {
		t.served(n, ev.Time)
	}
	if t.told(n) {
		t.tell(t.execRecord(n, ev))
	}
	t.executed(n, old, ev)
}

// learn takes in a process that lived before the daemon.
func (t *Table) learn(ev *event.Event) {
	img := imageOf(ev)
	if len(ev.Argv) == 0 || len(ev.Cwd) == 0 {
		img.flags |= imagePartial
	}
	img.flags |= imageProc
	n := t.find(ev.Key)
	if n != nil {
		if n.image.exe == "" {
			t.complete(n, img, ev)
		}
		if n.up == nil && ev.Parent.PID != 0 && ev.Parent.Start < n.key.Start { // met as somebody's parent
			t.adopt(n, t.stub(ev.Parent))
		}
	} else if cur := t.current(ev.Key); cur == nil {
		n = t.orphan(ev, img)
	} else if cur.key.Execs < ev.Key.Execs {
		n = t.node(ev.Key, cur, img)
		t.note(n, ev)
		t.succeed(cur, n)
	} else {
		return
	}
	t.place(n)
	n = t.setSession(n, ev)
	if n.sess != nil {
		t.candidate(n)
	}
}

// place names a program whose file was executed through a mount that is nowhere, as
// container runtimes do with themselves (open_tree(2), umount2(2) with MNT_DETACH): the
// kernel side tells no name of it, and /proc says /. It has the name by which a program
// above executed the very inode, or none.
func (t *Table) place(n *node) {
	i := n.image
	if i.exe != "" && i.exe != nowhere || i.ino == 0 {
		return
	}
	i.exe = ""
	for u, left := t.above(n), maxWalk; u != nil && !u.is(flagStub) && left > 0; u, left = t.above(u), left-1 {
		if o := u.image; o.exe != "" && o.dev == i.dev && o.ino == i.ino {
			i.exe = o.exe
			return
		}
	}
}

// nowhere is the path that /proc gives of a file that is a mount of its own and mounted
// at no place.
const nowhere = "/"

// orphan admits a process whose fork was not seen; its parent is looked for
// when it is asked for.
func (t *Table) orphan(ev *event.Event, img *image) *node {
	var up *node
	if ev.Parent.PID != 0 && ev.Parent.Start < ev.Key.Start {
		up = t.stub(ev.Parent)
	}
	n := t.node(ev.Key, up, img)
	t.note(n, ev)
	t.admit(n, ev.Time)
	return n
}

// complete gives a program that was met before its exec was reported what the
// report says. It returns nil if that was told before.
func (t *Table) complete(n *node, img *image, ev *event.Event) *node {
	if n.is(flagCopy) || n.image.exe != "" && n.image.flags&imageProc == 0 {
		return nil
	}
	t.turn++
	*n.image = *img
	if n.is(flagLate) {
		n.flags &^= flagLate
		t.n.lost.Add(^uint64(0)) // it was not lost, but late
	}
	t.note(n, ev)
	return n
}

func (t *Table) exit(ev *event.Event) {
	n := t.current(ev.Key)
	if n == nil {
		return
	}
	delete(t.coming, procOf(ev.Key))
	if t.told(n) && n.exited == 0 {
		t.tell(t.exitRecord(n, ev))
	}
	t.retire(n, ev.Time)
}

// note keeps what every event tells of its process.
func (t *Table) note(n *node, ev *event.Event) {
	n.ids = idsOf(&ev.Creds)
	n.cgroup = ev.Cgroup
	switch ev.Kind {
	case event.KindExec:
		n.since = ev.Time
	case event.KindProc:
		n.since = 0
	case event.KindFork: // of n, or of a child of n whose own beginning was missed
		n.since = n.key.Start
		if ev.Key != n.key {
			n.since = ev.Time
			n.flags |= flagLate
		}
	default:
		n.since = ev.Time
		n.flags |= flagLate
	}
	if ev.Kthread {
		n.flags |= flagKthread
	}
}

// imageOf copies the strings of an exec event, into one block.
func imageOf(ev *event.Event) *image {
	img := &image{dev: ev.ExeDev, ino: ev.ExeIno}
	a, b := len(ev.Exe), len(ev.Exe)+len(ev.Argv)
	c := b + len(ev.Cwd)
	n := c + len(ev.Script)
	if n > 0 {
		var block strings.Builder
		block.Grow(n)
		block.Write(ev.Exe)
		block.Write(ev.Argv)
		block.Write(ev.Cwd)
		block.Write(ev.Script)
		s := block.String()
		img.exe, img.argv, img.cwd, img.script = s[:a], s[a:b], s[b:c], s[c:]
	}
	if ev.Flags&event.FlagTruncated != 0 {
		img.flags |= imageCut | imagePartial
	}
	return img
}
