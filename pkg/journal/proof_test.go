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
		p, err := Prove(context.Background(), l.dir, e.Seq)
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
	if _, err := Prove(context.Background(), l.dir, 26); !errors.Is(err, ErrNoRecord) {
		t.Fatal(err)
	}
}

func TestAProofThatWasAlteredProvesNothing(t *testing.T) {
	l := turning(t, 25)
	other := turning(t, 25)
	make := func(l *log, seq uint64) *Proof {
		p, err := Prove(context.Background(), l.dir, seq)
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
