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
const plainMost = 1 << 30

// readPlain reads a file of ours whole. What is no regular file, or longer than anything we write, is an error at once: a pipe in
// its place must not hold up an open.
func readPlain(dir, name string) (b []byte, err error) {
	fd, err := openPlain(unix.AT_FDCWD, filepath.Join(dir, name), unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() // only read
	st, err := f.Stat()
	if err == nil && st.Size() > plainMost {
		err = fmt.Errorf("%s has %d bytes: %w", name, st.Size(), unix.EFBIG)
	}
	if err != nil {
		return nil, err
	}
	b = make([]byte, st.Size())
	n, err := io.ReadFull(f, b)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil // it was cut meanwhile
	}
	return b[:n], err
}

// openPlain opens a file of ours for what flags say, if it is a regular one.
func openPlain(dirfd int, name string, flags int) (fd int, err error) {
	fd, err = digest.AgainInt(func() (int, error) {
		return unix.Openat(dirfd, name, flags|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = fmt.Errorf("%s is not a regular file: %w", name, ErrCorrupt)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
