package digest

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// statMask is what every look asks the kernel for.
const statMask = unix.STATX_BASIC_STATS

// OpenParent opens the directory that holds path, for reading and for fsync, and
// returns it with the last component. No component may be a symlink: that gives
// an error that wraps unix.ELOOP. For "/" the base is ".". The caller closes the
// descriptor.
func OpenParent(p string) (dirfd int, base string, err error) {
	if err := checkPath(p); err != nil {
		return -1, "", err
	}
	dir, base := path.Split(p)
	if base == "" {
		base = "."
	}
	fd, err := openDir(unix.AT_FDCWD, dir)
	if err != nil {
		return -1, "", fmt.Errorf("open parent of %q: %w", p, err)
	}
	return fd, base, nil
}

func openDir(at int, name string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NONBLOCK,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	return AgainInt(func() (int, error) { return unix.Openat2(at, name, &how) })
}

// checkPath refuses what is not an absolute canonical path: such a path could
// name something else than its text says.
func checkPath(p string) error {
	if !strings.HasPrefix(p, "/") || p != path.Clean(p) {
		return fmt.Errorf("path %q: not absolute and canonical", p)
	}
	if strings.IndexByte(p, 0) >= 0 {
		return fmt.Errorf("path %q: holds a NUL byte", p)
	}
	return nil
}

// StatPath is Stat of an absolute canonical path. A path below something that
// is no directory does not exist; one below a symlink is an error.
func StatPath(p string) (event.State, error) {
	fd, base, err := OpenParent(p)
	if absent(err) {
		return event.State{}, nil
	}
	if err != nil {
		return event.State{}, err
	}
	defer unix.Close(fd)
	return Stat(fd, base)
}

// Stat returns the metadata of name in the directory dirfd without following a
// symlink and without reading content: Hash is zero.
func Stat(dirfd int, name string) (event.State, error) {
	o, err := openObject(dirfd, name)
	if absent(err) {
		return event.State{}, nil
	}
	if err != nil {
		return event.State{}, err
	}
	defer o.close()
	return o.state()
}

// StatFD is Stat of an open file; fd may be O_PATH, then Flags are not told.
func StatFD(fd int) (event.State, error) {
	o := &object{name: procFD(fd), path: fd, read: -1}
	if err := statx(fd, "", unix.AT_EMPTY_PATH, &o.st); err != nil {
		return event.State{}, fmt.Errorf("stat descriptor %d: %w", fd, err)
	}
	fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return event.State{}, fmt.Errorf("stat descriptor %d: %w", fd, err)
	}
	if fl&unix.O_PATH == 0 {
		o.read = fd
	}
	return o.state()
}

func absent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
}

// object is one inode held open: by an O_PATH descriptor, and for regular files
// and directories by one that can read.
type object struct {
	name string
	path int
	read int
	rerr error // why read is -1 although the type can be read
	st   unix.Statx_t
}

// openObject pins the inode first and decides by its type before it opens it
// for reading: a FIFO or a device put in place of the file is never opened.
func openObject(dirfd int, name string) (*object, error) {
	fd, err := AgainInt(func() (int, error) {
		return unix.Openat(dirfd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", name, err)
	}
	o := &object{name: name, path: fd, read: -1}
	if err := statx(fd, "", unix.AT_EMPTY_PATH, &o.st); err != nil {
		o.close()
		return nil, fmt.Errorf("stat %q: %w", name, err)
	}
	switch o.st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
		o.read, o.rerr = reopen(fd)
	}
	return o, nil
}

// reopen opens the inode behind an O_PATH descriptor for reading. Access times
// stay as they are if we own the file or are privileged.
func reopen(fd int) (int, error) {
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC | unix.O_NOCTTY
	self := procFD(fd)
	r, err := AgainInt(func() (int, error) { return unix.Open(self, flags|unix.O_NOATIME, 0) })
	if errors.Is(err, unix.EPERM) {
		r, err = AgainInt(func() (int, error) { return unix.Open(self, flags, 0) })
	}
	if err != nil {
		return -1, err
	}
	return r, nil
}

func (o *object) close() {
	unix.Close(o.path)
	if o.read >= 0 {
		unix.Close(o.read)
	}
}

// state returns what can be told without reading content.
func (o *object) state() (event.State, error) {
	st := &o.st
	s := event.State{
		Exists: true,
		Mode:   event.Mode(st.Mode & 07777),
		UID:    st.Uid, GID: st.Gid,
		User: UserName(st.Uid), Group: GroupName(st.Gid),
		Mtime: event.Time(st.Mtime.Sec*1e9 + int64(st.Mtime.Nsec)),
		Dev:   unix.Mkdev(st.Dev_major, st.Dev_minor),
		Ino:   st.Ino, Nlink: st.Nlink,
	}
	s.Type = event.TypeOfMode(uint32(st.Mode))
	switch s.Type {
	case event.TypeRegular:
		s.Size = st.Size
	case event.TypeChar, event.TypeBlock:
		s.Rdev = unix.Mkdev(st.Rdev_major, st.Rdev_minor)
	}
	if s.Type == event.TypeSymlink {
		t, err := readlink(o.path)
		if err != nil {
			return s, fmt.Errorf("read link %q: %w", o.name, err)
		}
		s.Target, s.Size = t, uint64(len(t))
	}
	var err error
	if o.read >= 0 {
		if s.Flags, err = inodeFlags(o.read); err != nil {
			return s, fmt.Errorf("read flags of %q: %w", o.name, err)
		}
		x, xerr := GetFSXattr(o.read)
		if err = failed(xerr); err != nil {
			return s, fmt.Errorf("read project of %q: %w", o.name, err)
		}
		s.Project = x.Project
		s.Xattrs, err = fdXattrs(o.read)
	} else {
		s.Xattrs, err = pathXattrs(procFD(o.path))
	}
	if err != nil {
		return s, fmt.Errorf("read attributes of %q: %w", o.name, err)
	}
	return s, nil
}

// inodeFlags reads the chattr(1) flags. File systems without them have none.
func inodeFlags(fd int) (uint32, error) {
	v, err := GetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return 0, failed(err)
	}
	return v & event.FlagsMask, nil
}

// failed is an error that says that something could not be read, nil for one that says
// that there is no such thing: ENOTTY, EOPNOTSUPP, EINVAL or whatever else a file system
// answers that does not know a call.
func failed(err error) error {
	for _, e := range []error{unix.EIO, unix.ENOMEM, unix.ESTALE, unix.ENODEV} {
		if errors.Is(err, e) {
			return err
		}
	}
	return nil
}

func readlink(fd int) ([]byte, error) {
	buf := make([]byte, 256)
	for {
		n, err := AgainInt(func() (int, error) { return unix.Readlinkat(fd, "", buf) })
		if err != nil {
			return nil, err
		}
		if n < len(buf) {
			return buf[:n:n], nil
		}
		buf = make([]byte, 2*len(buf))
	}
}

func procFD(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

func statx(dirfd int, name string, flags int, st *unix.Statx_t) error {
	return Again(func() error { return unix.Statx(dirfd, name, flags|unix.AT_SYMLINK_NOFOLLOW, statMask, st) })
}

// Again repeats a call that a signal interrupted: network and FUSE file systems
// return EINTR although Go installs its handlers with SA_RESTART.
func Again(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// AgainInt is Again for a call that has a number to return.
func AgainInt(f func() (n int, err error)) (n int, err error) {
	err = Again(func() (err error) { n, err = f(); return err })
	return n, err
}

// GetUint32 makes an ioctl(2) that reads 32 bits, as FS_IOC_GETFLAGS does.
func GetUint32(fd int, request uint) (v uint32, err error) {
	err = Again(func() (err error) { v, err = unix.IoctlGetUint32(fd, request); return err })
	return v, err
}
