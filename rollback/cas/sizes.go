package cas

import (
	"context"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
)

// sizes are the durable objects, counted once and kept up to date.
type sizes struct {
	mu     sync.Mutex // guards all below, and what changes objects/
	known  bool
	n      int
	stored int64
}

// Sizes returns how many objects are durable, and their bytes on disk. The first
// call looks at all of them; meanwhile none becomes durable. What cannot be
// listed is left out, and looked for again at the next call.
func (s *Store) Sizes() (n int, stored int64) {
	z := &s.sizes
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.known {
		return z.n, z.stored
	}
	z.n, z.stored = 0, 0
	err := s.Walk(context.Background(), func(_ event.Hash, size int64) error {
		z.n++
		z.stored += size
		return nil
	}, func(string) error { return nil })
	z.known = err == nil
	return z.n, z.stored
}

// change does something to the object at a path below objects/ and counts what
// became of it.
func (s *Store) change(name string, do func() error) error {
	z := &s.sizes
	z.mu.Lock()
	defer z.mu.Unlock()
	if !z.known {
		return do()
	}
	n, size := s.sizeOf(name)
	if err := do(); err != nil {
		return err
	}
	now, nowSize := s.sizeOf(name)
	z.n += now - n
	z.stored += nowSize - size
	return nil
}

func (s *Store) sizeOf(name string) (n int, size int64) {
	var st unix.Stat_t
	if digest.Again(func() error { return unix.Fstatat(s.objects, name, &st, unix.AT_SYMLINK_NOFOLLOW) }) != nil {
		return 0, 0
	}
	return 1, st.Size
}
