package cas

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
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

// window bounds what expanding keeps in memory for one stream.
const window = 1 << 20

// Options are the choices of Open.
type Options struct {
	Disk     Disk
	ReadOnly bool   // nothing on disk is changed; leftovers stay
	Sealer   Sealer // nil: objects are written unsealed, and sealed ones cannot be read
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
	gear    *gear
	sealer  Sealer

	scratches sync.Pool // of *scratch, for streams

	flush sync.Mutex // one Flush at a time
	sizes sizes

	mu      sync.Mutex
	next    uint64
	pending map[event.Hash]*temp
	dirty   map[string]bool         // directories of objects/ with names not known to be durable
	sound   map[event.Hash]struct{} // put or read back by this process
	held    map[event.Hash]int      // chunks in the hands of Writers
	claimed map[event.Hash]struct{} // found stored since Watch; nil without
}

// temp is a complete content in tmp/ that waits for Flush.
type temp struct {
	name    string
	list    bool // of chunks, which get their names first
	suspect bool // an fsync failed: what the cache holds may never reach the disk
}

// Open opens the store in dir and makes it if it is missing. What an earlier
// process left in tmp/ is removed: nothing refers to it.
func Open(dir string, o Options) (*Store, error) {
	s := &Store{dir: dir, disk: o.Disk, objects: -1, tmp: -1, gear: newGear(), sealer: o.Sealer, pending: map[event.Hash]*temp{},
		dirty: map[string]bool{}, sound: map[event.Hash]struct{}{}, held: map[event.Hash]int{}}
	var err error
	s.enc, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2),
		zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true), zstd.WithSingleSegment(true)) // its head has the length
	if err != nil {
		return nil, fmt.Errorf("open objects %s: %w", dir, err)
	}
	s.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true), // 0: one for each processor, as a plan has workers
		zstd.WithDecoderMaxMemory(2*SmallSize), zstd.IgnoreChecksum(true)) // the digest tells
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
	fd, err := digest.AgainInt(func() (int, error) { return unix.Open(p, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
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

// Has reports whether the content of h is stored, durable or not. An error says that
// this cannot be told: it may be.
func (s *Store) Has(h event.Hash) (bool, error) {
	s.mu.Lock()
	_, ok := s.pending[h]
	s.mu.Unlock()
	if ok {
		return true, nil
	}
	var st unix.Stat_t
	name := place(h)
	err := s.disk.look("fstatat", name, func() error { return unix.Fstatat(s.objects, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) { // something odd may be in the place of its directory
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for object %s: %w", h.Hex(), err)
	}
	return true, nil
}

func (s *Store) tempName() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	return strconv.FormatUint(s.next, 16)
}

// Put stores b, whose digest is h, unless it is stored already and can be read. What
// is stored and cannot be opened stays and is an error.
func (s *Store) Put(h event.Hash, b []byte) error {
	ok, err := s.intact(h)
	if ok {
		return nil
	}
	var name string
	if err == nil {
		name, err = s.stage(h, b)
	}
	if err == nil {
		err = s.adopt(h, &temp{name: name})
	}
	if err != nil {
		return fmt.Errorf("store object %s: %w", h.Hex(), err)
	}
	return nil
}

// intact reports whether the content of h is stored and can be read: what an
// earlier process stored is read back once. What is damaged is to be stored
// again: Flush then replaces it. What is sealed and cannot be opened is not known
// to be damaged: it is an error, so that nothing replaces it.
func (s *Store) intact(h event.Hash) (bool, error) {
	s.mu.Lock()
	_, sound := s.sound[h]
	if s.claimed != nil {
		s.claimed[h] = struct{}{} // before looking: RemoveUnclaimed comes first or not at all
	}
	s.mu.Unlock()
	if ok, err := s.Has(h); !ok {
		return false, err
	}
	if !sound {
		_, err := s.Check(h)
		if errors.Is(err, ErrSealed) {
			return false, err
		}
		sound = err == nil
	}
	return sound, nil
}

func (s *Store) note(h event.Hash, sound bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sound {
		s.sound[h] = struct{}{}
	} else {
		delete(s.sound, h)
	}
}

// hold keeps a chunk from being removed until unhold.
func (s *Store) hold(h event.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[h]++
}

func (s *Store) unhold(parts []part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range parts {
		if s.claimed != nil {
			s.claimed[p.hash] = struct{}{} // a list may have it by now
		}
		if s.held[p.hash]--; s.held[p.hash] == 0 {
			delete(s.held, p.hash)
		}
	}
}

// adopt makes a complete temp the content of h, or drops it if another
// goroutine was faster.
func (s *Store) adopt(h event.Hash, t *temp) error {
	s.mu.Lock()
	_, ok := s.pending[h]
	if !ok {
		s.pending[h] = t
		s.sound[h] = struct{}{}
	}
	s.mu.Unlock()
	if ok {
		return s.disk.Unlink(s.tmp, t.name, 0)
	}
	return nil
}
