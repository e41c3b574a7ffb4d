package rollback

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/cas"
)

// Provenance says where a version comes from.
type Provenance struct {
	Record string // id of the journal record that made it, if one did
	Reason string // one line a person understands
	Trust  bool   // make it the trusted version
	// Time is when the change that made it was done, 0 if that is not known.
	Time event.Time
}

// Version is what a path was at one moment.
type Version struct {
	Path    string          `json:"path"`             // raw bytes
	ID      uint64          `json:"id"`               // counts from 1 for each path
	Time    event.Time      `json:"time"`             // when it was captured
	Changed event.Time      `json:"changed,omitzero"` // when the change that made it was done, if that is known
	State   event.State     `json:"state"`
	Trusted bool            `json:"trusted"` // it is the one that a restore brings back
	Record  string          `json:"record,omitempty"`
	Reason  string          `json:"reason,omitempty"`
	Holes   []digest.Extent `json:"holes,omitempty"` // parts of a sparse file without blocks
	Until   event.Time      `json:"until,omitzero"`  // since then another one was there, which was destroyed

	// number ends Record in a catalog, which holds what comes before it once for
	// many; 0: Record is whole.
	number uint64
}

// history is all that is known of one path.
type history struct {
	versions []Version // by ID
	trusted  uint64    // ID, 0 for none
}

func (h *history) newest() *Version { return &h.versions[len(h.versions)-1] }

func (h *history) get(id uint64) *Version {
	i := sort.Search(len(h.versions), func(i int) bool { return h.versions[i].ID >= id })
	if i < len(h.versions) && h.versions[i].ID == id {
		return &h.versions[i]
	}
	return nil
}

// show returns a copy for callers.
func (h *history) show(v *Version) Version {
	c := *v
	c.Trusted = v.ID == h.trusted
	if c.number != 0 {
		c.Record, c.number = c.Record+strconv.FormatUint(c.number, 10), 0
	}
	return c
}

// The kinds of entries of the log.
const (
	entryVersion = 1 // a new version, trusted at once if Trusted
	entryTrust   = 2 // version ID becomes the trusted one
	entryDrop    = 3 // versions IDs are destroyed
	entryHold    = 4 // hold ID of Path
	entryRelease = 5 // hold ID is released
	entryAnew    = 6 // what came before it is told again behind it
	entrySealed  = 7 // contents are sealed from here on, with the key that Sealed tells
)

// entry is one record of the log of versions, as it is on disk.
type entry struct {
	Kind    uint8           `cbor:"1,keyasint"`
	Path    []byte          `cbor:"2,keyasint"`
	ID      uint64          `cbor:"3,keyasint"`
	Time    event.Time      `cbor:"4,keyasint"`
	State   *event.State    `cbor:"5,keyasint,omitempty"`
	Holes   []digest.Extent `cbor:"6,keyasint,omitempty"`
	Trusted bool            `cbor:"7,keyasint,omitempty"`
	Record  string          `cbor:"8,keyasint,omitempty"`
	Reason  string          `cbor:"9,keyasint,omitempty"`
	IDs     []uint64        `cbor:"10,keyasint,omitempty"`
	Until   event.Time      `cbor:"11,keyasint,omitempty"`
	Sealed  []byte          `cbor:"12,keyasint,omitempty"`
	Changed event.Time      `cbor:"13,keyasint,omitempty"`
}

// catalog is the versions of all paths, built from the log.
type catalog struct {
	paths    map[string]*history
	versions int
	dropped  int    // versions that are in the log and gone
	changes  uint64 // how often a version became trusted
	contents map[event.Hash]content
	bytes    int64                 // of the contents that are named
	words    map[string]string     // one copy of each repeated string
	holds    []Hold                // by ID, from 1
	links    map[linkKey][]string  // paths of files with several names
	entries  map[string]event.Time // directory → when a name in it came or went with leave, last
	sealed   []byte                // of the newest entrySealed
}

// content is what versions name by one hash.
type content struct {
	names    int32 // versions that do
	long     bool  // longer than what is stored in one piece
	verified bool  // read back by this process
	size     uint64
}

func (c *catalog) name(st *event.State) {
	if st.Type != event.TypeRegular {
		return
	}
	k := c.contents[st.Hash]
	if k.names++; k.names == 1 {
		k.size, k.long = st.Size, st.Size > cas.SmallSize
		c.bytes += int64(st.Size)
	}
	c.contents[st.Hash] = k
}

func (c *catalog) unname(st *event.State) {
	if st.Type != event.TypeRegular {
		return
	}
	k := c.contents[st.Hash]
	if k.names--; k.names > 0 {
		c.contents[st.Hash] = k
		return
	}
	delete(c.contents, st.Hash)
	c.bytes -= int64(k.size)
}

func newCatalog() *catalog {
	return &catalog{paths: map[string]*history{}, contents: map[event.Hash]content{}, words: map[string]string{},
		links: map[linkKey][]string{}, entries: map[string]event.Time{}}
}

func (c *catalog) intern(s string) string {
	if w, ok := c.words[s]; ok {
		return w
	}
	s = strings.Clone(s)
	c.words[s] = s
	return s
}

// split cuts the number off a record's id, if it ends in one that is written so.
func (c *catalog) split(id string) (prefix string, number uint64) {
	i := strings.LastIndexByte(id, '/') + 1
	n, err := strconv.ParseUint(id[i:], 10, 64)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != id[i:] {
		return id, 0
	}
	return c.intern(id[:i]), n
}

// apply adds an entry. One that is there already is no error: a log segment is
// written again after an fsync that failed.
func (c *catalog) apply(e *entry) error {
	if e.Trusted || e.Kind == entryTrust {
		c.changes++
	}
	p := string(e.Path)
	h := c.paths[p]
	switch e.Kind {
	case entryVersion:
		if e.State == nil || e.ID == 0 || len(p) == 0 {
			return fmt.Errorf("version of %q: incomplete", p)
		}
		if h == nil {
			h = &history{}
			c.paths[p] = h
		}
		if len(h.versions) > 0 {
			p = h.versions[0].Path
			if e.ID <= h.newest().ID {
				if e.Trusted && h.get(e.ID) != nil { // else it was dropped meanwhile
					h.trusted = e.ID
				}
				return nil
			}
		}
		v := Version{Path: p, ID: e.ID, Time: e.Time, Changed: e.Changed, State: *e.State, Reason: c.intern(e.Reason), Holes: e.Holes, Until: e.Until}
		v.Record, v.number = c.split(e.Record)
		v.State.Type = c.intern(v.State.Type)
		v.State.User, v.State.Group = c.intern(v.State.User), c.intern(v.State.Group)
		if e.Trusted {
			c.noteEntry(h, &v, e)
		}
		h.versions = append(h.versions, v)
		c.versions++
		c.name(&v.State)
		c.noteLink(&v)
		if e.Trusted {
			h.trusted = e.ID
		}
	case entryTrust:
		if h != nil && e.ID < h.newest().ID && h.get(e.ID) == nil {
			return nil // it was dropped meanwhile
		}
		if h == nil || h.get(e.ID) == nil {
			return fmt.Errorf("trust in version %d of %q: there is no such version", e.ID, p)
		}
		c.noteEntry(h, h.get(e.ID), e)
		h.trusted = e.ID
	case entryDrop:
		if h == nil {
			return nil
		}
		c.drop(h, e.IDs)
		if len(h.versions) == 0 {
			delete(c.paths, p)
		}
	case entryHold, entryRelease:
		return c.applyHold(e)
	case entrySealed:
		c.sealed = e.Sealed
	case entryAnew:
		*c = *newCatalog()
	default:
		return fmt.Errorf("entry of %q: unknown kind %d", p, e.Kind)
	}
	return nil
}

// Latest returns the newest version of path.
func (s *Store) Latest(path string) (Version, bool) {
	return s.look(path, func(h *history) *Version { return h.newest() })
}

// Trusted returns the version that a restore of path brings back.
func (s *Store) Trusted(path string) (Version, bool) {
	return s.look(path, func(h *history) *Version { return h.get(h.trusted) })
}

// Version returns version id of path.
func (s *Store) Version(path string, id uint64) (Version, bool) {
	return s.look(path, func(h *history) *Version { return h.get(id) })
}

// Since is from when on a version was there, as far as that is known: from its change,
// or, if when that was done is not known, from when it was found.
func (v *Version) Since() event.Time {
	if v.Changed != 0 {
		return v.Changed
	}
	return v.Time
}

// At returns the version of path that was there at time t (see Since), however long
// after that it was captured. It is false too if what was there then was destroyed (see
// Destroyed).
func (s *Store) At(path string, t event.Time) (Version, bool) {
	return s.look(path, func(h *history) *Version {
		for i := len(h.versions) - 1; i >= 0; i-- {
			if v := &h.versions[i]; v.Since() <= t {
				if v.Until != 0 && v.Until <= t {
					return nil
				}
				return v
			}
		}
		return nil
	})
}

// Destroyed reports whether path had a version at time t that Prune destroyed.
func (s *Store) Destroyed(path string, t event.Time) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	h := s.catalog.paths[path]
	if h == nil || h.versions[0].Since() > t {
		return h != nil && h.versions[0].ID > 1
	}
	for i := len(h.versions) - 1; i >= 0; i-- {
		if v := &h.versions[i]; v.Since() <= t {
			return v.Until != 0 && v.Until <= t
		}
	}
	return false
}

func (s *Store) look(path string, f func(*history) *Version) (Version, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	h := s.catalog.paths[path]
	if h == nil {
		return Version{}, false
	}
	v := f(h)
	if v == nil {
		return Version{}, false
	}
	return h.show(v), true
}

// Versions returns all versions of path, oldest first.
func (s *Store) Versions(path string) []Version {
	s.mu.RLock()
	defer s.mu.RUnlock()
	h := s.catalog.paths[path]
	if h == nil {
		return nil
	}
	out := make([]Version, len(h.versions))
	for i := range h.versions {
		out[i] = h.show(&h.versions[i])
	}
	return out
}

// Paths returns the paths that have versions and are prefix or below it, sorted;
// "" means all.
func (s *Store) Paths(prefix string) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []string
	for p := range s.catalog.paths {
		if within(p, prefix) {
			out = append(out, p)
		}
	}
	sort.Strings(out)
	return out
}

// within compares by component: /a/bc is not below /a/b.
func within(path, root string) bool {
	if root == "" || root == "/" || path == root {
		return true
	}
	return len(path) > len(root) && path[len(root)] == '/' && strings.HasPrefix(path, root)
}
