package main

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/vmtests/uring"
)

// rings are operations by io_uring, which no system call names.
func rings() []op {
	return []op{
		{"ur_create", 3, func(f *fuzzer) error { return f.ringPut(unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY) }},
		{"ur_rewrite", 2, func(f *fuzzer) error { return f.ringPut(unix.O_CREAT | unix.O_TRUNC | unix.O_WRONLY) }},
		{"ur_append", 1, func(f *fuzzer) error { return f.ringPut(unix.O_APPEND | unix.O_WRONLY) }},
		{"ur_direct", 2, (*fuzzer).ringDirect},
		{"ur_write", 2, func(f *fuzzer) error {
			return f.with(f.file(), unix.O_WRONLY, func(fd int) error { return f.ringWrite(int32(fd), 0) })
		}},
		{"ur_fallocate", 1, func(f *fuzzer) error {
			return f.onRing(unix.O_RDWR, uring.SQE{Op: uring.OpFallocate, Length: uint32(f.r.IntN(4)), Off: uint64(f.r.IntN(9000)), Addr: uint64(1 + f.r.IntN(9000))})
		}},
		{"ur_ftruncate", 1, func(f *fuzzer) error {
			return f.onRing(unix.O_RDWR, uring.SQE{Op: uring.OpFtruncate, Off: uint64(f.r.IntN(9000))})
		}},
		{"ur_setxattr", 1, func(f *fuzzer) error {
			p := f.file()
			f.about(p)
			return f.ring(func(r *uring.Ring) uring.SQE {
				return uring.SQE{Op: uring.OpSetxattr, Flags: uring.Async, Addr: r.Text(f.attribute()), Off: r.Text("ring"), Length: 4, Addr3: r.Text(f.notLink(p))}
			})
		}},
		{"ur_rename", 2, func(f *fuzzer) error {
			return f.ringPair(uring.OpRenameat, f.any(), f.any(), []uint32{0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE}[f.r.IntN(3)])
		}},
		{"ur_link", 2, func(f *fuzzer) error { return f.ringPair(uring.OpLinkat, f.file(), f.file(), 0) }},
		{"ur_unlink", 2, func(f *fuzzer) error { return f.ringName(uring.OpUnlinkat, f.file(), 0, 0) }},
		{"ur_rmdir", 1, func(f *fuzzer) error { return f.ringName(uring.OpUnlinkat, f.subdir(), 0, unix.AT_REMOVEDIR) }},
		{"ur_mkdir", 2, func(f *fuzzer) error { return f.ringName(uring.OpMkdirat, f.subdir(), f.mode(0o777), 0) }},
		{"ur_symlink", 1, func(f *fuzzer) error {
			p := f.file()
			f.about(p)
			return f.ring(func(r *uring.Ring) uring.SQE {
				s := uring.Named(uring.OpSymlinkat, r.Text(f.fileName()))
				s.Off = r.Text(p)
				return s
			})
		}},
	}
}

// ring makes one request; half of them are left to a worker of the kernel's.
func (f *fuzzer) ring(request func(r *uring.Ring) uring.SQE) error {
	r, err := f.openRing()
	if err != nil {
		return err
	}
	s := request(r)
	if f.r.IntN(2) == 0 {
		s.Flags &^= uring.Async
	}
	_, err = r.Do(s)
	return err
}

// openRing returns the ring of this process.
func (f *fuzzer) openRing() (*uring.Ring, error) {
	if f.rings == nil {
		r, err := uring.New(0)
		if err == nil {
			err = r.RegisterFiles(-1)
		}
		if err != nil {
			return nil, err
		}
		f.rings = r
	}
	return f.rings, nil
}

func (f *fuzzer) ringName(op uint8, p string, length, flags uint32) error {
	f.about(p)
	return f.ring(func(r *uring.Ring) uring.SQE {
		s := uring.Named(op, r.Text(p))
		s.Length, s.OpFlags = length, flags
		return s
	})
}

func (f *fuzzer) ringPair(op uint8, from, to string, flags uint32) error {
	f.about(from, to)
	return f.ring(func(r *uring.Ring) uring.SQE {
		s := uring.Two(op, r.Text(from), r.Text(to))
		s.OpFlags = flags
		return s
	})
}

// onRing makes a request about a file that is opened for it.
func (f *fuzzer) onRing(flags int, s uring.SQE) error {
	return f.with(f.file(), flags, func(fd int) error {
		s.FD, s.Flags = int32(fd), uring.Async
		return f.ring(func(*uring.Ring) uring.SQE { return s })
	})
}

func (f *fuzzer) ringWrite(fd int32, flags uint8) error {
	b := f.bytes()
	return f.ring(func(r *uring.Ring) uring.SQE {
		return uring.SQE{Op: uring.OpWrite, Flags: uring.Async | flags, FD: fd, Off: ^uint64(0), Addr: r.Text(string(b)), Length: uint32(len(b))}
	})
}

// ringPut opens, writes and closes, all by the ring, or leaves the closing to close(2).
func (f *fuzzer) ringPut(flags uint32) error {
	p := f.file()
	f.about(p)
	r, err := f.openRing()
	if err != nil {
		return err
	}
	fd, err := r.Open(p, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o640, uint8(f.r.IntN(2))*uring.Async)
	if err != nil {
		return err
	}
	err = f.ringWrite(int32(fd), 0)
	if f.r.IntN(2) == 0 {
		return errors.Join(err, unix.Close(fd))
	}
	_, cerr := r.Do(uring.SQE{Op: uring.OpClose, FD: int32(fd)})
	return errors.Join(err, cerr)
}

// ringDirect opens into the ring's own table, where no descriptor ever shows, and
// writes in one go; the next such operation of this process closes it.
func (f *fuzzer) ringDirect() error {
	p, b := f.file(), f.bytes()
	f.about(p)
	r, err := f.openRing()
	if err != nil {
		return err
	}
	const flags = unix.O_CREAT | unix.O_WRONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK
	_, err = r.Do(
		uring.SQE{Op: uring.OpOpenat, Flags: uring.Linked, FD: unix.AT_FDCWD, Addr: r.Text(p), Length: 0o600, OpFlags: flags, File: 1},
		uring.SQE{Op: uring.OpWrite, Flags: uring.FixedFile, FD: 0, Addr: r.Text(string(b)), Length: uint32(len(b))})
	return err
}
