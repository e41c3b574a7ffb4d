package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loop binds a loop device of its own to path and returns its name.
func (s *scene) loop(path string) (string, error) {
	ctl, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", noEffect("loop devices: " + err.Error())
	}
	n, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(ctl), unix.LOOP_CTL_ADD, uintptr(1000+os.Getpid()))
	if e != 0 {
		return "", e
	}
	dev := fmt.Sprintf("/dev/loop%d", n)
	fd, err := unix.Open(dev, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	file, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	if err := unix.IoctlSetInt(fd, unix.LOOP_SET_FD, file); err != nil {
		return "", err
	}
	s.later(func() error {
		fd, err := unix.Open(dev, unix.O_RDONLY|unix.O_CLOEXEC, 0) // for writing a blocked tree refuses it
		if err != nil {
			return err
		}
		return errors.Join(unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0), unix.Close(fd))
	})
	return dev, errors.Join(unix.Close(file), unix.Close(fd), unix.Close(ctl))
}

// writeThrough writes a device and waits until it is written.
func writeThrough(dev string, at int64, text []byte) error {
	fd, err := unix.Open(dev, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Pwrite(fd, text, at)
	return errors.Join(err, unix.Fsync(fd), unix.Close(fd))
}

// deviceOf returns the block device below path.
func deviceOf(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", err
	}
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err == nil {
		return "/dev/" + filepath.Base(link), nil
	}
	// btrfs has a number of its own; its mount tells the device
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	dev := ""
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if strings.HasPrefix(path, f[1]+"/") && f[2] == "btrfs" {
			dev = f[0]
		}
	}
	if dev == "" {
		return "", noEffect("no block device is below")
	}
	return dev, nil
}

// forget makes the kernel read path anew: it drops pages that wait to be put on
// its lists, too, which drop_caches leaves (mm/fadvise.c, POSIX_FADV_DONTNEED).
func forget(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
}

// deviceActs write the block of a file on the device below its file system.
func deviceActs() []act {
	const page = 4096
	// block opens the device and finds the block; both before anything is written.
	block := func(s *scene, flags int) (int, int64, error) {
		dev, err := deviceOf(s.tree)
		if err != nil {
			return -1, 0, err
		}
		f, err := os.Open(s.path)
		if err != nil {
			return -1, 0, err
		}
		defer f.Close()
		if err := f.Sync(); err != nil {
			return -1, 0, err
		}
		at, err := extent(int(f.Fd()))
		if err != nil {
			return -1, 0, err
		}
		fd, err := unix.Open(dev, flags|unix.O_CLOEXEC, 0)
		return fd, at, err
	}
	// raw writes and makes the kernel read the file anew.
	raw := func(s *scene, fd int, write func() error) (outcome, error) {
		if err := write(); err != nil {
			return outcome{}, err
		}
		return holds(overwritten(s.content)), errors.Join(unix.Fsync(fd), unix.Close(fd), forget(s.path))
	}
	// zeroOut has the block zeroed by a control command.
	zeroOut := func(s *scene, fd int, at int64) (outcome, error) {
		o, err := raw(s, fd, func() error {
			span := [2]uint64{uint64(at), page}
			return ioctl(fd, unix.BLKZEROOUT, unsafe.Pointer(&span))
		})
		clear(s.content[:page])
		o.content = s.content
		return o, err
	}
	list := []act{
		{name: "raw_block_write", do: func(s *scene) (outcome, error) {
			fd, at, err := block(s, unix.O_RDWR)
			if err != nil {
				return outcome{}, err
			}
			return raw(s, fd, func() error { _, err := unix.Pwrite(fd, overwritten(s.content)[:page], at); return err })
		}},
		{name: "raw_block_prefd", hold: func(s *scene) (func() (outcome, error), error) {
			fd, at, err := block(s, unix.O_RDWR)
			return func() (outcome, error) {
				return raw(s, fd, func() error { _, err := unix.Pwrite(fd, overwritten(s.content)[:page], at); return err })
			}, err
		}},
		{name: "raw_block_zeroout_prefd", hold: func(s *scene) (func() (outcome, error), error) {
			fd, at, err := block(s, unix.O_RDWR)
			return func() (outcome, error) { return zeroOut(s, fd, at) }, err
		}},
		{name: "raw_block_direct", do: func(s *scene) (outcome, error) {
			fd, at, err := block(s, unix.O_RDWR|unix.O_DIRECT)
			if err != nil {
				return outcome{}, err
			}
			m, err := anonymous(page)
			if err != nil {
				return outcome{}, err
			}
			copy(m, overwritten(s.content))
			return raw(s, fd, func() error { _, err := unix.Pwrite(fd, m, at); return err })
		}},
		{name: "raw_block_mmap", do: func(s *scene) (outcome, error) {
			fd, at, err := block(s, unix.O_RDWR)
			if err != nil {
				return outcome{}, err
			}
			return raw(s, fd, func() error {
				m, err := unix.Mmap(fd, at, page, readWrite, unix.MAP_SHARED)
				if err != nil {
					return err
				}
				copy(m, written)
				return errors.Join(unix.Msync(m, unix.MS_SYNC), unix.Munmap(m))
			})
		}},
		{name: "raw_block_zeroout", do: func(s *scene) (outcome, error) {
			fd, at, err := block(s, unix.O_RDWR)
			if err != nil {
				return outcome{}, err
			}
			return zeroOut(s, fd, at)
		}},
	}
	for i := range list {
		list[i].op, list[i].have, list[i].from, list[i].also = "raw_write,write", plainBlocks, inTree, theTree
	}
	return list
}
