package journal

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Audit holds the records of a log, as somebody else keeps them, against what its keys signed. It has none of the
// log's own files: the records come in order through Record, the signed notes from wherever they were kept. It holds the tree's
// right edge and the notes, no record. One goroutine uses it.
type Audit struct {
	k      *keychain
	t      tree
	out    []byte       // what add gives
	marks  []Checkpoint // good ones that are not reached yet, by size
	end    Checkpoint   // the largest of them all
	broken bool         // nothing behind can be proven
	good   mark         // the last that agreed
	first  string
	report func(Problem)
	signed map[tlog.Hash][]byte // good notes by their digest
	sum    AuditSummary
}

// mark is a signed size and the tree that was found there.
type mark struct {
	c    Checkpoint
	note []byte
	by   int // key of the chain
	t    tree
}

// AuditSummary counts what an Audit saw.
type AuditSummary struct {
	Origin   string `json:"origin"`
	Key      string `json:"key"`         // the first key, name and hash
	From     uint64 `json:"from"`        // the first record that was looked at
	Records  uint64 `json:"records"`     // taken in
	Proven   uint64 `json:"proven"`      // all records up to this one are those that were signed
	Root     string `json:"root"`        // at Proven
	Signed   string `json:"signed"`      // when Proven was, RFC 3339
	Unsigned uint64 `json:"unsigned"`    // records behind the newest checkpoint
	Notes    int    `json:"checkpoints"` // that agreed
	Problems int    `json:"problems"`
}

// ErrNoKey says that nothing tells which key a log began with.
var ErrNoKey = errors.New("nothing says which key this log began with")

// NewAudit begins the audit of the log of hostID. key is its first verifier's key, "" takes the one that the notes say it
// began with (the first of them), or that of pin. pin is what an earlier audit kept, nil for none: then records up to its size are
// taken as proven, unless whole. notes are signed checkpoints and changes of key, from the log's host or from elsewhere, in any
// order. ErrNoKey if there is no key at all; any other error is about key or pin.
func NewAudit(hostID, key string, pin *Pin, whole bool, notes [][]byte, report func(Problem)) (*Audit, error) {
	name := origin(hostID)
	if key == "" && pin != nil {
		key = pin.First
	}
	for i := 0; key == "" && i < len(notes); i++ {
		key = beganWith(notes[i : i+1])
	}
	if key == "" {
		return nil, ErrNoKey
	}
	a := &Audit{first: strings.TrimSpace(key), report: report, signed: map[tlog.Hash][]byte{}}
	var err error
	if a.k, err = newChain(a.first); err != nil {
		return nil, err
	}
	first := a.k.links[0].verifier
	if first.Name() != name {
		return nil, fmt.Errorf("the key is of %s, not of %s", first.Name(), name)
	}
	a.sum = AuditSummary{Origin: name, Key: fmt.Sprintf("%s+%08x", name, first.KeyHash()), From: 1}
	if pin != nil {
		if err := a.pinned(pin, whole); err != nil {
			return nil, err
		}
	}
	a.take(notes, pin, whole)
	a.reached()
	return a, nil
}

// pinned goes on from pin.
func (a *Audit) pinned(pin *Pin, whole bool) error {
	if pin.First != a.first {
		return fmt.Errorf("what was kept began with another key (%s)", pin.First)
	}
	t, c, err := pin.check()
	if err == nil && c.Origin != a.sum.Origin {
		err = fmt.Errorf("%w: it is of %s", ErrPin, c.Origin)
	}
	if err != nil || whole {
		return err
	}
	k, err := newChain(pin.Key)
	if err != nil {
		return err
	}
	k.links[0].since = Checkpoint{Origin: a.sum.Origin, Size: pin.Since, First: 1}
	a.k, a.t = k, *t
	a.good = mark{c: c, note: []byte(pin.Note), t: *t}
	a.sum.From = c.Size + 1
	return nil
}

// take sorts the notes by what they are. Those below what is pinned were looked at before.
func (a *Audit) take(notes [][]byte, pin *Pin, whole bool) {
	var all, handed [][]byte
	for _, n := range notes {
		c, err := unsigned(n)
		if err == nil && a.good.note != nil && (c.Size < a.good.c.Size || c.Size == a.good.c.Size && c.Root == a.good.c.Root && c.Next == "") {
			continue
		}
		if all = append(all, n); err == nil && c.Next != "" {
			handed = append(handed, n)
		}
	}
	a.k.extend(handed) // what is wrong with one is told below
	if pin != nil && whole {
		all = append(all, []byte(pin.Note))
	}
	told := map[string]bool{}
	for _, n := range all {
		if told[string(n)] {
			continue
		}
		told[string(n)] = true
		c, by, err := a.k.open(n)
		var other *note.UnverifiedNoteError
		switch {
		case errors.As(err, &other) && a.good.note != nil && a.before(n):
			// an earlier key's word on what is pinned
		case err != nil:
			a.problem(Problem{Kind: kindOf(err), From: c.Size, Text: fmt.Sprintf("a checkpoint: %v", err)})
		case c.Next != "" && !a.k.leads(c, by):
			a.problem(Problem{Kind: ProblemKey, From: c.Size + 1, Text: fmt.Sprintf("key %d of the chain named two successors at size %d, %s", by+1, c.Size, c.Time)})
		default:
			a.marks = append(a.marks, c)
			a.signed[digestOf(c)] = n
			if c.Size >= a.end.Size {
				a.end = c
			}
		}
	}
	slices.SortStableFunc(a.marks, func(x, y Checkpoint) int { return cmp.Compare(x.Size, y.Size) })
}

// before reports whether a note is the change of key that made the pinned key, at the pinned size.
func (a *Audit) before(n []byte) bool {
	c, err := unsigned(n)
	return err == nil && c.Size == a.good.c.Size && c.Root == a.good.c.Root && c.Next == a.k.links[0].vkey
}

func digestOf(c Checkpoint) tlog.Hash { return tlog.RecordHash([]byte(c.text())) }

// Next is the number of the record that Record wants.
func (a *Audit) Next() uint64 { return uint64(a.t.size) + 1 }

// Broken reports that what follows cannot be proven any more: a record is not there, or a root was another.
func (a *Audit) Broken() bool { return a.broken }

// Record takes in the bytes of record Next.
func (a *Audit) Record(b []byte) {
	if a.broken {
		return
	}
	a.out = a.t.add(tlog.RecordHash(b), a.out[:0])
	a.sum.Records++
	a.reached()
}

// reached compares the checkpoints of the size that the tree has.
func (a *Audit) reached() {
	for ; len(a.marks) > 0 && a.marks[0].Size <= uint64(a.t.size); a.marks = a.marks[1:] {
		c := a.marks[0]
		if root := a.t.root(); root != c.Root {
			a.broken = true
			text := fmt.Sprintf("what is there is not what was signed at size %d, %s", c.Size, c.Time)
			if a.good.c.Size == c.Size && a.good.note != nil {
				text = fmt.Sprintf("two different logs were signed at size %d, at %s and %s", c.Size, a.good.c.Time, c.Time)
			}
			a.problem(Problem{Kind: ProblemCheckpoint, From: a.good.c.Size + 1, To: c.Size, Text: text})
			return
		}
		n := a.signed[digestOf(c)]
		_, by, _ := a.k.open(n) // it was opened before
		a.good = mark{c: c, note: n, by: by, t: a.t}
		a.sum.Notes++
	}
}

// Gone says that the records from Next to to are not there.
func (a *Audit) Gone(to uint64) {
	if !a.broken {
		a.broken = true
		a.problem(Problem{Kind: ProblemRemoved, From: a.Next(), To: to, Records: to - a.Next() + 1, Text: fmt.Sprintf("records %d to %d are not there; what follows cannot be proven", a.Next(), to)})
	}
}

// Lost says that the record before Next, which was proven by an earlier audit, is not there any more.
func (a *Audit) Lost() {
	a.broken = true
	a.problem(Problem{Kind: ProblemRollback, From: a.Next() - 1, To: a.Next() - 1, Text: fmt.Sprintf("record %d is not there any more: it was proven by an earlier verify", a.Next()-1)})
}

// End is told that there are no more records. It returns what was seen, and what to keep for the next audit: nil if nothing was proven
// beyond what was pinned, or a problem was found.
func (a *Audit) End() (AuditSummary, *Pin) {
	if n := uint64(a.t.size); !a.broken && a.end.Size > n {
		a.broken = true
		a.problem(Problem{Kind: ProblemRollback, From: n + 1, To: a.end.Size, Records: a.end.Size - n,
			Text: fmt.Sprintf("records %d to %d are not there: they were signed, %s", n+1, a.end.Size, a.end.Time)})
	}
	if a.good.note == nil || a.good.c.Size == 0 {
		if a.sum.Problems == 0 {
			a.problem(Problem{Kind: ProblemUnsealed, From: 1, To: uint64(a.t.size), Text: "no checkpoint says anything of these records"})
		}
		return a.sum, nil
	}
	s := &a.sum
	s.Proven, s.Root, s.Signed = a.good.c.Size, a.good.c.Root.String(), a.good.c.Time.String()
	if !a.broken {
		s.Unsigned = uint64(a.t.size) - s.Proven
	}
	if s.Problems > 0 {
		return *s, nil
	}
	l := a.k.links[a.good.by]
	return *s, &Pin{Origin: s.Origin, First: a.first, Key: l.vkey, Since: l.since.Size, Note: string(a.good.note), Edge: edgeOf(&a.good.t)}
}

func (a *Audit) problem(p Problem) {
	a.sum.Problems++
	if a.report != nil {
		a.report(p)
	}
}
