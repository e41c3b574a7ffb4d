package coalesce

import (
	"errors"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// Place is where an operation happened. The zero Place lies outside every
// watched tree.
type Place struct {
	Anchor uint32
	Path   string // absolute, below a watched root
	Seen   string // as the process saw it, if that differs
	Leads  bool   // the name is on the way to a root
	Above  bool   // and lies in none: Path is that root
}

// place finds the names of an event. Both places may be outside.
func (t *Table) place(ev *event.Event) (from, to Place, err error) {
	if ev.Flags&event.FlagTruncated != 0 {
		return from, to, ErrCut
	}
	if ev.Flags&(event.FlagAstray|event.FlagBlocked) == event.FlagAstray { // refused on account of its anchor's tree
		return t.astray(ev)
	}
	two := ev.Op == event.OpRename || ev.Op == event.OpLink
	if ev.Flags&event.FlagNamed == 0 {
		if from, err = t.anchored(ev.Anchor, ev.Path); err == nil && two {
			to, err = t.anchored(ev.Anchor2, ev.Path2)
		}
		if at := string(ev.Base); ev.Op.Beneath() && from.Path != "" && at != from.Path {
			from.Seen = at
		}
		if rootRenamed(ev) {
			ev.Flags |= event.FlagAppeared // what is below it is elsewhere now, and another may have its place
		}
		return from, to, err
	}
	if t.o.Resolver == nil {
		return from, to, ErrUnresolved
	}
	q := Query{
		Base: string(ev.Base), Path: string(ev.Path),
		Follow: ev.Flags&event.FlagFollow != 0,
		PID:    ev.Key.PID, TID: ev.TID, MntNS: ev.MntNS,
	}
	from, err = t.o.Resolver.Resolve(q)
	if errors.Is(err, ErrUnresolved) && ev.Op == event.OpLink {
		err = nil // the source of a link does not change; it may have no name at all
	}
	if err == nil && two {
		q.Base, q.Path, q.Follow = string(ev.Base2), string(ev.Path2), false
		to, err = t.o.Resolver.Resolve(q)
	}
	if err != nil {
		if ev.Op.Namespace() && t.o.Resolver.waits() {
			ev.Flags |= event.FlagAppeared // perhaps it was what is waited for
		}
		return Place{}, Place{}, err
	}
	if from.Above && to.Path == from.Path {
		to = Place{} // the root itself, which is known by its inode
	}
	if ev.Op == event.OpLink && ev.Flags&event.FlagFollow != 0 && !sameFile(from.Path, to.Path) {
		from = Place{} // a descriptor's name in /proc, which leads to another file by now
	}
	if (from.Leads || to.Leads) && ev.Op.Namespace() {
		ev.Flags |= event.FlagAppeared // what it shows is compared when the rules are armed again
	}
	if from.Above && (ev.Op != event.OpRename || from.Anchor == 0) {
		from = Place{} // only a rename takes the root along
	}
	if to.Above {
		to = Place{}
	}
	return t.watched(from), t.watched(to), nil
}

// rootRenamed reports whether a directory that is a root lost its name to a rename, or
// another one got it. The kernel side finds such a root by its inode, and tells of
// names that rules wait for only where there is none.
func rootRenamed(ev *event.Event) bool {
	return ev.Op == event.OpRename && ev.Flags&(event.FlagDir|event.FlagBlocked) == event.FlagDir &&
		(ev.Anchor != 0 && len(ev.Path) == 0 || ev.Anchor2 != 0 && len(ev.Path2) == 0)
}

// astray places a file of which the kernel knew the inode only.
func (t *Table) astray(ev *event.Event) (from, to Place, err error) {
	if t.o.Inode == nil {
		return from, to, ErrUnresolved
	}
	p, ok := t.o.Inode(ev)
	if !ok {
		return from, to, ErrUnresolved
	}
	return t.watched(Place{Anchor: ev.Anchor, Path: p}), Place{}, nil
}

func (t *Table) anchored(id uint32, below []byte) (Place, error) {
	if id == 0 {
		return Place{}, nil
	}
	root, _, ok := t.o.Anchors.Path(id)
	if !ok {
		return Place{}, nil // the rule is gone
	}
	if len(below) == 0 {
		return t.watched(Place{Anchor: id, Path: root}), nil
	}
	p := Join(root, string(below))
	// The kernel walks directory entries: the names are clean unless a record was
	// forged or spoilt.
	if path.Clean(p) != p {
		return Place{}, ErrUnresolved
	}
	return t.watched(Place{Anchor: id, Path: p}), nil
}

// Join appends the way below a root, which is not empty.
func Join(root, below string) string {
	if root == "/" || below[0] == '/' {
		return root + below
	}
	return root + "/" + below
}

func (t *Table) watched(p Place) Place {
	if p.Path == "" || !t.o.Watched(p.Path) {
		return Place{}
	}
	return p
}

// sameFile reports whether two paths lead to one file now.
func sameFile(a, b string) bool {
	var x, y unix.Stat_t
	return unix.Lstat(a, &x) == nil && unix.Lstat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}

// Within reports whether p is dir or lies below it, by component.
func Within(dir, p string) bool {
	return p == dir || dir == "/" || len(p) > len(dir) && strings.HasPrefix(p, dir) && p[len(dir)] == '/'
}
