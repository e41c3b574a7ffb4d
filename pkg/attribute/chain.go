package attribute

import "github.com/holdfast/holdfast/pkg/event"

const (
	MaxAbove  = 128  // programs above one that are held
	keepDepth = 64   // of which this many stay when a chain is cut
	maxWalk   = 4096 // ends every walk, whatever the kernel side sent
)

// cut is what is remembered of ancestors that were dropped.
type cut struct {
	via []string // how credentials were reached by then
}

// above returns the program that n came from, the stub of it if it is not
// known, or nil. A stub is replaced as soon as its process is known: its key is
// that of the present real parent, which may have executed other programs since
// it forked.
func (t *Table) above(n *node) *node {
	u := n.up
	if u == nil || !u.is(flagStub) || u.is(flagCut) || u.key.Start >= n.key.Start {
		return u
	}
	m := t.find(u.key)
	if m != nil {
		m = t.asOf(m, n.key.Start)
	} else if m = t.current(u.key); m != nil {
		m = t.unnamed(m, u.key)
	} else {
		return u
	}
	m.refs++
	n.up = m
	t.release(u)
	return m
}

// asOf returns the program that the process of m ran at a moment before: m's
// child was forked then, but only its present parent is known.
func (t *Table) asOf(m *node, at uint64) *node {
	for m.since > at {
		u := m.up
		if m.is(flagLate) || u == nil || u.is(flagStub) || procOf(u.key) != procOf(m.key) || u.key.Execs+1 != m.key.Execs {
			return t.unnamed(m, m.key)
		}
		m = u
	}
	return m
}

// unnamed makes a program of m's process of which nothing is known but the
// ancestors and the session of the process: it ran some time before k.
func (t *Table) unnamed(m *node, k event.ProcKey) *node {
	up := m
	for up != nil && !up.is(flagStub) && procOf(up.key) == procOf(k) {
		up = t.above(up)
	}
	n := t.node(k, up, &image{})
	n.sess, n.ids, n.cgroup = m.sess, m.ids, m.cgroup
	n.flags |= flagUnnamed
	return n
}

// between makes a program of a process of which other programs are known, but
// not the one asked for. Its ancestors and session are those of the process.
func (t *Table) between(k event.ProcKey) *node {
	cur := t.current(k)
	if cur == nil {
		return nil
	}
	for cur.up != nil && cur.key.Execs > k.Execs {
		sess := cur.sess
		up := t.above(cur)
		if procOf(up.key) == procOf(k) && !up.is(flagStub) {
			cur = up
			continue
		}
		n := t.node(k, up, &image{})
		n.sess, n.ids = sess, cur.ids
		return n
	}
	if cur.key.Execs > k.Execs {
		n := t.node(k, nil, &image{})
		n.sess, n.ids = cur.sess, cur.ids
		return n
	}
	n := t.node(k, cur, &image{})
	n.ids = cur.ids
	return n
}

// chain lists n and the programs it came from, n first. It ends with a stub if
// more are known to have been there. The slice is valid until the next call.
func (t *Table) chain(n *node) []*node {
	t.steps = t.appendChain(t.steps[:0], n)
	return t.steps
}

func (t *Table) appendChain(c []*node, n *node) []*node {
	for n != nil && len(c) < maxWalk {
		c = append(c, n)
		if n.is(flagStub) {
			break
		}
		n = t.above(n)
	}
	return c
}

// inSession returns the part of a chain that belongs to the session of its
// first element: of a login up to the process that opened it, else up to but not
// including pid 1 and kernel threads. whole is false if the rest of the session
// is not known.
func inSession(c []*node) (part []*node, whole bool) {
	s := c[0].sess
	for i, n := range c {
		switch {
		case n.is(flagStub) && !n.is(flagCut) && !outermost(n):
			return c[:i], s != nil && procOf(c[i-1].key) == s.opener
		case n.is(flagStub) && n.is(flagCut) && n.sess == s:
			return c[:i], false
		case i > 0 && (n.sess != s || s == nil && outermost(n)):
			return c[:i], true
		}
	}
	return c, true
}

// outermost reports whether n is no part of any session: init, kthreadd and
// what runs in the kernel.
func outermost(n *node) bool { return n.key.PID <= 2 || n.is(flagKthread) }

// root is the key that names the service session of a chain: the oldest known
// ancestor below pid 1 and kthreadd, inside the same container if it is in one.
func (t *Table) root(c []*node) event.ProcKey {
	k := c[0].key
	box := t.cgroup(c[0].cgroup).container
	for _, n := range c[1:] {
		if outermost(n) || n.sess != c[0].sess && !n.is(flagStub) {
			break
		}
		if n.is(flagStub) && box != "" && !n.is(flagCut) {
			break
		}
		if !n.is(flagStub) && box != "" && t.cgroup(n.cgroup).container != box {
			break
		}
		k = n.key
	}
	return k
}

// cutChain returns a copy of the nearest part of the chain that begins at n, so
// that a process which forever forks and ends, or executes itself, holds no
// more than MaxAbove programs. Nothing is copied when the table holds too many.
func (t *Table) cutChain(n *node) *node {
	t.n.cut.Add(1)
	keep := 0
	if n.depth >= MaxAbove {
		keep = keepDepth
	}
	c := t.appendChain(nil, n)
	keep = min(keep, len(c)-1)
	far := c[keep]
	end := t.stub(t.root(c[keep:]))
	end.flags |= flagCut
	end.sess, end.cgroup = far.sess, far.cgroup
	if part, whole := inSession(c[keep:]); len(part) > 0 {
		next := far.ids
		if keep > 0 {
			next = c[keep-1].ids
		}
		t.cuts[end] = cut{via: t.via(part, whole, next)}
	}
	up := end
	for i := keep - 1; i >= 0; i-- {
		o := c[i]
		m := &node{key: o.key, up: up, image: o.image, sess: o.sess, cgroup: o.cgroup, ids: o.ids, since: o.since,
			depth: uint16(keep - i), flags: o.flags &^ (flagTabled | flagLooked)}
		up.refs++
		t.nodes++
		up = m
	}
	return up
}
