package journal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/mod/sumdb/tlog"
)

// hashWalk checks the hash file against itself and the checkpoints, reading it
// once. A node whose stored hash differs from the one computed of its children is
// not trusted before its parent, or a signed root, tells which of the two is right. One edited hash
// is so found in its place, and all hashes that a signed root confirms are the truth that
// records are held against.
type hashWalk struct {
	v       *verification
	f       *os.File // nil: there is no hash file
	stored  int64    // leaves in the file, at most the newest size
	n       int64    // leaves taken in so far
	edge    [63]node
	roots   []Checkpoint // not reached yet
	good    uint64       // size of the newest checkpoint that matched
	differ  *Checkpoint  // the first that did not
	differs int
	edits   int                  // hashes found edited
	last    uint64               // record below the last of them that was not named
	truth   map[uint64]tlog.Hash // leaves by record that the file has wrong
}

type node struct {
	h, alt tlog.Hash // stored, computed
	bad    bool      // they differ and it is not known which is right
	at     int64     // number on its level
}

func (v *verification) hashes(ctx context.Context) (*hashWalk, error) {
	w := &hashWalk{v: v, roots: v.roots, truth: map[uint64]tlog.Hash{}}
	f, err := openRegular(v.dir, hashesName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	size := int64(v.newest.Size)
	if err == nil {
		w.f = f
		st, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		w.stored = min(hashesIn(st.Size()), size)
	}
	if w.stored < size {
		v.add(Problem{Kind: ProblemHashes, From: uint64(w.stored) + 1, To: v.newest.Size, File: hashesName,
			Text: fmt.Sprintf("the hash file ends at record %d of %d; the records behind it can only be checked together", w.stored, size)})
	}
	if err := w.walk(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", hashesName, err), w.close())
	}
	return w, nil
}

func (w *hashWalk) close() error {
	if w.f == nil {
		return nil
	}
	return w.f.Close()
}

func (w *hashWalk) walk(ctx context.Context) error {
	w.reached()
	if w.f == nil {
		return nil
	}
	in := bufio.NewReaderSize(io.NewSectionReader(w.f, 0, 1<<62), 1<<20)
	for w.n < w.stored {
		if w.n&0xffff == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		var h tlog.Hash
		if _, err := io.ReadFull(in, h[:]); err != nil {
			return err
		}
		x := node{h: h, at: w.n}
		level := 0
		for n := w.n; n&1 == 1; n >>= 1 {
			if _, err := io.ReadFull(in, h[:]); err != nil {
				return err
			}
			x = w.parent(level, w.edge[level], x, h)
			level++
		}
		w.edge[level] = x
		w.n++
		w.reached()
	}
	return nil
}

// leaf continues the tree with a record where the file has ended.
func (w *hashWalk) leaf(h tlog.Hash) {
	x := node{h: h, at: w.n}
	level := 0
	for n := w.n; n&1 == 1; n >>= 1 {
		x = node{h: tlog.NodeHash(w.edge[level].h, x.h), at: x.at / 2}
		level++
	}
	w.edge[level] = x
	w.n++
	w.reached()
}

// parent judges two nodes of a level by the stored hash of their parent.
func (w *hashWalk) parent(level int, l, r node, stored tlog.Hash) node {
	for _, try := range []struct{ l, r bool }{{}, {l: true}, {r: true}, {l: true, r: true}} {
		if try.l && !l.bad || try.r && !r.bad {
			continue
		}
		lh, rh := l.h, r.h
		if try.l {
			lh = l.alt
		}
		if try.r {
			rh = r.alt
		}
		if tlog.NodeHash(lh, rh) == stored {
			w.settle(level, l, try.l)
			w.settle(level, r, try.r)
			return node{h: stored, at: l.at / 2}
		}
	}
	return node{h: stored, alt: tlog.NodeHash(l.h, r.h), bad: true, at: l.at / 2}
}

// settle reports a node in doubt, now that it is known whether its stored hash was the wrong one.
func (w *hashWalk) settle(level int, x node, storedWrong bool) {
	if !x.bad {
		return
	}
	first := uint64(x.at)<<level + 1
	last := first + 1<<level - 1
	if w.edits++; w.edits > editsMost {
		w.last = last
		return
	}
	p := Problem{Kind: ProblemHashes, File: hashesName, From: first, To: last, Offset: tlog.StoredHashIndex(level, x.at) * tlog.HashSize}
	switch {
	case storedWrong:
		p.Text = fmt.Sprintf("the hash over records %d to %d was edited; the records' own hashes are right", first, last)
	case level == 1:
		w.pair(first)
		return
	default:
		p.Text = fmt.Sprintf("several hashes over records %d to %d were edited", first, last)
	}
	w.v.add(p)
}

// pair finds which of two leaf hashes is wrong, by the records themselves. The parent's hash is right.
func (w *hashWalk) pair(first uint64) {
	parent, err := w.at(1, int64(first-1)/2)
	l, lerr := w.at(0, int64(first)-1)
	r, rerr := w.at(0, int64(first))
	if err := errors.Join(err, lerr, rerr); err != nil {
		w.v.add(Problem{Kind: ProblemUnreadable, File: hashesName, From: first, To: first + 1, Text: err.Error()})
		return
	}
	if first+1 < w.v.newest.First {
		w.v.add(Problem{Kind: ProblemHashes, File: hashesName, From: first, To: first + 1, Offset: tlog.StoredHashIndex(0, int64(first)-1) * tlog.HashSize,
			Text: fmt.Sprintf("the hash of record %d or %d, which have expired, was edited", first, first+1)})
		return
	}
	rl, lok := w.v.leafOf(first)
	rr, rok := w.v.leafOf(first + 1)
	switch {
	case lok && tlog.NodeHash(rl, r) == parent:
		w.leafEdited(first, rl)
	case rok && tlog.NodeHash(l, rr) == parent:
		w.leafEdited(first+1, rr)
	case lok && rok && tlog.NodeHash(rl, rr) == parent:
		w.leafEdited(first, rl)
		w.leafEdited(first+1, rr)
	default:
		w.v.sum.Altered++
		w.v.add(Problem{Kind: ProblemAltered, From: first, To: first + 1, File: hashesName, Records: 1, Offset: tlog.StoredHashIndex(0, int64(first)-1) * tlog.HashSize,
			Text: fmt.Sprintf("record %d or %d and its hash were changed together", first, first+1)})
	}
}

func (w *hashWalk) leafEdited(seq uint64, right tlog.Hash) {
	w.truth[seq] = right
	w.v.add(Problem{Kind: ProblemHashes, File: hashesName, From: seq, To: seq, Offset: tlog.StoredHashIndex(0, int64(seq)-1) * tlog.HashSize,
		Text: fmt.Sprintf("the hash of record %d was edited; the record is as it was signed", seq)})
}

func (w *hashWalk) at(level int, n int64) (tlog.Hash, error) { return hashFile{w.f}.at(level, n) }

// want returns the leaf that record seq must have, false if that is not known.
func (w *hashWalk) want(seq uint64) (tlog.Hash, bool) {
	if h, ok := w.truth[seq]; ok {
		return h, true
	}
	if int64(seq) > w.stored {
		return tlog.Hash{}, false
	}
	h, err := w.at(0, int64(seq)-1)
	return h, err == nil
}

// reached compares the tree with the checkpoints of its size.
func (w *hashWalk) reached() {
	for len(w.roots) > 0 && w.roots[0].Size <= uint64(w.n) {
		c := w.roots[0]
		w.roots = w.roots[1:]
		if w.matches(c) {
			if w.differ == nil || w.edits > 0 {
				w.good = c.Size
			}
			// What came before is confirmed with it: a difference there was an edited hash, since found.
			if w.edits > 0 {
				w.differ, w.differs = nil, 0
			}
			continue
		}
		if w.differ == nil {
			w.differ = &c
		}
		w.differs++
	}
}

// matches tries the peaks of the tree as stored, then those in doubt as computed
// and a last single leaf as its record has it.
func (w *hashWalk) matches(c Checkpoint) bool {
	var doubt []int
	for level := 0; w.n>>level != 0; level++ {
		if w.n>>level&1 == 0 {
			continue
		}
		x := &w.edge[level]
		if level == 0 && int64(w.n) <= w.stored && !x.bad {
			if h, ok := w.v.leafOf(uint64(w.n)); ok && h != x.h && w.v.newest.Size == c.Size {
				x.alt = h
				doubt = append(doubt, level)
				continue
			}
		}
		if x.bad {
			doubt = append(doubt, level)
		}
	}
	for pick := range 1 << min(len(doubt), 6) {
		e := w.edge
		for i, level := range doubt {
			if pick>>i&1 == 1 {
				e[level].h = e[level].alt
			}
		}
		if foldPeaks(w.n, &e) != c.Root {
			continue
		}
		for i, level := range doubt {
			x, wrong := w.edge[level], pick>>i&1 == 1
			if level == 0 && wrong {
				w.edits++
				w.leafEdited(uint64(w.n), x.alt)
			}
			w.settle(level, x, wrong)
			w.edge[level] = node{h: e[level].h, at: x.at}
		}
		return true
	}
	return false
}

func foldPeaks(n int64, e *[63]node) tlog.Hash {
	t := tree{size: n}
	for level := range e {
		t.edge[level] = e[level].h
	}
	return t.root()
}

// finish reports what never came to match.
func (w *hashWalk) finish() {
	if w.edits > editsMost {
		w.v.add(Problem{Kind: ProblemHashes, File: hashesName, To: w.last,
			Text: fmt.Sprintf("%d more hashes over records up to %d were edited; what is called altered there may be as it was signed", w.edits-editsMost, w.last)})
	}
	if len(w.roots) > 0 && w.differ == nil {
		w.v.add(Problem{Kind: ProblemCheckpoint, From: uint64(w.n) + 1, To: w.v.newest.Size,
			Text: fmt.Sprintf("the root signed at size %d cannot be computed: hashes and records behind record %d are missing", w.roots[0].Size, w.n)})
	}
	if w.differ == nil {
		return
	}
	c := w.differ
	w.v.add(Problem{Kind: ProblemCheckpoint, From: w.good + 1, To: c.Size,
		Text: fmt.Sprintf("records %d to %d are not those signed at %s: size %d has another root (%d checkpoints do not match)", w.good+1, c.Size, c.Time, c.Size, w.differs)})
}

// leafOf computes the leaf of a record from the segments, for the few places in doubt.
func (v *verification) leafOf(seq uint64) (h tlog.Hash, ok bool) {
	for i := len(v.segs) - 1; i >= 0; i-- {
		if v.segs[i] > seq {
			continue
		}
		err := eachRecordIn(v.dir, v.segs[i], func(s uint64, b []byte) error {
			if s != seq {
				return nil
			}
			h, ok = tlog.RecordHash(b), true
			return errStop
		})
		return h, ok && errors.Is(err, errStop)
	}
	return h, false
}
