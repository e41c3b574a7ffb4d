package rollback

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/cas"
)

// Keep says which versions Prune leaves. A version goes only if no rule keeps it.
// Beside the rules stay: the trusted version and the newest one of each path, all
// under a Hold, and what a living record refers to.
type Keep struct {
	Versions int           // the newest of each path, at least 1
	Age      time.Duration // versions that were in force so recently; 0 keeps all for ever
	Grace    time.Duration // how long a content stays after the last version that named it
	// Referred reports whether the record of that id is still kept. A record refers
	// to the version that it made and to the one before it. Nil: none is.
	Referred func(record string) bool
}

// Pruned is what Prune destroyed.
type Pruned struct {
	Versions int   // of the log
	Objects  int   // contents and chunks
	Bytes    int64 // of these, on disk
	Waiting  int   // objects that no version names, whose grace is not over
}

// Prune destroys the versions that keep lets go, and the contents that no version
// has named for the time of grace. tell is called before with what is about to
// go, and must have made a durable record of it when it returns; with an error
// nothing goes. After a crash a version may be told once more.
func (s *Store) Prune(ctx context.Context, keep Keep, p Provenance, tell func([]Version) error) (Pruned, error) {
	var done Pruned
	if s.readOnly {
		return done, ErrReadOnly
	}
	err := s.Sync()
	if err == nil {
		done.Versions, err = s.dropVersions(keep, p, tell)
	}
	if err == nil {
		err = s.sweep(ctx, keep.Grace, &done)
	}
	if err != nil {
		return done, fmt.Errorf("prune vault: %w", err)
	}
	return done, nil
}

// dropVersions takes versions out of the catalog and, durably, out of the log.
func (s *Store) dropVersions(keep Keep, p Provenance, tell func([]Version) error) (int, error) {
	now := s.now()
	var victims []Version
	s.mu.RLock()
	for path, h := range s.catalog.paths {
		for _, i := range s.catalog.expired(path, h, keep, now) {
			victims = append(victims, h.show(&h.versions[i]))
		}
	}
	s.mu.RUnlock()
	if len(victims) == 0 {
		return 0, nil
	}
	sort.Slice(victims, func(i, j int) bool {
		a, b := &victims[i], &victims[j]
		return a.Path < b.Path || a.Path == b.Path && a.ID < b.ID
	})
	if tell != nil {
		if err := tell(victims); err != nil {
			return 0, err
		}
	}
	told := map[string][]uint64{}
	for i := range victims {
		told[victims[i].Path] = append(told[victims[i].Path], victims[i].ID)
	}
	n := 0
	for path, ids := range told {
		m, err := s.dropTold(path, ids, keep, p, now)
		if err != nil {
			return n, err
		}
		n += m
	}
	if err := s.Sync(); err != nil {
		return n, err
	}
	return n, s.compact()
}

// dropTold drops those of a path's versions that may still go: meanwhile one may
// have become trusted, or come under a hold.
func (s *Store) dropTold(path string, ids []uint64, keep Keep, p Provenance, now time.Time) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.catalog.paths[path]
	if h == nil {
		return 0, nil
	}
	e := entry{Kind: entryDrop, Path: []byte(path), Time: event.TimeOf(now), Record: p.Record, Reason: p.Reason}
	for _, i := range s.catalog.expired(path, h, keep, now) {
		id := h.versions[i].ID
		if at := sort.Search(len(ids), func(k int) bool { return ids[k] >= id }); at < len(ids) && ids[at] == id {
			e.IDs = append(e.IDs, id)
		}
	}
	if len(e.IDs) == 0 {
		return 0, nil
	}
	queue, err := appendFrame(s.queue, s.enc, &e)
	if err == nil {
		err = s.catalog.apply(&e)
	}
	if err != nil {
		return 0, fmt.Errorf("drop versions of %q: %w", path, err)
	}
	s.queue = queue
	return len(e.IDs), nil
}

// expired returns the indexes of the versions of a path that nothing keeps.
func (c *catalog) expired(path string, h *history, keep Keep, now time.Time) []int {
	if keep.Age <= 0 || c.holding(path) {
		return nil
	}
	since := event.TimeOf(now.Add(-keep.Age))
	referred := func(i int) bool {
		r := h.show(&h.versions[i]).Record
		return r != "" && keep.Referred != nil && keep.Referred(r)
	}
	var out []int
	last := len(h.versions) - 1
	for i := range last {
		v, next := &h.versions[i], &h.versions[i+1]
		if v.ID != h.trusted && i < len(h.versions)-max(keep.Versions, 1) && next.Time < since && !referred(i) && !referred(i+1) {
			out = append(out, i)
		}
	}
	// A path that is gone for so long is forgotten, if it was never trusted.
	v := &h.versions[last]
	if h.trusted == 0 && len(out) == last && !v.State.Exists && v.Time < since && !referred(last) {
		out = append(out, last)
	}
	return out
}

// drop takes versions out of the catalog. The version before a gap notes since
// when it is not known what was there.
func (c *catalog) drop(h *history, ids []uint64) {
	gone := make(map[uint64]bool, len(ids))
	for _, id := range ids {
		gone[id] = true
	}
	kept := h.versions[:0]
	for _, v := range h.versions {
		if !gone[v.ID] {
			kept = append(kept, v)
			continue
		}
		if n := len(kept); n > 0 && kept[n-1].Until == 0 {
			kept[n-1].Until = v.Since()
		}
		c.versions--
		c.dropped++
		c.unname(&v.State)
	}
	clear(h.versions[len(kept):])
	h.versions = kept
}

// compact writes the log anew when most of it is about what is gone.
func (s *Store) compact() error {
	s.mu.RLock()
	worth := s.catalog.dropped > 1000+s.catalog.versions
	s.mu.RUnlock()
	if !worth {
		return nil
	}
	s.sync.Lock()
	defer s.sync.Unlock()
	if err := s.rewriteLog(); err != nil {
		return fmt.Errorf("write the log anew: %w", err)
	}
	s.mu.Lock()
	s.catalog.dropped = 0
	s.mu.Unlock()
	return nil
}

// sweep removes the objects that no version has needed for the time of grace.
// Captures go on meanwhile: what they find stored, they claim.
func (s *Store) sweep(ctx context.Context, grace time.Duration, done *Pruned) error {
	s.objects.Watch()
	defer s.objects.Unwatch()
	// What is being captured now gets into the catalog before it is read; what
	// comes later is claimed.
	s.keeping.Lock()
	s.keeping.Unlock() //nolint:staticcheck // a barrier
	needed, err := s.needed()
	if err != nil {
		return err
	}
	was, err := s.readDoomed()
	if err != nil {
		return err
	}
	now := s.now()
	doomed := map[event.Hash]event.Time{}
	sizes := map[event.Hash]int64{}
	err = s.objects.Walk(ctx, func(h event.Hash, stored int64) error {
		if needed[h] {
			return nil
		}
		at, ok := was[h]
		if !ok || at > event.TimeOf(now) { // the clock was set back
			at = event.TimeOf(now)
		}
		doomed[h], sizes[h] = at, stored
		return nil
	}, func(string) error { return nil }) // Fsck tells of what is no object
	if err != nil {
		return err
	}
	until := event.TimeOf(now.Add(-grace))
	for h, at := range doomed {
		if err := ctx.Err(); err != nil {
			return err
		}
		if at > until {
			continue
		}
		removed, err := s.objects.RemoveUnclaimed(h)
		if err != nil {
			return err
		}
		delete(doomed, h)
		if removed {
			done.Objects++
			done.Bytes += sizes[h]
		}
	}
	done.Waiting = len(doomed)
	return s.writeDoomed(was, doomed)
}

// needed is every object that a version or a begun plan needs. A list that cannot be read may
// need any chunk: then nothing can be said.
func (s *Store) needed() (map[event.Hash]bool, error) {
	needed := map[event.Hash]bool{}
	var long []event.Hash
	s.mu.RLock()
	for h, c := range s.catalog.contents {
		needed[h] = true
		if c.long {
			long = append(long, h)
		}
	}
	s.mu.RUnlock()
	err := s.readPlans(func(p Pending) {
		for i := range p.Plan.Steps {
			if w := &p.Plan.Steps[i].Want; w.Type == event.TypeRegular && !w.Hash.IsZero() {
				needed[w.Hash] = true
				if w.Size > cas.SmallSize {
					long = append(long, w.Hash)
				}
			}
		}
	}, func(_ string, err error) error {
		if errors.Is(err, ErrSealed) {
			return fmt.Errorf("what a begun plan needs is not known: %w", err)
		}
		return nil // Fsck tells of it
	})
	if err != nil {
		return nil, err
	}
	for _, h := range long {
		parts, err := s.objects.Parts(h)
		if err != nil && !errors.Is(err, ErrMissing) {
			return nil, fmt.Errorf("which chunks are needed is not known, run fsck: %w", err)
		}
		for _, p := range parts {
			needed[p] = true
		}
	}
	return needed, nil
}
