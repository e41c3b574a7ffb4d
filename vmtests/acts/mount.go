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
