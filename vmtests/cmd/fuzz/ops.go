package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// op is one operation; weight is how often it is chosen.
type op struct {
	name   string
	weight int
	do     func(*fuzzer) error
}

func operations() []op { return slices.Concat(calls(), rings(), mappings()) }

// calls are operations by system calls.
func calls() []op {
	return []op{
		{"create", 14, func(f *fuzzer) error { return f.put(f.file(), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY) }},
		{"rewrite", 6, func(f *fuzzer) error { return f.put(f.file(), unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY) }},
		{"append", 5, func(f *fuzzer) error { return f.put(f.file(), unix.O_APPEND|unix.O_WRONLY) }},
		{"pwrite", 5, (*fuzzer).pwrite},
		{"truncate", 3, func(f *fuzzer) error { p := f.file(); f.about(p); return unix.Truncate(p, f.r.Int64N(9000)) }},
		{"ftruncate", 2, func(f *fuzzer) error {
			return f.with(f.file(), unix.O_RDWR, func(fd int) error { return unix.Ftruncate(fd, f.r.Int64N(9000)) })
		}},
		{"opentrunc", 2, func(f *fuzzer) error {
			return f.with(f.file(), unix.O_WRONLY|unix.O_TRUNC, func(int) error { return nil })
		}},
		{"mkdir", 8, func(f *fuzzer) error { p := f.subdir(); f.about(p); return unix.Mkdir(p, f.mode(0o777)) }},
		{"mkdirdeep", 3, func(f *fuzzer) error {
			p := f.subdir() + "/" + f.dirName() + "/" + f.dirName()
			f.about(p)
			return os.MkdirAll(p, 0o755)
		}},
		{"rmdir", 3, func(f *fuzzer) error { p := f.subdir(); f.about(p); return unix.Rmdir(p) }},
		{"rmtree", 1, func(f *fuzzer) error { p := f.subdir(); f.about(p); return removeAll(unix.AT_FDCWD, p) }},
		{"unlink", 6, func(f *fuzzer) error { p := f.file(); f.about(p); return unix.Unlink(p) }},
		{"rename", 6, func(f *fuzzer) error { return f.rename(f.file(), f.file(), 0) }},
		{"noreplace", 2, func(f *fuzzer) error { return f.rename(f.any(), f.any(), unix.RENAME_NOREPLACE) }},
		{"renamedir", 4, func(f *fuzzer) error { return f.rename(f.subdir(), f.subdir(), 0) }},
		{"exchange", 4, func(f *fuzzer) error { return f.rename(f.any(), f.any(), unix.RENAME_EXCHANGE) }},
		{"exchangedirs", 2, func(f *fuzzer) error { return f.rename(f.subdir(), f.subdir(), unix.RENAME_EXCHANGE) }},
		{"whiteout", 1, func(f *fuzzer) error { return f.rename(f.file(), f.file(), unix.RENAME_WHITEOUT) }},
		{"moveout", 2, func(f *fuzzer) error { return f.rename(f.any(), f.out(), 0) }},
		{"movein", 3, func(f *fuzzer) error { return f.rename(f.out(), f.any(), 0) }},
		{"exchangeout", 1, func(f *fuzzer) error { return f.rename(f.any(), f.out(), unix.RENAME_EXCHANGE) }},
		{"fillout", 2, (*fuzzer).fillOut},
		{"saveas", 4, (*fuzzer).saveAs},
		{"link", 5, func(f *fuzzer) error { a, b := f.file(), f.file(); f.about(a, b); return unix.Link(a, b) }},
		{"linkout", 1, func(f *fuzzer) error { a, b := f.file(), f.out(); f.about(a, b); return unix.Link(a, b) }},
		{"linkin", 1, func(f *fuzzer) error { a, b := f.out(), f.file(); f.about(a, b); return unix.Link(a, b) }},
		{"symlink", 3, func(f *fuzzer) error { p := f.file(); f.about(p); return unix.Symlink(f.fileName(), p) }},
		{"mkfifo", 2, func(f *fuzzer) error { p := f.file(); f.about(p); return unix.Mkfifo(p, f.mode(0o666)) }},
		{"mknod", 2, func(f *fuzzer) error {
			p := f.file()
			f.about(p)
			// Numbers for local use, behind which there is nothing: others open what they find.
			kind := []uint32{unix.S_IFCHR, unix.S_IFBLK, unix.S_IFREG}[f.r.IntN(3)]
			return unix.Mknod(p, kind|f.mode(0o666), int(unix.Mkdev(250, uint32(f.r.IntN(9)))))
		}},
		{"bind", 1, (*fuzzer).bind},
		{"chmod", 5, func(f *fuzzer) error { p := f.notLink(f.any()); f.about(p); return unix.Chmod(p, f.mode(0o7777)) }},
		{"fchmod", 2, func(f *fuzzer) error {
			return f.with(f.any(), unix.O_RDONLY|unix.O_NONBLOCK, func(fd int) error { return unix.Fchmod(fd, f.mode(0o777)) })
		}},
		{"chown", 4, func(f *fuzzer) error {
			p := f.any()
			f.about(p)
			return unix.Lchown(p, f.r.IntN(3)*1000, f.r.IntN(3)*1000)
		}},
		{"utimes", 3, (*fuzzer).utimes},
		{"futimes", 1, func(f *fuzzer) error {
			return f.with(f.any(), unix.O_RDONLY, func(fd int) error {
				ts := [2]unix.Timespec{{Sec: 1}, {Sec: int64(f.r.IntN(2e9)), Nsec: int64(f.r.IntN(1e9))}}
				_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
				if e != 0 {
					return e
				}
				return nil
			})
		}},
		{"setxattr", 4, func(f *fuzzer) error {
			p := f.any()
			f.about(p)
			return unix.Lsetxattr(p, f.attribute(), f.bytes()[:0:0], 0)
		}},
		{"setxattrlong", 3, func(f *fuzzer) error {
			p, b := f.any(), f.bytes()
			f.about(p)
			return unix.Lsetxattr(p, f.attribute(), b[:min(len(b), 500)], 0)
		}},
		{"removexattr", 3, func(f *fuzzer) error { p := f.any(); f.about(p); return unix.Lremovexattr(p, f.attribute()) }},
		{"acl", 3, func(f *fuzzer) error {
			p := f.any()
			f.about(p)
			return unix.Lsetxattr(p, "system.posix_acl_access", f.acl(), 0)
		}},
		{"defacl", 1, func(f *fuzzer) error {
			p := f.subdir()
			f.about(p)
			return unix.Lsetxattr(p, "system.posix_acl_default", f.acl(), 0)
		}},
		{"nodump", 2, func(f *fuzzer) error {
			return f.with(f.any(), unix.O_RDONLY|unix.O_NONBLOCK, func(fd int) error {
				v, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
				if err != nil {
					return err
				}
				return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, v^0x40)
			})
		}},
		{"fallocate", 2, func(f *fuzzer) error {
			return f.with(f.file(), unix.O_RDWR, func(fd int) error {
				return unix.Fallocate(fd, uint32(f.r.IntN(2)), f.r.Int64N(9000), 1+f.r.Int64N(9000))
			})
		}},
		{"punch", 2, func(f *fuzzer) error {
			return f.with(f.file(), unix.O_RDWR, func(fd int) error {
				return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, f.r.Int64N(9000), 1+f.r.Int64N(9000))
			})
		}},
		{"copyrange", 3, func(f *fuzzer) error {
			return f.pair(func(in, out int) error {
				n, err := unix.CopyFileRange(in, nil, out, nil, 5000, 0)
				return some(n, err)
			})
		}},
		{"sendfile", 2, func(f *fuzzer) error {
			return f.pair(func(in, out int) error {
				n, err := unix.Sendfile(out, in, nil, 5000)
				return some(n, err)
			})
		}},
		{"splice", 2, (*fuzzer).splice},
		{"tmpfile", 3, (*fuzzer).tmpFile},
		{"orphan", 3, (*fuzzer).orphan},
		{"sparse", 2, func(f *fuzzer) error {
			return f.with(f.file(), unix.O_RDWR|unix.O_CREAT, func(fd int) error {
				n, err := unix.Pwrite(fd, []byte("far"), 1<<20+f.r.Int64N(1<<20))
				return some(n, err)
			})
		}},
		{"collapse", 1, func(f *fuzzer) error { return f.shift(unix.FALLOC_FL_COLLAPSE_RANGE) }},
		{"insert", 1, func(f *fuzzer) error { return f.shift(unix.FALLOC_FL_INSERT_RANGE) }},
		{"zero", 1, func(f *fuzzer) error {
			return f.with(f.file(), unix.O_RDWR, func(fd int) error {
				return unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, f.r.Int64N(9000), 1+f.r.Int64N(9000))
			})
		}},
		{"reflink", 2, func(f *fuzzer) error {
			return f.pair(func(in, out int) error { return unix.IoctlFileClone(out, in) })
		}},
		{"sealed", 2, (*fuzzer).sealed},
		{"reopen", 2, (*fuzzer).reopen},
		{"through", 2, (*fuzzer).through},
		{"again", 3, (*fuzzer).again},
		{"hold", 5, (*fuzzer).hold},
		{"writeheld", 8, (*fuzzer).writeHeld},
		{"cutheld", 1, func(f *fuzzer) error {
			if len(f.held) == 0 {
				return unix.EBADF
			}
			return unix.Ftruncate(f.held[f.r.IntN(len(f.held))], f.r.Int64N(9000))
		}},
		{"letgo", 4, (*fuzzer).letGo},
		{"pass", 2, (*fuzzer).pass},
		{"run", 1, (*fuzzer).run},
		{"child", 1, (*fuzzer).child},
	}
}

// removeAll removes a directory with all below it, and never waits for a fifo that
// somebody puts in its place (as os.RemoveAll may).
func removeAll(at int, name string) error {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), name)
	list, err := dir.Readdirnames(-1)
	for _, n := range list {
		if unix.Unlinkat(fd, n, 0) != nil {
			err = errors.Join(err, removeAll(fd, n))
		}
	}
	return errors.Join(err, dir.Close(), unix.Unlinkat(at, name, unix.AT_REMOVEDIR))
}

func (f *fuzzer) mode(mask uint32) uint32 { return (f.r.Uint32() & mask) | 0o600 }

// notLink is p, or the tree if p is a symlink: chmod follows, possibly out of the tree.
func (f *fuzzer) notLink(p string) string {
	var st unix.Stat_t
	if unix.Lstat(p, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return f.tree
	}
	return p
}

func some(n int, err error) error {
	if err == nil && n == 0 {
		return unix.ENODATA
	}
	return err
}

// with opens a path for the time of do.
func (f *fuzzer) with(path string, flags int, do func(fd int) error) error {
	f.about(path)
	fd, err := unix.Open(path, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(do(fd), unix.Close(fd))
}

// put opens a path and writes once or a few times.
func (f *fuzzer) put(path string, flags int) error {
	return f.with(path, flags, func(fd int) error {
		for range 1 + f.r.IntN(3) {
			if _, err := unix.Write(fd, f.bytes()); err != nil {
				return err
			}
		}
		return nil
	})
}

func (f *fuzzer) pwrite() error {
	return f.with(f.file(), unix.O_RDWR, func(fd int) error {
		_, err := unix.Pwrite(fd, f.bytes(), f.r.Int64N(9000))
		return err
	})
}

func (f *fuzzer) rename(from, to string, flags uint) error {
	f.about(from, to)
	if flags == 0 && f.r.IntN(2) == 0 {
		return unix.Rename(from, to)
	}
	return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, flags)
}

// fillOut makes something outside the tree: a file, or a directory with something in it.
func (f *fuzzer) fillOut() error {
	p := f.out()
	if f.r.IntN(2) == 0 {
		return f.put(p, unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY)
	}
	if err := os.MkdirAll(p+"/"+f.dirName(), 0o750); err != nil {
		return err
	}
	return f.put(p+"/"+f.fileName(), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY)
}

// saveAs is how most editors save: a new file renamed over the old one.
func (f *fuzzer) saveAs() error {
	p := f.file()
	tmp := fmt.Sprintf("%s/.%d.tmp", f.dir(), f.worker)
	if err := f.put(tmp, unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY); err != nil {
		return err
	}
	return f.rename(tmp, p, 0)
}

func (f *fuzzer) bind() error {
	p := f.dir() + fmt.Sprintf("/s%d", f.r.IntN(3))
	if len(p) > 100 {
		return unix.ENAMETOOLONG
	}
	f.about(p)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: p}), unix.Close(fd))
}

func (f *fuzzer) utimes() error {
	p := f.any()
	f.about(p)
	ts := []unix.Timespec{{Sec: 1}, {Sec: int64(f.r.IntN(2e9)), Nsec: int64(f.r.IntN(1e9))}}
	return unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW)
}

func (f *fuzzer) attribute() string {
	return []string{"user.one", "user.two", "trusted.three", "security.four"}[f.r.IntN(4)]
}

// acl is an access control list with one more user (linux
// include/uapi/linux/posix_acl_xattr.h).
func (f *fuzzer) acl() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	entry := func(tag, perm uint16, id uint32) {
		b = binary.LittleEndian.AppendUint16(b, tag)
		b = binary.LittleEndian.AppendUint16(b, perm)
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	entry(0x01, 6, ^uint32(0))
	entry(0x02, uint16(f.r.IntN(8)), 1000+uint32(f.r.IntN(3)))
	entry(0x04, uint16(f.r.IntN(8)), ^uint32(0))
	entry(0x10, uint16(f.r.IntN(8)), ^uint32(0))
	entry(0x20, uint16(f.r.IntN(8)), ^uint32(0))
	return b
}

// pair opens one file for reading and one for writing.
func (f *fuzzer) pair(do func(in, out int) error) error {
	return f.with(f.file(), unix.O_RDONLY, func(in int) error {
		return f.with(f.file(), unix.O_WRONLY|unix.O_CREAT, func(out int) error { return do(in, out) })
	})
}

func (f *fuzzer) splice() error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return err
	}
	err := f.with(f.file(), unix.O_WRONLY, func(fd int) error {
		b := f.bytes()
		if _, err := unix.Write(p[1], b[:min(len(b), 4096)]); err != nil {
			return err
		}
		n, err := unix.Splice(p[0], nil, fd, nil, 4096, unix.SPLICE_F_NONBLOCK)
		return some(int(n), err)
	})
	return errors.Join(err, unix.Close(p[0]), unix.Close(p[1]))
}

// tmpFile gives a name to a file that was made without one.
func (f *fuzzer) tmpFile() error {
	dir, p := f.dir(), f.file()
	f.about(dir, p)
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, f.mode(0o777))
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, f.bytes())
	if err == nil {
		err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, p, unix.AT_SYMLINK_FOLLOW)
	}
	if err == nil && f.r.IntN(2) == 0 {
		_, err = unix.Write(fd, f.bytes()) // once more, now that it has a name
	}
	return errors.Join(err, unix.Close(fd))
}

// orphan writes to a file that has lost its name.
func (f *fuzzer) orphan() error {
	p := f.file()
	return f.with(p, unix.O_RDWR, func(fd int) error {
		if err := unix.Unlink(p); err != nil {
			return err
		}
		_, err := unix.Write(fd, f.bytes())
		return err
	})
}

// again makes, removes and makes one name as fast as it can.
func (f *fuzzer) again() error {
	p := f.file()
	f.about(p)
	for i := range 3 {
		fd, err := unix.Open(p, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = unix.Write(fd, f.bytes())
		if err = errors.Join(err, unix.Close(fd)); err != nil || i == 2 {
			return err
		}
		if err := unix.Unlink(p); err != nil {
			return err
		}
	}
	return nil
}

func (f *fuzzer) hold() error {
	p := f.file()
	f.about(p)
	if len(f.held) > 8 {
		return unix.EMFILE
	}
	fd, err := unix.Open(p, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o644)
	if err == nil {
		f.held = append(f.held, fd)
	}
	return err
}

func (f *fuzzer) writeHeld() error {
	if len(f.held) == 0 {
		return unix.EBADF
	}
	fd := f.held[f.r.IntN(len(f.held))]
	switch f.r.IntN(5) {
	case 0:
		return unix.Fchmod(fd, f.mode(0o777))
	case 1:
		return unix.Fsetxattr(fd, "user.held", []byte{byte(f.r.Uint32())}, 0)
	}
	_, err := unix.Write(fd, f.bytes())
	return err
}

func (f *fuzzer) letGo() error {
	if len(f.held) == 0 {
		return unix.EBADF
	}
	fd := f.held[0]
	f.held = f.held[1:]
	return unix.Close(fd)
}

// child has another program do a few operations and end without closing anything.
func (f *fuzzer) child() error {
	self, err := os.Executable()
	if err != nil || f.r.IntN(4) != 0 {
		return err
	}
	return exec.Command(self, "-worker", "1000", "-seed", fmt.Sprint(f.r.Uint64()), "-ops", "12",
		"-only", "create,hold,writeheld,rename,mapstore,chmod", f.tree, f.outside).Run()
}
