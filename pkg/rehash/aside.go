package rehash

import (
	"errors"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// aside is what was known at and below a path while it led to another directory
// than it does now. A restart forgets it: what is not back by then is told as gone.
type aside struct {
	root    fileID // the directory that it led to
	entries map[string]Entry
}

// asideMost is how many directories one path may have led to before; of those that
// are longer ago everything is told as new when they come back.
const asideMost = 4

// Swap takes notice that the root of a tree leads to another directory than before,
// or to none, because of a mount or a rename above it: nothing in either was removed
// or made by that. What is known and not there any more is put aside, and what was put
// aside when the directory went that is there now is known again; what has changed in
// it meanwhile a comparison finds. Of the root itself it tells whether it went or came,
// and its state before and after that as far as it is known: one of them at most, and
// none of a root that was never here.
func (r *Rehash) Swap(t Tree) (before, after event.State, swapped bool) {
	var st unix.Stat_t
	err := unix.Lstat(t.Root, &st)
	there := err == nil
	if !there && !gone(err) {
		return before, after, false
	}
	was, now := fileID{}, fileID{st.Dev, st.Ino}
	e, _ := r.known.Get(t.Root)
	if e.State.Exists {
		was = fileID{e.State.Dev, e.State.Ino}
	}
	r.asideMu.Lock()
	defer r.asideMu.Unlock()
	if e.State.Exists && e.State.Type == event.TypeDir && (!there || was != now) {
		r.putAside(t, was, there)
	}
	if there {
		r.bringBack(t.Root, was, now)
	}
	switch {
	case e.State.Exists && !there:
		return e.State, event.State{}, true
	case !e.State.Exists && there:
		back, _ := r.known.Get(t.Root)
		return event.State{}, back.State, true
	}
	return before, after, false
}

func (r *Rehash) returns(path string) (Tree, bool) {
	if r.o.Returns == nil {
		return Tree{}, false
	}
	return r.o.Returns(path)
}

// leave puts aside what is known of a tree whose root was renamed away at a moment.
// Of trees below it all stays known: they may have to be put back.
func (r *Rehash) leave(t Tree, at uint64) {
	if e, _ := r.known.Get(t.Root); e.State.Exists {
		r.asideMu.Lock()
		r.putAside(t, fileID{e.State.Dev, e.State.Ino}, false)
		r.asideMu.Unlock()
	}
	r.known.bury(t.Root, at)
}

// returned brings back what is known below a root that was renamed away and is there
// again, as now says.
func (r *Rehash) returned(root string, now *event.State) bool {
	r.asideMu.Lock()
	defer r.asideMu.Unlock()
	return r.bringBack(root, fileID{}, fileID{now.Dev, now.Ino})
}

// putAside is called with asideMu held. look: some of it may be there.
func (r *Rehash) putAside(t Tree, was fileID, look bool) {
	var paths []string
	r.known.Walk(t.Root, func(path string, _ *event.State) {
		if !t.skips(path) {
			paths = append(paths, path)
		}
	})
	if look {
		var st unix.Stat_t
		paths = slices.DeleteFunc(paths, func(path string) bool { return !gone(unix.Lstat(path, &st)) })
	}
	all := slices.DeleteFunc(r.aside[t.Root], func(a aside) bool { return a.root == was })
	all = append(all, aside{was, r.known.take(paths)})
	if r.aside == nil {
		r.aside = make(map[string][]aside)
	}
	r.aside[t.Root] = all[max(0, len(all)-asideMost):]
}

// bringBack is called with asideMu held. A file system may be another device after
// it was mounted again.
func (r *Rehash) bringBack(root string, was, now fileID) bool {
	all := r.aside[root]
	i := slices.IndexFunc(all, func(a aside) bool { return a.root == now })
	if i < 0 {
		i = slices.IndexFunc(all, func(a aside) bool { return a.root.ino == now.ino && a.root != was })
	}
	if i < 0 {
		return false
	}
	for _, path := range slices.Sorted(maps.Keys(all[i].entries)) { // parents first
		if e, _ := r.known.Get(path); !e.State.Exists {
			r.known.put(path, all[i].entries[path])
		}
	}
	r.aside[root] = slices.Delete(all, i, i+1)
	return true
}

func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) }
