package regular

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Aside gives whatever is at name another one, name.strange-N with the first N that is free, and returns it: it is evidence. What
// is immutable or append-only (chattr(1)) ceases to be. What cannot be moved (a mount point) is an error.
func Aside(name string) (to string, err error) {
	for n := 1; ; n++ {
		to = fmt.Sprintf("%s.strange-%d", name, n)
		err = rename(name, to)
		if errors.Is(err, unix.EPERM) && unlock(name) == nil {
			err = rename(name, to)
		}
		if !errors.Is(err, unix.EEXIST) {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("move %s aside: %w", name, err)
	}
	return to, nil
}

func rename(name, to string) error {
	return unix.Renameat2(unix.AT_FDCWD, name, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
}

// Linux v6.1 include/uapi/linux/fs.h: FS_IMMUTABLE_FL, FS_APPEND_FL.
const immutable, appendOnly = 0x10, 0x20

// unlock takes the flags that keep a file from being renamed off it.
func unlock(name string) error {
	f, err := os.OpenFile(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags&^(immutable|appendOnly))
	}
	return errors.Join(err, f.Close())
}

// Make opens name as Open does, and moves aside what is no regular file first. moved is where that is then, "" if there was nothing.
func Make(name string, flag int, perm os.FileMode) (f *os.File, moved string, err error) {
	f, err = Open(name, flag|os.O_CREATE, perm)
	if !errors.Is(err, ErrNot) {
		return f, "", err
	}
	moved, aerr := Aside(filepath.Clean(name))
	if aerr != nil {
		return nil, "", errors.Join(err, aerr)
	}
	f, err = Open(name, flag|os.O_CREATE, perm)
	return f, moved, err
}
