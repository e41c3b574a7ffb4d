package rehash

import (
	"context"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// maxLinked bounds the names of files with several names that are remembered.
const maxLinked = 65536

// fileID tells one file from another.
type fileID struct{ dev, ino uint64 }

// linked are known names of regular files that have others, by file. How many names
// a file has may be out of date: who asks looks at the file.
type linked struct {
	files  map[fileID]map[*node]struct{}
	count  int // names
	missed int // names that found no room
	gen    uint64
}

// of returns the file of a name if that has several.
func (l *linked) of(n *node) (fileID, bool) {
	if n.entry == nil {
		return fileID{}, false
	}
	s := &n.entry.State
	return fileID{s.Dev, s.Ino}, s.Exists && s.Type == event.TypeRegular && s.Nlink > 1 && s.Ino != 0
}

// add notes a name whose entry was set.
func (l *linked) add(n *node) {
	id, ok := l.of(n)
	switch {
	case !ok:
		return
	case l.count >= maxLinked:
		l.missed++
	default:
		if l.files == nil {
			l.files = make(map[fileID]map[*node]struct{})
		}
		if l.files[id] == nil {
			l.files[id] = make(map[*node]struct{})
		}
		l.files[id][n] = struct{}{}
		l.count++
	}
	l.gen++
}

// drop forgets a name whose entry goes or is about to be set.
func (l *linked) drop(n *node) {
	id, ok := l.of(n)
	if !ok {
		return
	}
	if _, ok := l.files[id][n]; !ok {
		return
	}
	l.count--
	l.gen++
	if delete(l.files[id], n); len(l.files[id]) == 0 {
		delete(l.files, id)
	}
}

// moved notes that a name, or a directory with names, has another path.
func (l *linked) moved(n *node) {
	if _, ok := l.of(n); ok || l.count > 0 && len(n.kids) > 0 {
		l.gen++
	}
}

// names returns the known names of a file that has several, in order.
func (k *Known) names(dev, ino uint64) []string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var out []string
	for n := range k.linked.files[fileID{dev, ino}] {
		out = append(out, n.path())
	}
	slices.Sort(out)
	return out
}

// nlink notes how many names the file at p has, if it is the one known there.
func (k *Known) nlink(p string, now *event.State) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.find(p)
	if n == nil || n.entry == nil || n.entry.State.Ino != now.Ino || n.entry.State.Dev != now.Dev {
		return
	}
	k.linked.drop(n)
	n.entry.State.Nlink = now.Nlink
	k.linked.add(n)
}

// Links is a number that grows when a file with several names comes or goes.
func (r *Rehash) Links() uint64 {
	r.known.mu.RLock()
	defer r.known.mu.RUnlock()
	return r.known.linked.gen
}

// Outside lists the known regular files with more names than are known, by one of
// their known names each. missed counts names that are not looked at for want of
// room.
func (r *Rehash) Outside(ctx context.Context) (paths []string, missed int) {
	k := &r.known
	k.mu.RLock()
	all := make([]string, 0, k.linked.count)
	for _, names := range k.linked.files {
		for n := range names {
			all = append(all, n.path())
		}
	}
	missed = k.linked.missed
	k.mu.RUnlock()
	slices.Sort(all)
	type inode struct{ dev, ino uint64 }
	type file struct {
		path  string
		names uint64
		nlink uint64
	}
	files := make(map[inode]*file)
	var order []*file
	for _, p := range all {
		var st unix.Stat_t
		if ctx.Err() != nil {
			break
		}
		if unix.Lstat(p, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink < 2 {
			continue
		}
		f := files[inode{st.Dev, st.Ino}]
		if f == nil {
			f = &file{path: p, nlink: uint64(st.Nlink)}
			files[inode{st.Dev, st.Ino}] = f
			order = append(order, f)
		}
		f.names++
	}
	for _, f := range order {
		if f.names < f.nlink {
			paths = append(paths, f.path)
		}
	}
	return paths, missed
}

// Doubt lets the next look at each known path at and below root read it, whatever
// its times say.
func (r *Rehash) Doubt(root string) {
	r.known.mu.Lock()
	defer r.known.mu.Unlock()
	if n := r.known.find(root); n != nil {
		n.doubt()
	}
}

func (n *node) doubt() {
	if n.entry != nil {
		e := *n.entry // others may hold the entry
		e.ctime = 0
		n.entry = &e
	}
	for _, kid := range n.kids {
		kid.doubt()
	}
}
