package digest

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FSXattr are the attributes of FS_IOC_FSGETXATTR (linux include/uapi/linux/fs.h
// struct fsxattr): the quota project, and others that a change of it must leave.
type FSXattr struct {
	Project uint32
	raw     [28]byte
}

// The ioctls, _IOR('X', 31, struct fsxattr) and _IOW('X', 32, struct fsxattr).
const (
	fsGetXattr = 0x801c581f
	fsSetXattr = 0x401c5820
	atProject  = 12 // offset of fsx_projid
)

// GetFSXattr reads them of an open file or directory.
func GetFSXattr(fd int) (FSXattr, error) {
	var x FSXattr
	err := Again(func() error {
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fsGetXattr, uintptr(unsafe.Pointer(&x.raw[0]))); e != 0 {
			return e
		}
		return nil
	})
	if err != nil {
		return x, err
	}
	x.Project = binary.NativeEndian.Uint32(x.raw[atProject:])
	return x, nil
}

// SetFSXattr sets what GetFSXattr read, with Project as it is now.
func SetFSXattr(fd int, x FSXattr) error {
	binary.NativeEndian.PutUint32(x.raw[atProject:], x.Project)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fsSetXattr, uintptr(unsafe.Pointer(&x.raw[0]))); e != 0 {
		return e
	}
	return nil
}
