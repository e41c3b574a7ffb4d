package rollback

import (
	"context"
	"fmt"
	"sort"

	"github.com/holdfast/holdfast/pkg/event"
)

// Readiness counts the paths that a restore would bring something back to.
type Readiness struct {
	Captured int // with a trusted version whose content this process has not read back, or could not
	Verified int // whose content it has, and those of kinds without content
}

// Readiness counts root and what is below it.
func (s *Store) Readiness(root string) Readiness {
	var r Readiness
	s.mu.RLock()
	defer s.mu.RUnlock()
	for path, h := range s.catalog.paths {
		if h.trusted == 0 || !within(path, root) {
			continue
		}
		switch v := h.get(h.trusted); {
		case v == nil || !v.State.Exists:
		case s.catalog.verified(v):
			r.Verified++
		default:
			r.Captured++
		}
	}
	return r
}

func (c *catalog) verified(v *Version) bool {
	return v.State.Type != event.TypeRegular || c.contents[v.State.Hash].verified
}

// Unverified returns up to max trusted versions whose content Verify is still to
// read back, one for each content, and the state of the catalog that this is true
// for: asked with it again, it returns nothing until another version is trusted.
func (s *Store) Unverified(seen uint64, max int) (list []Version, now uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	now = s.catalog.changes
	if now == seen {
		return nil, now
	}
	listed := map[event.Hash]bool{}
	for _, h := range s.catalog.paths {
		if h.trusted == 0 {
			continue
		}
		v := h.get(h.trusted)
		if v == nil || s.catalog.verified(v) || listed[v.State.Hash] {
			continue
		}
		listed[v.State.Hash] = true
		if list = append(list, h.show(v)); len(list) == max {
			break
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Path < list[j].Path })
	return list, now
}

// Verify reads the content of v back: nil means that a restore of v will find
// what it needs.
func (s *Store) Verify(v Version) error {
	if !v.State.Exists || v.State.Type != event.TypeRegular {
		return nil
	}
	n, err := s.objects.Check(v.State.Hash)
	if err == nil && uint64(n) != v.State.Size {
		err = fmt.Errorf("%w: %d bytes, the version says %d", ErrCorrupt, n, v.State.Size)
	}
	s.mu.Lock()
	if k, ok := s.catalog.contents[v.State.Hash]; ok {
		k.verified = err == nil
		s.catalog.contents[v.State.Hash] = k
	}
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("verify %q: %w", v.Path, err)
	}
	return nil
}

// Mend stores the content of v afresh if the file at its path has it still, and
// reports whether it did. It is for a content that Verify found damaged.
func (s *Store) Mend(ctx context.Context, v Version) bool {
	return !s.readOnly && s.repairContent(ctx, v.State.Hash, []string{v.Path}) && s.Sync() == nil
}
