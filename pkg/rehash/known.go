package rehash

import (
	"sort"
	"strings"
	"sync"

	"github.com/holdfast/holdfast/pkg/event"
)

// Entry is what is known of a path.
type Entry struct {
	State event.State
	At    uint64 // ns since boot at which State was read
	ctime int64  // ns, of the inode when it was read; 0 if not taken
	ours  bool   // Holdfast itself brought the path to State
	fresh bool   // the name was not there in the state that was learned, enrolled or put back
	vague bool   // State was told while later operations were known of: they may be part of it
	prev  *older
}

// older is what was known before, kept for changes that were told of too late.
type older struct {
	state event.State
	at    uint64
}

// node is a name in the tree of known paths.
type node struct {
	entry *Entry // nil: nothing is known of this name itself
	kids  map[string]*node
}

// Known holds the known states as a tree of names, so that a whole directory
// moves or goes at once. The zero value is empty. It may be used by any number
// of goroutines.
type Known struct {
	mu    sync.RWMutex // guards all below
	root  node
	count int

	linked linked
}

func parts(p string) []string {
	p = strings.Trim(p, "/")
	if p == "" {
		return nil
	}
	return strings.Split(p, "/")
}

func (k *Known) find(p string) *node {
	n := &k.root
	for _, name := range parts(p) {
		if n = n.kids[name]; n == nil {
			return nil
		}
	}
	return n
}

func (k *Known) make(p string) *node {
	n := &k.root
	for _, name := range parts(p) {
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

// Get returns what is known of p.
func (k *Known) Get(p string) (Entry, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if n := k.find(p); n != nil && n.entry != nil {
		return *n.entry, true
	}
	return Entry{}, false
}

// Len returns how many paths that exist are known.
func (k *Known) Len() int {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.count
}

// put sets what is known of p. A state that does not exist is kept too, with its
// moment; what was known below it goes.
func (k *Known) put(p string, e Entry) {
	if p == "" {
		return // a name outside every watched tree: nothing is known of it
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.make(p)
	if n.entry != nil {
		e.prev = &older{n.entry.State, n.entry.At}
		if n.entry.State.Exists {
			k.count--
		}
	}
	if e.State.Exists {
		k.count++
	}
	n.entry = &e
	k.linked.note(p, &e.State)
	if !e.State.Exists || e.State.Type != event.TypeDir {
		for _, kid := range n.kids {
			k.count -= living(kid)
		}
		n.kids = nil
	}
}

func living(n *node) int {
	c := 0
	if n.entry != nil && n.entry.State.Exists {
		c++
	}
	for _, kid := range n.kids {
		c += living(kid)
	}
	return c
}

// move takes what is known at and below from to the name to; what was known
// there is dropped, and from is known to be gone since at.
func (k *Known) move(from, to string, at uint64) {
	if from == "" || to == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	f, t := k.find(from), k.make(to)
	k.count -= living(t)
	if f == nil {
		*t = node{}
		return
	}
	k.linked.move(from, to)
	entry := f.entry
	*t = node{entry: entry, kids: f.kids}
	*f = node{entry: &Entry{At: at}}
	if entry != nil {
		f.entry.prev = &older{entry.State, entry.At}
	}
}

// exchange swaps what is known at and below two names.
func (k *Known) exchange(a, b string) {
	if a == "" || b == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	x, y := k.make(a), k.make(b)
	*x, *y = *y, *x
}

// prune forgets names at and below p that are known to be gone since before at.
func (k *Known) prune(p string, at uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n := k.find(p); n != nil {
		pruneNode(n, at)
	}
}

func pruneNode(n *node, at uint64) {
	for name, kid := range n.kids {
		pruneNode(kid, at)
		if len(kid.kids) == 0 && (kid.entry == nil || !kid.entry.State.Exists && kid.entry.At < at) {
			delete(n.kids, name)
		}
	}
}

// Walk calls visit for each path at or below p that is known to exist, parents
// first, names in order. visit must not call back into k.
func (k *Known) Walk(p string, visit func(path string, s *event.State)) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if n := k.find(p); n != nil {
		walkNode(n, "/"+strings.Join(parts(p), "/"), visit)
	}
}

func walkNode(n *node, p string, visit func(string, *event.State)) {
	if n.entry != nil && n.entry.State.Exists {
		visit(p, &n.entry.State)
	}
	names := make([]string, 0, len(n.kids))
	for name := range n.kids {
		names = append(names, name)
	}
	sort.Strings(names)
	if p == "/" {
		p = ""
	}
	for _, name := range names {
		walkNode(n.kids[name], p+"/"+name, visit)
	}
}
