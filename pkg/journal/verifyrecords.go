package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast/holdfast/pkg/event"
)

// place is where something stands in the segments.
type place struct {
	segment uint64
	off     int64
}

// stray is a signed record that stands where record before belongs.
type stray struct {
	seq, before uint64
	place
	edge edge
}

// edge is what is known where a segment begins.
type edge struct {
	seg     uint64
	next    uint64 // number that belonged there
	prev    uint64 // segment before it, 0 if none
	prevEnd uint64 // number in prev's end frame, 0 if it has none
}

// span is a run of records with one fate.
type span struct {
	from, to uint64
	kind     string
	place
	text string
}

// recordWalk reads all records in the order of the files and explains each
// difference from the order in which they were signed: the number inside a record that
// matches its leaf is as good as a name. It looks one signed record ahead to tell
// a removed record (the numbers go on) from a displaced one (the place goes on).
type recordWalk struct {
	v    *verification
	h    *hashWalk
	size uint64
	next uint64 // number that belongs to the place read next

	ahead *stray // a signed record out of order, to be judged by the one behind it
	fakes int    // things that were never signed, in a row before ahead or next
	fake  span   // the first of them
	wide  bool   // they may hide any number of records

	strays []stray
	gaps   []span
	ends   []span // ends of segments that are not as they were written

	edge   edge       // of the segment in hand
	end    uint64     // number in its end frame, 0 if it has none
	oldest event.Time // unsealed record
}

func (v *verification) records(ctx context.Context, h *hashWalk) error {
	w := &recordWalk{v: v, h: h, size: v.newest.Size, next: v.newest.First}
	stopped := false
	for _, first := range v.segs {
		err := w.segment(ctx, first)
		if stopped = errors.Is(err, errStop); stopped {
			v.add(Problem{Kind: ProblemUnreadable, From: w.next, To: w.size, File: segmentName(first),
				Text: fmt.Sprintf("more than %d places are out of order: what follows record %d was not looked at", outMost, w.next-1)})
			break
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", segmentName(first), err)
		}
	}
	if !stopped {
		w.close()
	}
	w.report()
	if first := v.newest.First; first > 1 && !v.told && !stopped {
		v.add(Problem{Kind: ProblemRemoved, From: 1, To: first - 1, File: checkpointName,
			Text: fmt.Sprintf("a checkpoint says that %s expired, no record does", these(1, first-1))})
	}
	h.finish()
	if w.oldest != 0 {
		v.sum.UnsealedAge = time.Since(w.oldest.Go()).Round(time.Millisecond).String()
	}
	return nil
}

func (w *recordWalk) segment(ctx context.Context, first uint64) error {
	f, err := openRegular(w.v.dir, segmentName(first))
	if err != nil {
		return err
	}
	defer f.Close()
	if w.edge.seg != 0 && w.end == 0 {
		w.ends = append(w.ends, span{from: w.next, kind: ProblemTruncated, place: place{segment: w.edge.seg}, text: "has lost its end; no record is missing"})
	}
	w.edge, w.end = edge{seg: first, next: w.next, prev: w.edge.seg, prevEnd: w.end}, 0
	header := false
	for sc := (&scanner{f: f}); ; {
		fr, err := sc.next()
		at := place{segment: first, off: fr.Off}
		var bad *badFrame
		switch {
		case errors.Is(err, io.EOF):
			if !header {
				w.ends = append(w.ends, span{from: first, kind: ProblemAltered, place: place{segment: first}, text: "has no header"})
			}
			return ctx.Err()
		case errors.As(err, &bad):
			w.unreadable(bad)
			continue
		case err != nil:
			return err
		case fr.Kind == frameRecord:
			w.record(fr, at)
		case fr.Kind == frameEnd && w.end != 0:
			w.ends = append(w.ends, span{from: w.next, kind: ProblemInserted, place: at, text: "has a second end"})
		case fr.Kind == frameEnd:
			is := w.next - 1
			if w.next > w.size {
				is = w.last()
			}
			if says := binary.BigEndian.Uint64(fr.Payload); w.ahead == nil && w.fakes == 0 && says != is {
				w.ends = append(w.ends, span{from: w.next, kind: ProblemAltered, place: at, text: fmt.Sprintf("ends with record %d, its end says %d", is, says)})
			}
			w.end = binary.BigEndian.Uint64(fr.Payload)
		case fr.Kind == frameHeader && !header:
			header = true
			if fr.Off != 0 || !w.v.heads(fr.Payload, first) {
				w.v.add(Problem{Kind: ProblemAltered, From: first, File: segmentName(first), Offset: fr.Off, Text: segmentName(first) + " has the header of another segment"})
			}
		default:
			w.v.add(Problem{Kind: ProblemInserted, From: w.next, File: segmentName(first), Offset: fr.Off, Text: "a second header in " + segmentName(first)})
		}
		if len(w.strays)+len(w.gaps) > outMost {
			return errStop
		}
		if w.v.sum.Records&0xfff == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// heads reports whether b is the header, byte by byte, of this log's segment that begins with first.
func (v *verification) heads(b []byte, first uint64) bool {
	h, err := decodeSegmentHead(b)
	if err != nil || v.newest.Origin != "" && origin(h.HostID) != v.newest.Origin {
		return false
	}
	want, err := modes().enc.Marshal(segmentHead{Version: 1, HostID: h.HostID, First: first})
	return err == nil && bytes.Equal(b, want)
}

// unreadable is told of bytes that are no frame.
func (w *recordWalk) unreadable(bad *badFrame) {
	switch {
	case bad.Off == 0:
		// The header: that there is none is told at the end of the segment.
	case w.next > w.size && w.fakes == 0 && w.ahead == nil:
		w.v.sum.UnsealedTorn += bad.Next - bad.Off
	case bad.Torn:
		// The end of the segment is gone. If records are, the gap that follows tells.
		w.ends = append(w.ends, span{from: w.next, kind: ProblemAltered, place: place{w.edge.seg, bad.Off}, text: "ends with bytes that are no record"})
	default:
		w.unsigned(span{kind: ProblemAltered, place: place{w.edge.seg, bad.Off}, text: bad.Cause})
		w.wide = w.wide || !bad.One
	}
}

// unsigned notes something in the place of a record that was never signed so.
func (w *recordWalk) unsigned(s span) {
	if w.fakes == 0 {
		w.fake = s
	}
	w.fakes++
}

func (w *recordWalk) record(fr frame, at place) {
	w.v.sum.Records++
	leaf := tlog.RecordHash(fr.Payload)
	seq, gap, err := peek(fr.Payload)
	if err != nil {
		w.unsigned(span{kind: ProblemAltered, place: at, text: err.Error()})
		return
	}
	if seq == 0 || seq > w.size {
		if seq > w.size && seq == w.last()+1 && (w.next > w.size || w.ahead != nil && w.ahead.seq == w.size) {
			w.unsealed(fr.Payload)
			return
		}
		w.unsigned(span{kind: ProblemAltered, place: at, text: fmt.Sprintf("it says that it is record %d", seq)})
		return
	}
	if want, ok := w.h.want(seq); ok && want != leaf {
		w.unsigned(span{kind: ProblemAltered, place: at, text: "it differs from what was signed"})
		return
	}
	if seq == uint64(w.h.n)+1 && seq > uint64(w.h.stored) {
		w.h.leaf(leaf)
	}
	if gap {
		if r, err := Decode(fr.Payload); err == nil && r.Gap != nil {
			w.v.sum.LossDeclared += r.Gap.Lost
		}
	}
	if first := w.v.newest.First; first > 1 && !w.v.told && bytes.Contains(fr.Payload, []byte("expired_to")) {
		r, err := Decode(fr.Payload)
		w.v.told = err == nil && r.Kind == event.RecAgent && r.Detail["expired_to"] == strconv.FormatUint(first-1, 10)
	}
	w.signed(stray{seq: seq, place: at})
}

// last is the number of the newest unsealed record, or of the last signed one.
func (w *recordWalk) last() uint64 { return w.size + w.v.sum.Unsealed }

func (w *recordWalk) unsealed(b []byte) {
	w.close()
	w.v.sum.Unsealed++
	if w.oldest != 0 {
		return
	}
	if r, err := Decode(b); err == nil {
		w.oldest = r.Time
	}
}

// signed takes the next record that is as it was signed.
func (w *recordWalk) signed(g stray) {
	if w.ahead != nil {
		a := *w.ahead
		w.ahead = nil
		switch {
		case g.seq == w.next: // it stood before the one that belongs here
			w.strays = append(w.strays, a)
		case g.seq == a.seq+1 && a.seq > w.next: // the numbers go on behind it
			w.jump(a)
			w.match()
		case g.seq == w.next+1: // the places go on: it replaced one
			w.strays = append(w.strays, a)
			w.gap(w.next, w.next, ProblemRemoved, a.place)
			w.next++
		case a.seq > w.next:
			w.jump(a)
			w.match()
		default:
			w.strays = append(w.strays, a)
		}
	}
	if w.fakes > 0 {
		w.judge(g.seq)
	}
	if g.seq == w.next {
		w.match()
		return
	}
	g.before, g.edge = w.next, w.edge
	w.ahead = &g
}

func (w *recordWalk) match() {
	w.v.sum.Matched++
	w.next++
}

// judge explains unsigned things by the signed record g behind them: in place of
// records that are not there, they are altered ones; else they were inserted.
func (w *recordWalk) judge(g uint64) {
	n, room := uint64(w.fakes), uint64(0)
	if g > w.next {
		room = g - w.next
	}
	altered := min(n, room)
	if w.wide && room > 0 {
		altered = room
	}
	if altered > 0 {
		s := w.fake
		s.from, s.to = w.next, w.next+altered-1
		w.v.sum.Altered += altered
		w.v.add(Problem{Kind: ProblemAltered, From: s.from, To: s.to, File: segmentName(s.segment), Offset: s.off, Records: altered,
			Text: fmt.Sprintf("%s altered: %s", these(s.from, s.to), s.text)})
		w.next += altered
	}
	if n > altered {
		w.v.sum.Extra += n - altered
		w.v.add(Problem{Kind: ProblemInserted, From: w.next, File: segmentName(w.fake.segment), Offset: w.fake.off, Records: n - altered,
			Text: fmt.Sprintf("%d never signed, inserted before record %d: %s", n-altered, w.next, w.fake.text)})
	}
	w.fakes, w.wide = 0, false
}

// jump notes that the records before a are not here, and goes on at a.
func (w *recordWalk) jump(a stray) {
	if w.fakes > 0 {
		w.judge(a.seq)
	}
	from := w.next
	if e := a.edge; from == e.next && from < e.seg {
		to := min(a.seq, e.seg) - 1
		w.boundary(e.prev, e.prevEnd, from, to)
		from = to + 1
	}
	if from < a.seq {
		w.gap(from, a.seq-1, ProblemRemoved, a.place)
	}
	w.next = max(w.next, a.seq)
}

// boundary notes records that are missing behind segment prev, whose end frame tells end.
func (w *recordWalk) boundary(prev, end, from, to uint64) {
	switch {
	case prev == 0:
		w.gap(from, to, ProblemSegment, place{segment: from})
		return
	case end == 0:
		w.gap(from, to, ProblemTruncated, place{segment: prev})
		return
	case end >= from:
		w.gap(from, min(end, to), ProblemRemoved, place{segment: prev})
		from = end + 1
	}
	if from <= to {
		w.gap(from, to, ProblemSegment, place{segment: from})
	}
}

func (w *recordWalk) gap(from, to uint64, kind string, at place) {
	if from <= to {
		w.gaps = append(w.gaps, span{from: from, to: to, kind: kind, place: at})
	}
}

// close judges what is left at the signed end.
func (w *recordWalk) close() {
	if w.ahead != nil {
		a := *w.ahead
		w.ahead = nil
		if a.seq > w.next {
			w.jump(a)
			w.match()
		} else {
			w.strays = append(w.strays, a)
		}
	}
	if w.fakes > 0 {
		w.wide = false // what is missing behind them is a gap of its own
		w.judge(w.size + 1)
	}
	if w.next <= w.size {
		w.boundary(w.edge.seg, w.end, w.next, w.size)
		w.next = w.size + 1
	}
}
