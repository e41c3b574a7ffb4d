package rollback

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/cas"
)

// Intake gathers the content of one file for the vault: pass it as the sink of
// digest.Read, then to CaptureState. A short content stays in memory, a long one
// goes to the vault as it comes. It is for one goroutine.
type Intake struct {
	s     *Store
	small []byte
	long  *cas.Writer
	holes []digest.Extent
}

// Intake returns an empty Intake. CaptureState or Discard must end it.
func (s *Store) Intake() *Intake { return &Intake{s: s} }

// Write implements io.Writer.
func (in *Intake) Write(p []byte) (int, error) {
	if in.long == nil && len(in.small)+len(p) <= cas.SmallSize {
		in.small = append(in.small, p...)
		return len(p), nil
	}
	if in.long == nil {
		in.long = in.s.objects.NewWriter()
		if _, err := in.long.Write(in.small); err != nil {
			return 0, err
		}
		in.small = in.small[:0]
	}
	return in.long.Write(p)
}

// Reset forgets what was written: the file is read again.
func (in *Intake) Reset() {
	in.small, in.holes = in.small[:0], nil
	if in.long != nil {
		in.long.Reset()
	}
}

// Bytes returns what was written as long as it is in memory: all of a short content.
func (in *Intake) Bytes() (b []byte, ok bool) { return in.small, in.long == nil }

// Holes receives the holes of a sparse file.
func (in *Intake) Holes(h []digest.Extent) { in.holes = h }

// Discard ends the Intake and stores nothing.
func (in *Intake) Discard() error {
	w := in.long
	in.long = nil
	if w == nil {
		return nil
	}
	return w.Abort()
}

// keep stores the content, whose digest is h.
func (in *Intake) keep(h event.Hash) error {
	if in.long == nil {
		return in.s.objects.Put(h, in.small)
	}
	w := in.long
	in.long = nil
	return w.Commit(h)
}

// Capture reads what is at path now and keeps it as a version. If nothing
// differs from the newest version, that one is returned and only p.Trust counts.
// The version is durable after Sync. A content that is in the vault since an
// earlier process is read back first, and replaced if it is damaged.
func (s *Store) Capture(ctx context.Context, path string, p Provenance) (Version, error) {
	v, err := s.capture(ctx, path, p)
	if err != nil {
		return v, fmt.Errorf("capture %q: %w", path, err)
	}
	return v, nil
}

func (s *Store) capture(ctx context.Context, path string, p Provenance) (Version, error) {
	if s.readOnly {
		return Version{}, ErrReadOnly
	}
	dir, base, err := digest.OpenParent(path)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return s.record(path, event.State{}, nil, p)
	}
	if err != nil {
		return Version{}, err
	}
	defer unix.Close(dir)
	if err := digest.Settle(ctx, dir, base); err != nil {
		return Version{}, err
	}
	if err := s.room(); err != nil {
		return Version{}, err
	}
	in := s.Intake()
	st, err := digest.Read(ctx, dir, base, in)
	if err != nil {
		return Version{}, errors.Join(err, in.Discard())
	}
	return s.CaptureState(path, st, in, p)
}

// room is nil while more is free than captures have to leave.
func (s *Store) room() error {
	if s.floor == 0 {
		return nil
	}
	var fs unix.Statfs_t
	if err := digest.Again(func() error { return unix.Fstatfs(s.lock, &fs) }); err != nil {
		return fmt.Errorf("look for room: %w", err)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < s.floor {
		return fmt.Errorf("%w: %d bytes are left, %d stay free", ErrNoRoom, free, s.floor)
	}
	return nil
}

// CaptureState keeps a state that was just read, with the content that in
// gathered meanwhile, as Capture does. It ends in.
func (s *Store) CaptureState(path string, st event.State, in *Intake, p Provenance) (Version, error) {
	if s.readOnly {
		return Version{}, ErrReadOnly
	}
	if !st.Exists || st.Type != event.TypeRegular {
		if err := errors.Join(in.Discard(), s.room()); err != nil {
			return Version{}, err
		}
		return s.record(path, st, nil, p)
	}
	if st.Hash.IsZero() {
		return Version{}, errors.Join(fmt.Errorf("content of %q was not read: %s", path, st.Unread), in.Discard())
	}
	if err := s.room(); err != nil {
		return Version{}, errors.Join(err, in.Discard())
	}
	s.keeping.RLock()
	defer s.keeping.RUnlock()
	holes := in.holes
	if err := in.keep(st.Hash); err != nil {
		return Version{}, err
	}
	return s.record(path, st, holes, p)
}

// Absent keeps a version that says "nothing here".
func (s *Store) Absent(path string, p Provenance) (Version, error) {
	if s.readOnly {
		return Version{}, ErrReadOnly
	}
	if err := s.room(); err != nil {
		return Version{}, err
	}
	return s.record(path, event.State{}, nil, p)
}

// record appends a version unless the newest one is the same.
func (s *Store) record(path string, st event.State, holes []digest.Extent, p Provenance) (Version, error) {
	s.mu.Lock()
	h := s.catalog.paths[path]
	e := entry{Kind: entryVersion, Path: []byte(path), ID: 1, Time: event.TimeOf(s.now()),
		State: &st, Holes: holes, Trusted: p.Trust, Record: p.Record, Reason: p.Reason}
	e.Changed = changed(p.Time, &st, e.Time)
	if h != nil {
		last := h.newest()
		if last.State.Same(&st) {
			if !p.Trust || h.trusted == last.ID {
				v := h.show(last)
				s.mu.Unlock()
				return v, nil
			}
			e = entry{Kind: entryTrust, Path: e.Path, ID: last.ID, Time: e.Time, Record: p.Record, Reason: p.Reason}
		} else {
			e.ID = last.ID + 1
		}
	}
	v, full, err := s.enqueue(&e)
	s.mu.Unlock()
	if err == nil && full {
		err = s.Sync()
	}
	return v, err
}

// changed is since when a state is there that was captured at a time: no earlier than the
// content was last written, which may have been again after the change that it is kept for.
func changed(at event.Time, st *event.State, captured event.Time) event.Time {
	if at == 0 {
		return 0
	}
	if st.Exists && st.Type == event.TypeRegular && st.Mtime > at {
		at = st.Mtime
	}
	if at >= captured { // nothing that is told of the content can be true
		return 0
	}
	return at
}

// enqueue adds an entry to the catalog and to what Sync writes, under mu.
func (s *Store) enqueue(e *entry) (v Version, full bool, err error) {
	queue, err := appendFrame(s.queue, s.enc, e)
	if err != nil {
		return v, false, fmt.Errorf("keep version of %q: %w", e.Path, err)
	}
	if err := s.catalog.apply(e); err != nil {
		return v, false, err
	}
	s.queue = queue
	h := s.catalog.paths[string(e.Path)]
	return h.show(h.get(e.ID)), len(queue) > queueMax, nil
}

// Promote makes version id of path the trusted one.
func (s *Store) Promote(path string, id uint64, p Provenance) (Version, error) {
	if s.readOnly {
		return Version{}, ErrReadOnly
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.catalog.paths[path]
	if h == nil || h.get(id) == nil {
		return Version{}, fmt.Errorf("promote version %d of %q: %w", id, path, ErrNoVersion)
	}
	if h.trusted == id {
		return h.show(h.get(id)), nil
	}
	v, _, err := s.enqueue(&entry{Kind: entryTrust, Path: []byte(path), ID: id, Time: event.TimeOf(s.now()), Record: p.Record, Reason: p.Reason})
	return v, err
}
