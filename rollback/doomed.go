package rollback

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// The file doomed in the vault says since when no version names an object, one
// frame as in the log of versions. It is derived: without it, or with one that
// cannot be read, the time of grace begins anew.
const doomedFile = "doomed"

func (s *Store) readDoomed() (map[event.Hash]event.Time, error) {
	b, err := readPlain(s.dir, doomedFile)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrCorrupt) || errors.Is(err, unix.EFBIG) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read which objects wait for their end: %w", err)
	}
	var m map[event.Hash]event.Time
	if body, ok := frameAt(b); !ok || cbor.Unmarshal(body, &m) != nil {
		return nil, nil
	}
	return m, nil
}

// writeDoomed replaces the file if what it says has changed.
func (s *Store) writeDoomed(was, now map[event.Hash]event.Time) error {
	if maps.Equal(was, now) {
		return nil
	}
	body, err := s.enc.Marshal(now)
	if err != nil {
		return err
	}
	at := filepath.Join(s.dir, doomedFile)
	if len(now) == 0 || len(body) > frameMax { // too many for a frame: they wait anew each time
		err := s.disk.Unlink(unix.AT_FDCWD, at, 0)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return err
	}
	temp := at + ".new"
	if err := s.disk.Unlink(unix.AT_FDCWD, temp, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	fd, err := s.disk.Create(unix.AT_FDCWD, temp, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := s.disk.Write(fd, doomedFile, frame(body), 0); err != nil {
		return err
	}
	if err := s.disk.Fsync(fd, doomedFile); err != nil {
		return err
	}
	return s.disk.Rename(unix.AT_FDCWD, temp, unix.AT_FDCWD, at, 0)
}
