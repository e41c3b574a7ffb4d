package cas

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
)

// Writer takes a content of unknown digest and any length, and cuts it into
// chunks. It is for one goroutine. What it wrote is its own until Commit.
type Writer struct {
	s     *Store
	buf   []byte // not cut yet
	parts []part
	own   map[event.Hash]string // chunks in tmp/ that the store lacks
	err   error
}

// NewWriter returns a Writer; Commit or Abort must end it.
func (s *Store) NewWriter() *Writer {
	return &Writer{s: s, own: map[event.Hash]string{}}
}

// Write adds content.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if w.buf == nil {
		w.buf = make([]byte, 0, 2*chunkMax)
	}
	n := len(p)
	for len(p) > 0 {
		took := min(len(p), cap(w.buf)-len(w.buf))
		w.buf, p = append(w.buf, p[:took]...), p[took:]
		if len(w.buf) == cap(w.buf) {
			if w.err = w.chunks(chunkMax); w.err != nil {
				return 0, w.err
			}
		}
	}
	return n, nil
}

// chunks cuts the buffer until less than least is left of it.
func (w *Writer) chunks(least int) error {
	b := w.buf
	for len(b) >= least && len(b) > 0 {
		n := w.s.gear.cut(b)
		if err := w.chunk(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	w.buf = w.buf[:copy(w.buf, b)]
	return nil
}

func (w *Writer) chunk(b []byte) error {
	h := digest.Sum(b)
	w.parts = append(w.parts, part{h, uint32(len(b))})
	w.s.hold(h)
	if _, ok := w.own[h]; ok {
		return nil
	}
	ok, err := w.s.intact(h)
	if ok {
		return nil
	}
	var name string
	if err == nil {
		name, err = w.s.stage(h, b)
	}
	if err != nil {
		return fmt.Errorf("store chunk %s: %w", h.Hex(), err)
	}
	w.own[h] = name
	return nil
}

// Reset forgets what was written, so that another attempt can be.
func (w *Writer) Reset() { w.err = w.drop() }

// Commit ends the Writer and stores what was written, whose digest is h.
func (w *Writer) Commit(h event.Hash) error {
	err := w.err
	if err == nil {
		err = w.chunks(0)
	}
	stored := false
	if err == nil {
		stored, err = w.s.intact(h)
	}
	if err != nil || stored {
		return errors.Join(err, w.drop())
	}
	var list string
	b, err := w.s.seal(h, encodeList(w.parts))
	if err == nil {
		list, err = w.s.create(b)
	}
	if err != nil {
		return fmt.Errorf("store object %s: %w", h.Hex(), errors.Join(err, w.drop()))
	}
	for c, name := range w.own {
		delete(w.own, c)
		err = errors.Join(err, w.s.adopt(c, &temp{name: name}))
	}
	// After its chunks: a Flush that takes the list has them, too.
	return errors.Join(err, w.s.adopt(h, &temp{name: list, list: true}), w.drop())
}

// Abort ends the Writer and stores nothing.
func (w *Writer) Abort() error { return w.drop() }

// drop removes the chunks that are not adopted.
func (w *Writer) drop() error {
	var err error
	for _, name := range w.own {
		err = errors.Join(err, w.s.disk.Unlink(w.s.tmp, name, 0))
	}
	w.s.unhold(w.parts)
	w.buf, w.parts = w.buf[:0], nil
	clear(w.own)
	return err
}

// stage compresses b, whose digest is h, into a new file in tmp/.
func (s *Store) stage(h event.Hash, b []byte) (name string, err error) {
	b, err = s.seal(h, s.enc.EncodeAll(b, make([]byte, 0, len(b)/2+64)))
	if err != nil {
		return "", err
	}
	return s.create(b)
}

// create makes a file in tmp/.
func (s *Store) create(b []byte) (name string, err error) {
	name = s.tempName()
	fd, err := s.disk.Create(s.tmp, name, 0o400)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := s.disk.Write(fd, name, b, 0); err != nil {
		return "", errors.Join(err, s.disk.Unlink(s.tmp, name, 0))
	}
	return name, nil
}
