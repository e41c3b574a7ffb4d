package sense

import (
	"maps"
	"slices"
)

// Anchor is a marked place: an event below it names the way from it.
type Anchor struct {
	ID   uint32
	Rule int
	Path string
	// The directory that is marked: the place itself for a tree, else its parent,
	// in which Name is watched. As stat(2) gives them.
	Dev, Ino uint64
	Name     string
	Link     bool // a file that has names outside of its tree
	// The kernel's address of the directory, or of the file that is mounted at the
	// place; 0 for a name. While it stays the same the place is the same object.
	Inode uint64
}

// Step is a name on the way to a path of a rule, or the first one that is missing:
// what comes or goes there decides what the path leads to. Dev and Ino are those
// of the directory.
type Step struct {
	Dev, Ino uint64
	Name     string
	Anchor   uint32
	Path     string
}

// identity keeps the number of an anchor over calls of Arm.
type identity struct {
	rule int
	path string
}

// On lists the watched paths whose file systems lie on a block device, by the
// kernel's number of it.
func (s *Sensor) On(dev uint64) []string {
	s.armMu.Lock()
	defer s.armMu.Unlock()
	return slices.Clone(s.on[dev])
}

// Steps lists the names that lead to the paths of the rules in force.
func (s *Sensor) Steps() []Step {
	s.armMu.Lock()
	defer s.armMu.Unlock()
	return s.steps
}

// publish makes the anchors of rules and links known.
func (s *Sensor) publish() {
	all := maps.Clone(s.armed)
	maps.Copy(all, s.linked)
	s.anchors.Store(&all)
}

// Path returns the absolute path of an anchor and its rule.
func (s *Sensor) Path(id uint32) (path string, rule int, ok bool) {
	m := s.anchors.Load()
	if m == nil {
		return "", 0, false
	}
	a, ok := (*m)[id]
	return a.Path, a.Rule, ok
}

// Anchors lists the anchors in force.
func (s *Sensor) Anchors() []Anchor {
	m := s.anchors.Load()
	if m == nil {
		return nil
	}
	return slices.SortedFunc(maps.Values(*m), func(x, y Anchor) int { return int(x.ID) - int(y.ID) })
}

// number is the number of an anchor, for as long as the Sensor lives.
func (s *Sensor) number(rule int, path string) uint32 {
	k := identity{rule, path}
	if s.ids[k] == 0 {
		s.ids[k] = s.next
		s.next++
	}
	return s.ids[k]
}
