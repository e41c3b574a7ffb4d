package cas

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
)

// ErrTorn, returned by Disk.Before for a write, makes the write stop half way
// and fail, as a full or failing disk does.
var ErrTorn = errors.New("torn write")

// Disk makes the system calls that change a disk. The zero Disk just makes
// them. It holds nothing and may be used from several goroutines.
type Disk struct {
	// Before, if set, is called before each of them with its name and object.
	// An error stands for the call's own: EINTR makes it be called again, as that of
	// the kernel does. Tests inject faults here.
	Before func(op, object string) error
	// BeforeRead is the same for the calls that read an object: fstatat, openat and read.
	BeforeRead func(op, object string) error
}

// look makes a call that reads an object.
func (d Disk) look(op, object string, f func() error) error {
	return call(d.BeforeRead, op, object, f)
}

func (d Disk) do(op, object string, f func() error) error {
	if err := call(d.Before, op, object, f); err != nil {
		return fmt.Errorf("%s %q: %w", op, object, err)
	}
	return nil
}

// call makes a call, again and again while it is interrupted.
func call(before func(op, object string) error, op, object string, f func() error) error {
	for {
		var err error
		if before != nil {
			err = before(op, object)
		}
		if err == nil {
			err = f()
		}
		if err != unix.EINTR {
			return err
		}
	}
}

func (d Disk) before(op, object string) error {
	if d.Before == nil {
		return nil
	}
	return d.Before(op, object)
}

// Create makes a new regular file and returns its descriptor.
func (d Disk) Create(dirfd int, name string, mode uint32) (fd int, err error) {
	err = d.do("create", name, func() (err error) {
		fd, err = unix.Openat(dirfd, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		return err
	})
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// Unnamed makes a regular file without a name in a directory.
func (d Disk) Unnamed(dirfd int, object string) (fd int, err error) {
	err = d.do("tmpfile", object, func() (err error) {
		fd, err = unix.Openat(dirfd, ".", unix.O_RDWR|unix.O_TMPFILE|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return -1, err
	}
	return fd, nil
}

// Write writes all of b at off.
func (d Disk) Write(fd int, object string, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := 0, d.before("write", object)
		switch {
		case err == nil:
			n, err = unix.Pwrite(fd, b, off)
		case errors.Is(err, ErrTorn):
			if _, werr := unix.Pwrite(fd, b[:len(b)/2], off); werr != nil {
				err = werr
			}
		}
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("write %q: %w", object, err)
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// Allocate reserves room for size bytes and fails early if there is none. File
// systems that cannot are left to fail later.
func (d Disk) Allocate(fd int, object string, size int64) error {
	err := d.do("fallocate", object, func() error { return unix.Fallocate(fd, 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}

// Truncate sets the length of a file.
func (d Disk) Truncate(fd int, object string, size int64) error {
	return d.do("truncate", object, func() error { return unix.Ftruncate(fd, size) })
}

// Fsync makes a file or directory durable.
func (d Disk) Fsync(fd int, object string) error {
	return d.do("fsync", object, func() error { return unix.Fsync(fd) })
}

// FsyncAt is Fsync of a name.
func (d Disk) FsyncAt(dirfd int, name string) error {
	fd, err := digest.AgainInt(func() (int, error) {
		return unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	})
	if err != nil {
		return fmt.Errorf("open %q: %w", name, err)
	}
	defer unix.Close(fd)
	return d.Fsync(fd, name)
}

// Syncfs makes all of a file system durable and reports write errors since fd
// was opened (linux since v5.8, commit 735e4ae5ba28).
func (d Disk) Syncfs(fd int, object string) error {
	return d.do("syncfs", object, func() error { return unix.Syncfs(fd) })
}

// Rename is renameat2(2).
func (d Disk) Rename(fromfd int, from string, tofd int, to string, flags uint) error {
	op := "rename"
	if flags&unix.RENAME_EXCHANGE != 0 {
		op = "exchange"
	}
	return d.do(op, to, func() error { return unix.Renameat2(fromfd, from, tofd, to, flags) })
}

// LinkFD gives the inode behind a descriptor a name.
func (d Disk) LinkFD(fd int, dirfd int, name string) error {
	return d.do("link", name, func() error {
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), dirfd, name, unix.AT_SYMLINK_FOLLOW)
	})
}

// Link gives the inode behind a name another name.
func (d Disk) Link(fromfd int, from string, tofd int, to string) error {
	return d.do("link", to, func() error { return unix.Linkat(fromfd, from, tofd, to, 0) })
}

// Symlink makes a symlink.
func (d Disk) Symlink(target string, dirfd int, name string) error {
	return d.do("symlink", name, func() error { return unix.Symlinkat(target, dirfd, name) })
}

// Mkdir makes a directory.
func (d Disk) Mkdir(dirfd int, name string, mode uint32) error {
	return d.do("mkdir", name, func() error { return unix.Mkdirat(dirfd, name, mode) })
}

// Mknod makes a device node or FIFO.
func (d Disk) Mknod(dirfd int, name string, mode uint32, dev uint64) error {
	return d.do("mknod", name, func() error { return unix.Mknodat(dirfd, name, mode, int(dev)) })
}

// Unlink removes a name; flags may be unix.AT_REMOVEDIR.
func (d Disk) Unlink(dirfd int, name string, flags int) error {
	return d.do("unlink", name, func() error { return unix.Unlinkat(dirfd, name, flags) })
}

// Chown sets owner and group of the inode behind fd, which may be O_PATH.
func (d Disk) Chown(fd int, object string, uid, gid uint32) error {
	return d.do("chown", object, func() error {
		return unix.Fchownat(fd, "", int(uid), int(gid), unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)
	})
}

// Chmod sets the permission bits of the inode that the path leads to.
func (d Disk) Chmod(path, object string, mode uint32) error {
	return d.do("chmod", object, func() error { return unix.Chmod(path, mode) })
}

// Setxattr sets an attribute of the inode that the path leads to.
func (d Disk) Setxattr(path, object, name string, value []byte) error {
	return d.do("setxattr", object+" "+name, func() error { return unix.Setxattr(path, name, value, 0) })
}

// Removexattr removes an attribute of the inode that the path leads to.
func (d Disk) Removexattr(path, object, name string) error {
	return d.do("removexattr", object+" "+name, func() error { return unix.Removexattr(path, name) })
}

// Utimes sets access and modification time of the inode behind fd, which may be
// O_PATH (linux since v5.8).
func (d Disk) Utimes(fd int, object string, ts []unix.Timespec) error {
	return d.do("utimes", object, func() error {
		return unix.UtimesNanoAt(fd, "", ts, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)
	})
}

// SetProject sets the quota project of an open file.
func (d Disk) SetProject(fd int, object string, x digest.FSXattr) error {
	return d.do("setproject", object, func() error { return digest.SetFSXattr(fd, x) })
}

// Setflags sets the chattr(1) flags of an open file.
func (d Disk) Setflags(fd int, object string, flags uint32) error {
	return d.do("setflags", object, func() error {
		return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags))
	})
}
