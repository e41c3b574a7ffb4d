package journal

import (
	"cmp"
	"fmt"
	"slices"
)

// these names a run of records.
func these(from, to uint64) string {
	if from == to {
		return fmt.Sprintf("record %d", from)
	}
	return fmt.Sprintf("records %d to %d", from, to)
}

// report joins what was found out of place with what is missing in its own, and tells both.
func (w *recordWalk) report() {
	var moved, twice []stray
	for _, s := range w.strays {
		if w.fillGap(s.seq) {
			moved = append(moved, s)
		} else {
			twice = append(twice, s)
		}
	}
	w.v.sum.Moved += uint64(len(moved))
	w.v.sum.Duplicated += uint64(len(twice))
	w.reportMoved(moved)
	for _, run := range runs(twice) {
		w.v.add(Problem{Kind: ProblemDuplicated, From: run[0].seq, To: run[len(run)-1].seq, Records: uint64(len(run)), File: segmentName(run[0].segment), Offset: run[0].off,
			Text: fmt.Sprintf("%s there a second time, before record %d", these(run[0].seq, run[len(run)-1].seq), run[0].before)})
	}
	for _, g := range w.gaps {
		n := g.to - g.from + 1
		w.v.sum.Missing += n
		p := Problem{Kind: g.kind, From: g.from, To: g.to, Records: n, File: segmentName(g.segment), Offset: g.off}
		switch g.kind {
		case ProblemTruncated:
			p.Text = fmt.Sprintf("%s missing: %s is truncated", these(g.from, g.to), segmentName(g.segment))
		case ProblemSegment:
			p.Text = fmt.Sprintf("%s missing: segment %s is gone", these(g.from, g.to), segmentName(g.segment))
		default:
			p.Text = fmt.Sprintf("%s removed", these(g.from, g.to))
		}
		w.v.add(p)
	}
	for _, s := range w.ends {
		w.reportEnd(s)
	}
}

// reportEnd tells of a segment's end if nothing else was told of that segment.
func (w *recordWalk) reportEnd(s span) {
	name := segmentName(s.segment)
	for _, p := range w.v.problems {
		if p.File == name {
			return
		}
	}
	w.v.add(Problem{Kind: s.kind, From: s.from, File: name, Offset: s.off, Text: name + " " + s.text})
}

// fillGap takes seq out of the gaps; false if it is in none.
func (w *recordWalk) fillGap(seq uint64) bool {
	i, ok := slices.BinarySearchFunc(w.gaps, seq, func(g span, s uint64) int {
		switch {
		case g.to < s:
			return -1
		case g.from > s:
			return 1
		}
		return 0
	})
	if !ok {
		return false
	}
	g := w.gaps[i]
	left, right := g, g
	left.to, right.from = seq-1, seq+1
	var rest []span
	for _, s := range []span{left, right} {
		if s.from <= s.to {
			rest = append(rest, s)
		}
	}
	w.gaps = slices.Replace(w.gaps, i, i+1, rest...)
	return true
}

// reportMoved tells swapped pairs from records that stand elsewhere.
func (w *recordWalk) reportMoved(moved []stray) {
	byPlace := map[uint64]stray{} // by the record in whose place it stands
	for _, m := range moved {
		byPlace[m.before] = m
	}
	told := map[uint64]bool{}
	var rest []stray
	for _, m := range moved {
		o, both := byPlace[m.seq]
		both = both && o.seq == m.before
		if !both && m.before+1 != m.seq { // neighbours: only one of the two stands out
			rest = append(rest, m)
			continue
		}
		a, b := min(m.seq, m.before), max(m.seq, m.before)
		if told[a] {
			continue
		}
		told[a] = true
		if !both {
			w.v.sum.Moved++
			w.v.sum.Matched--
		}
		w.v.add(Problem{Kind: ProblemSwapped, From: a, To: b, Records: 2, File: segmentName(m.segment), Offset: m.off,
			Text: fmt.Sprintf("records %d and %d are swapped", a, b)})
	}
	for _, run := range runs(rest) {
		w.v.add(Problem{Kind: ProblemMoved, From: run[0].seq, To: run[len(run)-1].seq, Records: uint64(len(run)), File: segmentName(run[0].segment), Offset: run[0].off,
			Text: fmt.Sprintf("%s moved to before record %d", these(run[0].seq, run[len(run)-1].seq), run[0].before)})
	}
}

// runs groups strays with consecutive numbers.
func runs(s []stray) [][]stray {
	s = slices.Clone(s)
	slices.SortStableFunc(s, func(a, b stray) int { return cmp.Compare(a.seq, b.seq) })
	var out [][]stray
	for i, x := range s {
		if i > 0 && x.seq == s[i-1].seq+1 {
			out[len(out)-1] = append(out[len(out)-1], x)
		} else {
			out = append(out, []stray{x})
		}
	}
	return out
}
