package rollback

import (
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
)

// A cause that changes thousands of files and renames their directory is faster than
// who reads them: its records tell of files that were gone from their names. The
// directory is compared then, and what is found there is nobody's by its record, though
// it is what the cause left: the same inode, last written no later than the cause wrote,
// of which no record of anybody else tells, in a time of which no event is missing. Events
// whose path could not be followed are only in the way if they can have made such a change:
// who renamed or removed something somewhere has not written a file.

// compared reports whether a record is of what was found in a directory in which
// operations came in each other's way, or could not be followed, and that nobody was seen to do.
func compared(r *event.Record) bool {
	return (r.Found == event.FoundOrder || r.Found == event.FoundUnplaced && r.Detail[event.DetailUnplaced] != "") && r.PathTo == "" && r.After != nil && (r.Actor == nil || r.Actor.User == event.Unknown && r.Actor.Loginuid == event.Unset)
}

// unread reports whether a state is of a file that was there and could not be read.
func unread(st *event.State) bool {
	return st != nil && st.Exists && st.Type == event.TypeRegular && st.Hash.IsZero() && st.Unread != ""
}

// follow puts together what the cause did to a file before and after it renamed its
// directory, if the file was read at its new name before the rename was told of: until then
// it has two names, and what was there before is not known at the new one.
func (u *undo) follow() {
	was := map[[2]uint64]name{} // by inode: where it could not be read
	for _, n := range u.order {
		if t := u.touched[n]; len(t.unread) > 0 && t.unread[len(t.unread)-1].ID == t.record {
			if dev, ino := inodeOf(t.unread[len(t.unread)-1]); ino != 0 {
				was[[2]uint64{dev, ino}] = n
			}
		}
	}
	kept := u.order[:0]
	for _, n := range u.order {
		t := u.touched[n]
		if !unread(t.before) || t.after == nil || t.after.Ino != t.before.Ino || t.after.Dev != t.before.Dev {
			kept = append(kept, n)
			continue
		}
		old, ok := was[[2]uint64{t.before.Dev, t.before.Ino}]
		if !ok || old == n || u.touched[old].last > t.seq || u.now(old) != n.path {
			kept = append(kept, n)
			continue
		}
		first := u.touched[old]
		first.after, first.record, first.last, first.between = t.after, t.record, t.last, first.between || t.between
		first.unread = append(first.unread, t.unread...)
		first.spans[len(first.spans)-1].after = t.spans[0].after
		first.spans = append(first.spans, t.spans[1:]...)
		if other := u.others[n]; other != nil && (u.others[old] == nil || u.others[old].Seq < other.Seq) {
			u.others[old] = other
		}
		delete(u.touched, n)
	}
	u.order = kept
}

// adopt takes what was found as what the cause left, where nobody else can have done
// it. All else that was found is somebody else's.
func (u *undo) adopt() {
	for _, r := range u.found {
		n := u.name(raw(r.Path), u.renamedBefore(r.Seq))
		t := u.touched[n]
		if t == nil {
			continue
		}
		mine := u.mine(n, t, r)
		switch {
		case mine == nil:
			u.readOther(r)
		case mine.ID == t.record:
			t.after = r.After
			t.spans[len(t.spans)-1].after = r.After
		}
	}
}

// mine returns the record of the cause that tells of what was found, nil if it may be
// somebody else's.
func (u *undo) mine(n name, t *touch, r *event.Record) *event.Record {
	i := len(t.unread) - 1
	for i >= 0 && t.unread[i].Seq > r.Seq {
		i--
	}
	if i < 0 {
		return nil
	}
	c := t.unread[i]
	until, a := max(c.Time, c.TimeEnd), r.After
	if other := u.others[n]; other != nil && other.Seq > t.seq {
		return nil
	}
	switch dev, ino := inodeOf(c); {
	case ino == 0, a.Ino != ino, a.Dev != dev, a.Type != event.TypeRegular, a.Hash.IsZero(), a.Mtime > until:
		return nil
	}
	made := t.before != nil && !t.before.Exists // its owner and mode were not read either
	for _, op := range strings.Fields(r.Detail[event.DetailUnplaced]) {
		switch op, _ := event.ParseOp(op); {
		case op.Namespace():
		case op.Metadata() && op != event.OpUtimes && !made: // it would show below
		default:
			return nil
		}
	}
	for _, d := range diff(c.After, a) {
		if !made && !slices.Contains([]string{"hash", "size", "mtime"}, d) {
			return nil
		}
	}
	if u.missing(c, r) || !u.sameGeneration(n, c) {
		return nil
	}
	return c
}

func inodeOf(r *event.Record) (dev, ino uint64) {
	if r.File != nil && r.File.Ino != 0 {
		return r.File.Dev, r.File.Ino
	}
	return r.After.Dev, r.After.Ino
}

// missing reports whether events may be missing of the time from a change to when it
// was found.
func (u *undo) missing(c, found *event.Record) bool {
	return slices.ContainsFunc(u.gaps, func(r *event.Record) bool {
		g := r.Gap
		if g == nil || g.To != 0 && g.To < c.Time || g.From > max(found.Time, found.TimeEnd) {
			return false
		}
		return len(g.Trees) == 0 || slices.ContainsFunc(g.Trees, func(tree string) bool {
			return within(raw(c.Path), raw(tree)) || within(raw(found.Path), raw(tree))
		})
	})
}

// getVersion is FS_IOC_GETVERSION of 64-bit machines (linux include/uapi/linux/fs.h), which
// golang.org/x/sys does not name: it writes the inode's generation, an int.
const getVersion = 0x80087601

// sameGeneration reports whether the inode that is at a name now is not another one
// with the same number, as far as its file system tells.
func (u *undo) sameGeneration(n name, c *event.Record) bool {
	if c.File == nil || c.File.Gen == 0 {
		return true
	}
	f, err := os.OpenFile(u.now(n), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return true // what is there is compared with what was found
	}
	defer f.Close()
	gen, err := digest.GetUint32(int(f.Fd()), getVersion)
	return err != nil || gen == c.File.Gen
}
