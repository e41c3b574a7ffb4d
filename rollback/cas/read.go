package cas

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
)

// SmallSize is up to which length a content is handled in memory as a whole.
const SmallSize = 1 << 20

// file opens the object of h, wherever it waits.
func (s *Store) file(h event.Hash) (*os.File, error) {
	for range 2 {
		s.mu.Lock()
		t, waits := s.pending[h]
		at, name := s.objects, place(h)
		if waits {
			at, name = s.tmp, t.name
		}
		s.mu.Unlock()
		fd, err := s.openat(at, name)
		if waits && errors.Is(err, unix.ENOENT) { // it has got its name since
			name = place(h)
			fd, err = s.openat(s.objects, name)
		}
		if err == nil {
			return os.NewFile(uintptr(fd), name), nil
		}
		if !errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("open object %s: %w", h.Hex(), err)
		}
		// It was written anew, or put, between the two looks: look once more.
	}
	return nil, fmt.Errorf("open object %s: %w", h.Hex(), ErrMissing)
}

func (s *Store) openat(dirfd int, name string) (fd int, err error) {
	err = s.disk.look("openat", name, func() (err error) {
		// without waiting: somebody may have put a pipe there
		fd, err = unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

func corrupt(h event.Hash, cause error) error {
	return fmt.Errorf("read object %s: %w: %w", h.Hex(), ErrCorrupt, cause)
}

var (
	errDigest = errors.New("its bytes have another digest")
	errFrame  = errors.New("a sealed frame without its length, or a long one")
)

// content is an object, opened: one of bytes, parts and frame is what it is.
type content struct {
	raw   []byte // the file as it is, unless it is long and no list
	bytes []byte // a short content, verified
	parts []part // a long one; its chunks are not verified
	frame bool   // one long frame, as stores held before there were chunks
}

// slack is the room behind a content that lets the decoder copy in whole words
// (klauspost/compress zstd/seqdec_asm.go), in bytes.
const slack = 16

// take reads an object as far as it fits into memory.
func (s *Store) take(h event.Hash, f *os.File) (content, error) { return s.takeInto(h, f, &scratch{}) }

// scratch is memory that is used again for the next object: what was taken into
// it before is overwritten.
type scratch struct{ raw, plain, bytes, piece []byte }

func (s *Store) takeInto(h event.Hash, f *os.File, mem *scratch) (content, error) {
	var st unix.Stat_t
	if err := digest.Again(func() error { return unix.Fstat(int(f.Fd()), &st) }); err != nil {
		return content{}, fmt.Errorf("stat object %s: %w", h.Hex(), err)
	}
	// A frame is never much longer than its content; one that is long is never sealed.
	if st.Size > SmallSize+SmallSize/16 {
		magic := make([]byte, len(listMagic))
		if err := s.disk.look("read", f.Name(), func() error { _, err := f.ReadAt(magic, 0); return err }); err != nil {
			return content{}, fmt.Errorf("read object %s: %w", h.Hex(), err)
		}
		if string(magic) != listMagic && !Sealed(magic) {
			return content{frame: true}, nil
		}
	}
	if int64(cap(mem.raw)) < st.Size {
		mem.raw = make([]byte, st.Size)
	}
	raw := mem.raw[:st.Size]
	if err := s.disk.look("read", f.Name(), func() error { _, err := io.ReadFull(f, raw); return err }); err != nil {
		return content{}, fmt.Errorf("read object %s: %w", h.Hex(), err)
	}
	c := content{raw: raw}
	sealed := Sealed(raw)
	if sealed {
		var err error
		if raw, err = Unseal(s.sealer, objectName(h), mem.plain[:0], raw); err != nil {
			return content{}, fmt.Errorf("read object %s: %w", h.Hex(), err)
		}
		mem.plain = raw
	}
	if len(raw) >= len(listMagic) && string(raw[:len(listMagic)]) == listMagic {
		var err error
		if c.parts, err = decodeList(raw); err != nil {
			return content{}, corrupt(h, err)
		}
		return c, nil
	}
	var head zstd.Header
	if err := head.Decode(raw); err != nil {
		return content{}, corrupt(h, err)
	}
	if !head.HasFCS || head.FrameContentSize > SmallSize {
		if sealed {
			return content{}, corrupt(h, errFrame)
		}
		c.frame = true
		return c, nil
	}
	if uint64(cap(mem.bytes)) < head.FrameContentSize+slack || mem.bytes == nil {
		mem.bytes = make([]byte, 0, head.FrameContentSize+slack)
	}
	var err error
	if c.bytes, err = s.dec.DecodeAll(raw, mem.bytes[:0]); err != nil {
		return content{}, corrupt(h, err)
	}
	if digest.Sum(c.bytes) != h {
		return content{}, corrupt(h, errDigest)
	}
	return c, nil
}

// Bytes returns the content of h if it is no longer than SmallSize, verified.
// small is false if it is longer.
func (s *Store) Bytes(h event.Hash) (b []byte, small bool, err error) {
	f, err := s.file(h)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	c, err := s.take(h, f)
	if err != nil || c.frame || c.parts != nil {
		return nil, false, err
	}
	return c.bytes, true, nil
}

// Parts returns the chunks of the content of h; none if it is not cut.
func (s *Store) Parts(h event.Hash) ([]event.Hash, error) {
	f, err := s.file(h)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	magic := make([]byte, len(listMagic))
	if err := s.disk.look("read", f.Name(), func() error { _, err := io.ReadFull(f, magic); return err }); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, corrupt(h, err)
		}
		return nil, fmt.Errorf("read object %s: %w", h.Hex(), err)
	}
	if string(magic) != listMagic && !Sealed(magic) {
		return nil, nil
	}
	if err := rewind(f); err != nil {
		return nil, fmt.Errorf("read object %s: %w", h.Hex(), err)
	}
	c, err := s.take(h, f)
	if err != nil {
		return nil, err
	}
	out := make([]event.Hash, len(c.parts))
	for i, p := range c.parts {
		out[i] = p.hash
	}
	return out, nil
}

// Check reads the content of h back and returns its length.
func (s *Store) Check(h event.Hash) (int64, error) {
	n, err := s.Stream(h, io.Discard)
	s.note(h, err == nil)
	return n, err
}
