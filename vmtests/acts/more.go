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

// moreContentActs change content by calls that open now.
func moreContentActs() []act {
	list := []act{
		{name: "sendfile", do: from(func(fd, src int) error { _, err := unix.Sendfile(fd, src, nil, len(written)); return err })},
		{name: "copy_file_range", do: from(func(fd, src int) error {
			_, err := unix.CopyFileRange(src, nil, fd, nil, len(written), 0)
			return err
		})},
		{name: "splice_pipe", do: writer(unix.O_WRONLY, func(fd int, c []byte) (outcome, error) {
			p, err := pipe()
			if err != nil {
				return outcome{}, err
			}
			_, err = unix.Splice(p, nil, fd, nil, len(written), 0)
			return holds(overwritten(c)), err
		})},
		{name: "truncate_by_fd_rdonly_path", op: "truncate", do: func(s *scene) (outcome, error) {
			fd, err := unix.Open(s.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return outcome{}, err
			}
			return holds(s.content[:cut]), unix.Truncate(fmt.Sprintf("/proc/self/fd/%d", fd), cut)
		}},
		{name: "truncate_longer", op: "truncate", do: func(s *scene) (outcome, error) {
			return holds(append(s.content, make([]byte, 100)...)), unix.Truncate(s.path, int64(len(s.content)+100))
		}},
		{name: "open_rdwr_only", do: writer(unix.O_RDWR, func(int, []byte) (outcome, error) {
			return but("nothing was written"), nil
		})},
		{name: "write_same_bytes", do: writer(unix.O_WRONLY, func(fd int, c []byte) (outcome, error) {
			_, err := unix.Write(fd, c)
			return holds(c), err
		})},
		{name: "tmpfile_in", do: func(s *scene) (outcome, error) {
			fd, err := unix.Open(s.dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
			if err != nil {
				return outcome{}, err
			}
			return but("the file has no name"), errors.Join(put(fd), unix.Close(fd))
		}},
		{name: "tmpfile_linkat", op: "link,create", refused: "write,create", do: func(s *scene) (outcome, error) {
			fd, err := unix.Open(s.dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
			if err == nil {
				err = put(fd)
			}
			if err != nil {
				return outcome{}, err
			}
			return holds([]byte(written)), unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, s.path, unix.AT_SYMLINK_FOLLOW)
		}},
		{name: "tmpfile_linkat_empty", op: "link,create", do: func(s *scene) (outcome, error) {
			// opened elsewhere, so that only the link is in the tree
			fd, err := unix.Open(s.aside, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
			if err == nil {
				err = put(fd)
			}
			if err != nil {
				return outcome{}, err
			}
			return holds([]byte(written)), unix.Linkat(fd, "", unix.AT_FDCWD, s.path, unix.AT_EMPTY_PATH)
		}},
		{name: "quota_on", do: func(s *scene) (outcome, error) {
			dev, err := deviceOf(s.tree)
			if err != nil {
				return outcome{}, err
			}
			d, err := unix.BytePtrFromString(dev)
			if err != nil {
				return outcome{}, err
			}
			p, err := unix.BytePtrFromString(s.path)
			if err != nil {
				return outcome{}, err
			}
			const quotaon, vfsv1 = 0x800002 << 8, 4
			if _, _, e := unix.Syscall6(unix.SYS_QUOTACTL, quotaon, uintptr(unsafe.Pointer(d)), vfsv1, uintptr(unsafe.Pointer(p)), 0, 0); e != 0 {
				return outcome{}, noEffect("quotactl: " + unix.ErrnoName(e))
			}
			return but("the kernel took the file for quota"), nil
		}},
	}
	for i := range list {
		list[i].from = inTree
		if list[i].op == "" {
			list[i].op = "write"
		}
		if strings.HasPrefix(list[i].name, "tmpfile") {
			list[i].also = inTree // before the link it is #INODE
		} else {
			list[i].have = file
		}
	}
	return list
}

// from is an act that copies from a file outside into its path.
func from(f func(fd, src int) error) func(*scene) (outcome, error) {
	return func(s *scene) (outcome, error) {
		src, err := s.source([]byte(written))
		if err != nil {
			return outcome{}, err
		}
		return writer(unix.O_WRONLY, func(fd int, c []byte) (outcome, error) { return holds(overwritten(c)), f(fd, src) })(s)
	}
}

// moreNameActs add, move and remove names.
func moreNameActs() []act {
	creates := writer(unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, func(fd int, _ []byte) (outcome, error) {
		return holds([]byte(written)), put(fd)
	})
	makes := func(mode uint32, dev int) func(*scene) (outcome, error) {
		return func(s *scene) (outcome, error) { return same(), unix.Mknod(s.path, mode, dev) }
	}
	dirs := func(s *scene) (outcome, error) { return same(), unix.Rename(s.path, s.to) }
	return []act{
		{name: "rename_whiteout", op: "rename", have: file, from: inTree, to: inTree, do: rename(unix.RENAME_WHITEOUT)},
		{name: "rename_noreplace", op: "rename", have: file, from: inTree, to: inTree, do: rename(unix.RENAME_NOREPLACE)},
		{name: "rename_exchange_out", op: "rename", have: file, from: inTree, to: outside, over: file, do: func(s *scene) (outcome, error) {
			return same(), unix.Renameat2(unix.AT_FDCWD, s.path, unix.AT_FDCWD, s.to, unix.RENAME_EXCHANGE)
		}},
		{name: "rename_dir_within", op: "rename", have: dir, from: inTree, to: inTree, do: dirs},
		{name: "rename_dir_out", op: "rename", have: dir, from: inTree, to: outside, do: renameOut},
		{name: "rename_dir_in", op: "rename", have: dir, from: outside, to: inTree, do: dirs},
		{name: "link_out_then_write", op: "write", have: file, from: inTree, do: func(s *scene) (outcome, error) {
			alias := filepath.Join(s.aside, "alias")
			if err := unix.Link(s.path, alias); err != nil {
				return outcome{}, err
			}
			return overwrites(s), write(alias)
		}, refused: "link"},
		{name: "mknod_chr", op: "mknod", from: inTree, do: makes(unix.S_IFCHR|0o600, 0x0103)},
		{name: "mknod_blk", op: "mknod", from: inTree, do: makes(unix.S_IFBLK|0o600, 0x0700)},
		{name: "mknod_reg", op: "mknod,create", from: inTree, do: makes(unix.S_IFREG|0o600, 0)},
		{name: "bind_socket", op: "mknod", file: "s", from: inTree, do: func(s *scene) (outcome, error) {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return outcome{}, err
			}
			if err := os.Chdir(s.dir); err != nil { // the address has room for a short path only
				return outcome{}, err
			}
			return same(), unix.Bind(fd, &unix.SockaddrUnix{Name: "s"})
		}},
		{name: "unlinkat_rmdir", op: "rmdir", have: emptyDir, from: inTree, do: func(s *scene) (outcome, error) {
			return gone(), unix.Unlinkat(unix.AT_FDCWD, s.path, unix.AT_REMOVEDIR)
		}},
		{name: "unlink_symlink", op: "unlink", have: soft, from: inTree, do: func(s *scene) (outcome, error) {
			return gone(), unix.Unlink(s.path)
		}},
		{name: "name_long", op: "create", file: strings.Repeat("n", 255), from: inTree, do: creates},
		{name: "name_newline", op: "create", file: "a\nb", from: inTree, do: creates},
		{name: "name_not_utf8", op: "create", file: "caf\xe9", from: inTree, do: creates},
		{name: "btrfs_subvol_create", op: "mkdir,create", from: inTree, do: onDir(func(s *scene, fd int) error {
			return ioctl(fd, btrfsIocSubvolMake, unsafe.Pointer(btrfsName(0, "it")))
		})},
		{name: "btrfs_snapshot", op: "mkdir,create", from: inTree, do: onDir(func(s *scene, fd int) error {
			source := filepath.Join(s.aside, "source")
			if err := makeSubvolume(source); err != nil {
				return err
			}
			src, err := unix.Open(source, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			var arg [4096]byte // struct btrfs_ioctl_vol_args_v2: the name is at 56
			*(*int64)(unsafe.Pointer(&arg)) = int64(src)
			copy(arg[56:], "it")
			return ioctl(fd, btrfsIocSnapCreate, unsafe.Pointer(&arg))
		})},
		{name: "btrfs_snap_destroy", op: "rmdir,unlink", have: subvolume, from: inTree, do: inSubvolume(func(s *scene) (outcome, error) {
			_, err := onDir(func(s *scene, fd int) error {
				return ioctl(fd, btrfsIocSnapDestroy, unsafe.Pointer(btrfsName(0, "it")))
			})(s)
			return gone(), err
		})},
	}
}

// onDir hands the act's directory to f.
func onDir(f func(s *scene, fd int) error) func(*scene) (outcome, error) {
	return func(s *scene) (outcome, error) {
		fd, err := unix.Open(s.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return outcome{}, err
		}
		return same(), errors.Join(f(s, fd), unix.Close(fd))
	}
}

// makeSubvolume makes one of btrfs at path.
func makeSubvolume(path string) error {
	fd, err := unix.Open(filepath.Dir(path), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = ioctl(fd, btrfsIocSubvolMake, unsafe.Pointer(btrfsName(0, filepath.Base(path))))
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	return err
}

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

// inSubvolume says why an act on a subvolume can do nothing where there is none.
func inSubvolume(do func(*scene) (outcome, error)) func(*scene) (outcome, error) {
	return func(s *scene) (outcome, error) {
		if _, err := os.Lstat(s.path); errors.Is(err, unix.ENOENT) {
			return outcome{}, noEffect("the file system has no subvolumes")
		}
		return do(s)
	}
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
