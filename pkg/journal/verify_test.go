package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// frames cuts a segment file into its frames, header and end included.
func (l *log) frames(name string) [][]byte {
	l.t.Helper()
	b := l.readFile(name)
	var out [][]byte
	for sc := (&scanner{f: bytes.NewReader(b)}); ; {
		f, err := sc.next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			l.t.Fatal(err)
		}
		out = append(out, slices.Clone(b[f.Off:f.Off+frameHead+int64(len(f.Payload))]))
	}
}

func (l *log) readFile(name string) []byte {
	l.t.Helper()
	b, err := os.ReadFile(filepath.Join(l.dir, name))
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

func (l *log) writeFile(name string, b []byte) {
	l.t.Helper()
	if err := os.WriteFile(filepath.Join(l.dir, name), b, 0o600); err != nil {
		l.t.Fatal(err)
	}
}

func (l *log) writeFrames(name string, f [][]byte) { l.writeFile(name, bytes.Join(f, nil)) }

func (l *log) remove(name string) {
	l.t.Helper()
	if err := os.Remove(filepath.Join(l.dir, name)); err != nil {
		l.t.Fatal(err)
	}
}

func (l *log) pub() string {
	l.t.Helper()
	b, err := os.ReadFile(filepath.Join(l.keys, pubName))
	if err != nil {
		l.t.Fatal(err)
	}
	return string(b)
}

func (l *log) verify(pub string, known ...[]byte) (Summary, []string) {
	l.t.Helper()
	var found []string
	sum, err := Verify(context.Background(), l.dir, pub, func(p Problem) {
		s := p.Kind
		if p.From > 0 {
			s += fmt.Sprintf(" %d", p.From)
		}
		if p.To > p.From {
			s += fmt.Sprintf("-%d", p.To)
		}
		found = append(found, s)
		l.t.Logf("%s: %s (%s at %d)", s, p.Text, p.File, p.Offset)
	}, known...)
	if err != nil {
		l.t.Fatal(err)
	}
	return sum, found
}

// forge makes a frame with a right checksum and the same number, but other content.
func forge(t *testing.T, f []byte) []byte {
	t.Helper()
	r, err := Decode(f[frameHead:])
	if err != nil {
		t.Fatal(err)
	}
	r.Actor.User = "bob"
	b, err := Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	return appendFrame(nil, frameRecord, b)
}

// The log of these tests: 60 records in segments of ten (1, 11, 21, ...), each with its end frame but the last.
const (
	seg1 = "00000000000000000001.seg"
	seg2 = "00000000000000000011.seg"
	seg3 = "00000000000000000021.seg"
	seg6 = "00000000000000000051.seg"
)

func tenEach(t *testing.T) *log {
	t.Helper()
	l := newLog(t)
	l.o.SegmentBytes, l.o.FlushEvery = 1, time.Hour // a commit is where fill asks for one, however slow the machine is
	l.o.HistoryEvery = time.Nanosecond
	l.fill(60)
	segs, err := listSegments(l.dir)
	if err != nil || !slices.Equal(segs, []uint64{1, 11, 21, 31, 41, 51}) {
		t.Fatalf("segments %v, %v", segs, err)
	}
	return l
}

func (l *log) edit(name string, fn func(f [][]byte) [][]byte) {
	l.writeFrames(name, fn(l.frames(name)))
}

func (l *log) editHash(level int, n int64) {
	b := l.readFile(hashesName)
	b[tlog.StoredHashIndex(level, n)*tlog.HashSize+5] ^= 0x40
	l.writeFile(hashesName, b)
}

// setLeaf makes the hash file agree with a changed record, but for what lies above.
func (l *log) setLeaf(seq int64, leaf tlog.Hash) {
	b := l.readFile(hashesName)
	copy(b[tlog.StoredHashIndex(0, seq-1)*tlog.HashSize:], leaf[:])
	l.writeFile(hashesName, b)
}

// rebuildHashes makes the whole hash file agree with the records that are there.
func (l *log) rebuildHashes() {
	segs, err := listSegments(l.dir)
	if err != nil {
		l.t.Fatal(err)
	}
	var tr tree
	var out []byte
	if err := eachRecord(l.dir, segs, func(_ uint64, b []byte) error {
		out = tr.add(tlog.RecordHash(b), out)
		return nil
	}); err != nil {
		l.t.Fatal(err)
	}
	l.writeFile(hashesName, out)
}

func (l *log) dropLines(name string, keep int) {
	notes, _ := splitNotes(l.readFile(name))
	l.writeFile(name, append(bytes.Join(notes[:keep], []byte("\n")), '\n'))
}

func TestVerifyNamesEachTampering(t *testing.T) {
	swap := func(i, j int) func([][]byte) [][]byte {
		return func(f [][]byte) [][]byte { f[i], f[j] = f[j], f[i]; return f }
	}
	for _, c := range []struct {
		name   string
		tamper func(t *testing.T, l *log)
		want   []string
		counts Summary // only the counters set here are compared, and Matched always
	}{
		{"nothing", func(*testing.T, *log) {}, nil, Summary{Matched: 60}},
		{"a flipped byte in a record", func(_ *testing.T, l *log) {
			l.edit(seg3, func(f [][]byte) [][]byte { f[4][100] ^= 1; return f })
		}, []string{"altered 24"}, Summary{Matched: 59, Altered: 1}},
		{"a flipped byte in the last record", func(_ *testing.T, l *log) {
			l.edit(seg6, func(f [][]byte) [][]byte { f[10][100] ^= 1; return f })
		}, []string{"altered 60"}, Summary{Matched: 59, Altered: 1}},
		{"a flipped byte in the length of a record", func(_ *testing.T, l *log) {
			l.edit(seg3, func(f [][]byte) [][]byte { f[4][1] ^= 1; return f })
		}, []string{"altered 24"}, Summary{Matched: 59, Altered: 1}},
		{"zeros over three records", func(_ *testing.T, l *log) {
			l.edit(seg3, func(f [][]byte) [][]byte { clear(f[4]); clear(f[5]); clear(f[6]); return f })
		}, []string{"altered 24-26"}, Summary{Matched: 57, Altered: 3}},
		{"a record rewritten with a right checksum", func(t *testing.T, l *log) {
			l.edit(seg2, func(f [][]byte) [][]byte { f[1] = forge(t, f[1]); return f })
		}, []string{"altered 11"}, Summary{Matched: 59, Altered: 1}},
		{"three records in a row rewritten", func(t *testing.T, l *log) {
			l.edit(seg2, func(f [][]byte) [][]byte {
				for i := 3; i < 6; i++ {
					f[i] = forge(t, f[i])
				}
				return f
			})
		}, []string{"altered 13-15"}, Summary{Matched: 57, Altered: 3}},
		{"a record removed", func(_ *testing.T, l *log) {
			l.edit(seg3, func(f [][]byte) [][]byte { return slices.Delete(f, 4, 5) })
		}, []string{"removed 24"}, Summary{Matched: 59, Missing: 1}},
		{"the first record removed", func(_ *testing.T, l *log) {
			l.edit(seg1, func(f [][]byte) [][]byte { return slices.Delete(f, 1, 2) })
		}, []string{"removed 1"}, Summary{Matched: 59, Missing: 1}},
		{"the first record of a later segment removed", func(_ *testing.T, l *log) {
			l.edit(seg3, func(f [][]byte) [][]byte { return slices.Delete(f, 1, 2) })
		}, []string{"removed 21"}, Summary{Matched: 59, Missing: 1}},
		{"the last record before an end frame removed", func(_ *testing.T, l *log) {
			l.edit(seg3, func(f [][]byte) [][]byte { return slices.Delete(f, 10, 11) })
		}, []string{"removed 30"}, Summary{Matched: 59, Missing: 1}},
		{"two single records and a run removed", func(_ *testing.T, l *log) {
			l.edit(seg3, func(f [][]byte) [][]byte { return slices.Delete(slices.Delete(f, 7, 10), 2, 3) })
			l.edit(seg1, func(f [][]byte) [][]byte { return slices.Delete(f, 4, 5) })
		}, []string{"removed 4", "removed 22", "removed 27-29"}, Summary{Matched: 55, Missing: 5}},
		{"an invented record inserted", func(t *testing.T, l *log) {
			l.edit(seg3, func(f [][]byte) [][]byte { return slices.Insert(f, 4, forge(t, f[8])) })
		}, []string{"inserted 24"}, Summary{Matched: 60, Extra: 1}},
		{"a record inserted with a number that exists nowhere", func(t *testing.T, l *log) {
			r := sample(1)
			r.Seq = 61
			b, err := Encode(r)
			if err != nil {
				t.Fatal(err)
			}
			l.edit(seg3, func(f [][]byte) [][]byte { return slices.Insert(f, 4, appendFrame(nil, frameRecord, b)) })
		}, []string{"inserted 24"}, Summary{Matched: 60, Extra: 1}},
		{"neighbours swapped", func(_ *testing.T, l *log) { l.edit(seg3, swap(4, 5)) },
			[]string{"swapped 24-25"}, Summary{Matched: 58, Moved: 2}},
		{"a pair swapped", func(_ *testing.T, l *log) { l.edit(seg3, swap(3, 8)) },
			[]string{"swapped 23-28"}, Summary{Matched: 58, Moved: 2}},
		{"the last two swapped", func(_ *testing.T, l *log) { l.edit(seg6, swap(9, 10)) },
			[]string{"swapped 59-60"}, Summary{Matched: 58, Moved: 2}},
		{"a pair swapped between segments", func(_ *testing.T, l *log) {
			a, b := l.frames(seg1), l.frames(seg3)
			a[5], b[5] = b[5], a[5]
			l.writeFrames(seg1, a)
			l.writeFrames(seg3, b)
		}, []string{"swapped 5-25"}, Summary{Matched: 58, Moved: 2}},
		{"a record moved to another segment", func(_ *testing.T, l *log) {
			a, b := l.frames(seg1), l.frames(seg3)
			b = slices.Insert(b, 5, a[5])
			l.writeFrames(seg1, slices.Delete(a, 5, 6))
			l.writeFrames(seg3, b)
		}, []string{"moved 5"}, Summary{Matched: 59, Moved: 1}},
		{"a record duplicated", func(_ *testing.T, l *log) {
			l.edit(seg3, func(f [][]byte) [][]byte { return slices.Insert(f, 4, f[4]) })
		}, []string{"duplicated 24"}, Summary{Matched: 60, Duplicated: 1}},
		{"a record duplicated much later", func(_ *testing.T, l *log) {
			one := l.frames(seg1)[3]
			l.edit(seg6, func(f [][]byte) [][]byte { return append(f, one) })
		}, []string{"duplicated 3"}, Summary{Matched: 60, Duplicated: 1}},
		{"a segment truncated inside a record", func(_ *testing.T, l *log) {
			f := l.frames(seg3)
			b := bytes.Join(f[:7], nil)
			l.writeFile(seg3, b[:len(b)-100])
		}, []string{"truncated 26-30"}, Summary{Matched: 55, Missing: 5}},
		{"a segment truncated between records", func(_ *testing.T, l *log) {
			l.edit(seg3, func(f [][]byte) [][]byte { return f[:7] })
		}, []string{"truncated 27-30"}, Summary{Matched: 56, Missing: 4}},
		{"the last segment truncated inside a record", func(_ *testing.T, l *log) {
			b := l.readFile(seg6)
			l.writeFile(seg6, b[:len(b)-1])
		}, []string{"truncated 60"}, Summary{Matched: 59, Missing: 1}},
		{"the last segment truncated between records", func(_ *testing.T, l *log) {
			l.edit(seg6, func(f [][]byte) [][]byte { return f[:9] })
		}, []string{"truncated 59-60"}, Summary{Matched: 58, Missing: 2}},
		{"a segment emptied", func(_ *testing.T, l *log) { l.writeFile(seg3, nil) },
			[]string{"truncated 21-30"}, Summary{Matched: 50, Missing: 10}},
		{"a segment missing", func(_ *testing.T, l *log) { l.remove(seg3) },
			[]string{"missing_segment 21-30"}, Summary{Matched: 50, Missing: 10}},
		{"the first segment missing", func(_ *testing.T, l *log) { l.remove(seg1) },
			[]string{"missing_segment 1-10"}, Summary{Matched: 50, Missing: 10}},
		{"the last segment missing", func(_ *testing.T, l *log) { l.remove(seg6) },
			[]string{"missing_segment 51-60"}, Summary{Matched: 50, Missing: 10}},
		{"all segments missing", func(_ *testing.T, l *log) {
			for _, first := range []uint64{1, 11, 21, 31, 41, 51} {
				l.remove(segmentName(first))
			}
		}, []string{"missing_segment 1-60"}, Summary{Matched: 0, Missing: 60}},
		{"a segment with the header of another", func(_ *testing.T, l *log) {
			one := l.frames(seg1)[0]
			l.edit(seg3, func(f [][]byte) [][]byte { f[0] = one; return f })
		}, []string{"altered 21"}, Summary{Matched: 60}},
		{"a leaf hash edited", func(_ *testing.T, l *log) { l.editHash(0, 23) },
			[]string{"hashes 24"}, Summary{Matched: 60}},
		{"the last leaf hash edited", func(_ *testing.T, l *log) { l.editHash(0, 59) },
			[]string{"hashes 60"}, Summary{Matched: 60}},
		{"a node hash edited", func(_ *testing.T, l *log) { l.editHash(2, 3) },
			[]string{"hashes 13-16"}, Summary{Matched: 60}},
		{"the highest node hash edited", func(_ *testing.T, l *log) { l.editHash(5, 0) },
			[]string{"hashes 1-32"}, Summary{Matched: 60}},
		{"a leaf hash edited and another record removed", func(_ *testing.T, l *log) {
			l.editHash(0, 23)
			l.edit(seg2, func(f [][]byte) [][]byte { return slices.Delete(f, 2, 3) })
		}, []string{"removed 12", "hashes 24"}, Summary{Matched: 59, Missing: 1}},
		{"the hash file cut", func(_ *testing.T, l *log) {
			l.writeFile(hashesName, l.readFile(hashesName)[:tlog.StoredHashCount(40)*tlog.HashSize+7])
		}, []string{"hashes 41-60"}, Summary{Matched: 60}},
		{"the hash file removed", func(_ *testing.T, l *log) { l.remove(hashesName) },
			[]string{"hashes 1-60"}, Summary{Matched: 60}},
		{"a record and its leaf hash changed together", func(t *testing.T, l *log) {
			l.edit(seg3, func(f [][]byte) [][]byte {
				f[4] = forge(t, f[4])
				l.setLeaf(24, tlog.RecordHash(f[4][frameHead:]))
				return f
			})
		}, []string{"altered 23-24"}, Summary{Matched: 60, Altered: 1}},
		{"a record changed and the whole tree with it", func(t *testing.T, l *log) {
			l.edit(seg3, func(f [][]byte) [][]byte { f[4] = forge(t, f[4]); return f })
			l.rebuildHashes()
		}, []string{"checkpoint 21-30"}, Summary{Matched: 60}},
		{"a forged signature on the newest checkpoint", func(_ *testing.T, l *log) {
			l.dropLines(checkpointName, 1)
			b := bytes.Replace(l.readFile(checkpointName), []byte("\n0\n"), []byte("\n61\n"), 1)
			l.writeFile(checkpointName, b)
		}, []string{"checkpoint", "checkpoint"}, Summary{Matched: 60}},
		{"the newest checkpoint put back to an older one", func(_ *testing.T, l *log) { l.dropLines(checkpointName, 3) },
			[]string{"rollback 21-60"}, Summary{Matched: 60}},
		{"segments and the newest checkpoint put back to an older point", func(_ *testing.T, l *log) {
			l.dropLines(checkpointName, 3)
			for _, first := range []uint64{21, 31, 41, 51} {
				l.remove(segmentName(first))
			}
		}, []string{"rollback 21-60", "missing_segment 21-60"}, Summary{Matched: 20, Missing: 40}},
		{"both checkpoint files removed", func(_ *testing.T, l *log) { l.remove(checkpointName); l.remove(historyName) },
			[]string{"checkpoint", "checkpoint", "unsealed 1-60"}, Summary{Matched: 0, Unsealed: 60}},
		{"a record appended behind the last checkpoint", func(t *testing.T, l *log) {
			r := sample(1)
			r.Seq = 61
			b, err := Encode(r)
			if err != nil {
				t.Fatal(err)
			}
			l.edit(seg6, func(f [][]byte) [][]byte { return append(f, appendFrame(nil, frameRecord, b)) })
		}, []string{"unsealed 61"}, Summary{Matched: 60, Unsealed: 1}},
		{"the end frame of a segment cut off", func(_ *testing.T, l *log) {
			l.edit(seg3, func(f [][]byte) [][]byte { return f[:11] })
		}, []string{"truncated 31"}, Summary{Matched: 60}},
		{"the end frame of a segment cut short", func(_ *testing.T, l *log) {
			b := l.readFile(seg3)
			l.writeFile(seg3, b[:len(b)-3])
		}, []string{"altered 31"}, Summary{Matched: 60}},
		{"half a record behind the last checkpoint", func(_ *testing.T, l *log) {
			l.writeFile(seg6, append(l.readFile(seg6), l.frames(seg1)[3][:90]...))
		}, []string{"unsealed 61"}, Summary{Matched: 60}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := tenEach(t)
			c.tamper(t, l)
			sum, found := l.verify(l.pub())
			if !slices.Equal(found, c.want) {
				t.Errorf("found %q, want %q", found, c.want)
			}
			if sum.OK() != (len(c.want) == 0) || sum.Problems != len(c.want) {
				t.Errorf("%d problems, want %d", sum.Problems, len(c.want))
			}
			got := Summary{Matched: sum.Matched, Missing: sum.Missing, Extra: sum.Extra, Altered: sum.Altered, Duplicated: sum.Duplicated, Moved: sum.Moved, Unsealed: sum.Unsealed}
			if got != c.counts {
				t.Errorf("counts %+v, want %+v", got, c.counts)
			}
		})
	}
}

func TestVerifyNamesAWrongKey(t *testing.T) {
	l := tenEach(t)
	_, other, err := note.GenerateKey(rngZero{}, origin(l.o.HostID))
	if err != nil {
		t.Fatal(err)
	}
	sum, found := l.verify(other)
	if !slices.Contains(found, "key") || sum.OK() || sum.Checkpoints != 0 {
		t.Fatalf("found %q, %+v", found, sum)
	}
}

// rngZero makes a key that nobody else has.
type rngZero struct{}

func (rngZero) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestVerifyFindsALogPutBackOnlyByALaterCheckpointKeptElsewhere(t *testing.T) {
	l := tenEach(t)
	later, err := latestNote(l.dir, checkpointName)
	if err != nil {
		t.Fatal(err)
	}
	// Everything is put back to the state at record 20, consistently.
	l.dropLines(checkpointName, 3)
	l.dropLines(historyName, 3)
	for _, first := range []uint64{21, 31, 41, 51} {
		l.remove(segmentName(first))
	}
	if sum, found := l.verify(l.pub()); !sum.OK() {
		t.Fatalf("nothing inside the directory can show this, but: %q", found)
	}
	if _, found := l.verify(l.pub(), later); !slices.Equal(found, []string{"rollback 21-60"}) {
		t.Fatalf("found %q", found)
	}
}

func TestVerifyAcceptsAnEarlierCheckpointKeptElsewhere(t *testing.T) {
	l := newLog(t)
	l.fill(7)
	kept, err := latestNote(l.dir, checkpointName)
	if err != nil {
		t.Fatal(err)
	}
	l.fill(20)
	if _, found := l.verify(l.pub(), kept); len(found) != 0 {
		t.Fatalf("found %q", found)
	}
	forged := bytes.Replace(slices.Clone(kept), []byte("\n7\n"), []byte("\n8\n"), 1)
	if _, found := l.verify(l.pub(), forged); !slices.Equal(found, []string{"checkpoint"}) {
		t.Fatalf("found %q", found)
	}
}

func TestVerifyBesideTheWriterFindsNothingWrong(t *testing.T) {
	l := newLog(t)
	l.o.SegmentBytes = 64 << 10
	j := l.open()
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		for i := 1; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if _, err := j.Append(sample(i)); err != nil {
				done <- err
				return
			}
			time.Sleep(20 * time.Microsecond)
		}
	}()
	for range 10 {
		sum, found := l.verify("")
		if len(found) != 0 || !sum.Writer {
			t.Fatalf("found %q, %+v", found, sum)
		}
		time.Sleep(30 * time.Millisecond)
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	l.close(j)
	if sum, found := l.verify(""); len(found) != 0 || sum.Matched != sum.Size || sum.Size == 0 {
		t.Fatalf("found %q, %+v", found, sum)
	}
}

func TestCheckpointTextComesBack(t *testing.T) {
	c := Checkpoint{Origin: origin("a b+c"), Size: 12, Root: tlog.RecordHash([]byte("x")), Time: 1_700_000_000_123_456_789, Recovered: 3, First: 1}
	got, err := parseCheckpoint(c.text())
	if err != nil || got != c {
		t.Fatalf("%+v, %v", got, err)
	}
	if strings.ContainsAny(c.Origin, " +") {
		t.Fatalf("origin %q is no name of a key", c.Origin)
	}
	for _, bad := range []string{"", "x\n1\n", "holdfast.journal/h\n-1\n" + c.Root.String() + "\ntime " + c.Time.String() + "\n",
		"holdfast.journal/h\n1\nshort\ntime " + c.Time.String() + "\n", "holdfast.journal/h\n1\n" + c.Root.String() + "\ntime soon\n"} {
		if _, err := parseCheckpoint(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestAnEndFrameTellsTheLastRecord(t *testing.T) {
	f := endFrame(99)
	if len(f) != endSize || binary.BigEndian.Uint64(f[frameHead:]) != 99 {
		t.Fatalf("%x", f)
	}
}
