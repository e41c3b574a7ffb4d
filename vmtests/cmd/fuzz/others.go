package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// reopen writes by another way to the file than its name: by that of a descriptor, or
// by a handle.
func (f *fuzzer) reopen() error {
	p := f.file()
	f.about(p)
	fd, err := unix.Open(p, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	var w int
	const flags = unix.O_WRONLY | unix.O_NONBLOCK | unix.O_CLOEXEC
	if f.r.IntN(2) == 0 {
		w, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), flags, 0)
	} else {
		w, err = f.byHandle(fd, flags)
	}
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	_, err = unix.Write(w, f.bytes())
	return errors.Join(err, unix.Close(w), unix.Close(fd))
}

func (f *fuzzer) byHandle(fd, flags int) (int, error) {
	h, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, err
	}
	mount, err := unix.Open(f.tree, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	w, err := unix.OpenByHandleAt(mount, h, flags)
	return w, errors.Join(err, unix.Close(mount))
}

// through writes by a copy of a descriptor, which another descriptor then replaces.
func (f *fuzzer) through() error {
	return f.with(f.file(), unix.O_WRONLY, func(fd int) error {
		two, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 100)
		if err != nil {
			return err
		}
		_, err = unix.Write(two, f.bytes())
		null, oerr := unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if oerr == nil {
			oerr = errors.Join(unix.Dup3(null, two, unix.O_CLOEXEC), unix.Close(null))
		}
		return errors.Join(err, oerr, unix.Close(two))
	})
}

// sealed sets a flag that forbids changes, tries one, and takes the flag away.
func (f *fuzzer) sealed() error {
	const appendOnly, immutable = 0x20, 0x10
	return f.with(f.any(), unix.O_RDONLY, func(fd int) error {
		v, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
		if err != nil {
			return err
		}
		err = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, v|[]int{appendOnly, immutable}[f.r.IntN(2)])
		_ = unix.Fchmod(fd, f.mode(0o777))
		return errors.Join(err, unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, v&^(appendOnly|immutable)))
	})
}

// shift moves what is in a file by whole blocks.
func (f *fuzzer) shift(how uint32) error {
	return f.with(f.file(), unix.O_RDWR, func(fd int) error {
		return unix.Fallocate(fd, how, 4096*f.r.Int64N(3), 4096*(1+f.r.Int64N(3)))
	})
}

// pass has another process change a file by a descriptor that was passed to it: to a
// child, which ends without closing it, or through a socket.
func (f *fuzzer) pass() error {
	return f.with(f.file(), unix.O_RDWR, func(fd int) error {
		if f.r.IntN(6) != 0 {
			return f.receive(fd)
		}
		own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return err
		}
		file := os.NewFile(uintptr(own), "passed")
		defer file.Close()
		self, err := os.Executable()
		if err != nil {
			return err
		}
		cmd := exec.Command(self, "-worker", "1001", "-seed", fmt.Sprint(f.r.Uint64()), "-ops", "2", "-only", "writeheld,cutheld", "-given", f.tree, f.outside)
		cmd.ExtraFiles = []*os.File{file}
		return cmd.Run()
	})
}

// receive sends a descriptor to itself and writes by what arrives.
func (f *fuzzer) receive(fd int) error {
	s, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _, _ = unix.Close(s[0]), unix.Close(s[1]) }()
	if err := unix.Sendmsg(s[0], []byte{0}, unix.UnixRights(fd), nil, 0); err != nil {
		return err
	}
	room := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(s[1], make([]byte, 1), room, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return err
	}
	list, err := unix.ParseSocketControlMessage(room[:n])
	if err != nil || len(list) != 1 {
		return errors.Join(err, unix.EBADMSG)
	}
	fds, err := unix.ParseUnixRights(&list[0])
	if err != nil {
		return err
	}
	_, err = unix.Write(fds[0], f.bytes())
	return errors.Join(err, unix.Close(fds[0]))
}

// run writes a program and runs it; it adds a line to itself.
func (f *fuzzer) run() error {
	p := f.file()
	err := f.with(p, unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY, func(fd int) error {
		_, err := unix.Write(fd, []byte("#!/bin/sh\necho : >>\"$0\"\n"))
		return errors.Join(err, unix.Fchmod(fd, 0o755))
	})
	if err != nil {
		return err
	}
	// somebody may put a fifo there, which nobody reads
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, p)
	c.Dir = f.tree // others write to the program meanwhile: what the shell makes of that stays in the tree
	return c.Run()
}
