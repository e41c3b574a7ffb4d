package cas

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// Errors that callers tell apart.
var (
	ErrMissing = errors.New("content is not in the vault")
	ErrCorrupt = errors.New("stored content is damaged")
)

// many is from how many objects or directories on one syncfs is cheaper than an
// fsync for each.
const many = 64

// window bounds what compressing and expanding keep in memory for one stream.
const window = 1 << 20

// Options are the choices of Open.
type Options struct {
	Disk     Disk
	ReadOnly bool // nothing on disk is changed; leftovers stay
}

// Store is an open directory of objects. It may be used from several goroutines.
//
// Lock order: flush before sizes before mu.
type Store struct {
	dir     string
	disk    Disk
	objects int // directory descriptors
	tmp     int
	enc     *zstd.Encoder // for whole buffers; safe for concurrent use
	dec     *zstd.Decoder // the same

	flush sync.Mutex // one Flush at a time
	sizes sizes

	mu      sync.Mutex
	next    uint64
	pending map[event.Hash]*temp
	dirty   map[string]bool // directories of objects/ with names not known to be durable
	streams []*zstd.Encoder // idle stream encoders
}

// temp is a complete content in tmp/ that waits for Flush.
type temp struct {
	name    string
	suspect bool // an fsync failed: what the cache holds may never reach the disk
}

// Open opens the store in dir and makes it if it is missing. What an earlier
// process left in tmp/ is removed: nothing refers to it.
func Open(dir string, o Options) (*Store, error) {
	s := &Store{dir: dir, disk: o.Disk, objects: -1, tmp: -1,
		pending: map[event.Hash]*temp{}, dirty: map[string]bool{}}
	var err error
	s.enc, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2),
		zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("open objects %s: %w", dir, err)
	}
	s.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(2*SmallSize))
	if err != nil {
		return nil, fmt.Errorf("open objects %s: %w", dir, err)
	}
	if s.objects, err = s.subdir("objects", o.ReadOnly); err == nil {
		s.tmp, err = s.subdir("tmp", o.ReadOnly)
	}
	if err == nil && !o.ReadOnly {
		err = s.clean()
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("open objects %s: %w", dir, err)
	}
	return s, nil
}

func (s *Store) subdir(name string, readOnly bool) (int, error) {
	p := filepath.Join(s.dir, name)
	if !readOnly {
		if err := s.disk.Mkdir(unix.AT_FDCWD, p, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return -1, err
		}
	}
	fd, err := unix.Open(p, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", p, err)
	}
	return fd, nil
}

func (s *Store) clean() error {
	names, err := list(s.tmp, ".")
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := s.disk.Unlink(s.tmp, n, 0); err != nil {
			return err
		}
	}
	return nil
}

// Close releases the descriptors. What Flush did not make durable is lost.
func (s *Store) Close() error {
	var err error
	for _, fd := range []int{s.objects, s.tmp} {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
	}
	s.objects, s.tmp = -1, -1
	if s.dec != nil {
		s.dec.Close()
	}
	return err
}

// place is where an object has its final name, below objects/.
func place(h event.Hash) string {
	x := h.Hex()
	return x[:2] + "/" + x
}

// Has reports whether the content of h is stored, durable or not.
func (s *Store) Has(h event.Hash) bool {
	s.mu.Lock()
	_, ok := s.pending[h]
	s.mu.Unlock()
	if ok {
		return true
	}
	var st unix.Stat_t
	return unix.Fstatat(s.objects, place(h), &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

func (s *Store) tempName() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	return strconv.FormatUint(s.next, 16)
}

// Put stores b, whose digest is h, unless it is stored already.
func (s *Store) Put(h event.Hash, b []byte) error {
	if s.Has(h) {
		return nil
	}
	frame := s.enc.EncodeAll(b, make([]byte, 0, len(b)/2+64))
	name := s.tempName()
	fd, err := s.disk.Create(s.tmp, name, 0o400)
	if err != nil {
		return fmt.Errorf("store object %s: %w", h.Hex(), err)
	}
	defer unix.Close(fd)
	if err := s.disk.Write(fd, name, frame, 0); err != nil {
		return fmt.Errorf("store object %s: %w", h.Hex(), errors.Join(err, s.disk.Unlink(s.tmp, name, 0)))
	}
	return s.adopt(h, name)
}

// adopt makes a complete temp the content of h, or drops it if another
// goroutine was faster.
func (s *Store) adopt(h event.Hash, name string) error {
	s.mu.Lock()
	_, ok := s.pending[h]
	if !ok {
		s.pending[h] = &temp{name: name}
	}
	s.mu.Unlock()
	if ok {
		return s.disk.Unlink(s.tmp, name, 0)
	}
	return nil
}

// Writer takes a content of unknown digest and any size.
type Writer struct {
	s    *Store
	name string
	fd   int
	enc  *zstd.Encoder
	off  int64
	err  error
}

// NewWriter returns a Writer; Commit or Abort must end it.
func (s *Store) NewWriter() (*Writer, error) {
	w := &Writer{s: s, name: s.tempName()}
	var err error
	if w.fd, err = s.disk.Create(s.tmp, w.name, 0o400); err != nil {
		return nil, fmt.Errorf("store object: %w", err)
	}
	s.mu.Lock()
	if n := len(s.streams); n > 0 {
		w.enc, s.streams = s.streams[n-1], s.streams[:n-1]
	}
	s.mu.Unlock()
	if w.enc == nil {
		w.enc, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return nil, errors.Join(err, w.Abort())
		}
	}
	w.enc.Reset(frameWriter{w})
	return w, nil
}

// frameWriter receives the compressed bytes.
type frameWriter struct{ w *Writer }

func (f frameWriter) Write(p []byte) (int, error) {
	w := f.w
	if err := w.s.disk.Write(w.fd, w.name, p, w.off); err != nil {
		return 0, err
	}
	w.off += int64(len(p))
	return len(p), nil
}

// Write adds content.
func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.enc.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}

// Reset forgets what was written, so that another attempt can be.
func (w *Writer) Reset() {
	w.off = 0
	w.err = w.s.disk.Truncate(w.fd, w.name, 0)
	w.enc.Reset(frameWriter{w})
}

// Commit ends the Writer and stores what was written, whose digest is h.
func (w *Writer) Commit(h event.Hash) error {
	err := errors.Join(w.err, w.enc.Close())
	if err != nil || w.s.Has(h) {
		return errors.Join(err, w.Abort())
	}
	w.release()
	return w.s.adopt(h, w.name)
}

// Abort ends the Writer and stores nothing.
func (w *Writer) Abort() error {
	w.release()
	return w.s.disk.Unlink(w.s.tmp, w.name, 0)
}

func (w *Writer) release() {
	unix.Close(w.fd)
	if w.enc == nil {
		return
	}
	w.enc.Reset(nil)
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if len(w.s.streams) < 2 {
		w.s.streams = append(w.s.streams, w.enc)
	}
}
