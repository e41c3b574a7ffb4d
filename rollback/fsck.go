package rollback

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sort"
	"time"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
)

// The kinds of problems.
const (
	ProblemLog      = "log"      // a part of the log of versions cannot be read
	ProblemMissing  = "missing"  // a version whose content is not there
	ProblemCorrupt  = "corrupt"  // a content that differs from its digest
	ProblemOrphan   = "orphan"   // a content that no version names; only a repair reports it
	ProblemStray    = "stray"    // a file in objects/ that is no object; harmless
	ProblemLeftover = "leftover" // what an interrupted restore left cannot be moved to the evidence
	ProblemPlan     = "plan"     // a plan that was begun cannot be read: it does not go on
	ProblemSealed   = "sealed"   // what is sealed and cannot be opened here, damaged or not; no repair touches it
)

// Problem is something that Fsck or Open found.
type Problem struct {
	Kind     string   `json:"kind"`
	Object   string   `json:"object"`          // which file or content
	Paths    []string `json:"paths,omitempty"` // whose versions it concerns
	Detail   string   `json:"detail"`
	Repaired bool     `json:"repaired"`
}

// String is one line for people.
func (p Problem) String() string {
	text := p.Kind + " " + p.Object + ": " + p.Detail
	if len(p.Paths) > 0 {
		text += fmt.Sprintf(" (content of %q", event.Text([]byte(p.Paths[0])))
		if n := len(p.Paths) - 1; n > 0 {
			text += fmt.Sprintf(" and %d more", n)
		}
		text += ")"
	}
	if p.Repaired {
		text += ": repaired"
	}
	return text
}

func (d damage) problem() Problem {
	p := Problem{Kind: ProblemLog, Object: "versions/" + d.segment,
		Detail: fmt.Sprintf("bytes %d to %d: %s", d.off, d.off+d.len, d.cause)}
	if d.sealed {
		p.Kind = ProblemSealed
	}
	return p
}

// Fsck reads every version and every content and reports what is wrong. With
// repair it takes a damaged or missing content from a live file that has it still,
// removes what no version needs, and writes the log anew without its damaged
// parts. No version that can be read is thrown away, and nothing that is sealed and
// cannot be opened. The error is about the check itself: problems are no error.
func (s *Store) Fsck(ctx context.Context, repair bool, report func(Problem)) error {
	if repair && s.readOnly {
		return fmt.Errorf("fsck: repair: %w", ErrReadOnly)
	}
	if repair {
		if err := s.Sync(); err != nil {
			return fmt.Errorf("fsck: %w", err)
		}
	}
	if err := s.fsckLog(repair, report); err != nil {
		return fmt.Errorf("fsck: %w", err)
	}
	if err := s.fsckPlans(repair, report); err != nil {
		return fmt.Errorf("fsck: %w", err)
	}
	if err := s.fsckObjects(ctx, repair, report); err != nil {
		return fmt.Errorf("fsck: %w", err)
	}
	return nil
}

// fsckLog reads the log afresh: it may have been damaged since Open.
func (s *Store) fsckLog(repair bool, report func(Problem)) error {
	s.sync.Lock()
	defer s.sync.Unlock()
	l, bad, torn, err := s.readLog()
	if err != nil {
		return err
	}
	if torn > 0 {
		bad = append(bad, damage{segment: l.name, off: int(l.good), len: int(torn), cause: "the end is torn"})
	}
	if len(bad) == 0 {
		return nil
	}
	repair = repair && !anySealed(bad)
	if repair {
		if err := s.rewriteLog(); err != nil {
			return err
		}
	}
	for _, d := range bad {
		p := d.problem()
		p.Repaired = repair
		report(p)
	}
	return nil
}

// anewMost is how often a writer may write the log anew while a reader opens it: it does so when something is pruned.
const anewMost = 1000

// readLog reads the log without opening it. Beside a writer the end may look torn
// while it is written: then a moment later it does not.
func (s *Store) readLog() (l *versionLog, bad []damage, torn int64, err error) {
	for try, anew := 0, 0; ; try++ {
		l, bad, torn, err = openLog(filepath.Join(s.dir, "versions"), s.disk, true, newCatalog())
		if l != nil {
			err = errors.Join(err, l.close())
		}
		if errors.Is(err, fs.ErrNotExist) && l != nil && s.readOnly && anew < anewMost {
			anew++
			try--
			continue // the writer has written the log anew, and taken the old one away
		}
		if err != nil || torn == 0 || !s.readOnly || try == 3 {
			return l, bad, torn, err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// rewriteLog writes all that is known into a new segment, which begins by saying
// so, and then removes the old ones. The new one gets its name when it is durable:
// a crash at any step leaves the old segments, or the new one and old ones that do
// not count. It is called under sync.
func (s *Store) rewriteLog() error {
	old, err := s.log.segments()
	if err != nil {
		return err
	}
	pieces, err := s.allFrames()
	if err != nil {
		return err
	}
	// What the frames name, captures put before: it is in the vault after Flush.
	if err := s.objects.Flush(); err != nil {
		return err
	}
	if s.before != nil {
		if err := s.before(); err != nil {
			return err
		}
	}
	if err := s.log.replace(pieces); err != nil {
		return err
	}
	for _, name := range old {
		if err := s.disk.Unlink(s.log.dirf, name, 0); err != nil {
			return err
		}
	}
	return s.disk.Fsync(s.log.dirf, "versions")
}

// allFrames encodes the catalog in pieces of about a segment. The trusted version
// of each path is set last, so that older trust does not survive it.
func (s *Store) allFrames() ([][]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	paths := make([]string, 0, len(s.catalog.paths))
	for p := range s.catalog.paths {
		paths = append(paths, p)
	}
	sort.Strings(paths)
	var pieces [][]byte
	b, err := appendFrame(nil, s.enc, &entry{Kind: entryAnew, Time: event.TimeOf(s.now())})
	if err != nil {
		return nil, err
	}
	if s.catalog.sealed != nil {
		if b, err = appendFrame(b, s.enc, &entry{Kind: entrySealed, Time: event.TimeOf(s.now()), Sealed: s.catalog.sealed}); err != nil {
			return nil, err
		}
	}
	for _, h := range s.catalog.holds {
		e := entry{Kind: entryHold, Path: []byte(h.Path), ID: h.ID, Time: h.Time, Reason: h.Reason, Record: h.Record}
		if b, err = appendFrame(b, s.enc, &e); err == nil && h.Released != 0 {
			b, err = appendFrame(b, s.enc, &entry{Kind: entryRelease, ID: h.ID, Time: h.Released, Reason: h.Why})
		}
		if err != nil {
			return nil, err
		}
	}
	for _, p := range paths {
		h := s.catalog.paths[p]
		for i := range h.versions {
			v := h.show(&h.versions[i])
			e := entry{Kind: entryVersion, Path: []byte(p), ID: v.ID, Time: v.Time, Changed: v.Changed, State: &v.State,
				Holes: v.Holes, Record: v.Record, Reason: v.Reason, Until: v.Until}
			if b, err = appendFrame(b, s.enc, &e); err != nil {
				return nil, err
			}
		}
		if h.trusted != 0 {
			e := entry{Kind: entryTrust, Path: []byte(p), ID: h.trusted, Time: event.TimeOf(s.now()), Reason: "kept by fsck"}
			if b, err = appendFrame(b, s.enc, &e); err != nil {
				return nil, err
			}
		}
		if len(b) >= segmentMax {
			pieces, b = append(pieces, b), nil
		}
	}
	return append(pieces, b), nil
}

// fsckObjects compares what versions name with what is there, and reads it back.
func (s *Store) fsckObjects(ctx context.Context, repair bool, report func(Problem)) error {
	type need struct {
		size  uint64
		paths []string
	}
	needed := map[event.Hash]*need{}
	s.mu.RLock()
	for p, h := range s.catalog.paths {
		for i := range h.versions {
			v := &h.versions[i].State
			if v.Type != event.TypeRegular {
				continue
			}
			n := needed[v.Hash]
			if n == nil {
				n = &need{size: v.Size}
				needed[v.Hash] = n
			}
			if len(n.paths) == 0 || n.paths[len(n.paths)-1] != p {
				n.paths = append(n.paths, p)
			}
		}
	}
	s.mu.RUnlock()

	hashes := make([]event.Hash, 0, len(needed))
	for h := range needed {
		hashes = append(hashes, h)
	}
	sort.Slice(hashes, func(i, j int) bool { return hashes[i].Hex() < hashes[j].Hex() })
	for _, h := range hashes {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := needed[h]
		size, err := s.objects.Check(h)
		if err == nil && uint64(size) != n.size {
			err = fmt.Errorf("%d bytes, the version says %d", size, n.size)
		}
		if err == nil {
			continue
		}
		p := Problem{Kind: ProblemCorrupt, Object: h.String(), Paths: n.paths, Detail: err.Error()}
		switch {
		case errors.Is(err, ErrMissing):
			p.Kind = ProblemMissing
		case errors.Is(err, ErrSealed):
			p.Kind = ProblemSealed
		}
		sort.Strings(p.Paths)
		if repair && p.Kind != ProblemSealed {
			p.Repaired = s.repairContent(ctx, h, p.Paths)
		}
		report(p)
	}
	keep, err := s.needed()
	if err != nil {
		keep = nil // what was reported above may need any of them
	}
	err = s.fsckStray(ctx, func(h event.Hash) bool { return keep == nil || keep[h] }, repair, report)
	if err == nil && repair {
		err = s.Sync()
	}
	return err
}

// repairContent looks for a live file with the content and stores it afresh.
func (s *Store) repairContent(ctx context.Context, h event.Hash, paths []string) bool {
	for _, path := range paths {
		in := s.Intake()
		st, err := digest.ReadPath(ctx, path, in)
		if err != nil || st.Hash != h {
			if in.Discard() != nil {
				return false
			}
			continue
		}
		return in.keep(h) == nil
	}
	return false
}

// fsckStray reports what is in objects/ and is not needed.
func (s *Store) fsckStray(ctx context.Context, needed func(event.Hash) bool, repair bool, report func(Problem)) error {
	return s.objects.Walk(ctx, func(h event.Hash, stored int64) error {
		if needed(h) || !repair {
			return nil // what no version names costs room and nothing else
		}
		if err := s.objects.Remove(h); err != nil {
			return err
		}
		report(Problem{Kind: ProblemOrphan, Object: h.String(), Detail: fmt.Sprintf("no version names it; %d bytes on disk", stored), Repaired: true})
		return nil
	}, func(name string) error {
		if repair {
			if err := s.objects.RemoveName(name); err != nil {
				return err
			}
		}
		report(Problem{Kind: ProblemStray, Object: "objects/" + name, Detail: "it is no object", Repaired: repair})
		return nil
	})
}
