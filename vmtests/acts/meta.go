package main

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// moreMetaActs change metadata.
func moreMetaActs() []act {
	reads := func(f func(fd int) error) func(*scene) (outcome, error) {
		return writer(unix.O_RDONLY, func(fd int, _ []byte) (outcome, error) { return same(), f(fd) })
	}
	xattr := func(name, value string) func(*scene) (outcome, error) {
		return func(s *scene) (outcome, error) { return same(), unix.Setxattr(s.path, name, []byte(value), 0) }
	}
	list := []act{
		{name: "chmod_root", op: "chmod", from: theTree, do: func(s *scene) (outcome, error) {
			if err := unix.Chmod(s.tree, 0o775); err != nil {
				return outcome{}, err
			}
			s.later(func() error { return unix.Chmod(s.tree, 0o755) })
			o := did("the mode of the tree")
			o.mode = 0o775
			return o, nil
		}},
		{name: "fchmodat2", op: "chmod", have: file, do: func(s *scene) (outcome, error) {
			p, err := unix.BytePtrFromString(s.path)
			if err != nil {
				return outcome{}, err
			}
			cwd := unix.AT_FDCWD
			_, _, e := unix.Syscall6(unix.SYS_FCHMODAT2, uintptr(cwd), uintptr(unsafe.Pointer(p)), 0o600, unix.AT_SYMLINK_NOFOLLOW, 0, 0)
			return mode(0o600), asError(e)
		}},
		{name: "lchown_symlink", op: "chown", have: soft, do: func(s *scene) (outcome, error) {
			return owned(), unix.Lchown(s.path, otherOwner, -1)
		}},
		{name: "fchownat_empty_path", op: "chown", have: file, do: func(s *scene) (outcome, error) {
			fd, err := unix.Open(s.path, unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				return outcome{}, err
			}
			return owned(), unix.Fchownat(fd, "", otherOwner, -1, unix.AT_EMPTY_PATH)
		}},
		{name: "utimes_now", op: "utimes", have: file, do: func(s *scene) (outcome, error) {
			p, err := unix.BytePtrFromString(s.path)
			if err != nil {
				return outcome{}, err
			}
			cwd := unix.AT_FDCWD
			_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(cwd), uintptr(unsafe.Pointer(p)), 0, 0, 0, 0)
			return same(), asError(e)
		}},
		{name: "futimens_rdfd", op: "utimes", have: file, do: reads(func(fd int) error {
			old := [2]unix.Timespec{{Sec: 1_000_000_000}, {Sec: 1_000_000_000}}
			_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&old)), 0, 0, 0)
			return asError(e)
		})},
		{name: "utime_old", op: "utimes", have: file, do: func(s *scene) (outcome, error) {
			return same(), unix.Utime(s.path, &unix.Utimbuf{Actime: 1_000_000_000, Modtime: 1_000_000_000})
		}},
		{name: "utimes_symlink", op: "utimes", have: soft, do: func(s *scene) (outcome, error) {
			old := unix.Timespec{Sec: 1_000_000_000}
			return same(), unix.UtimesNanoAt(unix.AT_FDCWD, s.path, []unix.Timespec{old, old}, unix.AT_SYMLINK_NOFOLLOW)
		}},
		{name: "fsetxattr_rdfd", op: "setxattr", have: file, do: reads(func(fd int) error { return unix.Fsetxattr(fd, "user.act", []byte("set"), 0) })},
		{name: "setxattr_replace", op: "setxattr", have: attrFile, do: func(s *scene) (outcome, error) {
			return same(), unix.Setxattr(s.path, "user.kept", []byte("other"), unix.XATTR_REPLACE)
		}},
		{name: "fremovexattr_rdfd", op: "removexattr", have: attrFile, do: reads(func(fd int) error { return unix.Fremovexattr(fd, "user.kept") })},
		{name: "setxattr_trusted", op: "setxattr", have: file, do: xattr("trusted.act", "set")},
		{name: "setxattr_security_ima", op: "setxattr", have: file, do: xattr("security.ima", "\x01set")},
		{name: "lsetxattr_symlink", op: "setxattr", have: soft, do: func(s *scene) (outcome, error) {
			return same(), unix.Lsetxattr(s.path, "trusted.act", []byte("set"), 0)
		}},
		{name: "default_acl", op: "setacl", have: emptyDir, do: func(s *scene) (outcome, error) {
			return same(), unix.Setxattr(s.path, "system.posix_acl_default", acl(), 0)
		}},
		{name: "remove_filecaps", op: "removexattr", have: file, hold: func(s *scene) (func() (outcome, error), error) {
			caps := []byte{0, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
			err := unix.Setxattr(s.path, "security.capability", caps, 0)
			return func() (outcome, error) { return same(), unix.Removexattr(s.path, "security.capability") }, err
		}},
		{name: "setxattrat", op: "setxattr", have: file, do: func(s *scene) (outcome, error) {
			value := []byte("set")
			arg := struct { // linux/xattr.h, struct xattr_args
				value       *byte
				size, flags uint32
			}{&value[0], uint32(len(value)), 0}
			return same(), xattrAt(unix.SYS_SETXATTRAT, s.path, "user.act", unsafe.Pointer(&arg), unsafe.Sizeof(arg))
		}},
		{name: "removexattrat", op: "removexattr", have: attrFile, do: func(s *scene) (outcome, error) {
			return same(), xattrAt(unix.SYS_REMOVEXATTRAT, s.path, "user.kept", nil, 0)
		}},
		{name: "setflags_immutable", op: "setflags", have: file, do: func(s *scene) (outcome, error) {
			return writer(unix.O_RDONLY, func(fd int, _ []byte) (outcome, error) { return same(), s.setFlag(fd, unix.STATX_ATTR_IMMUTABLE) })(s)
		}},
		{name: "setflags_append", op: "setflags", have: file, do: func(s *scene) (outcome, error) {
			return writer(unix.O_RDONLY, func(fd int, _ []byte) (outcome, error) { return same(), s.setFlag(fd, unix.STATX_ATTR_APPEND) })(s)
		}},
		{name: "fssetxattr_nodump", op: "setflags", have: file, do: reads(func(fd int) error {
			f, err := getFsxattr(fd)
			if err != nil {
				return err
			}
			f.xflags |= 0x80 // FS_XFLAG_NODUMP
			return ioctl(fd, fsIocFssetxattr, unsafe.Pointer(&f))
		})},
		{name: "fssetxattr_project", op: "setflags", have: file, do: reads(func(fd int) error {
			f, err := getFsxattr(fd)
			if err != nil {
				return err
			}
			f.projid = 77
			return ioctl(fd, fsIocFssetxattr, unsafe.Pointer(&f))
		})},
		{name: "file_setattr", op: "setflags", have: file, do: func(s *scene) (outcome, error) {
			p, err := unix.BytePtrFromString(s.path)
			if err != nil {
				return outcome{}, err
			}
			arg := [3]uint64{0x80} // struct file_attr: fa_xflags, then the rest of 24 bytes
			cwd := unix.AT_FDCWD
			_, _, e := unix.Syscall6(unix.SYS_FILE_SETATTR, uintptr(cwd), uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(&arg)), 24, 0, 0)
			return same(), asError(e)
		}},
		{name: "setversion", op: "setflags", have: file, do: reads(func(fd int) error {
			return unix.IoctlSetPointerInt(fd, fsIocSetversion, 4711)
		})},
		{name: "fsverity_enable", op: "setflags", have: file, do: reads(func(fd int) error {
			arg := struct { // linux/fsverity.h, struct fsverity_enable_arg
				version, hash, block, saltSize uint32
				salt                           uint64
				sigSize, _                     uint32
				sig                            uint64
				_                              [11]uint64
			}{version: 1, hash: 1, block: 4096}
			return ioctl(fd, unix.FS_IOC_ENABLE_VERITY, unsafe.Pointer(&arg))
		})},
		{name: "encryption_policy", op: "setflags", have: emptyDir, do: reads(func(fd int) error {
			arg := [12]byte{0, 1, 4, 0} // struct fscrypt_policy_v1: AES-256-XTS, AES-256-CTS, no key needed
			return ioctl(fd, unix.FS_IOC_SET_ENCRYPTION_POLICY, unsafe.Pointer(&arg))
		})},
		{name: "btrfs_subvol_readonly", op: "setflags", have: subvolume, do: inSubvolume(func(s *scene) (outcome, error) {
			set := func(flags uint64) error {
				_, err := reads(func(fd int) error { return ioctl(fd, btrfsIocSubvolFlags, unsafe.Pointer(&flags)) })(s)
				return err
			}
			const readOnly = 2 // BTRFS_SUBVOL_RDONLY
			if err := set(readOnly); err != nil {
				return outcome{}, err
			}
			s.later(func() error { return set(0) })
			return did("the subvolume takes no changes"), nil
		})},
		{name: "btrfs_defrag", op: "write", have: blocks, do: writer(unix.O_RDWR, func(fd int, c []byte) (outcome, error) {
			return but("the same bytes in other blocks"), ioctl(fd, btrfsIocDefrag, nil)
		})},
		{name: "setfslabel", op: "setflags", have: file, do: writer(unix.O_RDONLY, func(fd int, _ []byte) (outcome, error) {
			return but("the label is no file's"), setLabel(fd)
		})},
		{name: "setfslabel_outside_fd", op: "setflags", do: func(s *scene) (outcome, error) {
			fd, err := unix.Open(s.aside, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return outcome{}, err
			}
			return but("the label is no file's"), setLabel(fd)
		}},
		{name: "fitrim", op: "setflags", do: func(s *scene) (outcome, error) {
			arg := [3]uint64{0, ^uint64(0), 0}
			return but("only blocks that no file holds"), onTree(s, fitrim, unsafe.Pointer(&arg))
		}},
		{name: "fifreeze", op: "setflags", do: func(s *scene) (outcome, error) {
			if err := onTree(s, fifreeze, nil); err != nil {
				return outcome{}, err
			}
			return but("the file system waits, its files stay"), onTree(s, fithaw, nil)
		}},
	}
	for i := range list {
		if list[i].from == none && (list[i].have != nothing) {
			list[i].from = inTree
		}
	}
	return list
}

func asError(e unix.Errno) error {
	if e != 0 {
		return e
	}
	return nil
}

func xattrAt(nr uintptr, path, name string, arg unsafe.Pointer, size uintptr) error {
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	n, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	cwd := unix.AT_FDCWD
	_, _, e := unix.Syscall6(nr, uintptr(cwd), uintptr(unsafe.Pointer(p)), 0, uintptr(unsafe.Pointer(n)), uintptr(arg), size)
	return asError(e)
}

// setFlag adds a flag of chattr and takes it away when the act is over. The flags
// have the numbers of statx's attributes.
func (s *scene) setFlag(fd int, flag int) error {
	old, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	if err := unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, old|flag); err != nil {
		return err
	}
	s.later(func() error {
		fd, err := unix.Open(s.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return errors.Join(unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, old), unix.Close(fd))
	})
	return nil
}

func setLabel(fd int) error {
	var label [256]byte
	copy(label[:], "act")
	return ioctl(fd, fsIocSetfslabel, unsafe.Pointer(&label))
}

func onTree(s *scene, req uint, arg unsafe.Pointer) error {
	fd, err := unix.Open(s.tree, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(ioctl(fd, req, arg), unix.Close(fd))
}
