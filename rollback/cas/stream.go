package cas

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
)

// Stream writes the content of h to w as it is read. What w got is right only
// if the error is nil.
func (s *Store) Stream(h event.Hash, w io.Writer) (n int64, err error) {
	f, err := s.file(h)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	mem, _ := s.scratches.Get().(*scratch)
	if mem == nil {
		mem = &scratch{}
	}
	defer s.scratches.Put(mem)
	c, err := s.takeInto(h, f, mem)
	if err != nil {
		return 0, err
	}
	if c.parts == nil && !c.frame {
		n, err := w.Write(c.bytes)
		return int64(n), err
	}
	r, err := s.source(h, f, c, mem)
	if err != nil {
		return 0, err
	}
	defer r.release()
	if mem.piece == nil {
		mem.piece = make([]byte, 128<<10)
	}
	return io.CopyBuffer(struct{ io.Writer }{w}, r, mem.piece)
}

// source reads a long content from its beginning, its chunks into mem.
func (s *Store) source(h event.Hash, f *os.File, c content, mem *scratch) (*verifier, error) {
	v := &verifier{h: h, sum: digest.NewHasher()}
	if !c.frame {
		v.r = &chunks{s: s, left: c.parts, mem: mem}
		return v, nil
	}
	if err := rewind(f); err != nil {
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
	now  []byte // in mem
	mem  *scratch
}

func (c *chunks) Read(p []byte) (int, error) {
	for len(c.now) == 0 {
		if len(c.left) == 0 {
			return 0, io.EOF
		}
		next := c.left[0]
		b, err := c.read(next)
		if err != nil {
			c.s.note(next.hash, false)
			return 0, err
		}
		c.now, c.left = b, c.left[1:]
	}
	n := copy(p, c.now)
	c.now = c.now[n:]
	return n, nil
}

func (c *chunks) read(p part) ([]byte, error) {
	f, err := c.s.file(p.hash)
	if err != nil {
		return nil, fmt.Errorf("chunk: %w", err)
	}
	defer f.Close()
	piece, err := c.s.takeInto(p.hash, f, c.mem)
	if err != nil {
		return nil, fmt.Errorf("chunk: %w", err)
	}
	if piece.frame || piece.parts != nil || len(piece.bytes) != int(p.len) {
		return nil, errList
	}
	return piece.bytes, nil
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
	case err != nil && err != io.EOF && !errors.Is(err, ErrMissing) && !errors.Is(err, ErrSealed):
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
	mem := &scratch{}
	v, err := s.source(h, f, c, mem)
	if err == nil {
		_, err = io.Copy(io.Discard, v)
		v.release()
	}
	if err == nil {
		v, err = s.source(h, f, c, mem)
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

// rewind goes back to the begin of a file, as often as it is interrupted: os.File.Seek is not
// made again (go os/file_unix.go, as of 1.26).
func rewind(f *os.File) error {
	return digest.Again(func() error { _, err := unix.Seek(int(f.Fd()), 0, io.SeekStart); return err })
}
