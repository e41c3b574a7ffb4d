package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// writes is an act that opens what other(s) says, which is the act's path by
// another way, and writes.
func writes(other func(s *scene) (string, error)) func(*scene) (outcome, error) {
	return func(s *scene) (outcome, error) {
		name, err := other(s)
		if err != nil {
			return outcome{}, err
		}
		return overwrites(s), write(name)
	}
}

// writesLater is writes with the other way made before the rule.
func writesLater(other func(s *scene) (string, error)) func(*scene) (func() (outcome, error), error) {
	return func(s *scene) (func() (outcome, error), error) {
		name, err := other(s)
		return func() (outcome, error) { return overwrites(s), write(name) }, err
	}
}

// bound mounts from at a new directory beside the tree.
func (s *scene) bound(from string) (string, error) {
	at := filepath.Join(s.aside, "bound")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return "", err
	}
	if err := unix.Mount(from, at, "", unix.MS_BIND, ""); err != nil {
		return "", err
	}
	s.later(func() error { return unix.Unmount(at, unix.MNT_DETACH) })
	return at, nil
}

// aliasActs reach a file by another name, mount, namespace, process or user.
func aliasActs() []act {
	opened := func(flags int) func(*scene) (string, error) {
		return func(s *scene) (string, error) {
			fd, err := unix.Open(s.path, flags|unix.O_CLOEXEC, 0)
			return fmt.Sprintf("/proc/self/fd/%d", fd), err
		}
	}
	list := []act{
		{name: "handle_hot", hold: byHandle(false)},
		{name: "handle_cold", also: theTree, hold: byHandle(true)}, // its place in the tree is not known
		{name: "proc_fd_reopen", do: writes(opened(unix.O_RDONLY))},
		{name: "proc_fd_reopen_path", do: writes(opened(unix.O_PATH))},
		{name: "dev_fd_reopen", do: writes(func(s *scene) (string, error) {
			name, err := opened(unix.O_RDONLY)(s)
			return strings.Replace(name, "/proc/self", "/dev", 1), err
		})},
		{name: "proc_root", do: writes(func(s *scene) (string, error) { return "/proc/1/root" + s.path, nil })},
		{name: "proc_cwd", do: writes(func(s *scene) (string, error) { return "/proc/self/cwd/it", os.Chdir(s.dir) })},
		{name: "relative_cwd", do: writes(func(s *scene) (string, error) { return "it", os.Chdir(s.dir) })},
		{name: "relative_dirfd", do: func(s *scene) (outcome, error) {
			d, err := unix.Open(s.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return outcome{}, err
			}
			fd, err := unix.Openat(d, "it", unix.O_WRONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return outcome{}, err
			}
			return overwrites(s), errors.Join(put(fd), unix.Close(fd))
		}},
		{name: "openat2_write", do: func(s *scene) (outcome, error) {
			fd, err := unix.Openat2(unix.AT_FDCWD, s.path, &unix.OpenHow{Flags: unix.O_WRONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
			if err != nil {
				return outcome{}, err
			}
			return overwrites(s), errors.Join(put(fd), unix.Close(fd))
		}},
		{name: "dotdot_path", do: writes(func(s *scene) (string, error) { return s.dir + "/.././" + filepath.Base(s.dir) + "//it", nil })},
		{name: "symlink_path", do: writes(func(s *scene) (string, error) {
			return filepath.Join(s.aside, "way/it"), os.Symlink(s.dir, filepath.Join(s.aside, "way"))
		})},
		{name: "hardlink_alias", hold: writesLater(func(s *scene) (string, error) {
			alias := filepath.Join(s.aside, "alias")
			return alias, unix.Link(s.path, alias)
		})},
		{name: "bind_pre_write", hold: writesLater(func(s *scene) (string, error) {
			at, err := s.bound(s.dir)
			return filepath.Join(at, "it"), err
		})},
		{name: "bind_post_write", do: writes(func(s *scene) (string, error) {
			at, err := s.bound(s.dir)
			return filepath.Join(at, "it"), err
		})},
		{name: "idmapped_write", do: writes(idmapped)},
		{name: "open_tree_write", do: func(s *scene) (outcome, error) {
			// a mount that is attached nowhere
			t, err := unix.OpenTree(unix.AT_FDCWD, s.dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
			if err != nil {
				return outcome{}, err
			}
			fd, err := unix.Openat(t, "it", unix.O_WRONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return outcome{}, err
			}
			return overwrites(s), errors.Join(put(fd), unix.Close(fd))
		}},
		{name: "other_mntns", do: func(s *scene) (outcome, error) {
			return overwrites(s), onThread(unix.CLONE_NEWNS, func() error {
				at := filepath.Join(s.aside, "at")
				err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), os.Mkdir(at, 0o755), unix.Mount(s.dir, at, "", unix.MS_BIND, ""))
				if err != nil {
					return err
				}
				return write(filepath.Join(at, "it"))
			})
		}},
		{name: "userns_write", do: func(s *scene) (outcome, error) {
			ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 65536}}
			return overwrites(s), s.child(&syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, UidMappings: ids, GidMappings: ids}, nil, "write", s.path)
		}},
		{name: "pidns_write", do: func(s *scene) (outcome, error) {
			return overwrites(s), s.child(&syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}, nil, "write", s.path)
		}},
		{name: "chroot_write", do: func(s *scene) (outcome, error) {
			return overwrites(s), onThread(0, func() error {
				if err := errors.Join(unix.Chroot(s.dir), unix.Chdir("/")); err != nil {
					return err
				}
				return write("/it")
			})
		}},
		{name: "pivot_root_write", do: func(s *scene) (outcome, error) {
			return overwrites(s), onThread(unix.CLONE_NEWNS, func() error {
				at := filepath.Join(s.aside, "root")
				err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), os.Mkdir(at, 0o755), unix.Mount(s.dir, at, "", unix.MS_BIND, ""), unix.Chdir(at))
				if err == nil {
					err = errors.Join(unix.PivotRoot(".", "."), unix.Unmount(".", unix.MNT_DETACH), unix.Chdir("/"))
				}
				if err != nil {
					return err
				}
				return write("/it")
			})
		}},
		{name: "setfsuid_write", do: func(s *scene) (outcome, error) {
			return overwrites(s), onThread(0, func() error {
				return errors.Join(os.Chown(s.path, os.Getuid(), -1), unix.Setfsuid(os.Getuid()), write(s.path))
			})
		}},
		{name: "setuid_write", have: suidFile, do: func(s *scene) (outcome, error) {
			s.uid = stranger
			o := overwrites(s)
			o.mode = 0o755
			return o, s.child(&syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: stranger}}, nil, "write", s.path)
		}},
		{name: "memfd_exec_write", do: byMemfd},
		{name: "orphan_write", do: byOrphan},
	}
	for i := range list {
		list[i].op, list[i].from = "write", inTree
		if list[i].have == nothing {
			list[i].have = file
		}
	}
	return append(list, act{name: "deep_write", op: "write", file: strings.Repeat("d/", 40) + "it", have: file, from: inTree, do: writer(unix.O_WRONLY, func(fd int, c []byte) (outcome, error) {
		return holds(overwritten(c)), put(fd)
	})}, act{name: "too_deep_write", op: "write", file: strings.Repeat("d/", 80) + "it", have: file, from: inTree, do: writer(unix.O_WRONLY, func(fd int, c []byte) (outcome, error) {
		return holds(overwritten(c)), put(fd)
	})})
}

// byHandle opens by a handle that was taken before the rule; cold drops what the
// kernel remembers of names first.
func byHandle(cold bool) func(*scene) (func() (outcome, error), error) {
	return func(s *scene) (func() (outcome, error), error) {
		h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, s.path, 0)
		if err != nil {
			return nil, err
		}
		return func() (outcome, error) {
			if cold {
				if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
					return outcome{}, err
				}
			}
			m, err := unix.Open(s.aside, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return outcome{}, err
			}
			fd, err := unix.OpenByHandleAt(m, h, unix.O_WRONLY|unix.O_CLOEXEC)
			if err != nil {
				return outcome{}, err
			}
			return overwrites(s), errors.Join(put(fd), unix.Close(fd))
		}, nil
	}
}

// idmapped mounts the act's directory with other owners beside the tree.
func idmapped(s *scene) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	owner := exec.Command(self, "step", "sleep", "-")
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
	owner.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	in, err := owner.StdinPipe()
	if err != nil {
		return "", err
	}
	if err := owner.Start(); err != nil {
		return "", err
	}
	defer func() { _ = in.Close(); _ = owner.Wait() }()
	ns, err := unix.Open(fmt.Sprintf("/proc/%d/ns/user", owner.Process.Pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	t, err := unix.OpenTree(unix.AT_FDCWD, s.dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return "", err
	}
	if err := unix.MountSetattr(t, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns)}); err != nil {
		return "", noEffect("mount_setattr with an id map: " + err.Error())
	}
	at := filepath.Join(s.aside, "mapped")
	if err := os.Mkdir(at, 0o755); err != nil {
		return "", err
	}
	if err := unix.MoveMount(t, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return "", err
	}
	s.later(func() error { return unix.Unmount(at, unix.MNT_DETACH) })
	return filepath.Join(at, "it"), nil
}

// byMemfd writes by a program that is in no file system.
func byMemfd(s *scene) (outcome, error) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return outcome{}, err
	}
	fd, err := unix.MemfdCreate("nowhere", 0)
	if err != nil {
		return outcome{}, err
	}
	f := os.NewFile(uintptr(fd), "nowhere")
	if _, err := f.Write(self); err != nil {
		return outcome{}, err
	}
	cmd := exec.Command("/proc/self/fd/3", "step", "write", s.path)
	cmd.ExtraFiles = []*os.File{f}
	s.exe = "/memfd:nowhere (deleted)"
	return overwrites(s), s.actor(cmd)
}

// byOrphan writes by a process whose parent is gone.
func byOrphan(s *scene) (outcome, error) {
	if err := os.Setenv("NOTE", s.aside); err != nil {
		return outcome{}, err
	}
	if err := s.child(nil, nil, "twice", s.path); err != nil {
		return outcome{}, err
	}
	note := filepath.Join(s.aside, "orphan")
	if err := await(note); err != nil {
		return outcome{}, err
	}
	b, err := os.ReadFile(note)
	if err != nil {
		return outcome{}, err
	}
	var pid, errno int
	if _, err := fmt.Sscan(string(b), &pid, &errno); err != nil {
		return outcome{}, err
	}
	s.pids = []int{pid}
	if errno != 0 {
		return overwrites(s), syscall.Errno(errno)
	}
	return overwrites(s), nil
}

// receive takes a descriptor out of the socket sock.
func receive(sock int) (int, error) {
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(sock, make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	list, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(list) == 0 {
		return -1, errors.Join(err, syscall.EPERM) // the kernel leaves out what may not be received
	}
	fds, err := unix.ParseUnixRights(&list[0])
	if err != nil || len(fds) == 0 {
		return -1, errors.Join(err, syscall.EPERM)
	}
	return fds[0], nil
}

// injectActs act through another process, or upon the daemon.
func injectActs() []act {
	none := func(s *scene) (outcome, error) { return outcome{}, noEffect("no daemon runs") }
	daemon := func(f func(pid int) (outcome, error)) func(*scene) (outcome, error) {
		pid := 0
		if _, err := fmt.Sscan(os.Getenv("DAEMON"), &pid); err != nil {
			return none
		}
		return func(*scene) (outcome, error) { return f(pid) }
	}
	return []act{
		{name: "scm_rights", op: "write", have: file, from: inTree, hold: func(s *scene) (func() (outcome, error), error) {
			fd, err := unix.Open(s.path, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				return nil, err
			}
			return func() (outcome, error) {
				pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					return outcome{}, err
				}
				if err := unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(fd), nil, 0); err != nil {
					return outcome{}, err
				}
				return overwrites(s), s.child(nil, os.NewFile(uintptr(pair[1]), "socket"), "receive", "-")
			}, nil
		}},
		{name: "pidfd_getfd", op: "write", have: file, from: inTree, hold: func(s *scene) (func() (outcome, error), error) {
			fd, err := unix.Open(s.path, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				return nil, err
			}
			return func() (outcome, error) {
				p, err := unix.PidfdOpen(os.Getpid(), 0)
				if err != nil {
					return outcome{}, err
				}
				two, err := unix.PidfdGetfd(p, fd, 0)
				if err != nil {
					return outcome{}, err
				}
				return overwrites(s), put(two)
			}, nil
		}},
		{name: "ptrace_attach", op: "ptrace", do: daemon(func(pid int) (outcome, error) {
			err := onThread(0, func() error {
				return unix.PtraceSeize(pid) // and the end of the thread lets it go
			})
			return did("the daemon was traced"), err
		})},
		{name: "process_vm_writev", op: "ptrace", do: daemon(func(pid int) (outcome, error) {
			at, b, err := stackOf(pid)
			if err != nil {
				return outcome{}, err
			}
			_, err = unix.ProcessVMWritev(pid, []unix.Iovec{{Base: &b[0], Len: 1}}, []unix.RemoteIovec{{Base: at, Len: 1}}, 0)
			return did("the daemon's memory was written"), err
		})},
		{name: "proc_pid_mem", op: "ptrace", do: daemon(func(pid int) (outcome, error) {
			at, b, err := stackOf(pid)
			if err != nil {
				return outcome{}, err
			}
			fd, err := unix.Open(fmt.Sprintf("/proc/%d/mem", pid), unix.O_RDWR|unix.O_CLOEXEC, 0)
			if errors.Is(err, unix.EACCES) { // this file says EACCES where ptrace says EPERM
				err = unix.EPERM
			}
			if err != nil {
				return outcome{}, err
			}
			_, err = unix.Pwrite(fd, b, int64(at))
			return did("the daemon's memory was written"), errors.Join(err, unix.Close(fd))
		})},
		{name: "kill_daemon", op: "kill", do: daemon(func(pid int) (outcome, error) {
			// SIGURG: a program of Go is used to it, so the daemon lives on where nothing refuses
			return did("the daemon got a signal"), unix.Kill(pid, unix.SIGURG)
		})},
	}
}

// stackOf returns the lowest address of pid's first stack, which is not in use,
// and the byte there; what is unreadable from outside is read as zero.
func stackOf(pid int) (uintptr, []byte, error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return 0, nil, unix.EPERM
	}
	if err != nil {
		return 0, nil, err
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.Contains(line, "[stack]") {
			continue
		}
		var at uintptr
		if _, err := fmt.Sscanf(line, "%x-", &at); err != nil {
			return 0, nil, err
		}
		b := make([]byte, 1)
		_, err := unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &b[0], Len: 1}}, []unix.RemoteIovec{{Base: at, Len: 1}}, 0)
		if errors.Is(err, unix.EPERM) {
			err = nil // the write will say so, too
		}
		return at, b, err
	}
	return 0, nil, errors.New("the process has no stack")
}
