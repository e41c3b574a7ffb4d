package main

import (
	"errors"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is one io_uring, by its system calls (linux/io_uring.h). Memory that the
// kernel is told of by address is allocated outside of Go's heap.
type ring struct {
	fd              int
	sq, cq          []byte
	sqes            []sqe
	sqTail, sqFlags *uint32
	sqMask          uint32
	sqArray         []uint32
	cqHead, cqTail  *uint32
	cqMask          uint32
	cqes            []cqe
	polled          bool
	arena           []byte
}

type sqe struct {
	op, flags       uint8
	prio            uint16
	fd              int32
	off, addr       uint64
	length, opFlags uint32
	user            uint64
	buffer, person  uint16
	file            uint32 // splice_fd_in, file_index
	addr3, _        uint64
}

type cqe struct {
	user  uint64
	res   int32
	flags uint32
}

// Operations (enum io_uring_op) and flags.
const (
	opReadFixed   = 4
	opWriteFixed  = 5
	opFallocate   = 17
	opOpenat      = 18
	opWrite       = 23
	opOpenat2     = 28
	opSplice      = 30
	opRenameat    = 35
	opUnlinkat    = 36
	opMkdirat     = 37
	opSymlinkat   = 38
	opLinkat      = 39
	opFsetxattr   = 41
	opSetxattr    = 42
	opFtruncate   = 55
	sqeFixedFile  = 1 << 0
	sqeLink       = 1 << 2
	sqeAsync      = 1 << 4
	setupSQPoll   = 1 << 1
	enterGetevent = 1 << 0
	enterWakeup   = 1 << 1
	needWakeup    = 1 << 0
	singleMmap    = 1 << 0
)

func newRing(flags uint32) (*ring, error) {
	p := struct { // struct io_uring_params
		sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
		_                                                    [3]uint32
		sqHead, sqTail, sqMask, sqEntries2, sqFlags          uint32
		sqDropped, sqArray, _                                uint32
		_                                                    uint64
		cqHead, cqTail, cqMask, cqEntries2, cqOverflow       uint32
		cqes, cqFlags, _                                     uint32
		_                                                    uint64
	}{flags: flags, idle: 2000}
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 8, uintptr(unsafe.Pointer(&p)), 0)
	if e != 0 {
		return nil, noEffect("io_uring_setup: " + unix.ErrnoName(e))
	}
	r := &ring{fd: int(fd), polled: flags&setupSQPoll != 0}
	var err error
	if r.sq, err = unix.Mmap(r.fd, 0, int(p.sqArray+p.sqEntries*4), readWrite, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return nil, err
	}
	if r.cq, err = unix.Mmap(r.fd, 0x8000000, int(p.cqes+p.cqEntries*16), readWrite, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return nil, err
	}
	raw, err := unix.Mmap(r.fd, 0x10000000, int(p.sqEntries*64), readWrite, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, err
	}
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&raw[0])), p.sqEntries)
	word := func(b []byte, off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&b[off])) }
	r.sqTail, r.sqFlags, r.sqMask = word(r.sq, p.sqTail), word(r.sq, p.sqFlags), *word(r.sq, p.sqMask)
	r.sqArray = unsafe.Slice(word(r.sq, p.sqArray), p.sqEntries)
	r.cqHead, r.cqTail, r.cqMask = word(r.cq, p.cqHead), word(r.cq, p.cqTail), *word(r.cq, p.cqMask)
	r.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&r.cq[p.cqes])), p.cqEntries)
	r.arena, err = anonymous(64 << 10)
	return r, err
}

// text puts s, ended by a zero, where the kernel can read it.
func (r *ring) text(s string) uint64 {
	n := copy(r.arena, s)
	at := address(r.arena)
	r.arena[n] = 0
	r.arena = r.arena[n+1:]
	return at
}

func (r *ring) registerFiles(fds ...int32) error {
	return r.register(2, unsafe.Pointer(&fds[0]), len(fds))
}

func (r *ring) registerBuffer(b []byte) error {
	iov := unix.Iovec{Base: &b[0], Len: uint64(len(b))}
	return r.register(0, unsafe.Pointer(&iov), 1)
}

func (r *ring) register(what uintptr, p unsafe.Pointer, n int) error {
	if _, _, e := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), what, uintptr(p), uintptr(n), 0, 0); e != 0 {
		return e
	}
	return nil
}

// do submits the requests together, waits for all and returns the first error.
func (r *ring) do(list ...sqe) error {
	tail := atomic.LoadUint32(r.sqTail)
	for i, s := range list {
		s.user = uint64(i)
		at := (tail + uint32(i)) & r.sqMask
		r.sqes[at], r.sqArray[at] = s, at
	}
	n := uint32(len(list))
	atomic.StoreUint32(r.sqTail, tail+n)
	flags, submit := uintptr(enterGetevent), uintptr(n)
	if r.polled {
		submit = 0
		if atomic.LoadUint32(r.sqFlags)&needWakeup != 0 {
			flags |= enterWakeup
		}
	}
	for {
		_, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), submit, uintptr(n), flags, 0, 0)
		if e == 0 {
			break
		}
		if !errors.Is(e, unix.EINTR) {
			return e
		}
		submit = 0
	}
	results := make([]int32, n)
	for range n {
		head := atomic.LoadUint32(r.cqHead)
		if head == atomic.LoadUint32(r.cqTail) {
			return errors.New("io_uring_enter: a completion is missing")
		}
		c := r.cqes[head&r.cqMask]
		results[c.user] = c.res
		atomic.StoreUint32(r.cqHead, head+1)
	}
	for i, res := range results {
		if res >= 0 {
			continue
		}
		// a request that this kernel does not know, as opposed to one it refuses
		if e := unix.Errno(-res); e != unix.ECANCELED || i == 0 {
			return e
		}
	}
	return nil
}

func at(path uint64, op uint8) sqe {
	const cwd = unix.AT_FDCWD
	return sqe{op: op, flags: sqeAsync, fd: cwd, addr: path}
}

// ringActs do what the others do, by io_uring.
func ringActs() []act {
	over := func(setup uint32, f func(r *ring, fd int) error) func(*scene) (func() (outcome, error), error) {
		return held(unix.O_RDWR, func(fd int, c []byte) (outcome, error) {
			r, err := newRing(setup)
			if err != nil {
				return outcome{}, err
			}
			return holds(overwritten(c)), f(r, fd)
		})
	}
	now := func(after func(s *scene) outcome, f func(r *ring, s *scene) error) func(*scene) (outcome, error) {
		return func(s *scene) (outcome, error) {
			r, err := newRing(0)
			if err != nil {
				return outcome{}, err
			}
			return after(s), f(r, s)
		}
	}
	as := func(o outcome) func(*scene) outcome { return func(*scene) outcome { return o } }
	const cwd = -100 & 0xffffffff // AT_FDCWD as a length
	put := func(r *ring, fd int32, flags uint8) sqe {
		return sqe{op: opWrite, flags: flags, fd: fd, addr: r.text(written), length: uint32(len(written))}
	}
	list := []act{
		{name: "ur_write", op: "write", have: file, hold: over(0, func(r *ring, fd int) error { return r.do(put(r, int32(fd), 0)) })},
		{name: "ur_write_async", op: "write", have: file, hold: over(0, func(r *ring, fd int) error { return r.do(put(r, int32(fd), sqeAsync)) })},
		{name: "ur_write_registered", op: "write", have: file, hold: over(0, func(r *ring, fd int) error {
			return errors.Join(r.registerFiles(int32(fd)), r.do(put(r, 0, sqeFixedFile)))
		})},
		{name: "ur_write_fixed", op: "write", have: file, hold: over(0, func(r *ring, fd int) error {
			m, err := anonymous(4096)
			copy(m, written)
			return errors.Join(err, r.registerBuffer(m), r.do(sqe{op: opWriteFixed, fd: int32(fd), addr: address(m), length: uint32(len(written))}))
		})},
		{name: "ur_splice", op: "write", have: file, hold: over(0, func(r *ring, fd int) error {
			p, err := pipe()
			if err != nil {
				return err
			}
			return r.do(sqe{op: opSplice, fd: int32(fd), off: ^uint64(0), addr: ^uint64(0), length: uint32(len(written)), file: uint32(p)})
		})},
		{name: "ur_sqpoll_write", op: "write", have: file, hold: over(setupSQPoll, func(r *ring, fd int) error {
			return errors.Join(r.registerFiles(int32(fd)), r.do(put(r, 0, sqeFixedFile)))
		})},
		{name: "ur_fallocate", op: "write,truncate", have: blocks, hold: held(unix.O_RDWR, func(fd int, c []byte) (outcome, error) {
			r, err := newRing(0)
			if err != nil {
				return outcome{}, err
			}
			clear(c[:4096])
			return holds(c), r.do(sqe{op: opFallocate, flags: sqeAsync, fd: int32(fd), length: unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, addr: 4096})
		})},
		{name: "ur_ftruncate", op: "truncate", have: file, hold: held(unix.O_RDWR, func(fd int, c []byte) (outcome, error) {
			r, err := newRing(0)
			if err != nil {
				return outcome{}, err
			}
			return holds(c[:cut]), r.do(sqe{op: opFtruncate, fd: int32(fd), off: cut})
		})},
		{name: "ur_fsetxattr", op: "setxattr", have: file, hold: held(unix.O_RDONLY, func(fd int, _ []byte) (outcome, error) {
			r, err := newRing(0)
			if err != nil {
				return outcome{}, err
			}
			return same(), r.do(sqe{op: opFsetxattr, flags: sqeAsync, fd: int32(fd), addr: r.text("user.act"), off: r.text("set"), length: 3})
		})},
		{name: "ur_setxattr", op: "setxattr", have: file, do: now(as(same()), func(r *ring, s *scene) error {
			return r.do(sqe{op: opSetxattr, flags: sqeAsync, addr: r.text("user.act"), off: r.text("set"), length: 3, addr3: r.text(s.path)})
		})},
		{name: "ur_open_write", op: "write", have: file, do: now(overwrites, func(r *ring, s *scene) error {
			fd, err := r.open(s.path, unix.O_WRONLY, 0)
			if err != nil {
				return err
			}
			return errors.Join(r.do(put(r, int32(fd), 0)), unix.Close(fd))
		})},
		{name: "ur_open_async", op: "truncate,write", have: file, do: now(as(holds([]byte{})), func(r *ring, s *scene) error {
			fd, err := r.open(s.path, unix.O_WRONLY|unix.O_TRUNC, sqeAsync)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		})},
		{name: "ur_open_direct_linked", op: "write", have: file, do: now(overwrites, func(r *ring, s *scene) error {
			// opened into the ring's own table, where no descriptor ever shows, and written in one go
			if err := r.registerFiles(-1); err != nil {
				return err
			}
			open := sqe{op: opOpenat, flags: sqeLink, fd: unix.AT_FDCWD, addr: r.text(s.path), opFlags: unix.O_WRONLY, file: 1}
			return r.do(open, put(r, 0, sqeFixedFile))
		})},
		{name: "ur_unlink", op: "unlink", have: file, do: now(as(gone()), func(r *ring, s *scene) error {
			return r.do(at(r.text(s.path), opUnlinkat))
		})},
		{name: "ur_rename", op: "rename", have: file, to: inTree, do: now(unchanged, func(r *ring, s *scene) error {
			q := at(r.text(s.path), opRenameat)
			q.off, q.length = r.text(s.to), cwd
			return r.do(q)
		})},
		{name: "ur_link", op: "link", have: file, to: inTree, do: now(unchanged, func(r *ring, s *scene) error {
			q := at(r.text(s.path), opLinkat)
			q.off, q.length = r.text(s.to), cwd
			return r.do(q)
		})},
		{name: "ur_mkdir", op: "mkdir", do: now(as(same()), func(r *ring, s *scene) error {
			q := at(r.text(s.path), opMkdirat)
			q.length = 0o755
			return r.do(q)
		})},
		{name: "ur_symlink", op: "symlink", do: now(as(outcome{mode: -1, uid: -1, target: "/etc/hostname"}), func(r *ring, s *scene) error {
			q := at(r.text("/etc/hostname"), opSymlinkat)
			q.off = r.text(s.path)
			return r.do(q)
		})},
	}
	for i := range list {
		list[i].from = inTree
	}
	return list
}

func overwrites(s *scene) outcome { return holds(overwritten(s.content)) }
func unchanged(s *scene) outcome  { return holds(s.content) }

// open opens by the ring and returns the descriptor.
func (r *ring) open(path string, flags uint32, sqeFlags uint8) (int, error) {
	before := nextFD()
	err := r.do(sqe{op: opOpenat, flags: sqeFlags, fd: unix.AT_FDCWD, addr: r.text(path), opFlags: flags})
	return before, err
}

// nextFD is the descriptor that the next open returns: the lowest that is free.
func nextFD() int {
	fd, err := unix.Open("/", unix.O_PATH, 0)
	if err != nil {
		return -1
	}
	_ = unix.Close(fd)
	return fd
}
