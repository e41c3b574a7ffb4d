package rollback

import (
	"errors"
	"fmt"

	"github.com/holdfast/holdfast/pkg/event"
)

// ErrNoHold: there is no such hold, or it is released.
var ErrNoHold = errors.New("there is no such hold")

// Hold keeps all versions of a path and of what is below it from Prune, those
// that come later too, until it is released.
type Hold struct {
	ID       uint64     `json:"id"`
	Path     string     `json:"path"` // raw bytes
	Time     event.Time `json:"time"`
	Reason   string     `json:"reason"`
	Record   string     `json:"record,omitempty"` // of the journal, that tells who asked for it
	Released event.Time `json:"released,omitzero"`
	Why      string     `json:"released_for,omitempty"`
}

// Holds returns all holds, the released ones too, oldest first.
func (s *Store) Holds() []Hold {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return append([]Hold(nil), s.catalog.holds...)
}

// Hold puts path and all below it under a hold, durably.
func (s *Store) Hold(path string, p Provenance) (Hold, error) {
	return s.changeHold(func() entry {
		return entry{Kind: entryHold, Path: []byte(path), ID: uint64(len(s.catalog.holds)) + 1, Record: p.Record, Reason: p.Reason}
	})
}

// Release ends a hold, durably.
func (s *Store) Release(id uint64, p Provenance) (Hold, error) {
	return s.changeHold(func() entry { return entry{Kind: entryRelease, ID: id, Record: p.Record, Reason: p.Reason} })
}

func (s *Store) changeHold(make func() entry) (Hold, error) {
	if s.readOnly {
		return Hold{}, ErrReadOnly
	}
	s.mu.Lock()
	e := make()
	e.Time = event.TimeOf(s.now())
	if e.Kind == entryRelease && (e.ID == 0 || e.ID > uint64(len(s.catalog.holds)) || s.catalog.holds[e.ID-1].Released != 0) {
		s.mu.Unlock()
		return Hold{}, fmt.Errorf("hold %d: %w", e.ID, ErrNoHold)
	}
	queue, err := appendFrame(s.queue, s.enc, &e)
	if err == nil {
		err = s.catalog.apply(&e)
	}
	if err != nil {
		s.mu.Unlock()
		return Hold{}, fmt.Errorf("hold: %w", err)
	}
	s.queue = queue
	h := s.catalog.holds[e.ID-1]
	s.mu.Unlock()
	return h, s.Sync()
}

// applyHold adds an entry about a hold; one that is there already is no error.
func (c *catalog) applyHold(e *entry) error {
	n := uint64(len(c.holds))
	switch {
	case e.ID == 0 || e.ID > n+1 || e.Kind == entryRelease && e.ID > n:
		return fmt.Errorf("hold %d: out of order", e.ID)
	case e.Kind == entryRelease:
		if h := &c.holds[e.ID-1]; h.Released == 0 {
			h.Released, h.Why = e.Time, e.Reason
		}
	case e.ID == n+1:
		c.holds = append(c.holds, Hold{ID: e.ID, Path: string(e.Path), Time: e.Time, Reason: e.Reason, Record: e.Record})
	}
	return nil
}

// holding reports whether a path is under a hold.
func (c *catalog) holding(path string) bool {
	for i := range c.holds {
		if c.holds[i].Released == 0 && within(path, c.holds[i].Path) {
			return true
		}
	}
	return false
}
