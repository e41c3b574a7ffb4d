package main

import (
	"bytes"
	"compress/zlib"
	"errors"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// source is an open file outside of the tree that holds text.
func (s *scene) source(text []byte) (int, error) {
	name := filepath.Join(s.aside, "source")
	if err := os.WriteFile(name, text, 0o644); err != nil {
		return -1, err
	}
	return unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0)
}

// pipe returns the reading end of a pipe that holds written.
func pipe() (int, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return -1, err
	}
	return p[0], errors.Join(put(p[1]), unix.Close(p[1]))
}

// heldFrom is held with a source, which holds written.
func heldFrom(flags int, f func(fd, src int, c []byte) (outcome, error)) func(*scene) (func() (outcome, error), error) {
	return func(s *scene) (func() (outcome, error), error) {
		src, err := s.source([]byte(written))
		if err != nil {
			return nil, err
		}
		return held(flags, func(fd int, c []byte) (outcome, error) { return f(fd, src, c) })(s)
	}
}

func allocate(mode uint32, off, length int64, after func(c []byte) []byte) func(*scene) (func() (outcome, error), error) {
	return held(unix.O_RDWR, func(fd int, c []byte) (outcome, error) {
		return holds(after(c)), unix.Fallocate(fd, mode, off, length)
	})
}

// heldActs write through a descriptor that was there before the rule.
func heldActs() []act {
	over := func(f func(fd int) error) func(*scene) (func() (outcome, error), error) {
		return held(unix.O_RDWR, func(fd int, c []byte) (outcome, error) { return holds(overwritten(c)), f(fd) })
	}
	const page = 4096
	list := []act{
		{name: "prefd_write", hold: over(put)},
		{name: "prefd_pwrite", hold: over(func(fd int) error { _, err := unix.Pwrite(fd, []byte(written), 0); return err })},
		{name: "prefd_writev", hold: over(func(fd int) error { _, err := unix.Writev(fd, [][]byte{[]byte(written)}); return err })},
		{name: "prefd_pwritev", hold: over(func(fd int) error { _, err := unix.Pwritev(fd, [][]byte{[]byte(written)}, 0); return err })},
		{name: "prefd_pwritev2", hold: over(func(fd int) error {
			_, err := unix.Pwritev2(fd, [][]byte{[]byte(written)}, 0, unix.RWF_SYNC)
			return err
		})},
		{name: "prefd_append_flag", hold: held(unix.O_WRONLY, func(fd int, c []byte) (outcome, error) {
			_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_APPEND)
			return holds(append(c, written...)), errors.Join(err, put(fd))
		})},
		{name: "prefd_dup", hold: over(func(fd int) error {
			two, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 100)
			return errors.Join(err, put(two))
		})},
		{name: "prefd_sendfile", hold: heldFrom(unix.O_WRONLY, func(fd, src int, c []byte) (outcome, error) {
			_, err := unix.Sendfile(fd, src, nil, len(written))
			return holds(overwritten(c)), err
		})},
		{name: "prefd_sendfile_self", hold: held(unix.O_RDWR, func(fd int, c []byte) (outcome, error) {
			off := int64(100)
			_, err := unix.Sendfile(fd, fd, &off, 20)
			o := append([]byte{}, c...)
			copy(o, c[100:120])
			return holds(o), err
		})},
		{name: "prefd_splice", hold: over(func(fd int) error {
			p, err := pipe()
			if err != nil {
				return err
			}
			_, err = unix.Splice(p, nil, fd, nil, len(written), 0)
			return err
		})},
		{name: "prefd_vmsplice", hold: over(func(fd int) error {
			var p [2]int
			if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
				return err
			}
			text := []byte(written)
			if _, err := unix.Vmsplice(p[1], []unix.Iovec{{Base: &text[0], Len: uint64(len(text))}}, 0); err != nil {
				return err
			}
			_, err := unix.Splice(p[0], nil, fd, nil, len(text), 0)
			return err
		})},
		{name: "prefd_copy_file_range", hold: heldFrom(unix.O_WRONLY, func(fd, src int, c []byte) (outcome, error) {
			_, err := unix.CopyFileRange(src, nil, fd, nil, len(written), 0)
			return holds(overwritten(c)), err
		})},
		{name: "prefd_ftruncate", op: "truncate", hold: held(unix.O_WRONLY, func(fd int, c []byte) (outcome, error) {
			return holds(c[:cut]), unix.Ftruncate(fd, cut)
		})},
		{name: "prefd_fork_exec", hold: func(s *scene) (func() (outcome, error), error) {
			f, err := os.OpenFile(s.path, os.O_WRONLY, 0)
			if err != nil {
				return nil, err
			}
			return func() (outcome, error) { return holds(overwritten(s.content)), s.child(nil, f, "put", "-") }, nil
		}},
		{name: "fallocate_punch", have: blocks, hold: allocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, page, page, func(c []byte) []byte {
			clear(c[page : 2*page])
			return c
		})},
		{name: "fallocate_zero", have: blocks, hold: allocate(unix.FALLOC_FL_ZERO_RANGE, page, page, func(c []byte) []byte {
			clear(c[page : 2*page])
			return c
		})},
		{name: "fallocate_insert", op: "write,truncate", have: blocks, hold: allocate(unix.FALLOC_FL_INSERT_RANGE, page, page, func(c []byte) []byte {
			return bytes.Join([][]byte{c[:page], make([]byte, page), c[page:]}, nil)
		})},
		{name: "fallocate_collapse", op: "write,truncate", have: blocks, hold: allocate(unix.FALLOC_FL_COLLAPSE_RANGE, page, page, func(c []byte) []byte {
			return bytes.Join([][]byte{c[:page], c[2*page:]}, nil)
		})},
		{name: "fallocate_extend", op: "write,truncate", have: blocks, hold: allocate(0, 16*page, page, func(c []byte) []byte {
			return append(c, make([]byte, page)...)
		})},
		{name: "odirect", have: blocks, hold: held(unix.O_RDWR|unix.O_DIRECT, func(fd int, c []byte) (outcome, error) {
			m, err := anonymous(page)
			if err != nil {
				return outcome{}, err
			}
			copy(m, overwritten(c))
			_, err = unix.Pwrite(fd, m, 0)
			return holds(overwritten(c)), err
		})},
		{name: "aio", hold: over(aioWrite)},
		{name: "ficlone", op: "write", have: blocks, hold: cloned(func(fd, src int) error { return unix.IoctlFileClone(fd, src) })},
		{name: "ficlonerange", op: "write", have: blocks, hold: cloned(func(fd, src int) error {
			return unix.IoctlFileCloneRange(fd, &unix.FileCloneRange{Src_fd: int64(src), Src_length: 16 * page})
		})},
		{name: "fideduperange", op: "write", have: blocks, hold: func(s *scene) (func() (outcome, error), error) {
			src, err := s.source(s.content)
			if err != nil {
				return nil, err
			}
			return held(unix.O_RDWR, func(fd int, c []byte) (outcome, error) {
				r := &unix.FileDedupeRange{Src_length: page, Info: []unix.FileDedupeRangeInfo{{Dest_fd: int64(fd)}}}
				err := unix.IoctlFileDedupeRange(src, r)
				if err == nil && r.Info[0].Status < 0 {
					err = unix.Errno(-r.Info[0].Status)
				}
				return but("the bytes shared are the same"), err
			})(s)
		}},
		{name: "ioctl_unresvsp", have: blocks, hold: held(unix.O_RDWR, func(fd int, c []byte) (outcome, error) {
			clear(c[page : 2*page])
			return holds(c), spaceIoctl(fd, fsIocUnresvsp64, page, page)
		})},
		{name: "ioctl_zero_range", have: blocks, hold: held(unix.O_RDWR, func(fd int, c []byte) (outcome, error) {
			clear(c[page : 2*page])
			return holds(c), spaceIoctl(fd, fsIocZeroRange, page, page)
		})},
		{name: "ext4_move_ext", op: "write", have: blocks, hold: func(s *scene) (func() (outcome, error), error) {
			other := bytes.Repeat([]byte("another block of text, of a file outside\n"), 4000)[:len(s.content)]
			src, err := s.source(other)
			if err != nil {
				return nil, err
			}
			return held(unix.O_RDWR, func(fd int, c []byte) (outcome, error) {
				// the donor gets the blocks of the file that the call is made on; what is in
				// them depends on what was written back
				arg := struct {
					_, donor           uint32
					orig, to, n, moved uint64
				}{donor: uint32(fd), n: 16}
				err := errors.Join(unix.Fsync(src), unix.Fsync(fd))
				if err == nil {
					err = ioctl(src, ext4IocMoveExt, unsafe.Pointer(&arg))
				}
				// and the page cache of the donor still shows what was in its own
				return same(), errors.Join(err, unix.Fsync(fd), forget(s.path))
			})(s)
		}},
		{name: "ext4_swap_boot", op: "write,truncate", have: blocks, hold: held(unix.O_RDWR, func(fd int, c []byte) (outcome, error) {
			return same(), ioctl(fd, ext4IocSwapBoot, nil)
		})},
		{name: "xfs_swapext", op: "write", have: blocks, hold: func(s *scene) (func() (outcome, error), error) {
			other := bytes.Repeat([]byte("another block of text, of a file outside\n"), 4000)[:len(s.content)]
			src, err := s.source(other)
			if err != nil {
				return nil, err
			}
			return held(unix.O_RDWR, func(fd int, c []byte) (outcome, error) { return holds(other), xfsSwapext(src, fd) })(s)
		}},
		{name: "xfs_exchange_range", op: "write", have: blocks, hold: func(s *scene) (func() (outcome, error), error) {
			other := bytes.Repeat([]byte("another block of text, of a file outside\n"), 4000)[:len(s.content)]
			src, err := s.source(other)
			if err != nil {
				return nil, err
			}
			return held(unix.O_RDWR, func(fd int, c []byte) (outcome, error) {
				arg := struct {
					file1             int32
					_                 uint32
					off1, off2, n, fl uint64
				}{file1: int32(src), n: uint64(len(c))}
				return holds(other), ioctl(fd, xfsIocExchangeRange, unsafe.Pointer(&arg))
			})(s)
		}},
		{name: "btrfs_encoded_write", op: "write", have: blocks, hold: held(unix.O_RDWR, func(fd int, c []byte) (outcome, error) {
			text := bytes.Repeat([]byte("text that was compressed before it was written"), 100)[:page]
			var z bytes.Buffer
			w := zlib.NewWriter(&z)
			if _, err := w.Write(text); err != nil {
				return outcome{}, err
			}
			if err := w.Close(); err != nil {
				return outcome{}, err
			}
			m, err := anonymous(page)
			if err != nil {
				return outcome{}, err
			}
			copy(m, z.Bytes())
			iov := unix.Iovec{Base: &m[0], Len: uint64(z.Len())}
			arg := struct { // linux/btrfs.h, struct btrfs_ioctl_encoded_io_args
				iov                   *unix.Iovec
				n, off, flags, length uint64
				plain, plainOff       uint64
				compression, _        uint32
				_                     [64]byte
			}{iov: &iov, n: 1, length: page, plain: page, compression: 1}
			copy(c, text)
			return holds(c), ioctl(fd, btrfsIocEncodedWrite, unsafe.Pointer(&arg))
		})},
		{name: "unlinked_fd_write", op: "unlink,write", hold: unlinked},
	}
	for i := range list {
		list[i].from = inTree
		if list[i].have == nothing {
			list[i].have = file
		}
		if list[i].op == "" {
			list[i].op = "write"
		}
	}
	return list
}

// unlinked writes to a file that lost its name before the rule.
func unlinked(s *scene) (func() (outcome, error), error) {
	fd, err := unix.Open(s.path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Unlink(s.path)
	}
	return func() (outcome, error) { return but("the file has no name in the tree any more"), put(fd) }, err
}

// cloned shares the extents of a file outside with one that is held.
func cloned(f func(fd, src int) error) func(*scene) (func() (outcome, error), error) {
	return func(s *scene) (func() (outcome, error), error) {
		text := bytes.Repeat([]byte("extents of a file outside of the tree\n"), 4000)[:len(s.content)]
		src, err := s.source(text)
		if err != nil {
			return nil, err
		}
		return held(unix.O_RDWR, func(fd int, _ []byte) (outcome, error) { return holds(text), f(fd, src) })(s)
	}
}

// aioWrite writes by io_submit (linux/aio_abi.h).
func aioWrite(fd int) error {
	var ctx uintptr
	if _, _, e := unix.Syscall(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&ctx)), 0); e != 0 {
		return e
	}
	m, err := anonymous(4096)
	if err != nil {
		return err
	}
	n := copy(m, written)
	const pwrite = 1
	cb := struct {
		data       uint64
		key, rw    uint32
		op         uint16
		prio       int16
		fd         uint32
		buf, bytes uint64
		off        int64
		_          uint64
		flags, res uint32
	}{op: pwrite, fd: uint32(fd), buf: uint64(uintptr(unsafe.Pointer(&m[0]))), bytes: uint64(n)}
	list := []unsafe.Pointer{unsafe.Pointer(&cb)}
	if _, _, e := unix.Syscall(unix.SYS_IO_SUBMIT, ctx, 1, uintptr(unsafe.Pointer(&list[0]))); e != 0 {
		return e
	}
	var event [4]int64 // data, object, result, second result
	if _, _, e := unix.Syscall6(unix.SYS_IO_GETEVENTS, ctx, 1, 1, uintptr(unsafe.Pointer(&event)), 0, 0); e != 0 {
		return e
	}
	if event[2] < 0 {
		return unix.Errno(-event[2])
	}
	return nil
}

func anonymous(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
}
