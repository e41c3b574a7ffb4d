package journal

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// Summary counts what Verify saw.
type Summary struct {
	Origin       string     `json:"origin"`
	Size         uint64     `json:"size"`  // records that the newest checkpoint covers
	First        uint64     `json:"first"` // records below it have expired, as the newest checkpoint says
	Root         string     `json:"root"`
	Time         event.Time `json:"time"` // of the newest checkpoint
	Key          string     `json:"key"`  // name and hash of the verifier's key
	Keys         int        `json:"keys"` // that it vouches for, one after another
	Segments     int        `json:"segments"`
	Checkpoints  int        `json:"checkpoints"` // with a good signature
	Records      uint64     `json:"records"`     // whole records read
	Matched      uint64     `json:"matched"`     // in their place and as signed
	Missing      uint64     `json:"missing"`
	Extra        uint64     `json:"extra"` // never signed
	Altered      uint64     `json:"altered"`
	Duplicated   uint64     `json:"duplicated"`
	Moved        uint64     `json:"moved"` // as signed, in another place; a swap counts two
	Unsealed     uint64     `json:"unsealed"`
	UnsealedAge  string     `json:"unsealed_age,omitempty"` // of the oldest unsealed record
	UnsealedTorn int64      `json:"unsealed_torn"`          // bytes of a record that was being written
	Recovered    uint64     `json:"recovered"`              // records that an open found unsealed and signed
	LossDeclared uint64     `json:"loss_declared"`          // events that gap records name as lost
	Writer       bool       `json:"writer"`                 // a process is writing the log
	Problems     int        `json:"problems"`
}

// OK reports whether nothing is wrong.
func (s Summary) OK() bool { return s.Problems == 0 }

// Verify reads the whole journal in dir and calls report for each thing that is
// wrong, ordered by record. pub is the verifier's key as text; "" takes
// ../keys/journal.pub, which proves less, because who can replace the log can replace that too.
// known are signed checkpoints that were kept elsewhere: the log must contain what they
// name, so that a log that was put back to an older state shows.
//
// It works beside the writer: records that are signed while it reads are
// counted as unsealed. The error says that the verification could not be done.
func Verify(ctx context.Context, dir, pub string, report func(Problem), known ...[]byte) (Summary, error) {
	v := &verification{dir: dir}
	err := v.run(ctx, pub, known)
	for try := 0; try < 3 && v.overtaken() && ctx.Err() == nil; try++ {
		v = &verification{dir: dir}
		err = v.run(ctx, pub, known)
	}
	if errors.Is(err, ErrTampered) { // not a file that can be read on
		v.add(Problem{Kind: ProblemUnreadable, Text: err.Error()})
		err = nil
	}
	if err != nil {
		return v.sum, fmt.Errorf("verify journal %s: %w", dir, err)
	}
	v.sum.Problems = len(v.problems) + v.unnamed
	if v.unnamed > 0 {
		v.problems = append(v.problems, Problem{Kind: ProblemUnreadable, From: v.newest.Size, Text: fmt.Sprintf("%d more problems are not named", v.unnamed)})
	}
	slices.SortStableFunc(v.problems, func(a, b Problem) int { return cmp.Compare(a.From, b.From) })
	for _, p := range v.problems {
		if report != nil {
			report(p)
		}
	}
	return v.sum, nil
}

// overtaken reports whether the writer has let records expire that were still to be read.
func (v *verification) overtaken() bool {
	if !v.sum.Writer {
		return false
	}
	first, _, err := sealed(v.dir)
	return err == nil && first > v.newest.First
}

type verification struct {
	dir      string
	sum      Summary
	problems []Problem

	chain   *keychain
	own     int          // keys that the chain beside the log has
	newest  Checkpoint   // what the log is held against
	roots   []Checkpoint // all sizes with a known root up to newest, ascending
	unnamed int          // problems behind the first problemsMost
	told    bool         // a signed record tells what has expired as newest says
	segs    []uint64
}

// What is named one by one, so that a log in pieces is judged in bounded memory and time: problems, edited hashes
// (each is looked for in its segment), and records out of order.
const (
	problemsMost = 1 << 16
	editsMost    = 1 << 8
	outMost      = 1 << 15
)

func (v *verification) add(p Problem) {
	if len(v.problems) < problemsMost {
		v.problems = append(v.problems, p)
	} else {
		v.unnamed++
	}
}

func (v *verification) run(ctx context.Context, pub string, known [][]byte) error {
	var err error
	if pub == "" {
		if pub, err = readPub(filepath.Join(v.dir, "..", "keys")); err == nil && pub == "" {
			err = fs.ErrNotExist
		}
		if err != nil {
			return fmt.Errorf("no verifier's key: %w", err)
		}
	}
	if v.chain, err = newChain(pub); err != nil {
		return err
	}
	first := v.chain.links[0].verifier
	v.sum.Key = fmt.Sprintf("%s+%08x", first.Name(), first.KeyHash())
	if v.sum.Writer, err = beingWritten(v.dir); err != nil {
		return err
	}
	if err := v.keys(known); err != nil {
		return err
	}
	if err := v.checkpoints(known); err != nil {
		return err
	}
	if v.segs, err = listSegments(v.dir); err != nil {
		return err
	}
	v.segs = kept(v.segs, v.newest.First)
	v.sum.Segments, v.sum.First = len(v.segs), v.newest.First
	h, err := v.hashes(ctx)
	if err != nil {
		return err
	}
	err = v.records(ctx, h)
	if err := errors.Join(err, h.close()); err != nil {
		return err
	}
	return v.tail(ctx)
}

// beingWritten reports whether a process holds the writer's lock.
func beingWritten(dir string) (bool, error) {
	f, err := openRegular(dir, lockName)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// checkpoints reads both checkpoint files and the known ones, and sets what the log is held against.
func (v *verification) checkpoints(known [][]byte) error {
	recent, unproven, err := v.noteFile(checkpointName)
	if err != nil {
		return err
	}
	history, _, err := v.noteFile(historyName)
	if err != nil {
		return err
	}
	all := append(slices.Clone(history), recent...)
	v.sum.Checkpoints = len(all)
	for _, c := range history {
		v.sum.Recovered += c.Recovered
	}
	switch {
	case len(recent) > 0:
		v.newest = recent[len(recent)-1]
	case len(history) > 0:
		v.newest = history[len(history)-1]
		v.add(Problem{Kind: ProblemCheckpoint, File: checkpointName, Text: "the newest checkpoint is missing or not signed by this key; the history's last one is used"})
	case unproven != nil:
		v.newest = *unproven // nothing is proven, which is reported already; the rest is held against it all the same
	default:
		v.newest = Checkpoint{First: 1, Root: (&tree{}).root()}
		v.add(Problem{Kind: ProblemCheckpoint, File: checkpointName, Text: "there is no checkpoint: this is not a journal, or the proof of it was removed"})
	}
	if n := len(history); n > 0 && history[n-1].Size > v.newest.Size { // sizes never fall in what noteFile accepts
		c := history[n-1]
		v.add(Problem{Kind: ProblemRollback, From: v.newest.Size + 1, To: c.Size, File: checkpointName,
			Text: fmt.Sprintf("the newest checkpoint has size %d, the history has one of size %d from %s", v.newest.Size, c.Size, c.Time)})
		v.newest = c
	}
	for i, l := range v.chain.links[1:] {
		if l.since.Size <= v.newest.Size {
			all = append(all, l.since)
			if i+1 == v.own {
				v.add(Problem{Kind: ProblemKey, From: l.since.Size + 1, File: chainName, Text: fmt.Sprintf("%s lacks the key that signs since size %d, %s", chainName, l.since.Size, l.since.Time)})
			}
		}
	}
	if c := v.chain.last().since; c.Size > v.newest.Size {
		v.add(Problem{Kind: ProblemRollback, From: v.newest.Size + 1, To: c.Size, File: checkpointName,
			Text: fmt.Sprintf("the log was cut back: a key was changed at size %d, %s, the log ends at %d", c.Size, c.Time, v.newest.Size)})
	}
	for _, b := range known {
		c, by, err := v.chain.open(b)
		switch {
		case err != nil:
			v.add(Problem{Kind: kindOf(err), Text: fmt.Sprintf("the given checkpoint: %v", err)})
		case c.Next != "" && !v.chain.leads(c, by):
			v.add(Problem{Kind: ProblemKey, From: c.Size + 1, Text: fmt.Sprintf("the given change of key: key %d of the chain named another successor at size %d, %s", by+1, c.Size, c.Time)})
		case c.Next != "" && c.Size > v.newest.Size: // told with the chain
		case c.Size > v.newest.Size:
			v.add(Problem{Kind: ProblemRollback, From: v.newest.Size + 1, To: c.Size,
				Text: fmt.Sprintf("the log was cut back: a checkpoint of size %d from %s is known, the log ends at %d", c.Size, c.Time, v.newest.Size)})
		default:
			all = append(all, c)
		}
	}
	v.arrange(all)
	v.sum.Origin, v.sum.Size, v.sum.Root, v.sum.Time = v.newest.Origin, v.newest.Size, v.newest.Root.String(), v.newest.Time
	return nil
}

// arrange sorts the checkpoints by size and finds two that contradict each other.
func (v *verification) arrange(all []Checkpoint) {
	all = append(all, v.newest)
	slices.SortStableFunc(all, func(a, b Checkpoint) int { return cmp.Compare(a.Size, b.Size) })
	for _, c := range all {
		if n := len(v.roots); n > 0 && v.roots[n-1].Size == c.Size {
			if v.roots[n-1].Root != c.Root {
				v.add(Problem{Kind: ProblemCheckpoint, To: c.Size,
					Text: fmt.Sprintf("two different logs were signed at size %d, at %s and %s", c.Size, v.roots[n-1].Time, c.Time)})
			}
			continue
		}
		v.roots = append(v.roots, c)
	}
}

func kindOf(err error) string {
	var other *note.UnverifiedNoteError
	if errors.As(err, &other) || errors.Is(err, errOutOfTurn) {
		return ProblemKey
	}
	return ProblemCheckpoint
}

// keys follows the chain of keys from the one that is trusted. A handover that was kept elsewhere
// leads on where the chain was cut.
func (v *verification) keys(known [][]byte) error {
	notes, torn, err := chainNotes(v.dir)
	if err != nil {
		return err
	}
	if len(notes) == 0 {
		v.add(Problem{Kind: ProblemKey, File: chainName, Text: "the chain of keys is missing"})
	}
	if torn && !v.sum.Writer {
		v.add(Problem{Kind: ProblemUnsealed, File: chainName, Text: chainName + " ends inside a note"})
	}
	strange := v.chain.extend(notes)
	for i, n := range notes {
		if why := strange[i]; why != nil {
			off := bytes.Index(bytes.Join(notes, []byte("\n")), n)
			v.add(Problem{Kind: ProblemKey, File: chainName, Offset: int64(off),
				Text: fmt.Sprintf("%s: %d of %d notes are not good, the first is number %d: %v", chainName, len(strange), len(notes), i+1, why)})
			break
		}
	}
	var handed [][]byte
	for _, b := range known {
		if c, err := unsigned(b); err == nil && c.Next != "" {
			handed = append(handed, b)
		}
	}
	v.own = len(v.chain.links)
	v.chain.extend(handed) // what is wrong with one is told of it as of any checkpoint
	v.sum.Keys = len(v.chain.links)
	return nil
}

// noteFile reads a file of checkpoints and reports the bad ones. unproven is the last that can be
// parsed, whatever its signature.
func (v *verification) noteFile(name string) (good []Checkpoint, unproven *Checkpoint, err error) {
	f, err := openRegular(v.dir, name)
	missing := func() {
		if name == historyName {
			v.add(Problem{Kind: ProblemCheckpoint, File: name, Text: "the history of checkpoints is missing"})
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		missing()
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	all, wrong, where, what := 0, 0, 0, Problem{}
	off := int64(0)
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, noteMost)
	sc.Split(splitNote)
	for ; sc.Scan(); off += int64(len(sc.Bytes())) + 1 {
		n := sc.Bytes()
		all++
		if c, err := unsigned(n); err == nil {
			unproven = &c
		}
		c, _, err := v.chain.open(n)
		if err == nil && len(good) > 0 && c.Size < good[len(good)-1].Size {
			err = fmt.Errorf("size %d behind size %d", c.Size, good[len(good)-1].Size)
		}
		if err == nil {
			good = append(good, c)
		} else if wrong++; wrong == 1 {
			where, what = all, Problem{Kind: kindOf(err), File: name, Offset: off, Text: err.Error()}
		}
	}
	st, err := f.Stat()
	switch {
	case errors.Is(sc.Err(), bufio.ErrTooLong):
		v.add(Problem{Kind: ProblemCheckpoint, File: name, Offset: off, Text: fmt.Sprintf("%s: what comes from byte %d on is no checkpoint and was not read", name, off)})
	case errors.Join(sc.Err(), err) != nil:
		return nil, nil, errors.Join(sc.Err(), err)
	case all == 0:
		missing()
	case off < st.Size() && !v.sum.Writer:
		v.add(Problem{Kind: ProblemUnsealed, File: name, Offset: off, Text: fmt.Sprintf("%s ends inside a checkpoint", name)})
	}
	if wrong > 0 {
		what.Text = fmt.Sprintf("%s: %d of %d checkpoints are not good, the first is number %d: %s", name, wrong, all, where, what.Text)
		v.add(what)
	}
	return good, unproven, nil
}

// tail judges what no checkpoint covers: beside a writer it must be signed soon, without one it is unproven.
func (v *verification) tail(ctx context.Context) error {
	s := &v.sum
	if s.Unsealed == 0 && s.UnsealedTorn == 0 {
		return nil
	}
	last := v.newest.Size + s.Unsealed
	for try := 0; s.Writer && try < 60; try++ {
		_, n, err := sealed(v.dir)
		if err != nil {
			return err
		}
		if n >= last {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p := Problem{Kind: ProblemUnsealed, From: v.newest.Size + 1, To: last, Records: s.Unsealed,
		Text: fmt.Sprintf("%d records and %d bytes behind record %d are covered by no checkpoint, and nobody writes the log", s.Unsealed, s.UnsealedTorn, v.newest.Size)}
	if s.Writer {
		p.Text = fmt.Sprintf("%d records behind record %d are not signed by the running writer", s.Unsealed, v.newest.Size)
	}
	v.add(p)
	return nil
}
