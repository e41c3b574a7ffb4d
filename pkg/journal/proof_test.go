package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// audit is PATH(m, D[n]) of RFC 6962 section 2.1.1, written down as it stands there.
func audit(m int, d [][]byte) [][32]byte {
	if len(d) <= 1 {
		return nil
	}
	k := 1
	for k*2 < len(d) {
		k *= 2
	}
	if m < k {
		return append(audit(m, d[:k]), merkle(d[k:]))
	}
	return append(audit(m-k, d[k:]), merkle(d[:k]))
}

// turning is a log whose key changes at every commit.
func turning(t testing.TB, n int) *log {
	l := newLog(t)
	l.o.SegmentBytes, l.o.KeyEvery = 1, time.Nanosecond
	l.fill(n)
	return l
}

// reload sends a proof through its text, as its readers get it.
func reload(t *testing.T, p *Proof) *Proof {
	t.Helper()
	b, err := json.MarshalIndent(p, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	out := new(Proof)
	if err := json.Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEachRecordIsProvenByThePathThatRFC6962Gives(t *testing.T) {
	l := turning(t, 25)
	entries := l.read()
	var leaves [][]byte
	for _, e := range entries {
		leaves = append(leaves, e.Bytes)
	}
	for i, e := range entries {
		p, err := Prove(context.Background(), l.dir, e.Seq, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := audit(i, leaves)
		if !slices.EqualFunc(p.Path, want, func(a tlog.Hash, b [32]byte) bool { return a == tlog.Hash(b) }) {
			t.Fatalf("record %d: path %v, want %x", e.Seq, p.Path, want)
		}
		got, err := reload(t, p).Check(l.pub())
		if err != nil || got.Seq != e.Seq || got.Size != 25 || got.Root != tlog.Hash(merkle(leaves)).String() || got.Record.Path != sample(i+1).Path || got.Keys < 3 {
			t.Fatalf("record %d: %+v, %v", e.Seq, got, err)
		}
	}
	if _, err := Prove(context.Background(), l.dir, 26, nil); !errors.Is(err, ErrNoRecord) {
		t.Fatal(err)
	}
}

func TestAProofThatWasAlteredProvesNothing(t *testing.T) {
	l := turning(t, 25)
	other := turning(t, 25)
	make := func(l *log, seq uint64) *Proof {
		p, err := Prove(context.Background(), l.dir, seq, nil)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, c := range []struct {
		name  string
		alter func(p *Proof)
	}{
		{"another number", func(p *Proof) { p.Seq = 8 }},
		{"a number behind the signed end", func(p *Proof) { p.Seq = 26 }},
		{"a changed byte of the record", func(p *Proof) { p.Bytes[40] ^= 1 }},
		{"the record of another number", func(p *Proof) { p.Bytes = make(l, 8).Bytes }},
		{"another text than the bytes say", func(p *Proof) { p.Record = bytes.Replace(p.Record, []byte("alice"), []byte("bob"), 1) }},
		{"a changed hash", func(p *Proof) { p.Path[2][3] ^= 1 }},
		{"a hash missing", func(p *Proof) { p.Path = p.Path[1:] }},
		{"another size", func(p *Proof) { p.Checkpoint = strings.Replace(p.Checkpoint, "\n25\n", "\n24\n", 1) }},
		{"another host's checkpoint", func(p *Proof) { p.Checkpoint = make(other, 7).Checkpoint }},
		{"another log from end to end", func(p *Proof) { *p = *make(other, 7) }},
		{"a key of the chain missing", func(p *Proof) { p.Keys = slices.Delete(p.Keys, 0, 1) }},
		{"the end of the chain missing", func(p *Proof) { p.Keys = p.Keys[:1] }},
		{"a key of another chain", func(p *Proof) { p.Keys[0] = make(other, 7).Keys[0] }},
		{"another format", func(p *Proof) { p.Format = "x" }},
	} {
		p := make(l, 7)
		c.alter(p)
		if got, err := reload(t, p).Check(l.pub()); !errors.Is(err, ErrUnproven) {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

func TestAnEarlierCheckpointIsProvenToBeTheBeginning(t *testing.T) {
	l := newLog(t)
	l.o.KeyEvery = time.Nanosecond
	var kept [][]byte
	for n := 0; n <= 40; n += 5 {
		l.fill(n)
		b, err := latestNote(l.dir, checkpointName)
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, b)
	}
	for i, b := range kept {
		p, err := ProveEarlier(l.dir, b)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := reload(t, p).Check(l.pub()); err != nil || got.Earlier != uint64(i*5) || got.Size != 40 {
			t.Fatalf("%d: %+v, %v", i, got, err)
		}
	}
	// The same numbers, another log: it is signed by nobody that the key vouches for.
	other := newLog(t)
	other.fill(20)
	b, err := latestNote(other.dir, checkpointName)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ProveEarlier(l.dir, b); !errors.Is(err, ErrUnproven) {
		t.Fatal(err)
	}
	// Whoever has the present key signs another log of an earlier size: an honest one does not go on from it.
	s, err := loadSigner(l.keys, keyName)
	if err != nil {
		t.Fatal(err)
	}
	c := Checkpoint{Origin: s.name, Size: 40, Root: tlog.Hash{1}, Time: 1_700_000_000_000_000_000}
	forged, err := note.Sign(&note.Note{Text: c.text()}, s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ProveEarlier(l.dir, forged); !errors.Is(err, ErrUnproven) {
		t.Fatal(err)
	}
}

// TestAProofOfALogThatWentAnotherWayShowsAgainstWhatWasKept: its signatures are good, made with a stolen key.
func TestAProofOfALogThatWentAnotherWayShowsAgainstWhatWasKept(t *testing.T) {
	ctx := context.Background()
	a, b := fork(t, 5, 20)
	pub := a.pub()
	early := newLog(t)
	copyDir(t, a.dir, early.dir)
	kept, err := latestNote(a.dir, checkpointName)
	must(t, err)
	hand, err := Handovers(a.dir)
	must(t, err)
	forged, err := Prove(ctx, b.dir, 12, nil)
	must(t, err)
	good, err := Prove(ctx, a.dir, 12, nil)
	must(t, err)
	for _, p := range []*Proof{forged, good} {
		if _, err := p.Check(pub); err != nil {
			t.Fatal(err) // without anything that was kept both are good
		}
	}
	if got, err := good.Check(pub, kept); err != nil || got.Kept != got.Size {
		t.Fatalf("%+v, %v", got, err)
	}
	if got, err := good.Check(pub, append(hand, kept)...); err != nil || got.Kept != got.Size {
		t.Fatalf("%+v, %v", got, err)
	}
	for what, known := range map[string][][]byte{"a checkpoint": {kept}, "changes of key": hand, "both": append(slices.Clone(hand), kept)} {
		if got, err := forged.Check(pub, known...); !errors.Is(err, ErrUnproven) {
			t.Errorf("against %s: %+v, %v", what, got, err)
		}
	}
	if p, err := Prove(ctx, b.dir, 12, kept); !errors.Is(err, ErrUnproven) {
		t.Errorf("the fork proves that it goes on from %v, %v", p, err)
	}
}

func TestAProofIsOfTheLogOfAnEarlierCheckpoint(t *testing.T) {
	ctx := context.Background()
	l := turning(t, 5)
	pub := l.pub()
	var notes [][]byte
	for _, name := range []string{historyName, checkpointName, chainName} {
		more, whole := splitNotes(l.readFile(name))
		if whole == 0 {
			t.Fatal(name)
		}
		notes = append(notes, more...)
	}
	end, err := Newest(l.dir)
	must(t, err)
	for _, kept := range notes {
		c, err := unsigned(kept)
		must(t, err)
		for seq := uint64(1); seq <= end; seq += 4 {
			p, err := Prove(ctx, l.dir, seq, kept)
			must(t, err)
			b, err := json.Marshal(p)
			must(t, err)
			q, err := ReadProof(b)
			must(t, err)
			got, err := q.Check(pub, kept)
			if c.Size == 0 && errors.Is(err, ErrUnproven) {
				if _, err := q.Check(pub); err != nil {
					t.Fatal(err)
				}
				continue // the empty log is the beginning of any
			}
			if err != nil || got.Kept != c.Size || got.Seq != seq {
				t.Fatalf("record %d, kept size %d: %+v, %v", seq, c.Size, got, err)
			}
			for i := range q.EarlierPath {
				bad := *q
				bad.EarlierPath = slices.Clone(q.EarlierPath)
				bad.EarlierPath[i][0] ^= 1
				if _, err := bad.Check(pub, kept); !errors.Is(err, ErrUnproven) {
					t.Fatal("a path that was edited proves", err)
				}
			}
			bad := *q
			bad.EarlierPath = append(slices.Clone(q.EarlierPath), tlog.Hash{})
			if _, err := bad.Check(pub, kept); !errors.Is(err, ErrUnproven) {
				t.Fatal("a path that is too long proves", err)
			}
			bad = *q
			bad.Earlier = ""
			if _, err := bad.Check(pub); len(q.EarlierPath) > 0 && !errors.Is(err, ErrUnproven) {
				t.Fatal("a path from nowhere proves", err)
			}
		}
	}
	p, err := Prove(ctx, l.dir, 1, nil)
	must(t, err)
	for what, kept := range map[string][]byte{"nothing": {}, "no note": []byte("size 5"), "a note of no key": []byte("holdfast.journal/x\n5\nAAAA\n\n— x y\n")} {
		if _, err := p.Check(pub, kept); !errors.Is(err, ErrUnproven) {
			t.Errorf("against %s: %v", what, err)
		}
	}
}
