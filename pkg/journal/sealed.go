package journal

import (
	"errors"

	"golang.org/x/mod/sumdb/note"
)

// sealed returns what the newest checkpoint names: the first record that has not expired and the last that may be read. One that no
// late key of the chain signed is believed as far as there are records: whoever put it there moves no reader to where nothing is. That the
// chain itself is good is for Verify.
func sealed(dir string) (first, last uint64, err error) {
	n, err := latestNote(dir, checkpointName)
	if err != nil || n == nil {
		return 1, 0, err
	}
	c, err := unsigned(n)
	if err == nil && !signedLately(dir, n) {
		return there(dir, c)
	}
	return c.First, c.Size, err
}

// signedLately reports whether one of the last keys that the chain names signed n. The newest note of the chain may be
// newer than the newest checkpoint, by one key: the two files are not written in one step.
func signedLately(dir string, n []byte) bool {
	f, err := openRegular(dir, chainName)
	if err != nil {
		return false
	}
	defer f.Close() // only read
	st, err := f.Stat()
	if err != nil {
		return false
	}
	end := make([]byte, min(st.Size(), 16<<10))
	if _, err := f.ReadAt(end, st.Size()-int64(len(end))); err != nil {
		return false
	}
	by := signedBy(n)
	notes, _ := splitNotes(end)
	for i := len(notes) - 1; i >= max(0, len(notes)-4); i-- {
		c, err := unsigned(notes[i])
		if err != nil || c.Next == "" {
			continue
		}
		v, err := note.NewVerifier(c.Next)
		if err != nil || v.KeyHash() != by {
			continue
		}
		if _, err := note.Open(n, note.VerifierList(v)); err == nil {
			return true
		}
	}
	return false
}

// there cuts what c says down to the records that follow each other in the segments.
func there(dir string, c Checkpoint) (first, last uint64, err error) {
	segs, err := listSegments(dir)
	if err != nil || len(segs) == 0 {
		return 1, 0, err
	}
	for i, from := range segs {
		if i > 0 && from != last+1 {
			break
		}
		if last, err = lastOf(dir, from); err != nil {
			return 1, 0, err
		}
	}
	return min(c.First, segs[0]), min(c.Size, last), nil
}

// lastOf is the last record of a segment before a hole, first-1 if there is none. An end is believed if the segment is long enough.
func lastOf(dir string, first uint64) (last uint64, err error) {
	f, err := openRegular(dir, segmentName(first))
	if err != nil {
		return 0, err
	}
	st, serr := f.Stat()
	last, ended := readEnd(f)
	if err := errors.Join(serr, f.Close()); err != nil {
		return 0, err
	}
	if ended && last >= first-1 && last-first < uint64(st.Size())/frameHead {
		return last, nil
	}
	last = first - 1
	err = eachRecordIn(dir, first, func(seq uint64, _ []byte) error {
		if seq != last+1 {
			return errStop
		}
		last = seq
		return nil
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	return last, err
}
