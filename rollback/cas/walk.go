package cas

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sort"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
)

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
			if err := digest.Again(func() error { return unix.Fstatat(s.objects, d+"/"+n, &st, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
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
	fd, err := digest.AgainInt(func() (int, error) {
		return unix.Openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	})
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
