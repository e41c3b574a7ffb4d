package journal

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fork makes two logs of one: with the same key, both go on for themselves, and change the key.
func fork(t *testing.T, mine, theirs int) (a, b *log) {
	t.Helper()
	a = newLog(t)
	a.o.HistoryEvery = time.Nanosecond
	a.fill(10)
	b = newLog(t)
	copyDir(t, a.dir, b.dir)
	copyDir(t, a.keys, b.keys)
	for _, x := range []struct {
		l *log
		n int
	}{{a, mine}, {b, theirs}} {
		x.l.o.HistoryEvery, x.l.o.KeyEvery = time.Nanosecond, time.Nanosecond
		j := x.l.open()
		for i := range x.n {
			if _, err := j.Append(sample(1000*x.n + i)); err != nil {
				t.Fatal(err)
			}
		}
		x.l.sync(j)
		x.l.close(j)
	}
	return a, b
}

func TestAChangeOfKeyKeptElsewhereShowsALogThatWentAnotherWay(t *testing.T) {
	for _, n := range [][2]int{{5, 5}, {5, 20}, {20, 5}} {
		a, b := fork(t, n[0], n[1])
		kept, err := Handovers(a.dir)
		if err != nil || len(kept) < 2 {
			t.Fatal(len(kept), err)
		}
		if _, found := a.verify(a.pub(), kept...); len(found) > 0 {
			t.Fatalf("%v: the log itself: %q", n, found)
		}
		if _, found := b.verify(a.pub(), kept...); len(found) == 0 {
			t.Errorf("%v: nothing is wrong with the log that has another successor", n)
		}
	}
}

func TestASuccessorOfAnotherNameIsNoKeyOfTheLog(t *testing.T) {
	l := newLog(t)
	l.fill(10)
	s, err := newSigner("holdfast.journal/another")
	must(t, err)
	n, err := latestNote(l.dir, checkpointName)
	must(t, err)
	c, err := unsigned(n)
	must(t, err)
	c.Next = s.vkey
	hand, err := c.sign(l.signer())
	must(t, err)
	c.Origin, c.Next = s.name, ""
	last, err := c.sign(s)
	must(t, err)
	l.writeFile(chainName, slices.Concat(l.readFile(chainName), hand, []byte("\n")))
	l.writeFile(checkpointName, append(last, '\n'))
	if _, found := l.verify(l.pub()); len(found) == 0 {
		t.Error("verify takes the key of another log for its own")
	}
}

func TestWhatTheTreeDoesNotCoverInASegmentIsAsItWasWritten(t *testing.T) {
	for name, spoil := range map[string]func(l *log){
		"the header names another host": func(l *log) {
			l.edit(seg2, func(f [][]byte) [][]byte {
				m := modes()
				b, err := m.enc.Marshal(segmentHead{Version: 1, HostID: "another", First: 11})
				must(t, err)
				f[0] = appendFrame(nil, frameHeader, b)
				return f
			})
		},
		"the header is of another version": func(l *log) {
			l.edit(seg2, func(f [][]byte) [][]byte {
				h, err := decodeSegmentHead(f[0][frameHead:])
				must(t, err)
				h.Version = 2
				m := modes()
				b, err := m.enc.Marshal(h)
				must(t, err)
				f[0] = appendFrame(nil, frameHeader, b)
				return f
			})
		},
		"the end names another record": func(l *log) {
			l.edit(seg2, func(f [][]byte) [][]byte { f[len(f)-1] = endFrame(4711); return f })
		},
		"there are two ends":                  func(l *log) { l.edit(seg2, func(f [][]byte) [][]byte { return append(f, f[len(f)-1]) }) },
		"the history of checkpoints is empty": func(l *log) { l.writeFile(historyName, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			l := tenEach(t)
			spoil(l)
			if _, found := l.verify(l.pub()); len(found) != 1 {
				t.Fatalf("found %q", found)
			}
		})
	}
}

func TestOnlyWhatARecordTellsOfHasExpired(t *testing.T) {
	l := tenEach(t)
	n, err := latestNote(l.dir, checkpointName)
	must(t, err)
	c, err := unsigned(n)
	must(t, err)
	c.First = 31
	forged, err := c.sign(l.signer())
	must(t, err)
	l.writeFile(checkpointName, append(forged, '\n'))
	for _, name := range []string{seg1, seg2, seg3} {
		l.remove(name)
	}
	if _, found := l.verify(l.pub()); !slices.Equal(found, []string{"removed 1-30"}) {
		t.Fatalf("found %q", found)
	}
}

func TestDaemonsBegunOftenDoNotLetMoreExpire(t *testing.T) {
	l, clock := aging(t)
	l.o.KeepFor, l.o.ageMost = 400*24*time.Hour, 0
	l.minutes(clock, 200)
	*clock = clock.Add(10 * 365 * 24 * time.Hour)
	for range 8 {
		l.minutes(clock, 10)
	}
	if first := l.read()[0].Seq; first > 11 {
		t.Fatalf("the log begins at record %d", first)
	}
}

func TestFilesThatWereMadeHugeOrNoFilesAreNamed(t *testing.T) {
	huge := func(name string) func(l *log) {
		return func(l *log) { must(l.t, os.Truncate(filepath.Join(l.dir, name), 1<<40)) }
	}
	pipe := func(name string) func(l *log) {
		return func(l *log) {
			l.remove(name)
			must(l.t, unix.Mkfifo(filepath.Join(l.dir, name), 0o600))
		}
	}
	link := func(l *log) {
		l.remove(seg2)
		must(l.t, os.Symlink("/nowhere", filepath.Join(l.dir, seg2)))
	}
	dir := func(l *log) {
		must(l.t, os.Remove(filepath.Join(l.keys, pubName)))
		must(l.t, os.Mkdir(filepath.Join(l.keys, pubName), 0o700))
	}
	for name, spoil := range map[string]func(l *log){
		"a link for a segment": link, "a directory for the public key": dir,
		"huge checkpoint": huge(checkpointName), "huge history": huge(historyName), "huge chain": huge(chainName), "huge segment": huge(seg6),
		"a pipe for a checkpoint": pipe(checkpointName), "a pipe for the history": pipe(historyName), "a pipe for the chain": pipe(chainName),
		"a pipe for a segment": pipe(seg2), "a pipe for the hashes": pipe(hashesName),
	} {
		t.Run(name, func(t *testing.T) {
			l := tenEach(t)
			spoil(l)
			problems := 0
			sum, err := Verify(context.Background(), l.dir, "", func(p Problem) { problems++; t.Log(p.Kind, p.Text) })
			if err == nil && problems == 0 {
				t.Fatalf("verified: %+v", sum)
			}
			if err != nil {
				t.Fatal(err)
			}
			l.o.Continue = true
			j := l.open() // the daemon goes on all the same
			if _, err := j.AppendDurable(context.Background(), sample(1)); err != nil {
				t.Fatal(err)
			}
			l.close(j)
		})
	}
}

// TestADocumentThatShowsMoreThanItProvesIsNone: who reads it must see nothing that was not signed.
func TestADocumentThatShowsMoreThanItProvesIsNone(t *testing.T) {
	l := turning(t, 5)
	p, err := Prove(context.Background(), l.dir, 3, nil)
	must(t, err)
	kept, err := latestNote(l.dir, checkpointName)
	must(t, err)
	e, err := ProveEarlier(l.dir, kept)
	must(t, err)
	text := func(p *Proof) string {
		b, err := json.Marshal(p)
		must(t, err)
		return string(b)
	}
	one, both := text(p), *e
	both.Seq, both.Bytes, both.Record = p.Seq, p.Bytes, json.RawMessage(`{"path":"/forged"}`)
	for name, doc := range map[string]string{
		"a record beside an earlier checkpoint": text(&both),
		"two records":                           strings.Replace(one, `"record":`, `"record":{"path":"/forged"},"record":`, 1),
		"two records, one in capitals":          strings.Replace(one, `"record":`, `"Record":{"path":"/forged"},"record":`, 1),
		"two records, one in another alphabet":  strings.Replace(one, `"seq":`, `"ſeq":4,"seq":`, 1),
		"two texts in a record":                 strings.Replace(one, `"record":{`, `"record":{"path":"/forged",`, 1),
		"a field of nobody":                     strings.Replace(one, `{`, `{"verdict":"harmless",`, 1),
		"something behind it":                   one + `{"record":{"path":"/forged"}}`,
	} {
		q, err := ReadProof([]byte(doc))
		if err == nil {
			_, err = q.Check(l.pub())
		}
		if err == nil || !errors.Is(err, ErrUnproven) && name != "something behind it" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, doc := range []string{one, text(e)} {
		q, err := ReadProof([]byte(doc))
		must(t, err)
		if _, err := q.Check(l.pub()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestALogInPiecesIsToldOfInBoundedSpace(t *testing.T) {
	l := newLog(t)
	l.fill(2*outMost + 1000)
	good := l.readFile(hashesName)
	for n := int64(0); n < 2000; n += 2 {
		l.editHash(0, n)
	}
	_, found := l.verify(l.pub())
	hashes := 0
	for _, f := range found {
		if strings.HasPrefix(f, "hashes") {
			hashes++
		}
	}
	if hashes != editsMost+1 {
		t.Errorf("%d of 1000 edited hashes are told of", hashes)
	}
	l.writeFile(hashesName, good)
	l.edit(seg1, func(f [][]byte) [][]byte {
		out := f[:0:0]
		for i, b := range f {
			if i%2 == 0 {
				out = append(out, b)
			}
		}
		return out
	})
	problems := map[string]int{}
	sum, err := Verify(context.Background(), l.dir, l.pub(), func(p Problem) { problems[p.Kind]++ })
	if err != nil || problems[ProblemUnreadable] != 1 || problems[ProblemRemoved] > outMost+1 || sum.OK() {
		t.Fatalf("%v, %+v, %v", problems, sum, err)
	}
}
