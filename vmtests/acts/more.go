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

// inSubvolume says why an act on a subvolume can do nothing where there is none.
func inSubvolume(do func(*scene) (outcome, error)) func(*scene) (outcome, error) {
	return func(s *scene) (outcome, error) {
		if _, err := os.Lstat(s.path); errors.Is(err, unix.ENOENT) {
			return outcome{}, noEffect("the file system has no subvolumes")
		}
		return do(s)
	}
}
