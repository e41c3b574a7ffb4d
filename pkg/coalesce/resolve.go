package coalesce

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Root is a watched directory or file. Dev and Ino are those of the object at
// Path as stat(2) gives them; with Name they are those of the directory that
// holds the name, which is how a single file is watched beyond its inode.
type Root struct {
	Path     string // absolute and canonical
	Dev, Ino uint64
	Name     string
	Anchor   uint32
	Above    bool // Name leads to Path, or is the first one missing on the way: a rename of it takes the root along
	Link     bool // Dev and Ino are a file's, which is at Path and has names elsewhere
}

// Query is one name as a process passed it.
type Query struct {
	Base   string // absolute directory that it starts from; for an absolute Path the root of the process
	Path   string
	Follow bool // a symlink in the last component was followed
	PID    uint32
	TID    uint32
	MntNS  uint32
}

// Resolver follows names after the fact. It compares directories by device and
// inode on the way up, so that symlinks, other mounts of the same tree and other
// mount namespaces lead to the same place. It looks at the file system as it is
// now: where that has moved on since the event, the name is taken lexically, and
// where even that says nothing the answer is ErrUnresolved.
//
// Resolve may be called by any number of goroutines.
type Resolver struct {
	ns    uint32 // the mount namespace of this process
	roots atomic.Pointer[rootSet]
	mnt   *mounts
}

type rootID struct {
	dev, ino uint64
	name     string
}

type rootSet struct {
	list  []Root
	byID  map[rootID]Root
	waits bool // a root is missing
}

// NewResolver returns a Resolver for a process in the mount namespace ns.
func NewResolver(ns uint32, roots []Root) *Resolver {
	r := &Resolver{ns: ns, mnt: newMounts("/proc/self/mountinfo")}
	r.SetRoots(roots)
	return r
}

// Close gives up the descriptor that watches the mount table.
func (r *Resolver) Close() error { return r.mnt.close() }

// SetRoots replaces the watched roots.
func (r *Resolver) SetRoots(roots []Root) {
	s := &rootSet{byID: make(map[rootID]Root, len(roots))}
	for _, x := range roots {
		if !x.Above {
			s.list = append(s.list, x)
		}
		s.waits = s.waits || x.Above && x.Anchor == 0
		id := rootID{x.Dev, x.Ino, x.Name}
		if was, ok := s.byID[id]; !ok || was.Above {
			s.byID[id] = x
		}
	}
	r.roots.Store(s)
}

// maxPath is the longest name that the kernel takes (linux include/uapi/linux/limits.h).
const maxPath = 4096

// Resolve returns the place of a name, the zero Place if that is outside every
// root, or ErrUnresolved.
func (r *Resolver) Resolve(q Query) (Place, error) {
	set := r.roots.Load()
	if len(set.byID) == 0 {
		return Place{}, nil
	}
	if len(q.Base)+len(q.Path) > 4*maxPath || strings.ContainsRune(q.Base+q.Path, 0) {
		return Place{}, fmt.Errorf("%w: bad name", ErrUnresolved)
	}
	v := viewOf(q, r.ns)
	if v.name == "" {
		return Place{}, fmt.Errorf("%w: relative to nothing", ErrUnresolved)
	}
	fd, err := v.openRoot()
	if err == nil {
		defer closeRoot(fd)
		if q.Follow {
			if p, ok := r.object(set, fd, v.name); ok {
				return p.seen(v), nil
			}
		}
		p, err := r.named(set, fd, v.name, q.Follow)
		if err == nil {
			return p.seen(v), nil
		}
	}
	return lexical(set, q, v)
}

// Elsewhere reports whether a mount namespace is another one than ours.
func (r *Resolver) Elsewhere(ns uint32) bool { return ns != 0 && r.ns != 0 && ns != r.ns }

// Locate returns the present absolute path that a name leads to. other: the process
// is in another mount namespace, and it is a path there. "" is a name that says
// nothing.
func (r *Resolver) Locate(q Query) (at string, other bool) {
	v := viewOf(q, r.ns)
	if v.name == "" {
		return "", false
	}
	if r.Elsewhere(q.MntNS) {
		return path.Clean(v.name), true
	}
	root, err := v.openRoot()
	if err != nil {
		return path.Clean(v.name), false
	}
	defer closeRoot(root)
	fd, err := openIn(root, v.name, 0)
	if err != nil {
		return path.Clean(v.name), false
	}
	defer closeFD(fd)
	if at, err = fdPath(fd); err != nil {
		return path.Clean(v.name), false
	}
	return at, false
}

// view is the tree that a process sees and a name in it.
type view struct {
	root  string // "" for our own root
	name  string // absolute within it
	other bool   // the process is in another mount namespace or root than we
	exact bool   // name has no component that a process chose but the last one
}

func viewOf(q Query, ns uint32) view {
	base := q.Base
	if base == "" {
		base = "/"
	}
	v := view{other: q.MntNS != 0 && ns != 0 && q.MntNS != ns}
	switch {
	case base[0] != '/':
		return view{}
	case q.Path == "":
		v.name = base
		v.exact = true
	case q.Path[0] != '/':
		v.name = base + "/" + q.Path
		v.exact = !strings.Contains(q.Path, "/") && q.Path != "." && q.Path != ".."
	case v.other || base == "/":
		v.name = q.Path
	default: // the process has changed its root
		v.root, v.name, v.other = base, q.Path, true
	}
	if v.other && v.root == "" {
		v.root = "/proc/" + strconv.FormatUint(uint64(q.PID), 10) + "/root"
	}
	v.name = ownProc(v.name, q)
	return v
}

// ownProc replaces the name by which a process calls itself in /proc.
func ownProc(name string, q Query) string {
	pid := strconv.FormatUint(uint64(q.PID), 10)
	if rest, ok := strings.CutPrefix(name, "/proc/self/"); ok {
		return "/proc/" + pid + "/" + rest
	}
	if rest, ok := strings.CutPrefix(name, "/proc/thread-self/"); ok {
		return "/proc/" + pid + "/task/" + strconv.FormatUint(uint64(q.TID), 10) + "/" + rest
	}
	return name
}

func (v view) openRoot() (int, error) {
	if v.root == "" {
		return unix.AT_FDCWD, nil
	}
	return unix.Open(v.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

func closeRoot(fd int) {
	if fd != unix.AT_FDCWD {
		closeFD(fd)
	}
}

// closeFD closes an O_PATH descriptor, which cannot fail.
func closeFD(fd int) { _ = unix.Close(fd) }

// openIn opens an absolute name within the tree root.
func openIn(root int, name string, flags uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_PATH | unix.O_CLOEXEC}
	if root != unix.AT_FDCWD {
		how.Resolve = unix.RESOLVE_IN_ROOT
	}
	for {
		fd, err := unix.Openat2(root, name, &how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// object places what a followed name leads to, if that still exists.
func (r *Resolver) object(set *rootSet, root int, name string) (Place, bool) {
	fd, err := openIn(root, name, 0)
	if err != nil {
		return Place{}, false
	}
	defer closeFD(fd)
	id, dir, err := identify(fd)
	if err != nil {
		return Place{}, false
	}
	if dir {
		p, err := r.above(set, fd, "")
		return p, err == nil
	}
	at, err := fdPath(fd)
	if err != nil || path.Dir(at) == at {
		return Place{}, false
	}
	// The object's own name: through its directory, and only if that still holds it.
	inDir, last := split(name)
	parent, err := openIn(root, inDir, unix.O_DIRECTORY)
	if err == nil {
		defer closeFD(parent)
		if last != "" && same(parent, last, id) {
			p, err := r.above(set, parent, last)
			return set.orLinked(p, id), err == nil
		}
	}
	dirfd, err := openIn(unix.AT_FDCWD, path.Dir(at), unix.O_DIRECTORY)
	if err != nil {
		return Place{}, false
	}
	defer closeFD(dirfd)
	if !same(dirfd, path.Base(at), id) {
		return Place{}, false
	}
	p, err := r.above(set, dirfd, path.Base(at))
	return set.orLinked(p, id), err == nil
}

// orLinked returns p, or where a file is watched whose name at p is not.
func (s *rootSet) orLinked(p Place, id rootID) Place {
	if x, ok := s.byID[id]; ok && x.Link && p.Path == "" {
		return Place{Anchor: x.Anchor, Path: x.Path}
	}
	return p
}

func same(dirfd int, name string, id rootID) bool {
	var st unix.Stat_t
	err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Dev == id.dev && st.Ino == id.ino
}

// maxLinks bounds the symlinks followed for one name (linux fs/namei.c MAXSYMLINKS).
const maxLinks = 40

// named places a name by its directory, whether or not the object exists.
func (r *Resolver) named(set *rootSet, root int, name string, follow bool) (Place, error) {
	for range maxLinks {
		dir, last := split(name)
		fd, err := openIn(root, dir, unix.O_DIRECTORY)
		if err != nil {
			return Place{}, err
		}
		target := ""
		if follow && last != "" {
			target = readlink(fd, last)
		}
		if target == "" {
			p, err := r.entry(set, fd, last)
			closeFD(fd)
			return p, err
		}
		closeFD(fd)
		if target[0] == '/' {
			name = target
		} else {
			name = dir + "/" + target
		}
	}
	return Place{}, unix.ELOOP
}

// entry places a name in the directory fd. A directory may be a root itself, or
// the top of a mount, so it is asked first.
func (r *Resolver) entry(set *rootSet, fd int, name string) (Place, error) {
	if name != "" {
		sub, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			p, err := r.above(set, sub, "")
			closeFD(sub)
			if err == nil && p.Path != "" {
				p.Leads = set.leads(fd, name)
				return p, nil
			}
		}
	}
	return r.above(set, fd, name)
}

// leads reports whether a name in the directory fd is on the way to a root.
func (s *rootSet) leads(fd int, name string) bool {
	id, _, err := identify(fd)
	id.name = name
	return err == nil && s.byID[id].Above
}

// waits reports whether a root is missing.
func (r *Resolver) waits() bool { return r.roots.Load().waits }

// split returns the directory of a name and its last component, "" if the name
// says a directory itself ("/", ".", "..").
func split(name string) (dir, last string) {
	name = strings.TrimRight(name, "/")
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return "/", name
	}
	last = name[i+1:]
	if last == "." || last == ".." {
		return name, ""
	}
	return name[:i+1], last
}

func readlink(dirfd int, name string) string {
	buf := make([]byte, maxPath)
	n, err := unix.Readlinkat(dirfd, name, buf)
	if err != nil || n >= len(buf) {
		return ""
	}
	return string(buf[:n])
}

// lexical is the last resort: the name as it reads.
func lexical(set *rootSet, q Query, v view) (Place, error) {
	p := path.Clean(v.name)
	best := -1
	for i, x := range set.list {
		if Within(x.Path, p) && (best < 0 || len(x.Path) > len(set.list[best].Path)) {
			best = i
		}
	}
	if best >= 0 {
		return Place{Anchor: set.list[best].Anchor, Path: p}, nil
	}
	if v.exact && !v.other {
		// The kernel walked to Base and one name hangs below it: no symlink can
		// have led elsewhere.
		return Place{}, nil
	}
	return Place{}, fmt.Errorf("%w: %q from %q", ErrUnresolved, q.Path, q.Base)
}

func (p Place) seen(v view) Place {
	if p.Path != "" && v.other {
		p.Seen = path.Clean(v.name)
	}
	return p
}
