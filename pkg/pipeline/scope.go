package pipeline

import (
	"errors"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// scope is what an item is about, for who must know which others it meets, and how
// much there is to be read or written for it.
type scope struct {
	paths  []string
	files  []file // of those names that may be one of several
	within bool   // what lies below the paths too: a name is given or taken
	bytes  uint64
}

// file tells one file from another: as the kernel side numbers devices or as stat(2) does.
type file struct {
	dev, ino uint64
	kernel   bool
}

// scopeOf finds out what an item is about.
func (p *Pipeline) scopeOf(it *item) (r scope) {
	switch c := it.change; {
	case c != nil:
		r.within = c.Op.Namespace()
		if c.Ino != 0 {
			r.files = append(r.files, file{c.Dev, c.Ino, true})
		}
		p.scopePath(&r, c.Path)
		if c.PathTo != c.Path {
			p.scopePath(&r, c.PathTo)
		}
		if c.Blocked {
			r.bytes = 0
		}
	case it.again != nil:
		r.within = true
		p.scopePath(&r, it.again.target.Path)
	case it.held != nil:
		r.paths = []string{it.held.Path}
	default:
		r.within = true
		for _, path := range it.about {
			p.scopePath(&r, path)
		}
	}
	return r
}

// scopePath adds one path: what is there, what is known of it, and what belongs there.
func (p *Pipeline) scopePath(r *scope, path string) {
	if path == "" {
		return
	}
	r.paths = append(r.paths, path)
	e, _ := p.states.Known().Get(path)
	s := &e.State
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	if errors.Is(err, unix.ENOENT) { // it is read where it went to
		if to := p.later(path).MovedTo; to != "" && unix.Lstat(to, &st) == nil {
			r.bytes += regular(&st)
		}
		st = unix.Stat_t{}
	}
	same := err == nil && s.Exists && st.Ino == s.Ino && st.Dev == s.Dev
	bytes := regular(&st)
	switch dir := st.Mode&unix.S_IFMT == unix.S_IFDIR; {
	case err == nil && !dir:
		r.files = append(r.files, file{st.Dev, st.Ino, false})
	case dir && !same:
		r.within = true
		if p.restores(path) { // it may go to the evidence
			bytes = p.bytesIn(path)
		}
	}
	if s.Exists && !same {
		if s.Type != event.TypeDir {
			r.files = append(r.files, file{s.Dev, s.Ino, false})
		} else {
			r.within = true
			p.states.Known().Walk(path, func(_ string, s *event.State) { bytes += s.Size + pathCost })
		}
	}
	if p.o.Vault != nil && p.restores(path) {
		if want, version, ok := p.o.Vault.Trusted(path); ok && want.Exists && want.Type == event.TypeRegular {
			bytes = max(bytes, want.Size)
			if want.Nlink > 1 { // these become names of it again
				r.paths = append(r.paths, p.o.Vault.Links(path, version)...)
			}
		}
	}
	r.bytes += bytes
}

func regular(st *unix.Stat_t) uint64 {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0
	}
	return uint64(st.Size)
}

// bytesIn is how much there is at and below a path now; it stops counting where that
// is more than is done in turn.
func (p *Pipeline) bytesIn(path string) (n uint64) {
	err := filepath.WalkDir(path, func(at string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err != nil || unix.Lstat(at, &st) != nil {
			return nil // it is gone, or cannot be read: it costs nothing
		}
		if n += regular(&st) + pathCost; n > p.o.Large {
			return fs.SkipAll
		}
		return nil
	})
	if err != nil {
		return n // WalkDir hands on what the function returns: nothing
	}
	return n
}

// scopes are those of several items.
type scopes struct {
	at, above, within map[string]int
	files             map[file]int
}

func newScopes() scopes {
	return scopes{at: make(map[string]int), above: make(map[string]int), within: make(map[string]int), files: make(map[file]int)}
}

// count adds an item's with 1, and takes it away with -1.
func (a *scopes) count(r *scope, by int) {
	for _, path := range r.paths {
		tally(a.at, path, by)
		if r.within {
			tally(a.within, path, by)
		}
		upwards(path, func(dir string) bool { tally(a.above, dir, by); return false })
	}
	for _, f := range r.files {
		tally(a.files, f, by)
	}
}

func tally[K comparable](m map[K]int, k K, by int) {
	if m[k] += by; m[k] == 0 {
		delete(m, k)
	}
}

// upwards calls f for the directories above a path until it says true, and reports
// whether it did.
func upwards(path string, f func(dir string) bool) bool {
	for i := len(path) - 1; i > 0; i-- {
		if path[i] == '/' && f(path[:i]) {
			return true
		}
	}
	return path != "/" && f("/")
}

// meet reports whether an item has to wait for one of them: it is about one of their
// paths or files, about a name above one, or about what lies below one that is given
// or taken.
func (a *scopes) meet(r *scope) bool {
	for _, path := range r.paths {
		if a.at[path] > 0 || r.within && a.above[path] > 0 || upwards(path, func(dir string) bool { return a.within[dir] > 0 }) {
			return true
		}
	}
	for _, f := range r.files {
		if a.files[f] > 0 {
			return true
		}
	}
	return false
}
