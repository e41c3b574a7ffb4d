package journal

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// Standing is how signed notes from elsewhere stand to a log. Notes that no key of its chain signed do not count.
type Standing struct {
	Agrees  uint64 // size of the largest that has the log's own root, 0 if none has
	Ahead   uint64 // size of the largest over records that the log does not have
	Differs uint64 // size of one over other records, or by which a key named another successor or signed out of turn
	Handed  bool   // a change of key of this log is among them
}

// Stand compares notes with the log in dir, of which the first end records are signed. changes are the changes of key among
// the notes: keys that are not in the log's own chain are followed by them, so that a log that was put back to before one is told. each
// hands over all others.
func Stand(dir string, end uint64, changes [][]byte, each func(func(signed []byte)) error) (st Standing, err error) {
	fail := func(err error) (Standing, error) { return Standing{}, fmt.Errorf("read journal %s: %w", dir, err) }
	own, _, err := chainNotes(dir)
	if err != nil {
		return fail(err)
	}
	first := beganWith(own)
	if first == "" {
		return fail(fmt.Errorf("%s does not say who began: %w", chainName, ErrUnproven))
	}
	k, err := newChain(first)
	if err != nil {
		return fail(err)
	}
	k.extend(own)
	k.extend(changes) // what is wrong with one is seen below
	f, err := openRegular(dir, hashesName)
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	s := stander{k: k, h: hashFile{f}, end: end, Standing: &st}
	for _, n := range changes {
		s.take(n)
	}
	if err := each(s.take); err != nil {
		return Standing{}, err
	}
	if s.err != nil {
		return fail(s.err)
	}
	return st, nil
}

type stander struct {
	*Standing
	k   *keychain
	h   tlog.HashReader
	end uint64
	err error // of reading hashes
}

func (s *stander) take(signed []byte) {
	c, by, err := s.k.open(signed)
	switch {
	case errors.Is(err, errOutOfTurn):
		s.Differs = max(s.Differs, c.Size, 1)
	case err != nil: // nobody of ours signed it
	case c.Next != "" && !s.k.leads(c, by):
		s.Differs = max(s.Differs, c.Size, 1)
	case c.Size > s.end:
		s.Ahead = max(s.Ahead, c.Size)
	default:
		s.Handed = s.Handed || c.Next != ""
		s.compare(c)
	}
}

// compare holds a checkpoint against the tree.
func (s *stander) compare(c Checkpoint) {
	if c.Size == 0 || s.err != nil {
		return
	}
	root, err := tlog.TreeHash(int64(c.Size), s.h)
	switch {
	case err != nil:
		s.err = err
	case root == c.Root:
		s.Agrees = max(s.Agrees, c.Size)
	default:
		s.Differs = max(s.Differs, c.Size)
	}
}
