package rollback

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/cas"
)

// tree handles whole trees of displaced inodes by directory descriptors: it
// follows no symlink and enters no other mount.
type tree struct {
	disk cas.Disk
}

// open opens a directory below dirfd on the same mount.
func (t tree) open(dirfd int, name string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV | unix.RESOLVE_BENEATH,
	}
	fd, err := digest.AgainInt(func() (int, error) { return unix.Openat2(dirfd, name, &how) })
	if err != nil {
		return -1, fmt.Errorf("open directory %q: %w", name, err)
	}
	return fd, nil
}

// each calls f with a descriptor of the directory for every name in it.
func (t tree) each(dirfd int, name string, f func(fd int, name string) error) error {
	fd, err := t.open(dirfd, name)
	if err != nil {
		return err
	}
	d := os.NewFile(uintptr(fd), name)
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("list %q: %w", name, err)
	}
	for _, n := range names {
		if err := f(fd, n); err != nil {
			return err
		}
	}
	return nil
}

func lstat(dirfd int, name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := digest.Again(func() error { return unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		return st, fmt.Errorf("stat %q: %w", name, err)
	}
	return st, nil
}

// size adds up the lengths of the regular files.
func (t tree) size(dirfd int, name string) (int64, error) {
	st, err := lstat(dirfd, name)
	if err != nil {
		return 0, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return st.Size, nil
	case unix.S_IFDIR:
		var sum int64
		err := t.each(dirfd, name, func(fd int, n string) error {
			k, err := t.size(fd, n)
			sum += k
			return err
		})
		if errors.Is(err, unix.EXDEV) { // a mount below: not ours to count
			err = nil
		}
		return sum, err
	}
	return 0, nil
}

// remove deletes name and all below it, taking off flags that forbid it.
func (t tree) remove(dirfd int, name string) error {
	st, err := lstat(dirfd, name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	flags := 0
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		flags = unix.AT_REMOVEDIR
		t.loosen(dirfd, name)
		if err := t.each(dirfd, name, t.remove); err != nil {
			return err
		}
	}
	err = t.disk.Unlink(dirfd, name, flags)
	if errors.Is(err, unix.EPERM) {
		t.loosen(dirfd, name)
		err = t.disk.Unlink(dirfd, name, flags)
	}
	return err
}

// loosen takes the held flags off a file or directory. It is best effort: what
// then fails says why.
func (t tree) loosen(dirfd int, name string) {
	fd, err := digest.AgainInt(func() (int, error) {
		return unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return
	}
	defer unix.Close(fd)
	now, err := digest.GetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil || now&held == 0 {
		return
	}
	i := inode{disk: t.disk, object: name, at: fd, read: fd}
	_ = i.setFlags(now & event.FlagsMask &^ held)
}

// copy makes a copy of from, with all metadata that the other file system takes.
func (t tree) copy(dirfd int, from string, todir int, to string) error {
	st, err := digest.Stat(dirfd, from)
	if err != nil {
		return err
	}
	if !st.Exists {
		return fmt.Errorf("copy %q: %w", from, unix.ENOENT)
	}
	switch st.Type {
	case event.TypeRegular:
		err = t.copyFile(dirfd, from, todir, to)
	case event.TypeDir:
		err = t.disk.Mkdir(todir, to, 0o700)
		if err == nil {
			err = t.copyEntries(dirfd, from, todir, to)
		}
	case event.TypeSymlink:
		err = t.disk.Symlink(string(st.Target), todir, to)
	default:
		err = t.disk.Mknod(todir, to, nodeType(st.Type)|uint32(st.Mode), st.Rdev)
	}
	if err != nil {
		return err
	}
	return t.dressCopy(todir, to, st)
}

func (t tree) copyEntries(dirfd int, from string, todir int, to string) error {
	out, err := t.open(todir, to)
	if err != nil {
		return err
	}
	defer unix.Close(out)
	return t.each(dirfd, from, func(fd int, n string) error { return t.copy(fd, n, out, n) })
}

// nodeType is the S_IFMT bits of what mknod(2) makes.
func nodeType(typ string) uint32 {
	switch typ {
	case event.TypeFIFO:
		return unix.S_IFIFO
	case event.TypeChar:
		return unix.S_IFCHR
	case event.TypeBlock:
		return unix.S_IFBLK
	}
	return unix.S_IFSOCK
}

func (t tree) copyFile(dirfd int, from string, todir int, to string) error {
	in, err := digest.AgainInt(func() (int, error) {
		return unix.Openat(dirfd, from, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return fmt.Errorf("open %q: %w", from, err)
	}
	defer unix.Close(in)
	out, err := t.disk.Create(todir, to, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(out)
	buf := make([]byte, 128<<10)
	for off := int64(0); ; {
		n, err := unix.Pread(in, buf, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("read %q: %w", from, err)
		}
		if n == 0 {
			return nil
		}
		if err := t.disk.Write(out, to, buf[:n], off); err != nil {
			return err
		}
		off += int64(n)
	}
}

// dressCopy gives a copy the original's metadata. Attributes that this file
// system does not take are left out: the record of the change has them all.
func (t tree) dressCopy(dirfd int, name string, want event.State) error {
	i, err := pin(t.disk, dirfd, name, name, nil)
	if err != nil {
		return err
	}
	defer i.close()
	cur, err := digest.StatFD(i.at)
	if err != nil {
		return err
	}
	want.Flags = cur.Flags
	err = i.dress(cur, &want, nil, false)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM) {
		want.Xattrs = cur.Xattrs
		err = i.dress(cur, &want, nil, false)
	}
	return err
}
