package rollback

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
)

// plainMost bounds what is read of a file of ours at once; segments of the log end at segmentMax and a frame.
const plainMost = 256 << 20

// readPlain reads a file of ours whole. What is no regular file, or longer than anything we write, is an error at once: a pipe in
// its place must not hold up an open.
func readPlain(dir, name string) (b []byte, err error) {
	fd, err := openPlain(unix.AT_FDCWD, filepath.Join(dir, name), unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() // only read
	b, err = io.ReadAll(io.LimitReader(f, plainMost+1))
	if err == nil && len(b) > plainMost {
		err = fmt.Errorf("%s has more than %d bytes: %w", name, plainMost, unix.EFBIG)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// openPlain opens a file of ours for what flags say, if it is a regular one; to write to one it follows no link.
func openPlain(dirfd int, name string, flags int) (fd int, err error) {
	if flags&unix.O_RDWR != 0 {
		flags |= unix.O_NOFOLLOW
	}
	fd, err = digest.AgainInt(func() (int, error) {
		return unix.Openat(dirfd, name, flags|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	var st unix.Stat_t
	err = digest.Again(func() error { return unix.Fstat(fd, &st) })
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = fmt.Errorf("%s is not a regular file: %w", name, ErrCorrupt)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
