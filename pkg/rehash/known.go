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
	// surveyed: a survey noted State, and no content was read yet.
	surveyed bool
	vague    bool // State was told while later operations were known of: they may be part of it
	prev     *older
	// owed is the change whose outcome State could not tell whole, nil if none.
	owed *event.Change
}

// older is what was known before, kept for changes that were told of too late.
type older struct {
	state event.State
	at    uint64
}

// node is a name in the tree of known paths.
type node struct {
	up    *node  // nil at the top, and of what has left the tree
	name  string // in up
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
			n.hang(name, kid)
		}
		n = kid
	}
	return n
}

func (n *node) hang(name string, kid *node) {
	if n.kids == nil {
		n.kids = make(map[string]*node)
	}
	kid.up, kid.name = n, name
	n.kids[name] = kid
}

func (n *node) below(dir *node) bool {
	for up := n.up; up != nil; up = up.up {
		if up == dir {
			return true
		}
	}
	return false
}

func (n *node) path() string {
	if n.up == nil {
		return ""
	}
	return n.up.path() + "/" + n.name
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
	k.linked.drop(n)
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
	k.linked.add(n)
	if !e.State.Exists || e.State.Type != event.TypeDir {
		k.dropBelow(n)
	}
}

// clear forgets what is known below p: the name was given anew.
func (k *Known) clear(p string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n := k.find(p); n != nil {
		k.dropBelow(n)
	}
}

func (k *Known) dropBelow(n *node) {
	for _, kid := range n.kids {
		k.drop(kid)
	}
	n.kids = nil
}

// drop takes a node and all below it out of the counts.
func (k *Known) drop(n *node) {
	k.linked.drop(n)
	if n.entry != nil && n.entry.State.Exists {
		k.count--
	}
	for _, kid := range n.kids {
		k.drop(kid)
	}
}

// move takes what is known at and below from to the name to; what was known
// there is dropped, and from is known to be gone since at.
func (k *Known) move(from, to string, at uint64) {
	if from == "" || to == "" || from == to {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	f, t := k.make(from), k.make(to)
	if f.below(t) || t.below(f) { // cannot be: the names were told in a wrong order
		k.dropBelow(f)
		k.dropBelow(t)
		return
	}
	k.drop(t)
	grave := &node{entry: &Entry{At: at}}
	if f.entry != nil {
		grave.entry.prev = &older{f.entry.State, f.entry.At}
	}
	up, name := t.up, t.name
	f.up.hang(f.name, grave)
	up.hang(name, f)
	k.linked.moved(f)
}

// bury notes that p is known to be gone since at, and nothing of what is below it.
func (k *Known) bury(p string, at uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.make(p)
	k.linked.drop(n)
	e := &Entry{At: at}
	if n.entry != nil {
		e.prev = &older{n.entry.State, n.entry.At}
		if n.entry.State.Exists {
			k.count--
		}
	}
	n.entry = e
}

// take forgets paths and returns what was known of them.
func (k *Known) take(paths []string) map[string]Entry {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make(map[string]Entry, len(paths))
	for _, p := range paths {
		n := k.find(p)
		if n == nil || n.entry == nil {
			continue
		}
		k.linked.drop(n)
		if n.entry.State.Exists {
			k.count--
		}
		out[p] = *n.entry
		n.entry = nil
	}
	return out
}

// exchange swaps what is known at and below two names.
func (k *Known) exchange(a, b string) {
	if a == "" || b == "" || a == b {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	x, y := k.make(a), k.make(b)
	if x.below(y) || y.below(x) {
		k.dropBelow(x)
		k.dropBelow(y)
		return
	}
	xUp, xName, yUp, yName := x.up, x.name, y.up, y.name
	xUp.hang(xName, y)
	yUp.hang(yName, x)
	k.linked.moved(x)
	k.linked.moved(y)
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

// Inode returns a path at which the file with this st_dev and inode number is known.
// It looks at everything known.
func (k *Known) Inode(dev, ino uint64) (path string, ok bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	n := inodeBelow(&k.root, dev, ino)
	if n == nil {
		return "", false
	}
	return n.path(), true
}

func inodeBelow(n *node, dev, ino uint64) *node {
	if n.entry != nil && n.entry.State.Exists && n.entry.State.Dev == dev && n.entry.State.Ino == ino {
		return n
	}
	for _, kid := range n.kids {
		if at := inodeBelow(kid, dev, ino); at != nil {
			return at
		}
	}
	return nil
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

// owing lists the paths at and below p whose state could not be told whole, with the
// change that is to blame.
func (k *Known) owing(p string) []Look {
	k.mu.RLock()
	defer k.mu.RUnlock()
	n := k.find(p)
	if n == nil {
		return nil
	}
	return owingNode(n, "/"+strings.Join(parts(p), "/"), nil)
}

func owingNode(n *node, p string, out []Look) []Look {
	if n.entry != nil && n.entry.State.Exists && n.entry.owed != nil {
		out = append(out, Look{Path: p, By: n.entry.owed})
	}
	for name, kid := range n.kids {
		out = owingNode(kid, p+"/"+name, out)
	}
	return out
}
