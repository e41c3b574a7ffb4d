package cas

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// Flush makes durable all that was put before the call: contents first, then
// their names. After an error the rest still waits and Flush may be called again.
func (s *Store) Flush() error {
	s.flush.Lock()
	defer s.flush.Unlock()
	s.mu.Lock()
	waiting := make(map[event.Hash]*temp, len(s.pending))
	for h, t := range s.pending {
		waiting[h] = t
	}
	dirs := len(s.dirty)
	s.mu.Unlock()
	if len(waiting) == 0 && dirs == 0 {
		return nil
	}
	if err := s.settle(waiting); err != nil {
		return fmt.Errorf("flush objects: %w", err)
	}
	for _, lists := range []bool{false, true} { // no list without its chunks
		for h, t := range waiting {
			if t.list != lists {
				continue
			}
			if err := s.publish(h, t); err != nil {
				return fmt.Errorf("flush objects: %w", err)
			}
		}
		if err := s.settleNames(); err != nil {
			return fmt.Errorf("flush objects: %w", err)
		}
	}
	return nil
}

// settle brings the contents to stable storage. After a failed fsync the kernel
// drops the pages it could not write and a second fsync succeeds falsely, so
// such a content is written afresh.
func (s *Store) settle(waiting map[event.Hash]*temp) error {
	for h, t := range waiting {
		if t.suspect {
			if err := s.rewrite(h, t); err != nil {
				return err
			}
		}
	}
	if len(waiting) > many {
		if err := s.disk.Syncfs(s.tmp, "tmp"); err != nil {
			for _, t := range waiting {
				t.suspect = true
			}
			return err
		}
		return nil
	}
	for _, t := range waiting {
		if err := s.disk.FsyncAt(s.tmp, t.name); err != nil {
			t.suspect = true
			return err
		}
	}
	return nil
}

func (s *Store) rewrite(h event.Hash, t *temp) error {
	f, err := s.file(h)
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := s.take(h, f) // verifies it
	if err != nil {
		return err
	}
	name, err := s.create(c.raw)
	if err != nil {
		return err
	}
	s.mu.Lock()
	old := t.name
	t.name, t.suspect = name, false
	s.mu.Unlock()
	return s.disk.Unlink(s.tmp, old, 0)
}

// publish gives a durable content its name.
func (s *Store) publish(h event.Hash, t *temp) error {
	to := place(h)
	dir := to[:2]
	err := s.change(to, func() error {
		err := s.disk.Rename(s.tmp, t.name, s.objects, to, 0)
		if errors.Is(err, unix.ENOENT) {
			if err = s.disk.Mkdir(s.objects, dir, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
				return err
			}
			s.markDirty(".")
			err = s.disk.Rename(s.tmp, t.name, s.objects, to, 0)
		}
		return err
	})
	if err != nil {
		return err
	}
	s.markDirty(dir)
	s.mu.Lock()
	delete(s.pending, h)
	s.mu.Unlock()
	return nil
}

func (s *Store) markDirty(dir string) {
	s.mu.Lock()
	s.dirty[dir] = true
	s.mu.Unlock()
}

// settleNames brings the directories to stable storage.
func (s *Store) settleNames() error {
	s.mu.Lock()
	dirs := make([]string, 0, len(s.dirty))
	for d := range s.dirty {
		dirs = append(dirs, d)
	}
	s.mu.Unlock()
	if len(dirs) == 0 {
		return nil
	}
	if len(dirs) > many {
		if err := s.disk.Syncfs(s.objects, "objects"); err != nil {
			return err
		}
	} else {
		for _, d := range dirs {
			if err := s.disk.FsyncAt(s.objects, d); err != nil {
				return err
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range dirs {
		delete(s.dirty, d)
	}
	return nil
}
