// Package uring makes requests of one io_uring at a time, by the system calls
// themselves (linux include/uapi/linux/io_uring.h). Those that act (vmtests/acts) and
// those that do anything at random (vmtests/cmd/fuzz) share it; it knows nothing of
// the product.
package uring

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ring is one io_uring of eight requests, for one goroutine. Memory that the kernel is
// told of by address is allocated outside of Go's heap.
type Ring struct {
	fd              int
	sq, cq          []byte
	sqes            []SQE
	sqTail, sqFlags *uint32
	sqMask          uint32
	sqArray         []uint32
	cqHead, cqTail  *uint32
	cqMask          uint32
	cqes            []cqe
	polled          bool
	arena           []byte // what Text puts
	used            int
}

// SQE is struct io_uring_sqe.
type SQE struct {
	Op, Flags       uint8
	Prio            uint16
	FD              int32
	Off, Addr       uint64
	Length, OpFlags uint32
	user            uint64
	Buffer, Person  uint16
	File            uint32 // splice_fd_in, file_index
	Addr3, _        uint64
}

type cqe struct {
	user  uint64
	res   int32
	flags uint32
}

// Operations (enum io_uring_op), the kernel that has them first behind each, and flags.
const (
	OpReadFixed  = 4  // 5.1
	OpWriteFixed = 5  // 5.1
	OpFallocate  = 17 // 5.6
	OpOpenat     = 18 // 5.6
	OpClose      = 19 // 5.6
	OpWrite      = 23 // 5.6
	OpSplice     = 30 // 5.7
	OpRenameat   = 35 // 5.11
	OpUnlinkat   = 36 // 5.11
	OpMkdirat    = 37 // 5.15
	OpSymlinkat  = 38 // 5.15
	OpLinkat     = 39 // 5.15
	OpFsetxattr  = 41 // 5.19
	OpSetxattr   = 42 // 5.19
	OpFtruncate  = 55 // 6.9

	FixedFile = 1 << 0 // FD is a place in the table of RegisterFiles
	Linked    = 1 << 2 // the next request waits for this one
	Async     = 1 << 4 // by a worker of the kernel's

	SQPoll = 1 << 1 // New: a thread of the kernel's takes the requests

	CWD = -100 & 0xffffffff // AT_FDCWD as a length

	enterGetevent = 1 << 0
	enterWakeup   = 1 << 1
	needWakeup    = 1 << 0
	readWrite     = unix.PROT_READ | unix.PROT_WRITE
)

// New sets a ring up; flags are those of io_uring_setup(2).
func New(flags uint32) (*Ring, error) {
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
		return nil, fmt.Errorf("io_uring_setup: %w", e)
	}
	r := &Ring{fd: int(fd), polled: flags&SQPoll != 0}
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
	r.sqes = unsafe.Slice((*SQE)(unsafe.Pointer(&raw[0])), p.sqEntries)
	word := func(b []byte, off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&b[off])) }
	r.sqTail, r.sqFlags, r.sqMask = word(r.sq, p.sqTail), word(r.sq, p.sqFlags), *word(r.sq, p.sqMask)
	r.sqArray = unsafe.Slice(word(r.sq, p.sqArray), p.sqEntries)
	r.cqHead, r.cqTail, r.cqMask = word(r.cq, p.cqHead), word(r.cq, p.cqTail), *word(r.cq, p.cqMask)
	r.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&r.cq[p.cqes])), p.cqEntries)
	r.arena, err = unix.Mmap(-1, 0, 128<<10, readWrite, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	return r, err
}

// Text puts s, ended by a zero, where the kernel can read it until the next Do has
// returned. All that is put for one Do must have less than 128 KiB.
func (r *Ring) Text(s string) uint64 {
	at := r.arena[r.used : r.used+len(s)+1]
	copy(at, s)
	at[len(s)] = 0
	r.used += len(at)
	return uint64(uintptr(unsafe.Pointer(&at[0])))
}

// RegisterFiles gives the ring a table of descriptors; -1 leaves a place free.
func (r *Ring) RegisterFiles(fds ...int32) error {
	return r.register(2, unsafe.Pointer(&fds[0]), len(fds))
}

// RegisterBuffer lets b, which is outside of Go's heap, be the buffer 0 of the ring.
func (r *Ring) RegisterBuffer(b []byte) error {
	iov := unix.Iovec{Base: &b[0], Len: uint64(len(b))}
	return r.register(0, unsafe.Pointer(&iov), 1)
}

func (r *Ring) register(what uintptr, p unsafe.Pointer, n int) error {
	if _, _, e := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), what, uintptr(p), uintptr(n), 0, 0); e != 0 {
		return e
	}
	return nil
}

// Do submits the requests together and waits for all. It returns the result of the
// last one, and as an error, an errno, the first that failed. EINVAL: perhaps this
// kernel does not know the request.
func (r *Ring) Do(list ...SQE) (int, error) {
	tail := atomic.LoadUint32(r.sqTail)
	for i, s := range list {
		s.user = uint64(i)
		at := (tail + uint32(i)) & r.sqMask
		r.sqes[at], r.sqArray[at] = s, at
	}
	n := uint32(len(list))
	atomic.StoreUint32(r.sqTail, tail+n)
	results, err := r.wait(n)
	r.used = 0
	if err != nil {
		return 0, err
	}
	for i, res := range results {
		if res >= 0 {
			continue
		}
		// what was behind a linked request that failed says no more than that
		if e := unix.Errno(-res); e != unix.ECANCELED || i == 0 {
			return 0, e
		}
	}
	return int(results[n-1]), nil
}

// wait submits n requests and returns their results in order.
func (r *Ring) wait(n uint32) ([]int32, error) {
	flags, submit := uintptr(enterGetevent), uintptr(n)
	if r.polled {
		submit = 0
		if atomic.LoadUint32(r.sqFlags)&needWakeup != 0 {
			flags |= enterWakeup
		}
	}
	// A signal, and Go sends itself many, ends the waiting early, with or without an error.
	for atomic.LoadUint32(r.cqTail)-atomic.LoadUint32(r.cqHead) < n {
		_, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), submit, uintptr(n), flags, 0, 0)
		if e != 0 && !errors.Is(e, unix.EINTR) {
			return nil, e
		}
		submit = 0
	}
	results := make([]int32, n)
	for range n {
		head := atomic.LoadUint32(r.cqHead)
		c := r.cqes[head&r.cqMask]
		results[c.user] = c.res
		atomic.StoreUint32(r.cqHead, head+1)
	}
	return results, nil
}

// Named is a request about a path, an address of Text, by a worker of the kernel's.
func Named(op uint8, path uint64) SQE {
	return SQE{Op: op, Flags: Async, FD: unix.AT_FDCWD, Addr: path}
}

// Two is one about two paths.
func Two(op uint8, from, to uint64) SQE {
	s := Named(op, from)
	s.Off, s.Length = to, CWD
	return s
}

// Open opens a path and returns the descriptor.
func (r *Ring) Open(path string, flags, mode uint32, sqeFlags uint8) (int, error) {
	return r.Do(SQE{Op: OpOpenat, Flags: sqeFlags, FD: unix.AT_FDCWD, Addr: r.Text(path), Length: mode, OpFlags: flags})
}
