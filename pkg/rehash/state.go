package rehash

import (
	"os"
	"path/filepath"

	"github.com/holdfast/holdfast/pkg/event"
)

// kinds tells what a change touched of a file that keeps its name.
func kinds(c *event.Change) (content, meta bool) {
	for _, op := range c.Ops {
		switch {
		case op.Metadata():
			meta = true
		case op == event.OpCreate:
			content, meta = true, true
		default:
			content = true
		}
	}
	return content, meta
}

func createsName(c *event.Change) bool {
	return c.Op.Namespace() && c.Op != event.OpUnlink && c.Op != event.OpRmdir
}

// unread returns s without what was not read.
func unread(s event.State, why string) event.State {
	s.Hash, s.Unread = event.Hash{}, why
	return s
}

// withMeta returns the content of s with the metadata of o.
func withMeta(s event.State, o *event.State) event.State {
	if !o.Exists || o.Ino == 0 { // nothing there, or nothing that was looked at
		return s
	}
	s.Mode, s.UID, s.GID, s.User, s.Group = o.Mode, o.UID, o.GID, o.User, o.Group
	s.Flags, s.Xattrs = o.Flags, o.Xattrs
	return s
}

// withContent returns the metadata of s with the content of o.
func withContent(s event.State, o *event.State) event.State {
	if !o.Exists {
		return s
	}
	s.Hash, s.Size, s.Target, s.Mtime, s.Unread = o.Hash, o.Size, o.Target, o.Mtime, o.Unread
	return s
}

// before is what was known of a path before a change that is told of late.
func before(e *Entry, c *event.Change) event.State {
	if e.prev != nil && e.prev.at < c.First {
		return e.prev.state
	}
	if !e.State.Exists {
		return e.State
	}
	return unread(e.State, unreadAlong)
}

// earlier is before for an operation that only touched content or metadata: the
// rest is as known.
func earlier(e *Entry, c *event.Change, content, meta bool) event.State {
	if e.prev == nil || e.prev.at >= c.First || !e.prev.state.Exists {
		return unread(e.State, unreadAlong)
	}
	switch {
	case e.ours:
		return e.prev.state
	case meta && !content:
		return withMeta(e.State, &e.prev.state)
	}
	return unread(e.prev.state, unreadAlong)
}

// replaced reports whether the name belongs to another inode now than the one
// that c was about. It is told only where the inode numbers of the kernel and of
// stat(2) were seen to be the same: on overlayfs and btrfs they need not be.
func replaced(c *event.Change, e *Entry, now *event.State) bool {
	return c.Ino != 0 && e.State.Exists && e.State.Ino == c.Ino && now.Ino != c.Ino
}

func typeOf(c *event.Change) string {
	switch c.Op {
	case event.OpMkdir, event.OpRmdir:
		return event.TypeDir
	case event.OpSymlink:
		return event.TypeSymlink
	}
	if c.Dir {
		return event.TypeDir
	}
	if t := event.TypeOfMode(uint32(c.FMode)); t != "" {
		return t
	}
	if c.Op == event.OpCreate || c.Op == event.OpWrite || c.Op == event.OpTruncate {
		return event.TypeRegular
	}
	return ""
}

// OpOf names the operation that a difference of states comes closest to.
func OpOf(before, after *event.State) event.Op {
	switch {
	case !before.Exists && after.Exists, before.Exists && after.Exists && before.Type != after.Type:
		switch after.Type {
		case event.TypeDir:
			return event.OpMkdir
		case event.TypeSymlink:
			return event.OpSymlink
		case event.TypeRegular:
			return event.OpCreate
		}
		return event.OpMknod
	case before.Exists && !after.Exists:
		if before.Type == event.TypeDir {
			return event.OpRmdir
		}
		return event.OpUnlink
	}
	ops := map[string]event.Op{
		"hash": event.OpWrite, "size": event.OpWrite, "target": event.OpSymlink, "rdev": event.OpMknod,
		"mode": event.OpChmod, "uid": event.OpChown, "gid": event.OpChown, "mtime": event.OpUtimes,
		"flags": event.OpSetflags, "project": event.OpSetflags, "xattrs": event.OpSetxattr,
	}
	for _, d := range before.Diff(after) {
		if op, ok := ops[d]; ok {
			return op
		}
	}
	return event.OpWrite
}

// children lists the names in a directory as paths; what cannot be listed has none.
func children(dir string) []string {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil // it has gone again, which is an operation of its own
	}
	out := make([]string, 0, len(list))
	for _, d := range list {
		out = append(out, filepath.Join(dir, d.Name()))
	}
	return out
}
