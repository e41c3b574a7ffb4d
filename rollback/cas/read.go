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

// Bytes returns the content of h if it is no longer than SmallSize, verified.
// small is false if it is longer.
func (s *Store) Bytes(h event.Hash) (b []byte, small bool, err error) {
	f, err := s.file(h)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	return s.smallBytes(h, f)
}

func (s *Store) smallBytes(h event.Hash, f *os.File) (b []byte, small bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, false, fmt.Errorf("stat object %s: %w", h.Hex(), err)
	}
	// A frame is never much longer than its content.
	if st.Size > SmallSize+SmallSize/16 {
		return nil, false, nil
	}
	frame := make([]byte, st.Size)
	if _, err := io.ReadFull(f, frame); err != nil {
		return nil, false, fmt.Errorf("read object %s: %w", h.Hex(), err)
	}
	var head zstd.Header
	if err := head.Decode(frame); err != nil {
		return nil, false, corrupt(h, err)
	}
	if !head.HasFCS || head.FrameContentSize > SmallSize {
		return nil, false, nil
	}
	b, err = s.dec.DecodeAll(frame, make([]byte, 0, head.FrameContentSize))
	if err != nil {
		return nil, false, corrupt(h, err)
	}
	if digest.Sum(b) != h {
		return nil, false, corrupt(h, errDigest)
	}
	return b, true, nil
}

// Stream writes the content of h to w as it is read. What w got is right only
// if the error is nil.
func (s *Store) Stream(h event.Hash, w io.Writer) (int64, error) {
	f, err := s.file(h)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b, small, err := s.smallBytes(h, f)
	if err != nil {
		return 0, err
	}
	if small {
		n, err := w.Write(b)
		return int64(n), err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, fmt.Errorf("read object %s: %w", h.Hex(), err)
	}
	d, err := expander(f)
	if err != nil {
		return 0, corrupt(h, err)
	}
	defer d.Close()
	r := &verifier{h: h, r: d, sum: digest.NewHasher()}
	return io.CopyBuffer(struct{ io.Writer }{w}, r, make([]byte, 128<<10))
}

func expander(r io.Reader) (*zstd.Decoder, error) {
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8*window))
}

// verifier passes bytes on and turns the end into an error if their digest is
// not the promised one.
type verifier struct {
	h   event.Hash
	r   io.Reader
	sum *digest.Hasher
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	if _, herr := v.sum.Write(p[:n]); herr != nil {
		return n, herr
	}
	switch {
	case err == io.EOF && v.sum.Sum() != v.h:
		return n, corrupt(v.h, errDigest)
	case err != nil && err != io.EOF:
		return n, corrupt(v.h, err)
	}
	return n, err
}

// Open returns the content of h, verified before the first byte; a long one is
// read twice for that, and verified again while it is read.
func (s *Store) Open(h event.Hash) (io.ReadCloser, error) {
	f, err := s.file(h)
	if err != nil {
		return nil, err
	}
	b, small, err := s.smallBytes(h, f)
	if err != nil || small {
		f.Close()
		return io.NopCloser(bytes.NewReader(b)), err
	}
	for _, pass := range []bool{true, false} {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			f.Close()
			return nil, fmt.Errorf("read object %s: %w", h.Hex(), err)
		}
		d, err := expander(f)
		if err != nil {
			f.Close()
			return nil, corrupt(h, err)
		}
		v := &verifier{h: h, r: d, sum: digest.NewHasher()}
		if !pass {
			return &reader{verifier: v, d: d, f: f}, nil
		}
		_, err = io.Copy(io.Discard, v)
		d.Close()
		if err != nil {
			f.Close()
			return nil, err
		}
	}
	return nil, nil
}

type reader struct {
	*verifier
	d *zstd.Decoder
	f *os.File
}

// Close releases the object.
func (r *reader) Close() error {
	r.d.Close()
	return r.f.Close()
}

// Check reads the content of h back and returns its length.
func (s *Store) Check(h event.Hash) (int64, error) { return s.Stream(h, io.Discard) }

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
	s.mu.Unlock()
	if waits {
		return s.disk.Unlink(s.tmp, t.name, 0)
	}
	name := place(h)
	return s.change(name, func() error { return s.RemoveName(name) })
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
