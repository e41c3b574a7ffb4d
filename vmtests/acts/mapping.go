package main

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/vmtests/uring"
)

// mapped is an act on a shared mapping of the whole file that was there before the rule.
func mapped(flags, prot int, f func(s *scene, m []byte) (outcome, error)) func(*scene) (func() (outcome, error), error) {
	return func(s *scene) (func() (outcome, error), error) {
		fd, err := unix.Open(s.path, flags|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		m, err := unix.Mmap(fd, 0, len(s.content), prot, unix.MAP_SHARED)
		if err != nil {
			return nil, err
		}
		// the mapping alone keeps the file open
		return func() (outcome, error) { return f(s, m) }, unix.Close(fd)
	}
}

func store(s *scene, m []byte) (outcome, error) {
	copy(m, written)
	return holds(overwritten(s.content)), unix.Munmap(m)
}

const readWrite = unix.PROT_READ | unix.PROT_WRITE

// mappingActs store through mappings, by every way into one.
func mappingActs() []act {
	list := []act{
		{name: "mmap_store_pre", hold: mapped(unix.O_RDWR, readWrite, store)},
		{name: "mmap_store_live", hold: mapped(unix.O_RDWR, readWrite, func(s *scene, m []byte) (outcome, error) {
			copy(m, written) // and the mapping lives on until the process ends
			return holds(overwritten(s.content)), unix.Msync(m, unix.MS_SYNC)
		})},
		{name: "mprotect_store", hold: mapped(unix.O_RDWR, unix.PROT_READ, func(s *scene, m []byte) (outcome, error) {
			if err := unix.Mprotect(m, readWrite); err != nil {
				return outcome{}, err
			}
			return store(s, m)
		})},
		{name: "mmap_after", hold: held(unix.O_RDWR, func(fd int, c []byte) (outcome, error) {
			m, err := unix.Mmap(fd, 0, len(c), readWrite, unix.MAP_SHARED)
			if err != nil {
				return outcome{}, err
			}
			copy(m, written)
			return holds(overwritten(c)), unix.Munmap(m)
		})},
		{name: "mmap_private", have: file, hold: held(unix.O_RDWR, func(fd int, c []byte) (outcome, error) {
			m, err := unix.Mmap(fd, 0, len(c), readWrite, unix.MAP_PRIVATE)
			if err != nil {
				return outcome{}, err
			}
			copy(m, written)
			return but("a private mapping never reaches the file"), unix.Munmap(m)
		})},
		{name: "madv_populate_write", hold: mapped(unix.O_RDWR, readWrite, func(s *scene, m []byte) (outcome, error) {
			const populateWrite = 23 // MADV_POPULATE_WRITE
			if err := unix.Madvise(m, populateWrite); err != nil {
				return outcome{}, err
			}
			return holds(s.content), unix.Munmap(m)
		})},
		{name: "madv_remove", hold: mapped(unix.O_RDWR, readWrite, func(s *scene, m []byte) (outcome, error) {
			clear(s.content[:4096])
			return holds(s.content), unix.Madvise(m[:4096], unix.MADV_REMOVE)
		})},
		{name: "process_vm_writev_self", hold: mapped(unix.O_RDWR, readWrite, func(s *scene, m []byte) (outcome, error) {
			text := []byte(written)
			_, err := unix.ProcessVMWritev(os.Getpid(), []unix.Iovec{{Base: &text[0], Len: uint64(len(text))}},
				[]unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&m[0])), Len: len(text)}}, 0)
			return holds(overwritten(s.content)), err
		})},
		{name: "proc_self_mem", hold: mapped(unix.O_RDWR, readWrite, func(s *scene, m []byte) (outcome, error) {
			fd, err := unix.Open("/proc/self/mem", unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				return outcome{}, err
			}
			_, err = unix.Pwrite(fd, []byte(written), int64(uintptr(unsafe.Pointer(&m[0]))))
			return holds(overwritten(s.content)), err
		})},
		{name: "mremap_store", hold: mapped(unix.O_RDWR, readWrite, func(s *scene, m []byte) (outcome, error) {
			p, err := unix.MremapPtr(unsafe.Pointer(&m[0]), uintptr(len(m)), nil, uintptr(len(m)+4096), unix.MREMAP_MAYMOVE)
			if err != nil {
				return outcome{}, err
			}
			copy(unsafe.Slice((*byte)(p), len(m)), written)
			return holds(overwritten(s.content)), unix.MunmapPtr(p, uintptr(len(m)+4096))
		})},
		{name: "remap_file_pages", have: blocks, hold: mapped(unix.O_RDWR, readWrite, func(s *scene, m []byte) (outcome, error) {
			// the first page of the mapping shows the second of the file
			if _, _, e := unix.Syscall6(unix.SYS_REMAP_FILE_PAGES, uintptr(unsafe.Pointer(&m[0])), 4096, 0, 1, 0, 0); e != 0 {
				return outcome{}, e
			}
			copy(m, written)
			copy(s.content[4096:], written)
			return holds(s.content), unix.Munmap(m)
		})},
		{name: "mmap_fork_store", hold: mapped(unix.O_RDWR, readWrite, func(s *scene, m []byte) (outcome, error) {
			pid, err := forkAndStore(&m[0], 'W')
			if err != nil {
				return outcome{}, err
			}
			s.pids = []int{pid}
			var ws unix.WaitStatus
			_, err = unix.Wait4(pid, &ws, 0, nil)
			s.content[0] = 'W'
			return holds(s.content), err
		})},
		{name: "read_into_map", hold: mappedFrom(0, func(src int, m []byte) error {
			_, err := unix.Pread(src, m[:4096], 0)
			return err
		})},
		{name: "odirect_read_into_map", hold: mappedFrom(unix.O_DIRECT, func(src int, m []byte) error {
			_, err := unix.Pread(src, m[:4096], 0)
			return err
		})},
		{name: "ur_fixed_buffer_map", hold: func(s *scene) (func() (outcome, error), error) {
			var r *uring.Ring
			return mappedWith(s, unix.O_DIRECT, func(m []byte) (err error) {
				if r, err = newRing(0); err == nil {
					err = r.RegisterBuffer(m)
				}
				return err
			}, func(src int, m []byte) error {
				return do(r, uring.SQE{Op: uring.OpReadFixed, FD: int32(src), Addr: address(m), Length: 4096})
			})
		}},
	}
	for i := range list {
		list[i].op, list[i].from = "map_write,write", inTree
		if list[i].have == nothing {
			list[i].have = blocks
		}
	}
	return list
}

// mappedFrom is an act that makes the kernel itself put a page of another file
// into a mapping that was there before the rule.
func mappedFrom(flags int, f func(src int, m []byte) error) func(*scene) (func() (outcome, error), error) {
	return func(s *scene) (func() (outcome, error), error) {
		return mappedWith(s, flags, func([]byte) error { return nil }, f)
	}
}

func mappedWith(s *scene, flags int, before func(m []byte) error, f func(src int, m []byte) error) (func() (outcome, error), error) {
	text := make([]byte, 4096)
	copy(text, written)
	src, err := s.source(text)
	if err == nil {
		err = unix.Fsync(src)
	}
	if err != nil {
		return nil, err
	}
	// the source is on the same file system; one that knows no O_DIRECT says EINVAL
	from, err := unix.Open(s.aside+"/source", unix.O_RDONLY|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(s.path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	m, err := unix.Mmap(fd, 0, len(s.content), readWrite, unix.MAP_SHARED)
	if err == nil {
		err = before(m)
	}
	if err != nil {
		return nil, err
	}
	return func() (outcome, error) {
		err := f(from, m)
		copy(s.content, text)
		return holds(s.content), err
	}, unix.Close(fd)
}

// forkAndStore forks without exec; the child stores one byte and ends. Nothing of
// Go may run in the child: it has one thread and stops at the first lock.
//
//go:norace
func forkAndStore(p *byte, v byte) (int, error) {
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	pid, _, e := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if e != 0 {
		return 0, e
	}
	if pid == 0 {
		*p = v
		for {
			unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	return int(pid), nil
}

func address(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(&b[0]))) }

var errNoText = errors.New("nothing to map")
