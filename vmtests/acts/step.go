package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// child runs a step of this program in a process of its own, with f as its
// descriptor 3, and makes it the actor of s.
func (s *scene) child(attr *syscall.SysProcAttr, f *os.File, what, path string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "step", what, path)
	cmd.SysProcAttr = attr
	if f != nil {
		cmd.ExtraFiles = []*os.File{f}
	}
	return s.actor(cmd)
}

// actor runs cmd as the actor of s. Its exit code is an errno.
func (s *scene) actor(cmd *exec.Cmd) error {
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	s.pids = []int{cmd.Process.Pid}
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 && exit.ExitCode() < 200 {
		return syscall.Errno(exit.ExitCode())
	}
	return err
}

// step is what a child does; it returns the exit code.
func step(what, path string) int {
	err := func() error {
		switch what {
		case "write":
			return write(path)
		case "put":
			return put(3)
		case "receive":
			fd, err := receive(3)
			if err != nil {
				return err
			}
			return put(fd)
		case "sleep":
			_, err := os.Stdin.Read(make([]byte, 1))
			return err
		case "twice": // the process that started this one ends before it acts
			self, err := os.Executable()
			if err != nil {
				return err
			}
			cmd := exec.Command(self, "step", "orphan", path)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			return cmd.Start()
		case "orphan":
			for os.Getppid() != 1 {
				runtime.Gosched()
			}
			err := write(path)
			note := fmt.Sprintf("%d %d", os.Getpid(), code(err))
			name := filepath.Join(filepath.Dir(os.Args[0]), "orphan")
			if dir := os.Getenv("NOTE"); dir != "" {
				name = filepath.Join(dir, "orphan")
			}
			return errors.Join(os.WriteFile(name+".tmp", []byte(note), 0o600), os.Rename(name+".tmp", name))
		}
		return fmt.Errorf("no step %s", what)
	}()
	return code(err)
}

func code(err error) int {
	var errno syscall.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &errno):
		return int(errno)
	}
	fmt.Fprintln(os.Stderr, err)
	return 200
}

// onThread runs f on a thread of its own that shares neither its root and working
// directory nor what flags name with the rest of the process.
func onThread(flags int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this function
		if err := unix.Unshare(unix.CLONE_FS | flags); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}
