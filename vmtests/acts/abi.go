package main

import (
	"golang.org/x/sys/unix"
)

// int80 makes a system call of the 32-bit interface, which a 64-bit program may
// do, too: numbers and structures are those of i386, addresses have 32 bits.
func int80(nr, a, b, c uint32) int32

// call32 is int80 with a path as the first argument.
func call32(path string, nr, b, c uint32) (int, error) {
	m, err := unix.Mmap(-1, 0, 8192, readWrite, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_32BIT)
	if err != nil {
		return -1, err
	}
	copy(m, path)
	return result32(int80(nr, uint32(address(m)), b, c))
}

func result32(r int32) (int, error) {
	if r < 0 {
		return -1, unix.Errno(-r)
	}
	return int(r), nil
}

// abiActs make the calls of the other interfaces of an x86-64 kernel.
func abiActs() []act {
	// arch/x86/entry/syscalls/syscall_32.tbl
	const open32, write32, unlink32, chmod32 = 5, 4, 10, 15
	const x32 = 0x40000000 // __X32_SYSCALL_BIT
	list := []act{
		{name: "int80_open_write", op: "write", have: file, do: func(s *scene) (outcome, error) {
			fd, err := call32(s.path, open32, unix.O_WRONLY, 0)
			if err != nil {
				return outcome{}, err
			}
			m, err := unix.Mmap(-1, 0, 4096, readWrite, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_32BIT)
			if err != nil {
				return outcome{}, err
			}
			n := copy(m, written)
			_, err = result32(int80(write32, uint32(fd), uint32(address(m)), uint32(n)))
			if cerr := unix.Close(fd); err == nil {
				err = cerr
			}
			return overwrites(s), err
		}},
		{name: "int80_unlink", op: "unlink", have: file, do: func(s *scene) (outcome, error) {
			_, err := call32(s.path, unlink32, 0, 0)
			return gone(), err
		}},
		{name: "int80_chmod", op: "chmod", have: file, do: func(s *scene) (outcome, error) {
			_, err := call32(s.path, chmod32, 0o4755, 0)
			return mode(0o4755), err
		}},
		{name: "x32_unlink", op: "unlink", have: file, do: func(s *scene) (outcome, error) {
			p, err := unix.BytePtrFromString(s.path)
			if err != nil {
				return outcome{}, err
			}
			return gone(), syscall1(x32|unix.SYS_UNLINK, p)
		}},
	}
	for i := range list {
		list[i].from = inTree
	}
	return list
}
