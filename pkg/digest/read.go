package digest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// ErrUnstable says that a file changed each time it was read.
var ErrUnstable = errors.New("changed while it was read")

// attempts bounds the reads of a file that somebody keeps writing.
const attempts = 4

// Extent is a part of a file.
type Extent struct {
	Off int64 `json:"off"`
	Len int64 `json:"len"`
}

// maxHoles bounds what is remembered of a file with very many holes; the rest
// counts as data.
const maxHoles = 4096

// ReadPath is Read of an absolute canonical path.
func ReadPath(ctx context.Context, p string, sink io.Writer) (event.State, error) {
	return readPath(ctx, p, sink, attempts)
}

// ReadPathOnce is ReadPath for who comes back later to a file that somebody keeps
// writing: ErrUnstable after the first time.
func ReadPathOnce(ctx context.Context, p string, sink io.Writer) (event.State, error) {
	return readPath(ctx, p, sink, 1)
}

func readPath(ctx context.Context, p string, sink io.Writer, most int) (event.State, error) {
	fd, base, err := OpenParent(p)
	if absent(err) {
		return event.State{}, nil
	}
	if err != nil {
		return event.State{}, err
	}
	defer unix.Close(fd)
	return read(ctx, fd, base, sink, most)
}

// Read returns the whole State of name in the directory dirfd, with the BLAKE3
// of a regular file's content.
//
// The bytes read also go to sink if it is not nil. If sink has a method Reset(),
// it is called before bytes are sent again; if it has Holes([]Extent), it is told
// the holes of a sparse file before its bytes.
//
// If the content cannot be read, the State has the metadata, says why in Unread,
// and comes with the error; ErrUnstable is among these.
func Read(ctx context.Context, dirfd int, name string, sink io.Writer) (event.State, error) {
	return read(ctx, dirfd, name, sink, attempts)
}

// read is Read; most is how often it reads what changes meanwhile.
func read(ctx context.Context, dirfd int, name string, sink io.Writer, most int) (event.State, error) {
	var s event.State
	var err error
	for try := range attempts {
		if try > 0 {
			if r, ok := sink.(interface{ Reset() }); ok {
				r.Reset()
			} else if sink != nil {
				return s, fmt.Errorf("read %q: %w", name, err)
			}
			if cerr := sleep(ctx, time.Millisecond<<try); cerr != nil {
				return s, fmt.Errorf("read %q: %w", name, cerr)
			}
		}
		s, err = readOnce(ctx, dirfd, name, sink)
		if unstable := errors.Is(err, ErrUnstable); unstable && try+1 >= most || !unstable && !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	if err != nil {
		if s.Exists && s.Type == event.TypeRegular {
			s.Hash, s.Unread = event.Hash{}, reason(err)
		}
		return s, fmt.Errorf("read %q: %w", name, err)
	}
	return s, nil
}

func reason(err error) string {
	var errno unix.Errno
	switch {
	case errors.Is(err, ErrUnstable):
		return ErrUnstable.Error()
	case errors.As(err, &errno):
		return errno.Error()
	}
	return err.Error()
}

// readOnce looks, reads and looks again. It returns ErrUnstable if the second
// look, by name, does not find what the first one found.
func readOnce(ctx context.Context, dirfd int, name string, sink io.Writer) (event.State, error) {
	o, err := openObject(dirfd, name)
	if absent(err) {
		return event.State{}, nil
	}
	if err != nil {
		return event.State{}, err
	}
	defer o.close()
	s, err := o.state()
	if err != nil {
		return s, err
	}
	if s.Type == event.TypeRegular {
		if o.read < 0 {
			return s, o.rerr
		}
		if sparse(&o.st) {
			if h, ok := sink.(interface{ Holes([]Extent) }); ok {
				h.Holes(findHoles(o.read, int64(s.Size)))
			}
		}
		n, hash, err := content(ctx, o.read, s.Size, sink)
		if err != nil {
			return s, err
		}
		// Pseudo files have sizes that say nothing; what was read counts.
		s.Size, s.Hash = n, hash
	}
	var now unix.Statx_t
	if err := statx(dirfd, name, 0, &now); err != nil && !absent(err) {
		return s, err
	} else if err != nil || !sameMoment(&o.st, &now) {
		return s, ErrUnstable
	}
	return s, nil
}

func sparse(st *unix.Statx_t) bool { return st.Size > 0 && st.Blocks*512 < st.Size }

// sameMoment reports whether two looks found one inode in one version: each
// change of content or metadata moves ctime.
func sameMoment(a, b *unix.Statx_t) bool {
	return a.Ino == b.Ino && a.Dev_major == b.Dev_major && a.Dev_minor == b.Dev_minor &&
		a.Size == b.Size && sameTime(a.Mtime, b.Mtime) && sameTime(a.Ctime, b.Ctime)
}

func sameTime(a, b unix.StatxTimestamp) bool { return a.Sec == b.Sec && a.Nsec == b.Nsec }

// content hashes a regular file whose size was expect. The last read that would
// only find the end is spared: the look afterwards tells if the file grew.
func content(ctx context.Context, fd int, expect uint64, sink io.Writer) (uint64, event.Hash, error) {
	w := getScratch()
	defer scratches.Put(w)
	var n uint64
	for n < expect || expect == 0 { // size 0: empty, or a pseudo file that does not tell
		if err := ctx.Err(); err != nil {
			return n, event.Hash{}, err
		}
		want := uint64(len(w.buf))
		if expect > n && expect-n < want {
			want = expect - n
		}
		k, err := AgainInt(func() (int, error) { return unix.Pread(fd, w.buf[:want], int64(n)) })
		if err != nil {
			return n, event.Hash{}, err
		}
		if k == 0 {
			break
		}
		n += uint64(k)
		if _, err := w.hash.Write(w.buf[:k]); err != nil {
			return n, event.Hash{}, err
		}
		if sink != nil {
			if _, err := sink.Write(w.buf[:k]); err != nil {
				return n, event.Hash{}, err
			}
		}
	}
	return n, w.hash.Sum(), nil
}

// findHoles lists the holes of a file. A file system that cannot tell has none.
func findHoles(fd int, size int64) []Extent {
	var holes []Extent
	for off := int64(0); off < size && len(holes) < maxHoles; {
		hole, err := unix.Seek(fd, off, unix.SEEK_HOLE)
		if err != nil || hole >= size {
			break
		}
		data, err := unix.Seek(fd, hole, unix.SEEK_DATA)
		if err != nil || data > size { // ENXIO: nothing but hole up to the end
			data = size
		}
		holes = append(holes, Extent{hole, data - hole})
		off = data
	}
	return holes
}

// Settle waits until the timer tick of the last change of name is over, at most
// a few milliseconds: from then on each further change shows in the times that
// Read compares. It returns at once for a file that was not changed just now.
func Settle(ctx context.Context, dirfd int, name string) error {
	for {
		var st unix.Statx_t
		if err := statx(dirfd, name, 0, &st); absent(err) {
			return nil
		} else if err != nil {
			return fmt.Errorf("stat %q: %w", name, err)
		}
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
			return fmt.Errorf("read clock: %w", err)
		}
		changed := time.Unix(st.Ctime.Sec, int64(st.Ctime.Nsec))
		ahead := changed.Sub(time.Unix(now.Sec, now.Nsec))
		if ahead < 0 || ahead > time.Second { // a change from the future is a set clock, not a race
			return nil
		}
		if err := sleep(ctx, ahead+time.Millisecond); err != nil {
			return fmt.Errorf("wait for %q: %w", name, err)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
