package cas

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"

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
		fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			return os.NewFile(uintptr(fd), name), nil
		}
		if !errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("open object %s: %w", h.Hex(), err)
		}
		// Flush may have renamed it between the two looks: look once more.
	}
	return nil, fmt.Errorf("open object %s: %w", h.Hex(), ErrMissing)
}

func corrupt(h event.Hash, cause error) error {
	return fmt.Errorf("read object %s: %w: %w", h.Hex(), ErrCorrupt, cause)
}

var errDigest = errors.New("its bytes have another digest")

// content is an object, opened: one of bytes, parts and frame is what it is.
type content struct {
	raw   []byte // the file, unless it is long and no list
	bytes []byte // a short content, verified
	parts []part // a long one; its chunks are not verified
	frame bool   // one long frame, as stores held before there were chunks
}

// take reads an object as far as it fits into memory.
func (s *Store) take(h event.Hash, f *os.File) (content, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return content{}, fmt.Errorf("stat object %s: %w", h.Hex(), err)
	}
	// A frame is never much longer than its content.
	if st.Size > SmallSize+SmallSize/16 {
		magic := make([]byte, len(listMagic))
		if _, err := f.ReadAt(magic, 0); err != nil {
			return content{}, fmt.Errorf("read object %s: %w", h.Hex(), err)
		}
		if string(magic) != listMagic {
			return content{frame: true}, nil
		}
	}
	raw := make([]byte, st.Size)
	if _, err := io.ReadFull(f, raw); err != nil {
		return content{}, fmt.Errorf("read object %s: %w", h.Hex(), err)
	}
	c := content{raw: raw}
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
		c.frame = true
		return c, nil
	}
	var err error
	if c.bytes, err = s.dec.DecodeAll(raw, make([]byte, 0, head.FrameContentSize)); err != nil {
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
	if _, err := io.ReadFull(f, magic); err != nil {
		return nil, corrupt(h, err)
	}
	if string(magic) != listMagic {
		return nil, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
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

// Stream writes the content of h to w as it is read. What w got is right only
// if the error is nil.
func (s *Store) Stream(h event.Hash, w io.Writer) (n int64, err error) {
	f, err := s.file(h)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	c, err := s.take(h, f)
	if err != nil {
		return 0, err
	}
	if c.parts == nil && !c.frame {
		n, err := w.Write(c.bytes)
		return int64(n), err
	}
	r, err := s.source(h, f, c)
	if err != nil {
		return 0, err
	}
	defer r.release()
	return io.CopyBuffer(struct{ io.Writer }{w}, r, make([]byte, 128<<10))
}

// source reads a long content from its beginning.
func (s *Store) source(h event.Hash, f *os.File, c content) (*verifier, error) {
	v := &verifier{h: h, sum: digest.NewHasher()}
	if !c.frame {
		v.r = &chunks{s: s, left: c.parts}
		return v, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read object %s: %w", h.Hex(), err)
	}
	var err error
	v.frame, err = zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8*window))
	if err != nil {
		return nil, corrupt(h, err)
	}
	v.r = v.frame
	return v, nil
}

// chunks reads the chunks of a long content, each verified.
type chunks struct {
	s    *Store
	left []part
	now  []byte
}

func (c *chunks) Read(p []byte) (int, error) {
	for len(c.now) == 0 {
		if len(c.left) == 0 {
			return 0, io.EOF
		}
		next := c.left[0]
		b, small, err := c.s.Bytes(next.hash)
		if err != nil {
			c.s.note(next.hash, false)
			return 0, fmt.Errorf("chunk: %w", err)
		}
		if !small || len(b) != int(next.len) {
			return 0, errList
		}
		c.now, c.left = b, c.left[1:]
	}
	n := copy(p, c.now)
	c.now = c.now[n:]
	return n, nil
}

// verifier passes bytes on and turns the end into an error if their digest is
// not the promised one.
type verifier struct {
	h     event.Hash
	r     io.Reader
	sum   *digest.Hasher
	frame *zstd.Decoder
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	if _, herr := v.sum.Write(p[:n]); herr != nil {
		return n, herr
	}
	switch {
	case err == io.EOF && v.sum.Sum() != v.h:
		return n, corrupt(v.h, errDigest)
	case err != nil && err != io.EOF && !errors.Is(err, ErrMissing):
		return n, corrupt(v.h, err)
	case err != nil && err != io.EOF:
		return n, fmt.Errorf("read object %s: %w", v.h.Hex(), err)
	}
	return n, err
}

func (v *verifier) release() {
	if v.frame != nil {
		v.frame.Close()
	}
}

// Open returns the content of h, verified before the first byte; a long one is
// read twice for that, and verified again while it is read.
func (s *Store) Open(h event.Hash) (io.ReadCloser, error) {
	f, err := s.file(h)
	if err != nil {
		return nil, err
	}
	c, err := s.take(h, f)
	if err != nil || c.parts == nil && !c.frame {
		f.Close()
		return io.NopCloser(bytes.NewReader(c.bytes)), err
	}
	v, err := s.source(h, f, c)
	if err == nil {
		_, err = io.Copy(io.Discard, v)
		v.release()
	}
	if err == nil {
		v, err = s.source(h, f, c)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &reader{verifier: v, f: f}, nil
}

type reader struct {
	*verifier
	f *os.File
}

// Close releases the object.
func (r *reader) Close() error {
	r.release()
	return r.f.Close()
}

// Check reads the content of h back and returns its length.
func (s *Store) Check(h event.Hash) (int64, error) {
	n, err := s.Stream(h, io.Discard)
	s.note(h, err == nil)
	return n, err
}

// Walk calls f for each durable object, in order, with its size on disk. A file
// below objects/ that is no object is reported to odd.
func (s *Store) Walk(ctx context.Context, f func(h event.Hash, stored int64) error, odd func(name string) error) error {
	dirs, err := list(s.objects, ".")
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if err := ctx.Err(); err != nil {
			return err
		}
		names, err := list(s.objects, d)
		if errors.Is(err, unix.ENOTDIR) {
			if err := odd(d); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		for _, n := range names {
			var st unix.Stat_t
			if err := unix.Fstatat(s.objects, d+"/"+n, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return fmt.Errorf("stat object %s: %w", n, err)
			}
			h, err := event.ParseHash(n)
			if err != nil || place(h) != d+"/"+n || st.Mode&unix.S_IFMT != unix.S_IFREG {
				if err := odd(d + "/" + n); err != nil {
					return err
				}
				continue
			}
			if err := f(h, st.Size); err != nil {
				return err
			}
		}
	}
	return nil
}

// Remove deletes the object of h, durable or not.
func (s *Store) Remove(h event.Hash) error {
	s.mu.Lock()
	t, waits := s.pending[h]
	delete(s.pending, h)
	delete(s.sound, h)
	s.mu.Unlock()
	if waits {
		return s.disk.Unlink(s.tmp, t.name, 0)
	}
	name := place(h)
	return s.change(name, func() error { return s.RemoveName(name) })
}

// Watch begins to note what is found stored instead of being stored again, so
// that RemoveUnclaimed does not take it. Unwatch ends it; one watch at a time.
func (s *Store) Watch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claimed = map[event.Hash]struct{}{}
}

// Unwatch ends what Watch began.
func (s *Store) Unwatch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claimed = nil
}

// RemoveUnclaimed deletes the object of h unless somebody counts on it since
// Watch, and reports whether it did.
func (s *Store) RemoveUnclaimed(h event.Hash) (removed bool, err error) {
	name := place(h)
	err = s.change(name, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		_, claimed := s.claimed[h]
		_, waits := s.pending[h]
		if claimed || waits || s.held[h] > 0 {
			return nil
		}
		delete(s.sound, h)
		if err := s.disk.Unlink(s.objects, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		removed = true
		return nil
	})
	return removed, err
}

// RemoveName deletes a file below objects/ that Walk found odd.
func (s *Store) RemoveName(name string) error { return s.disk.Unlink(s.objects, name, 0) }

// list returns the sorted names in a directory.
func list(dirfd int, name string) ([]string, error) {
	fd, err := unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("list %q: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list %q: %w", name, err)
	}
	sort.Strings(names)
	return names, nil
}
