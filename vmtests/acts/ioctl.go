package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of linux/fs.h, ext4.h, xfs_fs.h and btrfs.h that x/sys does not have.
const (
	fsIocGetversion      = 0x80087601
	fsIocSetversion      = 0x40087602
	fsIocFsgetxattr      = 0x801c581f
	fsIocFssetxattr      = 0x401c5820
	fsIocSetfslabel      = 0x41009432
	fsIocUnresvsp64      = 0x4030582b
	fsIocZeroRange       = 0x40305839
	fsIocFiemap          = 0xc020660b
	fifreeze             = 0xc0045877
	fithaw               = 0xc0045878
	fitrim               = 0xc0185879
	ext4IocMoveExt       = 0xc028660f
	ext4IocSwapBoot      = 0x6611
	xfsIocFsbulkstatOne  = 0xc0205866
	xfsIocSwapext        = 0xc0c0586d
	xfsIocExchangeRange  = 0x40285881
	btrfsIocSubvolMake   = 0x5000940e
	btrfsIocSnapDestroy  = 0x5000940f
	btrfsIocSnapCreate   = 0x50009417
	btrfsIocSubvolFlags  = 0x4008941a
	btrfsIocDefrag       = 0x50009402
	btrfsIocEncodedWrite = 0x40809440
)

func ioctl(fd int, req uint, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(arg)); e != 0 {
		return e
	}
	return nil
}

// fsxattr is struct fsxattr of linux/fs.h.
type fsxattr struct {
	xflags, extsize, nextents, projid, cowextsize uint32
	_                                             [8]byte
}

func getFsxattr(fd int) (fsxattr, error) {
	var f fsxattr
	return f, ioctl(fd, fsIocFsgetxattr, unsafe.Pointer(&f))
}

// spaceIoctl makes an old call on a range of a file (linux/falloc.h, struct space_resv).
func spaceIoctl(fd int, req uint, off, length int64) error {
	arg := struct {
		kind, whence  int16
		start, length int64
		_             [24]byte
	}{start: off, length: length}
	return ioctl(fd, req, unsafe.Pointer(&arg))
}

// xfsSwapext exchanges the extents of two files. The kernel wants to be shown the
// times of the first, so that it exchanges nothing that changed meanwhile.
func xfsSwapext(target, tmp int) error {
	var st unix.Stat_t
	if err := unix.Fstat(target, &st); err != nil {
		return err
	}
	type bstime struct{ sec, nsec int64 }
	arg := struct { // fs/xfs/libxfs/xfs_fs.h, struct xfs_swapext with struct xfs_bstat
		version, target, tmp, off, length int64
		_                                 [16]byte
		ino                               uint64
		mode, nlink                       uint16
		uid, gid, rdev, blksize           uint32
		size                              int64
		atime, mtime, ctime               bstime
		_                                 [48]byte
	}{target: int64(target), tmp: int64(tmp), length: st.Size, ino: st.Ino, mode: uint16(st.Mode), size: st.Size,
		mtime: bstime{st.Mtim.Sec, st.Mtim.Nsec}, ctime: bstime{st.Ctim.Sec, st.Ctim.Nsec}}
	return ioctl(target, xfsIocSwapext, unsafe.Pointer(&arg))
}

// btrfsName is struct btrfs_ioctl_vol_args.
func btrfsName(fd int64, name string) *[4096]byte {
	var b [4096]byte
	*(*int64)(unsafe.Pointer(&b)) = fd
	copy(b[8:], name)
	return &b
}

// extent returns where the first block of the file at fd lies on its device.
func extent(fd int) (int64, error) {
	arg := struct { // linux/fiemap.h, struct fiemap with one extent
		start, length                uint64
		flags, mapped, count, _      uint32
		logical, physical, extentLen uint64
		_                            [2]uint64
		extentFlags                  uint32
		_                            [3]uint32
	}{length: 4096, flags: 1, count: 1}
	if err := ioctl(fd, fsIocFiemap, unsafe.Pointer(&arg)); err != nil {
		return 0, err
	}
	if arg.mapped == 0 || arg.physical == 0 || arg.extentFlags&0x200 != 0 { // FIEMAP_EXTENT_DATA_INLINE
		return 0, noEffect("the file has no block of its own")
	}
	return int64(arg.physical), nil
}

// syscall1 makes a call whose one argument is a path.
func syscall1(nr uintptr, path *byte) error {
	if _, _, e := unix.Syscall(nr, uintptr(unsafe.Pointer(path)), 0, 0); e != 0 {
		return e
	}
	return nil
}
