package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// merged mounts an overlay whose upper directory is in the watched tree. lower
// says what is below.
func (s *scene) merged(upper, lower string) (string, error) {
	at, work := filepath.Join(s.aside, "merged"), filepath.Join(s.aside, "work")
	for _, d := range []string{at, work, upper, lower} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return "", err
		}
	}
	err := unix.Mount("overlay", at, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work))
	if err != nil {
		return "", noEffect("mount of an overlay: " + err.Error())
	}
	s.later(func() error { return unix.Unmount(at, unix.MNT_DETACH) })
	return at, nil
}

// overlayActs work in an overlay, made before the rule, whose upper directory is
// the act's in the watched tree.
func overlayActs() []act {
	upper := func(f func(s *scene, at string) (outcome, error)) func(*scene) (func() (outcome, error), error) {
		return func(s *scene) (func() (outcome, error), error) {
			at, err := s.merged(s.dir, filepath.Join(s.aside, "lower"))
			return func() (outcome, error) { return f(s, filepath.Join(at, "it")) }, err
		}
	}
	return []act{
		{name: "ovl_upper_create", op: "create,mknod,link,rename", from: inTree, hold: upper(func(s *scene, at string) (outcome, error) {
			fd, err := unix.Open(at, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
			if err != nil {
				return outcome{}, err
			}
			return holds([]byte(written)), errors.Join(put(fd), unix.Close(fd))
		})},
		{name: "ovl_upper_write", op: "write", have: file, from: inTree, hold: upper(func(s *scene, at string) (outcome, error) {
			return overwrites(s), write(at)
		})},
		{name: "ovl_upper_chmod", op: "chmod", have: file, from: inTree, hold: upper(func(s *scene, at string) (outcome, error) {
			return mode(0o600), unix.Chmod(at, 0o600)
		})},
		{name: "ovl_upper_unlink", op: "unlink,rename", have: file, from: inTree, hold: upper(func(s *scene, at string) (outcome, error) {
			return gone(), unix.Unlink(at)
		})},
		{name: "ovl_upper_rename", op: "rename", have: file, from: inTree, to: inTree, hold: upper(func(s *scene, at string) (outcome, error) {
			return unchanged(s), unix.Rename(at, filepath.Join(filepath.Dir(at), "to"))
		})},
		{name: "ovl_whiteout", op: "mknod,rename,link,create", from: inTree, hold: func(s *scene) (func() (outcome, error), error) {
			lower := filepath.Join(s.aside, "lower")
			if err := makeThing(filepath.Join(lower, "it"), file); err != nil {
				return nil, err
			}
			at, err := s.merged(s.dir, lower)
			return func() (outcome, error) { return same(), unix.Unlink(filepath.Join(at, "it")) }, err
		}},
		{name: "ovl_mmap_after", op: "map_write,write", have: blocks, from: inTree, hold: upper(func(s *scene, at string) (outcome, error) {
			fd, err := unix.Open(at, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				return outcome{}, err
			}
			m, err := unix.Mmap(fd, 0, len(s.content), readWrite, unix.MAP_SHARED)
			if err != nil {
				return outcome{}, err
			}
			copy(m, written)
			return overwrites(s), errors.Join(unix.Munmap(m), unix.Close(fd))
		})},
		{name: "ovl_lower_copyup", op: "write", have: file, from: inTree, hold: func(s *scene) (func() (outcome, error), error) {
			at, err := s.merged(filepath.Join(s.aside, "upper"), s.dir)
			return func() (outcome, error) {
				return but("the copy above is written, the watched file below stays"), write(filepath.Join(at, "it"))
			}, err
		}},
	}
}

// kernelActs let the kernel write on somebody's behalf.
func kernelActs() []act {
	const corePattern = "/proc/sys/kernel/core_pattern"
	dumps := func(s *scene, pattern string) error {
		old, err := os.ReadFile(corePattern)
		if err != nil {
			return err
		}
		s.later(func() error { return os.WriteFile(corePattern, old, 0o644) })
		return os.WriteFile(corePattern, []byte(pattern), 0o644)
	}
	crash := func() (*exec.Cmd, string, error) {
		sh, err := filepath.EvalSymlinks("/bin/sh")
		return exec.Command(sh, "-c", "ulimit -c unlimited; kill -SEGV $$"), sh, err
	}
	account := func(s *scene) (outcome, error) {
		was, err := os.Stat(s.path)
		if err != nil {
			return outcome{}, err
		}
		cmd := exec.Command("/bin/true")
		if err := cmd.Run(); err != nil {
			return outcome{}, err
		}
		s.pids = nil // the ending process or a worker of the kernel, as the kernel likes
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if is, err := os.Stat(s.path); err != nil || is.Size() != was.Size() {
				return same(), err
			}
		}
		return outcome{}, noEffect("untried: the machine accounts to another file, or to none")
	}
	const page = 4096
	return []act{
		{name: "loop_pre_write", op: "write,raw_write,map_write", have: blocks, from: inTree, hold: func(s *scene) (func() (outcome, error), error) {
			dev, err := s.loop(s.path)
			return func() (outcome, error) {
				s.pids = nil
				return overwrites(s), writeThrough(dev, 0, overwritten(s.content)[:page])
			}, err
		}},
		{name: "loop_post", op: "write,raw_write,map_write", have: blocks, from: inTree, do: func(s *scene) (outcome, error) {
			dev, err := s.loop(s.path)
			if err != nil {
				return outcome{}, err
			}
			s.pids = nil
			return overwrites(s), writeThrough(dev, 0, overwritten(s.content)[:page])
		}},
		{name: "swapon", op: "write", have: swapFile, from: inTree, do: func(s *scene) (outcome, error) {
			p, err := unix.BytePtrFromString(s.path)
			if err != nil {
				return outcome{}, err
			}
			if _, _, e := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(p)), 0, 0); e != 0 {
				return outcome{}, e
			}
			return but("nothing changes until memory is short"), syscall1(unix.SYS_SWAPOFF, p)
		}},
		{name: "acct_pre", op: "write", have: file, from: inTree, hold: func(s *scene) (func() (outcome, error), error) {
			// The fixture's other acts run meanwhile: the file is bound here, but what
			// is written before the rule is not this act's.
			err := unix.Acct(s.path)
			s.later(noAcct)
			return func() (outcome, error) { return account(s) }, err
		}},
		{name: "acct", op: "write", have: file, from: inTree, do: func(s *scene) (outcome, error) {
			if err := unix.Acct(s.path); err != nil {
				return outcome{}, err
			}
			s.later(noAcct)
			return account(s)
		}},
		{name: "coredump", op: "create,write", file: "core", from: inTree, do: func(s *scene) (outcome, error) {
			if err := dumps(s, s.path); err != nil {
				return outcome{}, err
			}
			cmd, exe, err := crash()
			if err != nil {
				return outcome{}, err
			}
			if err := cmd.Start(); err != nil {
				return outcome{}, err
			}
			s.pids, s.exe = []int{cmd.Process.Pid}, exe
			_ = cmd.Wait() // it was killed
			if _, err := os.Lstat(s.path); err != nil {
				return outcome{}, unix.EPERM // the kernel tells nobody
			}
			return same(), nil
		}},
		{name: "usermode_helper", op: "write", have: file, from: inTree, do: func(s *scene) (outcome, error) {
			// a program that the kernel starts, without a parent who asked for it
			if err := dumps(s, "|/usr/bin/tee "+s.path); err != nil {
				return outcome{}, err
			}
			cmd, _, err := crash()
			if err != nil {
				return outcome{}, err
			}
			s.pids, s.exe = nil, "/usr/bin/tee"
			_ = cmd.Run() // it was killed
			return same(), nil
		}},
		{name: "kthread_module", op: "write", do: func(s *scene) (outcome, error) {
			file, err := module()
			if err != nil {
				return outcome{}, err
			}
			f, err := os.Open(file)
			if err != nil {
				return outcome{}, err
			}
			return but("this module writes no file; another may"), errors.Join(unix.FinitModule(int(f.Fd()), "", 0), unix.DeleteModule("brd", 0))
		}},
		{name: "init_module_buf", op: "write", do: func(s *scene) (outcome, error) {
			file, err := module()
			if err != nil {
				return outcome{}, err
			}
			b, err := os.ReadFile(file)
			if err != nil {
				return outcome{}, err
			}
			return but("this module writes no file; another may"), errors.Join(unix.InitModule(b, ""), unix.DeleteModule("brd", 0))
		}},
		{name: "devmem", op: "write", do: func(s *scene) (outcome, error) {
			fd, err := unix.Open("/dev/mem", unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err == nil {
				// memory of programs, not of a device: refused by CONFIG_STRICT_DEVMEM
				_, err = unix.Pwrite(fd, make([]byte, 1), 64<<20)
				err = errors.Join(err, unix.Close(fd))
			}
			if err != nil {
				return outcome{}, noEffect("the kernel itself refuses: " + err.Error())
			}
			return did("memory was written"), nil
		}},
	}
}

// noAcct ends the accounting: its path is NULL, which unix.Acct cannot say.
func noAcct() error { return syscall1(unix.SYS_ACCT, nil) }

// module is a module that nothing needs.
func module() (string, error) {
	list, err := filepath.Glob("/lib/modules/*/brd.ko")
	if err != nil || len(list) == 0 {
		return "", noEffect("the guest has no module to load")
	}
	return list[0], nil
}
