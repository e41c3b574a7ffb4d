package coalesce

import "github.com/holdfast/holdfast/pkg/event"

// Later tells what is known to have happened to a path after a moment.
type Later struct {
	Any     bool
	First   uint64 // of the first such operation
	Content bool   // content may have changed
	Meta    bool   // metadata may have changed
	Name    bool   // the name was removed, replaced or given
	MovedTo string // where the first such rename moved it
}

// Merge returns l with what o tells, o being the later one.
func (l Later) Merge(o Later) Later {
	if !l.Any {
		return o
	}
	if !o.Any {
		return l
	}
	l.First = min(l.First, o.First)
	l.Content = l.Content || o.Content
	l.Meta = l.Meta || o.Meta
	l.Name = l.Name || o.Name
	if l.MovedTo == "" {
		l.MovedTo = o.MovedTo
	}
	return l
}

// Inside returns what l, told of a directory, tells of a name rest below it, which
// begins with '/'.
func (l Later) Inside(rest string) Later {
	if !l.Name {
		return Later{}
	}
	if l.MovedTo != "" {
		l.MovedTo += rest
	}
	l.Content, l.Meta = false, false
	return l
}

// LaterOf tells what a change did to path, which is one of its names.
func LaterOf(c *event.Change, path string) Later {
	l := Later{Any: true, First: c.First}
	if c.Blocked || c.Op == event.OpOpen {
		return Later{}
	}
	for _, op := range c.Ops {
		switch {
		case op == event.OpWrite || op == event.OpTruncate || op == event.OpMapWrite:
			l.Content = true
		case op == event.OpCreate:
			l.Content, l.Meta, l.Name = true, true, true
		case op.Metadata():
			l.Meta = true
		case op == event.OpLink && c.Path == path:
			// the object keeps its content and metadata
		default:
			l.Name = true
		}
	}
	switch {
	case c.Op == event.OpRename && c.Path == path:
		l.MovedTo = c.PathTo
	case c.Exchange && c.PathTo == path:
		l.MovedTo = c.Path
	}
	return l
}

// Later tells what is pending on path, or just being emitted with a Turn after taken,
// the last one that the asker has had: asked before the receiver of changes, it
// misses none and takes none for later that was before.
func (t *Table) Later(path string, taken uint64) Later {
	t.mu.Lock()
	defer t.mu.Unlock()
	var l Later
	for _, c := range t.leaving {
		if c.Turn <= taken {
			continue
		}
		for i, name := range []string{c.Path, c.PathTo} {
			switch {
			case name == "" || i == 1 && name == c.Path:
			case name == path:
				l = l.Merge(LaterOf(c, path))
			case below(path, name):
				l = l.Merge(LaterOf(c, name).Inside(path[len(name):]))
			}
		}
	}
	if e := t.pending[slot{path: path}]; e != nil {
		l = l.Merge(LaterOf(e.c, path))
	}
	return l
}
