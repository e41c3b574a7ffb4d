package rehash

import (
	"context"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// maxLinked bounds the names of files with several names that are remembered.
const maxLinked = 65536

// linked are known names of regular files that have others. What is here may be
// out of date: who asks looks at the file.
type linked struct {
	names  map[string]bool
	missed int // names that found no room since the last time they were asked for
	gen    uint64
}

// note follows a state that is put.
func (l *linked) note(path string, s *event.State) {
	several := s.Exists && s.Type == event.TypeRegular && s.Nlink > 1
	switch {
	case several == l.names[path]:
		if !several {
			return
		}
	case !several:
		delete(l.names, path)
	case len(l.names) >= maxLinked:
		l.missed++
	default:
		if l.names == nil {
			l.names = make(map[string]bool)
		}
		l.names[path] = true
	}
	l.gen++
}

// move follows names that moved with a directory.
func (l *linked) move(from, to string) {
	for p := range l.names {
		if rest, ok := strings.CutPrefix(p, from); ok && (rest == "" || rest[0] == '/') {
			delete(l.names, p)
			l.names[to+rest] = true
			l.gen++
		}
	}
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
	all := make([]string, 0, len(k.linked.names))
	for p := range k.linked.names {
		all = append(all, p)
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
			k.mu.Lock()
			delete(k.linked.names, p)
			k.mu.Unlock()
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
