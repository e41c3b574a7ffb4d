package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

// loop binds a free loop device to path and returns its name.
func (s *scene) loop(path string) (string, error) {
	ctl, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", noEffect("loop devices: " + err.Error())
	}
	n, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(ctl), unix.LOOP_CTL_GET_FREE, 0)
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
		fd, err := unix.Open(dev, unix.O_RDWR|unix.O_CLOEXEC, 0)
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

// mountActs put something over watched files, or take their file system away.
// Each puts the machine back.
func mountActs() []act {
	over := func(what string, put func(at string) error) func(*scene) (outcome, error) {
		return func(s *scene) (outcome, error) {
			if err := put(s.path); err != nil {
				return outcome{}, err
			}
			s.later(func() error { return unix.Unmount(s.path, unix.MNT_DETACH) })
			return did(what), nil
		}
	}
	tmpfs := func(at string) error { return unix.Mount("tmpfs", at, "tmpfs", 0, "") }
	detached := func(kind string) (int, error) {
		c, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
		if err != nil {
			return -1, err
		}
		if err := unix.FsconfigCreate(c); err != nil {
			return -1, err
		}
		return unix.Fsmount(c, unix.FSMOUNT_CLOEXEC, 0)
	}
	list := []act{
		{name: "ovl_mounted_over", op: "mount", have: dir, do: func(s *scene) (outcome, error) {
			for _, d := range []string{"u", "w"} {
				if err := os.Mkdir(filepath.Join(s.aside, d), 0o755); err != nil {
					return outcome{}, err
				}
			}
			return over("an overlay hides the directory", func(at string) error {
				err := unix.Mount("overlay", at, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", at, filepath.Join(s.aside, "u"), filepath.Join(s.aside, "w")))
				if errors.Is(err, unix.EINVAL) {
					err = noEffect("mount of an overlay: " + err.Error())
				}
				return err
			})(s)
		}},
		{name: "mount_tmpfs_over", op: "mount", have: dir, do: over("a new file system hides the directory", tmpfs)},
		{name: "mount_brief", op: "mount", have: dir, do: over("a new file system hid the directory", tmpfs)},
		{name: "mount_bind_over_dir", op: "mount", have: dir, do: func(s *scene) (outcome, error) {
			return over("another directory hides the directory", func(at string) error { return unix.Mount(s.aside, at, "", unix.MS_BIND, "") })(s)
		}},
		{name: "mount_bind_over_file", op: "mount", have: file, do: func(s *scene) (outcome, error) {
			src := filepath.Join(s.aside, "file")
			if err := os.WriteFile(src, []byte(written), 0o644); err != nil {
				return outcome{}, err
			}
			return over("another file hides the file", func(at string) error { return unix.Mount(src, at, "", unix.MS_BIND, "") })(s)
		}},
		{name: "mount_move_over", op: "mount", have: dir, also: theTree, do: func(s *scene) (outcome, error) {
			src := filepath.Join(s.aside, "moved")
			if err := errors.Join(os.Mkdir(src, 0o755), tmpfs(src), unix.Mount("", src, "", unix.MS_PRIVATE, "")); err != nil {
				return outcome{}, err
			}
			o, err := over("a mount was moved over the directory", func(at string) error { return unix.Mount(src, at, "", unix.MS_MOVE, "") })(s)
			if err != nil {
				_ = unix.Unmount(src, unix.MNT_DETACH)
			}
			return o, err
		}},
		{name: "move_mount_over", op: "mount", have: dir, do: func(s *scene) (outcome, error) {
			t, err := unix.OpenTree(unix.AT_FDCWD, s.aside, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
			if err != nil {
				return outcome{}, err
			}
			return over("a clone hides the directory", func(at string) error {
				return unix.MoveMount(t, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
			})(s)
		}},
		{name: "fsmount_over", op: "mount", have: dir, do: func(s *scene) (outcome, error) {
			m, err := detached("tmpfs")
			if err != nil {
				return outcome{}, err
			}
			return over("a new file system hides the directory", func(at string) error {
				return unix.MoveMount(m, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
			})(s)
		}},
		{name: "mount_propagated", op: "mount", have: dir, also: inTree, hold: func(s *scene) (func() (outcome, error), error) {
			// a peer of the watched directory's mount, beside the tree
			if err := errors.Join(unix.Mount(s.path, s.path, "", unix.MS_BIND, ""), unix.Mount("", s.path, "", unix.MS_SHARED, "")); err != nil {
				return nil, err
			}
			s.later(func() error { return unix.Unmount(s.path, unix.MNT_DETACH) })
			at, err := s.bound(s.path)
			if err == nil {
				err = unix.Mkdir(filepath.Join(at, "here"), 0o755)
			}
			return func() (outcome, error) {
				if err := tmpfs(filepath.Join(at, "here")); err != nil {
					return outcome{}, err
				}
				s.later(func() error { return unix.Unmount(filepath.Join(at, "here"), unix.MNT_DETACH) })
				return did("a mount elsewhere came over by propagation"), nil
			}, err
		}},
		{name: "second_mount_write", op: "write", have: file, do: func(s *scene) (outcome, error) {
			dev, err := deviceOf(s.tree)
			if err != nil {
				return outcome{}, err
			}
			root, kind, err := mountOf(s.tree)
			if err != nil {
				return outcome{}, err
			}
			at, err := os.MkdirTemp("/tmp", "second-")
			if err != nil {
				return outcome{}, err
			}
			if err := unix.Mount(dev, at, kind, 0, ""); err != nil {
				return outcome{}, err
			}
			s.later(func() error { return unix.Unmount(at, unix.MNT_DETACH) })
			return overwrites(s), write(filepath.Join(at, strings.TrimPrefix(s.path, root)))
		}},
		{name: "mount_setattr_ro", op: "remount", from: theTree, do: func(s *scene) (outcome, error) {
			root, _, err := mountOf(s.tree)
			if err != nil {
				return outcome{}, err
			}
			if err := unix.MountSetattr(unix.AT_FDCWD, root, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
				return outcome{}, noEffect("mount_setattr: " + err.Error())
			}
			s.later(func() error {
				return unix.MountSetattr(unix.AT_FDCWD, root, 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY})
			})
			return but("the mount takes no changes, the files stay"), nil
		}},
		{name: "open_tree_attr_ro", op: "remount", do: func(s *scene) (outcome, error) {
			p, err := unix.BytePtrFromString(s.tree)
			if err != nil {
				return outcome{}, err
			}
			attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
			cwd := unix.AT_FDCWD
			fd, _, e := unix.Syscall6(unix.SYS_OPEN_TREE_ATTR, uintptr(cwd), uintptr(unsafe.Pointer(p)), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
			if e != 0 {
				return outcome{}, noEffect("open_tree_attr: " + unix.ErrnoName(e))
			}
			return but("only the clone takes no changes"), unix.Close(int(fd))
		}},
		{name: "remount_ro", op: "remount", from: theTree, do: func(s *scene) (outcome, error) {
			root, _, err := mountOf(s.tree)
			if err != nil {
				return outcome{}, err
			}
			// the file system itself would say EBUSY while somebody writes
			if err := unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
				return outcome{}, err
			}
			s.later(func() error { return unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_BIND, "") })
			return did("the mount takes no changes"), nil
		}},
		{name: "mount_over_anc", op: "mount", from: theAncestor, also: theTree, do: over("a new file system hides the tree", tmpfs)},
		{name: "rename_root", op: "rename", from: theTree, do: renamed},
		{name: "rename_ancestor", op: "rename", from: theAncestor, also: theTree, do: renamed},
		{name: "umount_detach_fs", op: "umount", from: theTree, do: func(s *scene) (outcome, error) {
			root, kind, err := mountOf(s.tree)
			if err != nil {
				return outcome{}, err
			}
			again, err := deviceOf(s.tree)
			if err != nil {
				// what has no device is kept by a clone of its mount
				t, err := unix.OpenTree(unix.AT_FDCWD, root, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
				if err != nil {
					return outcome{}, err
				}
				s.later(func() error { return unix.MoveMount(t, "", unix.AT_FDCWD, root, unix.MOVE_MOUNT_F_EMPTY_PATH) })
			} else {
				s.later(func() error { return unix.Mount(again, root, kind, 0, "") })
			}
			if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
				s.undo = nil
				return outcome{}, err
			}
			return did("the file system is at its place no more"), nil
		}},
	}
	for i := range list {
		if list[i].from == none && list[i].have != nothing {
			list[i].from = inTree
		}
		list[i].linger = list[i].name != "mount_brief" && list[i].name != "second_mount_write"
	}
	return list
}

// renamed gives a directory another name and takes it back.
func renamed(s *scene) (outcome, error) {
	other := s.path + ".renamed"
	if err := unix.Rename(s.path, other); err != nil {
		return outcome{}, err
	}
	s.later(func() error { return unix.Rename(other, s.path) })
	return did("the directory has another name"), nil
}

// mountOf returns the mount point that path is below, and its file system.
func mountOf(path string) (root, kind string, err error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if strings.HasPrefix(path, strings.TrimSuffix(f[1], "/")+"/") && len(f[1]) >= len(root) {
			root, kind = f[1], f[2]
		}
	}
	return root, kind, nil
}
