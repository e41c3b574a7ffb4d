package replay

import (
	"maps"
	"slices"
	"strings"
)

// Tree is the states of a tree's paths. The zero value is empty.
type Tree struct{ top node }

type node struct {
	state *State // nil: nothing is there, or nothing is known to be
	kids  map[string]*node
	last  []uint64 // sequence numbers of the last records about this name
}

func names(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

func (t *Tree) find(path string) *node {
	n := &t.top
	for _, name := range names(path) {
		if n = n.kids[name]; n == nil {
			return nil
		}
	}
	return n
}

func (t *Tree) make(path string) *node {
	n := &t.top
	for _, name := range names(path) {
		kid := n.kids[name]
		if kid == nil {
			kid = &node{}
			if n.kids == nil {
				n.kids = make(map[string]*node)
			}
			n.kids[name] = kid
		}
		n = kid
	}
	return n
}

// Set says what is at path. If that is no directory, nothing is below it.
func (t *Tree) Set(path string, s State) {
	n := t.make(path)
	n.state = &s
	if !s.Exists {
		n.state = nil
	}
	if s.Type != "dir" {
		n.kids = nil
	}
}

// Get returns what is at path.
func (t *Tree) Get(path string) State {
	if n := t.find(path); n != nil && n.state != nil {
		return *n.state
	}
	return State{}
}

// move takes what is at and below from to to; what was there is gone.
func (t *Tree) move(from, to string) {
	f, o := t.make(from), t.make(to)
	switch {
	case f == o:
		return
	case strings.HasPrefix(from, to+"/"), strings.HasPrefix(to, from+"/"):
		// Cannot be: the order of the records is not that of the deeds.
		f.kids, o.kids = nil, nil
		return
	}
	o.state, o.kids = f.state, f.kids
	f.state, f.kids = nil, nil
}

func (t *Tree) exchange(a, b string) {
	x, y := t.make(a), t.make(b)
	if strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/") {
		x.kids, y.kids = nil, nil
		return
	}
	x.state, y.state = y.state, x.state
	x.kids, y.kids = y.kids, x.kids
}

// Walk calls visit for each path at which something is, in order.
func (t *Tree) Walk(visit func(path string, s *State)) { t.top.walk("", visit) }

func (n *node) walk(path string, visit func(string, *State)) {
	if n.state != nil {
		visit(path, n.state)
	}
	for _, name := range slices.Sorted(maps.Keys(n.kids)) {
		n.kids[name].walk(path+"/"+name, visit)
	}
}

// Len returns at how many paths something is.
func (t *Tree) Len() int {
	n := 0
	t.Walk(func(string, *State) { n++ })
	return n
}

// Compare lists what t, told by records, says otherwise than found, in the order
// of paths.
func (t *Tree) Compare(found *Tree) []Difference {
	var out []Difference
	t.Walk(func(path string, s *State) {
		f := found.Get(path)
		out = append(out, compare(path, s, &f)...)
	})
	found.Walk(func(path string, s *State) {
		if told := t.Get(path); !told.Exists {
			out = append(out, compare(path, &told, s)...)
		}
	})
	slices.SortStableFunc(out, func(a, b Difference) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// keep is how many records a name remembers.
const keep = 12

func (n *node) note(seq uint64) {
	if len(n.last) >= keep {
		n.last = slices.Delete(n.last, 0, 1)
	}
	n.last = append(n.last, seq)
}

// About returns the sequence numbers of the last records that named path or a
// directory above it.
func (t *Tree) About(path string) []uint64 {
	n := &t.top
	out := slices.Clone(n.last)
	for _, name := range names(path) {
		if n = n.kids[name]; n == nil {
			break
		}
		out = append(out, n.last...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
