package pipeline

import (
	"slices"

	"github.com/holdfast/holdfast/pkg/coalesce"
	"github.com/holdfast/holdfast/pkg/event"
)

// told are changes that wait, by path and in order. Whoever holds it locks it.
type told struct {
	paths map[string][]*event.Change
}

func newTold() told { return told{paths: make(map[string][]*event.Change)} }

// add notes a change; one that does nothing is left out.
func (t *told) add(c *event.Change) {
	if c == nil || c.Op == event.OpOpen || c.Blocked {
		return
	}
	t.index(c.Path, c)
	if c.PathTo != c.Path {
		t.index(c.PathTo, c)
	}
}

func (t *told) index(path string, c *event.Change) {
	if path != "" {
		t.paths[path] = append(t.paths[path], c)
	}
}

// remove forgets a change, which waits no more.
func (t *told) remove(c *event.Change) {
	if c != nil {
		t.unindex(c.Path, c)
		t.unindex(c.PathTo, c)
	}
}

func (t *told) unindex(path string, c *event.Change) {
	list := t.paths[path]
	switch i := slices.Index(list, c); {
	case i < 0:
	case len(list) == 1:
		delete(t.paths, path)
	case i == 0: // as almost always
		t.paths[path] = list[1:]
	default:
		t.paths[path] = slices.Delete(list, i, i+1)
	}
}

// later tells what waits for a path: for itself, or for a directory above it that
// goes or moves.
func (t *told) later(path string) coalesce.Later {
	var l coalesce.Later
	for _, c := range t.paths[path] {
		l = l.Merge(coalesce.LaterOf(c, path))
	}
	for i := len(path) - 1; i > 0; i-- {
		if path[i] != '/' {
			continue
		}
		for _, c := range t.paths[path[:i]] {
			l = l.Merge(coalesce.LaterOf(c, path[:i]).Inside(path[i:]))
		}
	}
	return l
}
