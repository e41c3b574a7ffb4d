package coalesce

import (
	"bytes"
	"fmt"
	"path"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// maxClimb bounds the walk up, as the kernel side does (bpf/path.h DEPTH), with
// room for what only user space sees.
const maxClimb = 256

// above walks up from the directory fd and returns the place of name in it, or
// of fd itself if name is "".
func (r *Resolver) above(set *rootSet, fd int, name string) (Place, error) {
	p, found, err := climb(set, fd, name)
	if err != nil || found {
		return p, err
	}
	// Perhaps fd lies in a mount whose top is a directory below a root: look at
	// the same directory where the mount table says it can be reached too.
	for _, alias := range r.mnt.aliases(fd) {
		if p, found := viaAlias(set, fd, alias, name); found {
			return p, nil
		}
	}
	return Place{}, nil
}

func viaAlias(set *rootSet, fd int, alias, name string) (Place, bool) {
	for _, x := range set.list {
		if !Within(x.Path, alias) && !(x.Name != "" && path.Dir(x.Path) == alias) {
			continue
		}
		other, err := unix.Open(alias, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return Place{}, false
		}
		defer closeFD(other)
		a, _, errA := identify(fd)
		b, _, errB := identify(other)
		if errA != nil || errB != nil || a != b {
			return Place{}, false
		}
		p, found, err := climb(set, other, name)
		return p, found && err == nil
	}
	return Place{}, false
}

// climb compares fd and each directory above it with the roots; the nearest wins.
func climb(set *rootSet, start int, name string) (p Place, found bool, err error) {
	id, _, err := identify(start)
	if err != nil {
		return Place{}, false, err
	}
	var lead Place // the name is on the way to a root
	if name != "" {
		id.name = name
		if x, ok := set.byID[id]; ok {
			lead = Place{Anchor: x.Anchor, Path: x.Path, Leads: x.Above, Above: x.Above}
			if !x.Above {
				return lead, true, nil
			}
		}
		id.name = ""
	}
	fd := start
	defer func() {
		if fd != start {
			closeFD(fd)
		}
	}()
	for range maxClimb {
		if x, ok := set.byID[id]; ok {
			p, found, err := down(x, start, fd, name)
			p.Leads = lead.Leads
			return p, found, err
		}
		up, err := unix.Openat(fd, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return Place{}, false, err
		}
		upID, _, err := identify(up)
		if err != nil {
			closeFD(up)
			return Place{}, false, err
		}
		if upID == id {
			closeFD(up)
			return lead, lead.Leads, nil // the top
		}
		if fd != start {
			closeFD(fd)
		}
		fd, id = up, upID
	}
	return Place{}, false, unix.ELOOP
}

// down names the place: the way from the root's directory at fd down to start
// and on to name.
func down(x Root, start, fd int, name string) (Place, bool, error) {
	at, err := fdPath(start)
	if err != nil {
		return Place{}, false, err
	}
	top, err := fdPath(fd)
	if err != nil {
		return Place{}, false, err
	}
	if !Within(top, at) {
		return Place{}, false, fmt.Errorf("%q is not below %q any more: %w", at, top, unix.EAGAIN)
	}
	rest := at[len(top):]
	if top == "/" {
		rest = at
	}
	return Place{Anchor: x.Anchor, Path: path.Join(x.Path, rest, name)}, true, nil
}

func identify(fd int) (id rootID, dir bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return rootID{}, false, err
	}
	dir = st.Mode&unix.S_IFMT == unix.S_IFDIR
	if st.Nlink == 0 {
		return rootID{}, dir, unix.ENOENT
	}
	return rootID{dev: st.Dev, ino: st.Ino}, dir, nil
}

// gone is what the kernel appends to the path of what has none any more (linux
// v6.1 fs/d_path.c:d_path).
const gone = " (deleted)"

// fdPath returns the present path of what fd refers to, ENOENT if it has none.
func fdPath(fd int) (string, error) {
	var buf [maxPath]byte
	n, err := unix.Readlink("/proc/self/fd/"+strconv.Itoa(fd), buf[:])
	if err != nil {
		return "", err
	}
	if n == 0 || n >= len(buf) || buf[0] != '/' {
		return "", unix.ENOENT
	}
	at := string(buf[:n])
	if strings.HasSuffix(at, gone) { // or that is its name
		var own, named unix.Stat_t
		if unix.Fstat(fd, &own) != nil || unix.Lstat(at, &named) != nil || own.Dev != named.Dev || own.Ino != named.Ino {
			return "", unix.ENOENT
		}
	}
	return at, nil
}

// mounts is the mount table, read again when the kernel says that it changed.
type mounts struct {
	file string

	mu   sync.Mutex // guards all below
	fd   int
	list []mount
}

type mount struct {
	id   uint64
	dev  string // major:minor
	root string // directory of the file system that is mounted
	at   string
}

func newMounts(file string) *mounts { return &mounts{file: file, fd: -1} }

func (m *mounts) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fd < 0 {
		return nil
	}
	err := unix.Close(m.fd)
	m.fd = -1
	return err
}

// aliases returns the other paths at which the directory fd may be reached.
func (m *mounts) aliases(fd int) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.refresh(); err != nil {
		return nil // the walk up found no root; no more can be said
	}
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return nil
	}
	var own *mount
	for i := range m.list {
		if m.list[i].id == st.Mnt_id {
			own = &m.list[i]
		}
	}
	if own == nil {
		return nil
	}
	at, err := fdPath(fd)
	if err != nil || !Within(own.at, at) {
		return nil
	}
	inFS := path.Join(own.root, strings.TrimPrefix(at, own.at))
	var out []string
	for _, o := range m.list {
		if o.id != own.id && o.dev == own.dev && Within(o.root, inFS) {
			out = append(out, path.Join(o.at, strings.TrimPrefix(inFS, o.root)))
		}
	}
	return out
}

// refresh reads the table if it is new: a change of it makes the open file ready
// with POLLPRI (linux fs/proc_namespace.c mounts_poll).
func (m *mounts) refresh() error {
	if m.fd >= 0 {
		p := []unix.PollFd{{Fd: int32(m.fd), Events: unix.POLLPRI}}
		n, err := unix.Poll(p, 0)
		if err == nil && n == 0 {
			return nil
		}
	}
	if m.fd < 0 {
		fd, err := unix.Open(m.file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		m.fd = fd
	}
	var all []byte
	buf := make([]byte, 64<<10)
	for off := int64(0); ; {
		n, err := unix.Pread(m.fd, buf, off)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		all = append(all, buf[:n]...)
		off += int64(n)
	}
	m.list = parseMounts(all)
	return nil
}

// parseMounts reads the lines of mountinfo (linux Documentation/filesystems/proc.rst 3.5).
func parseMounts(b []byte) []mount {
	var list []mount
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) < 5 {
			continue
		}
		id, err := strconv.ParseUint(string(f[0]), 10, 64)
		if err != nil {
			continue
		}
		list = append(list, mount{id: id, dev: string(f[2]), root: unoctal(f[3]), at: unoctal(f[4])})
	}
	return list
}

// unoctal undoes the escapes of mountinfo: \040 and the like.
func unoctal(b []byte) string {
	if !bytes.ContainsRune(b, '\\') {
		return string(b)
	}
	var o []byte
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+3 < len(b) {
			if v, err := strconv.ParseUint(string(b[i+1:i+4]), 8, 8); err == nil {
				o = append(o, byte(v))
				i += 3
				continue
			}
		}
		o = append(o, b[i])
	}
	return string(o)
}
