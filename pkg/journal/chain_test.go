package journal

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

func (l *log) signer() *signer {
	l.t.Helper()
	s, err := loadSigner(l.keys, keyName)
	if err != nil || s == nil {
		l.t.Fatalf("no key: %v", err)
	}
	return s
}

// resign signs the log in the directory, whatever it holds, with a key that was stolen.
func (l *log) resign(stolen *signer, from int) {
	l.t.Helper()
	l.rebuildHashes()
	f, err := os.Open(filepath.Join(l.dir, hashesName))
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	var out []byte
	for n := from; n <= 60; n += 10 {
		tr, err := loadTree(hashFile{f}, int64(n))
		if err != nil {
			l.t.Fatal(err)
		}
		c := Checkpoint{Origin: stolen.name, Size: uint64(n), Root: tr.root(), Time: 1_800_000_000_000_000_000}
		b, err := c.sign(stolen)
		if err != nil {
			l.t.Fatal(err)
		}
		out = append(append(out, b...), '\n')
	}
	l.writeFile(checkpointName, out)
	l.writeFile(historyName, out)
}

func TestTheFirstKeyProvesALogSignedByManyKeysAndNoKeyStays(t *testing.T) {
	l := newLog(t)
	l.o.SegmentBytes, l.o.HistoryEvery, l.o.KeyEvery = 1, time.Nanosecond, time.Nanosecond
	j := l.open()
	pub, seen := l.pub(), map[string]bool{}
	for i := range 12 {
		s := l.signer()
		if seen[s.vkey] {
			t.Fatalf("record %d: the key was not changed", i)
		}
		seen[s.vkey] = true
		if _, err := j.AppendDurable(context.Background(), sample(i)); err != nil {
			t.Fatal(err)
		}
		l.until("another key", func() bool { return j.Stats().Keys == i+2 })
	}
	l.close(j)
	entries, err := os.ReadDir(l.keys)
	if err != nil || len(entries) != 2 {
		t.Fatalf("%v, %v", entries, err)
	}
	if l.pub() != pub {
		t.Fatal("the first public key was changed")
	}
	if sum, found := l.verify(pub); len(found) > 0 || sum.Keys != 13 || sum.Matched != 12 {
		t.Fatalf("found %q, %+v", found, sum)
	}
	j = l.open()
	if s := j.Stats(); s.Keys != 13 || s.KeyTime == 0 {
		t.Fatalf("%+v", s)
	}
	l.close(j)
}

// Sixty records in segments of ten; a key signs ten of them.
func sixKeys(t *testing.T) (l *log, keys []*signer) {
	t.Helper()
	l = newLog(t)
	l.o.SegmentBytes, l.o.HistoryEvery, l.o.KeyEvery = 1, time.Nanosecond, time.Nanosecond
	for n := 10; n <= 60; n += 10 {
		l.o.KeyEvery = -1
		if n > 10 {
			l.o.KeyEvery = time.Nanosecond
		}
		j := l.open()
		for i := n - 9; i <= n; i++ {
			if _, err := j.Append(sample(i)); err != nil {
				t.Fatal(err)
			}
		}
		l.sync(j)
		l.close(j)
		keys = append(keys, l.signer())
	}
	return l, keys
}

func TestAStolenKeyCannotRewriteWhatEarlierKeysSigned(t *testing.T) {
	l, keys := sixKeys(t)
	pub := l.pub()
	if sum, found := l.verify(pub); len(found) > 0 || sum.Keys != len(keys) {
		t.Fatalf("found %q, %+v", found, sum)
	}
	stolen := keys[len(keys)-1]
	forgeRecord := func(name string, i int) {
		l.edit(name, func(f [][]byte) [][]byte { f[i] = forge(t, f[i]); return f })
	}
	was := listing(t, l.dir)
	for _, c := range []struct {
		name  string
		spoil func()
		want  []string
	}{
		{"record 24 and all above it signed anew", func() { forgeRecord(seg3, 4); l.resign(stolen, 60) }, []string{"checkpoint-60", "checkpoint 21-30"}},
		{"record 24, and the past signed with the stolen key", func() { forgeRecord(seg3, 4); l.resign(stolen, 10) }, []string{"key", "key", "checkpoint-60", "checkpoint 21-30"}},
		{"and the chain taken away", func() { forgeRecord(seg3, 4); l.resign(stolen, 10); l.remove(chainName) }, []string{"key", "key", "key"}},
		{"and a chain of one's own", func() {
			forgeRecord(seg3, 4)
			l.resign(stolen, 10)
			first, err := stolen.genesis(Checkpoint{Root: (&tree{}).root(), Time: 1})
			if err != nil {
				t.Fatal(err)
			}
			l.writeFile(chainName, first)
		}, []string{"key", "key", "key"}},
		{"the end of the chain cut", func() { l.dropLines(chainName, 5) }, []string{"key", "key"}},
		{"a handover missing", func() {
			notes, _ := splitNotes(l.readFile(chainName))
			l.writeFile(chainName, append(bytes.Join(slices.Delete(notes, 2, 3), []byte("\n")), '\n'))
		}, []string{"key", "key", "key", "unsealed 31-60"}},
		{"a second successor of the stolen key's predecessor", func() {
			// its private half is kept by this test alone
			mine, err := newSigner(stolen.name)
			if err != nil {
				t.Fatal(err)
			}
			prev := keys[len(keys)-2]
			c := Checkpoint{Origin: stolen.name, Size: 55, Root: tlog.Hash{7}, Time: 1_800_000_000_000_000_000, Next: mine.vkey}
			b, err := c.sign(prev)
			if err != nil {
				t.Fatal(err)
			}
			l.writeFile(chainName, append(append(l.readFile(chainName), b...), '\n'))
		}, []string{"key"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			outer := l.t
			l.t = t
			defer func() {
				for name, b := range was {
					l.writeFile(filepath.Base(name), []byte(b))
				}
				l.t = outer
			}()
			c.spoil()
			sum, found := l.verify(pub)
			if len(found) == 0 || sum.OK() {
				t.Fatalf("found nothing, %+v", sum)
			}
			for i, w := range c.want {
				if i >= len(found) || !strings.HasPrefix(found[i], w) {
					t.Fatalf("found %q, want %q", found, c.want)
				}
			}
			if len(found) != len(c.want) {
				t.Fatalf("found %q, want %q", found, c.want)
			}
		})
	}
}

// TestAChangeOfKeysThatIsKilledAtAnyStepIsEnded makes the states that are on disk between the steps.
func TestAChangeOfKeysThatIsKilledAtAnyStepIsEnded(t *testing.T) {
	for _, c := range []struct {
		name  string
		state func(l *log, before, after map[string][]byte)
		ended bool
	}{
		{"next is half written", func(l *log, b, a map[string][]byte) { l.put(nextName, a[keyName][:40]) }, false},
		{"next is written", func(l *log, b, a map[string][]byte) { l.put(nextName, a[keyName]) }, false},
		{"the chain is half written", func(l *log, b, a map[string][]byte) {
			l.put(nextName, a[keyName])
			l.put(chainName, a[chainName][:len(a[chainName])-20])
		}, false},
		{"the chain is written", func(l *log, b, a map[string][]byte) {
			l.put(nextName, a[keyName])
			l.put(chainName, a[chainName])
		}, true},
		{"the old key is half overwritten", func(l *log, b, a map[string][]byte) {
			l.put(nextName, a[keyName])
			l.put(chainName, a[chainName])
			l.put(keyName, append(make([]byte, 50), b[keyName][50:]...))
		}, true},
		{"the old key is overwritten", func(l *log, b, a map[string][]byte) {
			l.put(nextName, a[keyName])
			l.put(chainName, a[chainName])
			l.put(keyName, make([]byte, len(b[keyName])))
		}, true},
		{"the old key is gone", func(l *log, b, a map[string][]byte) {
			l.put(nextName, a[keyName])
			l.put(chainName, a[chainName])
			if err := os.Remove(filepath.Join(l.keys, keyName)); err != nil {
				l.t.Fatal(err)
			}
		}, true},
		{"all is done", func(l *log, b, a map[string][]byte) {
			l.put(chainName, a[chainName])
			l.put(keyName, a[keyName])
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLog(t)
			l.o.KeyEvery = -1
			l.fill(5)
			before := l.secrets()
			j := l.open()
			w := &writer{dir: l.dir, keyDir: l.keys, o: l.o.withDefaults(), signer: l.signer(), sealed: 5, written: 5}
			if tr, err := l.treeOf(5); err != nil {
				t.Fatal(err)
			} else {
				w.hashed = *tr
			}
			chain, err := openAppend(l.dir, chainName)
			if err != nil {
				t.Fatal(err)
			}
			w.chain = chain
			if err := w.rotate(); err != nil {
				t.Fatal(err)
			}
			if err := chain.f.Close(); err != nil {
				t.Fatal(err)
			}
			after := l.secrets()
			l.close(j)
			for name, b := range before {
				l.put(name, b)
			}
			c.state(l, before, after)

			l.o.KeyEvery = time.Nanosecond
			l.fill(8) // opens, signs, and changes the key again
			want := 3 // the first, and one more
			if c.ended {
				want = 4
			}
			sum, found := l.verify(string(before[pubName]))
			if len(found) > 0 || sum.Matched != 8 || sum.Keys < want-1 {
				t.Fatalf("found %q, %+v", found, sum)
			}
			if _, err := os.Stat(filepath.Join(l.keys, nextName)); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("%s is still there: %v", nextName, err)
			}
			for _, b := range l.secrets() {
				if bytes.Contains(b, before[keyName][len(before[keyName])-30:]) {
					t.Fatal("the old key is still there")
				}
			}
		})
	}
}

func (l *log) treeOf(n int64) (*tree, error) {
	f, err := os.Open(filepath.Join(l.dir, hashesName))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return loadTree(hashFile{f}, n)
}

// put writes a file where it belongs.
func (l *log) put(name string, b []byte) {
	l.t.Helper()
	dir := l.keys
	if name == chainName {
		dir = l.dir
	}
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// secrets reads the keys and the chain.
func (l *log) secrets() map[string][]byte {
	l.t.Helper()
	out := map[string][]byte{chainName: l.readFile(chainName)}
	for _, name := range []string{keyName, pubName} {
		b, err := os.ReadFile(filepath.Join(l.keys, name))
		if err != nil {
			l.t.Fatal(err)
		}
		out[name] = b
	}
	return out
}

func TestALaterKeyKeptElsewhereShowsThatTheLogWasPutBack(t *testing.T) {
	l, _ := sixKeys(t)
	chain := l.readFile(chainName)
	notes, _ := splitNotes(chain)
	// Everything is put back to record 20, consistently, the chain included.
	keep := func(name string) {
		all, _ := splitNotes(l.readFile(name))
		var out []byte
		for _, n := range all {
			if c, err := unsigned(n); err == nil && c.Size <= 20 {
				out = append(append(out, n...), '\n')
			}
		}
		l.writeFile(name, out)
	}
	for _, name := range []string{checkpointName, historyName, chainName} {
		keep(name)
	}
	for _, first := range []uint64{21, 31, 41, 51} {
		l.remove(segmentName(first))
	}
	if _, found := l.verify(l.pub()); len(found) > 0 {
		t.Fatalf("nothing inside the directory can show this, but: %q", found)
	}
	if _, found := l.verify(l.pub(), notes...); len(found) == 0 || !strings.HasPrefix(found[0], "rollback 21") {
		t.Fatalf("found %q", found)
	}
}
