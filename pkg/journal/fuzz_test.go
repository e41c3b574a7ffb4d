package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast/holdfast/pkg/event"
)

func seeds(t testing.TB) [][]byte {
	t.Helper()
	var out [][]byte
	for _, r := range []*event.Record{
		sample(1), {}, {Kind: event.RecGap, Gap: &event.Gap{Lost: 37, From: 1, To: 2, Trees: []string{"/etc"}}, Seq: 9},
		{Kind: event.RecAgent, Detail: map[string]string{"b": "2", "a": "1"}, Seq: 1 << 40, Time: -5},
		{Path: "/\xff\xfe", Before: &event.State{Exists: true, Xattrs: map[string]event.Bytes{"user.x": {0, 1, 255}}, Target: event.Bytes{200}}},
	} {
		b, err := Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

func FuzzDecodeGivesARecordThatEncodesTheSameOrAnError(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if (r == nil) == (err == nil) {
			t.Fatalf("%v and %v", r, err)
		}
		seq, gap, perr := peek(b)
		if err != nil {
			return
		}
		enc, err := Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode(enc)
		if err != nil {
			t.Fatal(err)
		}
		enc2, err := Encode(again)
		if err != nil || !bytes.Equal(enc, enc2) {
			t.Fatalf("%x, then %x, %v", enc, enc2, err)
		}
		if bytes.Equal(enc, b) && (perr != nil || seq != r.Seq || gap != (r.Gap != nil)) {
			t.Fatalf("peek says %d, %v, %v of %+v", seq, gap, perr, r)
		}
	})
}

func FuzzASegmentIsReadWithoutAPanicAndToItsEnd(f *testing.F) {
	var whole []byte
	whole = appendFrame(whole, frameHeader, []byte{0xa0})
	for _, b := range seeds(f) {
		whole = appendFrame(whole, frameRecord, b)
	}
	whole = append(whole, endFrame(5)...)
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add(append(bytes.Clone(whole[:300]), whole[310:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		at := int64(0)
		for sc := (&scanner{f: bytes.NewReader(b)}); ; {
			fr, err := sc.next()
			var bad *badFrame
			switch {
			case errors.Is(err, io.EOF):
				if at != int64(len(b)) {
					t.Fatalf("the end at %d of %d", at, len(b))
				}
				return
			case errors.As(err, &bad):
				if bad.Off != at || bad.Next <= at || bad.Next > int64(len(b)) {
					t.Fatalf("at %d of %d: %+v", at, len(b), bad)
				}
				at = bad.Next
			case err != nil:
				t.Fatal(err)
			default:
				if fr.Off != at || !bytes.Equal(appendFrame(nil, fr.Kind, fr.Payload), b[at:sc.off]) {
					t.Fatalf("frame at %d is not what is there", at)
				}
				at = sc.off
			}
		}
	})
}

func FuzzCheckpointFilesAreSplitWithoutLoss(f *testing.F) {
	l := newLog(f)
	l.fill(3)
	f.Add(l.readFile(checkpointName))
	f.Add([]byte("\n\n\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		notes, whole := splitNotes(b)
		n := 0
		for _, x := range notes {
			n += len(x) + 1
			if c, err := unsigned(x); err == nil {
				if again, err := parseCheckpoint(c.text()); err != nil || again != c {
					t.Fatalf("%+v came back as %+v, %v", c, again, err)
				}
			}
		}
		if n != whole || whole > len(b) {
			t.Fatalf("%d bytes in notes, %d whole, %d in all", n, whole, len(b))
		}
	})
}

// TestAnyChangedByteIsFound changes one byte anywhere in the files that make up
// the log, or cuts one anywhere: no verification may pass, and no reading may panic or give what was never signed.
func TestAnyChangedByteIsFound(t *testing.T) {
	l := tenEach(t)
	r := rand.New(rand.NewPCG(7, 8))
	good := map[uint64][]byte{}
	for _, e := range l.read() {
		good[e.Seq] = e.Bytes
	}
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := e.Name()
		was := l.readFile(name)
		if len(was) == 0 { // the lock
			continue
		}
		for i := range 40 {
			b := bytes.Clone(was)
			at := r.IntN(len(b))
			what := "cut"
			if i%2 == 0 {
				what = "flipped"
				b[at] ^= 1 << r.IntN(8)
			} else {
				b = b[:at]
			}
			l.writeFile(name, b)
			sum, err := Verify(context.Background(), l.dir, "", nil)
			if err != nil || sum.OK() {
				t.Errorf("%s %s at byte %d of %d: %+v, %v", name, what, at, len(was), sum, err)
			}
			l.readAround(t, good)
		}
		l.writeFile(name, was)
	}
	if sum, found := l.verify(""); !sum.OK() {
		t.Fatalf("found %q", found)
	}
}

// readAround reads all that can be read.
func (l *log) readAround(t *testing.T, good map[uint64][]byte) {
	t.Helper()
	rd, err := OpenReader(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	next := uint64(1)
	for {
		e, err := rd.Next(context.Background())
		var c *CorruptError
		switch {
		case errors.Is(err, io.EOF):
			return
		case errors.As(err, &c):
			if c.From != next || c.To < c.From {
				t.Fatalf("at %d: %v", next, err)
			}
			next = c.To + 1
		case err != nil:
			return // a checkpoint that cannot be parsed
		default:
			if e.Seq != next || !bytes.Equal(e.Bytes, good[e.Seq]) {
				t.Fatalf("record %d in place of %d", e.Seq, next)
			}
			next++
		}
	}
}

func TestTheEncodingIsDeterministicAndPlain(t *testing.T) {
	r := sample(3)
	r.Detail = map[string]string{"z": "1", "a": "2", "mm": "3"}
	r.Seq, r.After.Xattrs = 7, map[string]event.Bytes{"user.b": {1, 2}, "user.a": {0xff}}
	first, err := Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if b, err := Encode(r); err != nil || !bytes.Equal(b, first) {
			t.Fatalf("%x, %v", b, err)
		}
	}
	back, err := Decode(first)
	if err != nil || !reflect.DeepEqual(back, r) {
		t.Fatalf("%+v, %v", back, err)
	}
	// RFC 8949: 0x58 0x20 is a byte string of 32, 0x1b an unsigned integer of 8 bytes.
	hash := append([]byte("\x64hash\x58\x20"), r.After.Hash[:]...)
	moment := binary.BigEndian.AppendUint64([]byte("\x64time\x1b"), uint64(r.Time))
	if !bytes.Contains(first, hash) || !bytes.Contains(first, moment) {
		t.Fatalf("a hash is not a byte string or a time not an integer: %x", first)
	}
	small, err := Encode(&event.Record{Kind: event.RecAgent, Time: 1})
	if err != nil || len(small) > 64 {
		t.Fatalf("a record with three fields takes %d bytes: %x, %v", len(small), small, err)
	}
	// The names of a map are in the order of their encoded bytes.
	if a, m, z := bytes.Index(first, []byte("\x61a\x612")), bytes.Index(first, []byte("\x62mm\x613")), bytes.Index(first, []byte("\x61z\x611")); a < 0 || z < a || m < z {
		t.Fatalf("names out of order: %d %d %d", a, z, m)
	}
}

func TestReadingGoesOnBehindWhatIsLost(t *testing.T) {
	l := tenEach(t)
	l.edit(seg3, func(f [][]byte) [][]byte { f[4][100] ^= 1; return f })
	l.remove(seg2)
	if err := os.Truncate(filepath.Join(l.dir, seg6), 100); err != nil {
		t.Fatal(err)
	}
	rd, err := OpenReader(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	var lost [][2]uint64
	n := 0
	for {
		_, err := rd.Next(context.Background())
		var c *CorruptError
		if errors.As(err, &c) {
			lost = append(lost, [2]uint64{c.From, c.To})
			continue
		}
		if err != nil {
			break
		}
		n++
	}
	if want := [][2]uint64{{11, 20}, {24, 24}, {51, 60}}; !reflect.DeepEqual(lost, want) || n != 39 {
		t.Fatalf("lost %v, read %d", lost, n)
	}
	for _, seq := range []uint64{1, 10, 25, 50} {
		if err := rd.Seek(seq); err != nil {
			t.Fatal(err)
		}
		e, err := rd.Next(context.Background())
		if err != nil || e.Seq != seq {
			t.Fatalf("seek %d: %d, %v", seq, e.Seq, err)
		}
		again, err := rd.At(e.Segment, e.Offset)
		if err != nil || !reflect.DeepEqual(again, e) {
			t.Fatalf("%+v, %v, want %+v", again, err, e)
		}
	}
}

// FuzzADocumentProvesOnlyWhatWasSigned: whatever the bytes are, what is proven is a record that is in the log, and what was kept of
// another log proves nothing.
func FuzzADocumentProvesOnlyWhatWasSigned(f *testing.F) {
	s, err := signerOf("holdfast.journal/h", make([]byte, 32)) // one log for all processes of the fuzzer
	must(f, err)
	var records [][]byte
	var stored hashes
	var tr tree
	notes := [][]byte{}
	for i := range 7 {
		r := sample(i)
		r.Host, r.HostID, r.Boot, r.Seq, r.ID = "web-1", "h", "b", uint64(i+1), fmt.Sprintf("h/b/%d", i+1)
		b, err := Encode(r)
		must(f, err)
		records = append(records, b)
		stored = append(stored, tr.add(tlog.RecordHash(b), nil)...)
		c := Checkpoint{Origin: s.name, Size: uint64(i + 1), Root: tr.root(), Time: 1_700_000_000_000_000_000, First: 1}
		n, err := c.sign(s)
		must(f, err)
		notes = append(notes, n)
	}
	other := Checkpoint{Origin: s.name, Size: 3, Root: tlog.Hash{1}, Time: 1, First: 1}
	foreign, err := other.sign(s)
	must(f, err)
	p := &Proof{Format: ProofFormat, Seq: 2, Bytes: records[1], Checkpoint: string(notes[6]), Earlier: string(notes[2])}
	p.Path, err = tlog.ProveRecord(7, 1, stored)
	must(f, err)
	p.EarlierPath, err = tlog.ProveTree(7, 3, stored)
	must(f, err)
	whole, err := json.Marshal(p)
	must(f, err)
	if got, err := p.Check(s.vkey, notes[2]); err != nil || got.Kept != 3 {
		f.Fatal(got, err)
	}
	f.Add(whole, notes[2])
	f.Add(whole, foreign)
	f.Add([]byte("{}"), []byte(nil))
	f.Fuzz(func(t *testing.T, doc, kept []byte) {
		p, err := ReadProof(doc)
		if err != nil {
			return
		}
		got, err := p.Check(s.vkey, kept)
		if err != nil {
			if got != (Proven{}) {
				t.Errorf("refused and believed: %+v", got)
			}
			return
		}
		if bytes.Equal(kept, foreign) || got.Kept == 0 || got.Kept > 7 || got.Seq > 7 || got.Seq > 0 && !bytes.Equal(p.Bytes, records[got.Seq-1]) {
			t.Errorf("proven: %+v", got)
		}
	})
}

// hashes are stored hashes in memory.
type hashes []byte

// ReadHashes implements tlog.HashReader.
func (h hashes) ReadHashes(at []int64) (out []tlog.Hash, err error) {
	for _, i := range at {
		out = append(out, tlog.Hash(h[i*tlog.HashSize:(i+1)*tlog.HashSize]))
	}
	return out, nil
}
