// Package regular opens the files of the state directory. Whoever put something else in the place of one (a pipe that
// nobody writes, a device, a link, a directory, a file of a terabyte) gets an error that names it, at once: nothing there holds up
// the daemon or fills its memory. Everything that reads or writes a file of a known name below the state directory, but for the vault
// and SQLite, calls it.
package regular

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNot says that what has the name of a file of ours is none that we made.
var ErrNot = errors.New("not a regular file of Holdfast")

// Open opens name as os.OpenFile does, if it is a regular file or, with os.O_CREATE, not there. The error of anything else is
// ErrNot; links are not followed in the last element. os.O_TRUNC is done once it is known what it is. A file to be written that somebody
// made immutable or append-only ceases to be.
func Open(name string, flag int, perm os.FileMode) (*os.File, error) {
	how := flag&^os.O_TRUNC | unix.O_NONBLOCK | unix.O_NOFOLLOW | unix.O_NOCTTY
	f, err := os.OpenFile(name, how, perm)
	if errors.Is(err, unix.EPERM) && flag&(os.O_WRONLY|os.O_RDWR) != 0 && unlock(name) == nil {
		f, err = os.OpenFile(name, how, perm)
	}
	switch {
	// A link; a socket, or a pipe without a reader; a directory for writing (open(2)).
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENXIO), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENODEV):
		return nil, fmt.Errorf("%w: %w", ErrNot, err)
	case err != nil:
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is %s", ErrNot, name, kind(st.Mode()))
	}
	if err == nil && flag&os.O_TRUNC != 0 && st.Size() > 0 {
		err = f.Truncate(0)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func kind(m os.FileMode) string {
	switch {
	case m.IsDir():
		return "a directory"
	case m&os.ModeNamedPipe != 0:
		return "a pipe"
	case m&os.ModeDevice != 0:
		return "a device"
	}
	return "a special file"
}

// ReadFile reads name whole. One of more than most bytes is ErrNot.
func ReadFile(name string, most int64) ([]byte, error) {
	f, err := Open(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%w: %s has more than %d bytes", ErrNot, name, most)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return b, nil
}
