package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/internal/regular"
)

// errStop ends a walk without being an error of it.
var errStop = errors.New("stop")

// eachRecord calls fn with each whole record of the segments, in order of the files.
func eachRecord(dir string, segs []uint64, fn func(seq uint64, b []byte) error) error {
	for _, first := range segs {
		if err := eachRecordIn(dir, first, fn); err != nil {
			return err
		}
	}
	return nil
}

func eachRecordIn(dir string, first uint64, fn func(seq uint64, b []byte) error) error {
	f, err := openRegular(dir, segmentName(first))
	if err != nil {
		return err
	}
	defer f.Close()
	for sc := (&scanner{f: f}); ; {
		fr, err := sc.next()
		var bad *badFrame
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &bad):
			continue
		case err != nil:
			return err
		case fr.Kind != frameRecord:
			continue
		}
		seq, _, err := peek(fr.Payload)
		if err != nil {
			continue // whole, but no record: its place in the tree will be missing
		}
		if err := fn(seq, fr.Payload); err != nil {
			return err
		}
	}
}

// readEnd returns the number in the end frame of a segment, false if it has none.
func readEnd(f *os.File) (last uint64, ok bool) {
	st, err := f.Stat()
	if err != nil || st.Size() < endSize {
		return 0, false
	}
	fr, err := (&scanner{f: f}).at(st.Size() - endSize)
	if err != nil || fr.Kind != frameEnd {
		return 0, false
	}
	return binary.BigEndian.Uint64(fr.Payload), true
}

// openSegments checks the ends of the older segments and all of the newest, takes in whole
// records that no checkpoint covers, cuts torn ones and opens the segment to append to.
func (r *recovery) openSegments() error {
	size := r.check.Size
	at := 0 // the segment that holds record size
	for i, first := range r.segs {
		if first <= max(size, 1) {
			at = i
		}
	}
	oldest := max(r.check.First, 1)
	if len(r.segs) > 0 && r.segs[0] > oldest {
		r.wrong(ProblemRemoved, "records %d to %d: %s is gone", oldest, r.segs[0]-1, segmentName(oldest))
	}
	for i := 0; i < at; i++ {
		if err := r.checkEnd(r.segs[i], r.segs[i+1]-1); err != nil {
			return err
		}
	}
	e := size + 1 // the record expected next
	switch {
	case len(r.segs) > 0:
		e = min(e, r.segs[at])
	case size > 0:
		r.wrong(ProblemRemoved, "records %d to %d: there is no segment", oldest, size)
	}
	var tears []tear
	open := -1
	for i := at; i < len(r.segs); i++ {
		s := &segmentCheck{r: r, first: r.segs[i], next: e}
		if err := s.scan(); err != nil {
			return err
		}
		e = s.next
		if s.torn != nil {
			tears = append(tears, *s.torn)
		}
		switch {
		case s.ended || s.damaged:
			open = -1
		case s.torn == nil || s.torn.off > 0:
			open = i
		} // else it goes as a whole, and the one before it is the last
	}
	if e <= size {
		r.wrong(ProblemTruncated, "records %d to %d are missing at the end of the log", e, size)
		open = -1
	}
	if err := r.refuse(false); err != nil {
		return err
	}
	for _, t := range tears {
		if err := r.cutTear(t); err != nil {
			return err
		}
	}
	return r.take(open)
}

func (r *recovery) checkEnd(first, want uint64) error {
	f, err := openRegular(r.dir, segmentName(first))
	if err != nil {
		return err
	}
	defer f.Close()
	// A segment that was left without an end (tampering that was continued) is looked at by Verify only.
	if last, ok := readEnd(f); ok && last != want {
		r.wrong(ProblemRemoved, "records %d to %d: a segment after %s is gone", last+1, want, segmentName(first))
	} else if !ok {
		r.wrong(ProblemTruncated, "%s does not end with record %d", segmentName(first), want)
	}
	return nil
}

// tear is where a segment stops making sense behind the signed records.
type tear struct {
	first   uint64 // of the segment
	off     int64
	records int
}

// segmentCheck reads one segment at open.
type segmentCheck struct {
	r       *recovery
	first   uint64
	next    uint64 // record expected next
	torn    *tear
	ended   bool
	damaged bool // signed records in it are missing or differ: nothing is appended to it
}

func (s *segmentCheck) scan() error {
	f, err := openRegular(s.r.dir, segmentName(s.first))
	if err != nil {
		return err
	}
	defer f.Close()
	if s.first > s.next && s.first <= s.r.check.Size+1 {
		s.wrong(ProblemRemoved, "records %d to %d are missing before %s", s.next, s.first-1, segmentName(s.first))
		s.next = s.first
	}
	for sc := (&scanner{f: f}); ; {
		fr, err := sc.next()
		var bad *badFrame
		switch {
		case errors.Is(err, io.EOF):
			if sc.off == 0 { // not even the header came to the disk
				s.bad(0, "it is empty")
			}
			return nil
		case errors.As(err, &bad):
			s.bad(bad.Off, bad.Cause)
		case err != nil:
			return err
		case fr.Kind == frameRecord:
			s.record(fr)
		case fr.Kind == frameHeader && fr.Off == 0:
			h, err := decodeSegmentHead(fr.Payload)
			if err != nil || h.First != s.first {
				s.bad(0, "header is of another segment")
			}
		case fr.Kind == frameEnd && binary.BigEndian.Uint64(fr.Payload) == s.next-1:
			s.ended = s.torn == nil
		default:
			s.bad(fr.Off, "frame out of place")
		}
	}
}

func (s *segmentCheck) wrong(kind, text string, args ...any) {
	s.damaged = true
	s.r.wrong(kind, text, args...)
}

// bad is told of a place without a usable frame.
func (s *segmentCheck) bad(off int64, cause string) {
	switch {
	case s.torn != nil:
	case s.next <= s.r.check.Size:
		s.wrong(ProblemAltered, "%s at byte %d, record %d: %s", segmentName(s.first), off, s.next, cause)
	default:
		s.torn = &tear{first: s.first, off: off, records: min(int(off), 1)} // a header is no record
	}
}

func (s *segmentCheck) record(fr frame) {
	seq, _, err := peek(fr.Payload)
	size := s.r.check.Size
	switch {
	case s.torn != nil:
		s.torn.records++
	case err != nil:
		s.bad(fr.Off, err.Error())
		if s.torn == nil {
			s.next++
		}
	case seq > size:
		if s.next <= size {
			s.wrong(ProblemRemoved, "%s: records %d to %d are missing", segmentName(s.first), s.next, size)
			s.next = size + 1
		}
		if seq != s.next {
			s.bad(fr.Off, fmt.Sprintf("record %d where %d belongs", seq, s.next))
			return
		}
		s.r.w.pending = s.r.w.hashed.add(tlog.RecordHash(fr.Payload), s.r.w.pending)
		s.r.opened.Recovered++
		s.next++
	default:
		if seq != s.next {
			s.wrong(ProblemAltered, "%s at byte %d: record %d where %d belongs", segmentName(s.first), fr.Off, seq, s.next)
		} else if leaf, err := s.r.hashes.at(0, int64(seq)-1); err != nil || leaf != tlog.RecordHash(fr.Payload) {
			s.wrong(ProblemAltered, "%s at byte %d: record %d differs from what was signed", segmentName(s.first), fr.Off, seq)
		}
		s.next = max(s.next, seq+1)
	}
}

// cutTear keeps the bytes of a tear in a file of their own and cuts them off. A
// segment without a single whole frame is removed.
func (r *recovery) cutTear(t tear) error {
	name := filepath.Join(r.dir, segmentName(t.first))
	f, err := regular.Open(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	r.opened.TornBytes += st.Size() - t.off
	r.opened.TornRecords += t.records
	// On a full disk the copy fails; the cut makes room and the count stays.
	r.opened.TornFile, err = r.keep(f, t.off, segmentName(t.first))
	if err != nil {
		r.o.Logger.Error("torn bytes are cut off without a copy", "err", err)
	}
	if t.off == 0 {
		r.w.segments--
		return errors.Join(os.Remove(name), syncDir(r.dir))
	}
	return errors.Join(f.Truncate(t.off), f.Sync())
}

// take opens the segment to append to, if any, and signs what was recovered.
func (r *recovery) take(open int) error {
	w := r.w
	for _, a := range []*appendFile{w.check, w.history, w.chain} {
		if err := cutNotes(a); err != nil {
			return err
		}
	}
	if len(r.opened.Tampered) == 0 { // an expiry that a crash interrupted
		if _, _, err := removeBelow(r.dir, w.first); err != nil {
			return err
		}
	}
	segs, err := listSegments(r.dir)
	if err != nil {
		return err
	}
	w.segments = len(segs)
	for _, first := range segs {
		st, err := os.Stat(filepath.Join(r.dir, segmentName(first)))
		if err != nil {
			return err
		}
		w.bytes += st.Size()
	}
	if open >= 0 {
		if w.seg, err = w.openAppend(segmentName(r.segs[open])); err != nil {
			return err
		}
		w.bytes -= w.seg.size
		if err := fdatasync(w.seg.f); err != nil {
			return err
		}
	}
	w.written, w.recovered = uint64(w.hashed.size), r.opened.Recovered
	if w.recovered == 0 && len(r.opened.Tampered) == 0 {
		return nil
	}
	// A daemon must start on a full disk as well: these few bytes may take the reserve.
	for {
		if err = w.writeHashes(); err == nil {
			err = w.seal(true)
		}
		if !errors.Is(err, unix.ENOSPC) || !w.reserve.release() {
			return err
		}
	}
}
