package journal

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func (l *log) swapKeys(other *log) {
	l.t.Helper()
	for _, name := range []string{keyName, pubName} {
		b, err := os.ReadFile(filepath.Join(other.keys, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(l.keys, name), b, 0o600)
		}
		if err != nil {
			l.t.Fatal(err)
		}
	}
}

func TestOpenRefusesWhatIsNotThisHostsUnbrokenLog(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, l *log)
		want  error
		text  string
	}{
		{"another host's directory", func(_ *testing.T, l *log) { l.o.HostID = "another" }, ErrOtherHost, "7d1f0c5e2a6b4e0f9a3c"},
		{"another host's directory without its checkpoints and key", func(t *testing.T, l *log) {
			l.o.HostID = "another"
			l.remove(checkpointName)
			l.remove(historyName)
			if err := os.RemoveAll(l.keys); err != nil {
				t.Fatal(err)
			}
		}, ErrOtherHost, seg1},
		{"another host's key", func(t *testing.T, l *log) {
			o := newLog(t)
			o.o.HostID = "another"
			o.fill(1)
			l.swapKeys(o)
		}, ErrOtherHost, "another"},
		{"another key of this host", func(t *testing.T, l *log) {
			o := newLog(t)
			o.fill(1)
			l.swapKeys(o)
		}, ErrKey, "not signed by"},
		{"no key", func(t *testing.T, l *log) {
			if err := os.RemoveAll(l.keys); err != nil {
				t.Fatal(err)
			}
		}, ErrKey, "put "},
		{"a damaged key", func(t *testing.T, l *log) {
			if err := os.WriteFile(filepath.Join(l.keys, keyName), []byte("nonsense"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, nil, "read journal key"},
		{"a verifier's key of another", func(t *testing.T, l *log) {
			if err := os.WriteFile(filepath.Join(l.keys, pubName), []byte("nonsense"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, ErrTampered, pubName},
		{"the whole log gone", func(t *testing.T, l *log) {
			if err := os.RemoveAll(l.dir); err != nil {
				t.Fatal(err)
			}
		}, ErrTampered, "gone"},
		{"all segments gone", func(_ *testing.T, l *log) {
			for _, first := range []uint64{1, 11, 21, 31, 41, 51} {
				l.remove(segmentName(first))
			}
		}, ErrTampered, "1 to 60"},
		{"no checkpoints", func(_ *testing.T, l *log) { l.remove(checkpointName); l.remove(historyName) }, ErrTampered, "no checkpoint"},
		{"the newest checkpoint put back", func(_ *testing.T, l *log) { l.dropLines(checkpointName, 3) }, ErrTampered, "history has one of size 60"},
		{"a forged checkpoint", func(_ *testing.T, l *log) {
			l.writeFile(checkpointName, bytes.ReplaceAll(l.readFile(checkpointName), []byte("\n60\n"), []byte("\n59\n")))
		}, ErrTampered, "newest checkpoint"},
		{"a record altered in the last segment", func(_ *testing.T, l *log) {
			l.edit(seg6, func(f [][]byte) [][]byte { f[4][100] ^= 1; return f })
		}, ErrTampered, "record 54"},
		{"a record rewritten in the last segment", func(t *testing.T, l *log) {
			l.edit(seg6, func(f [][]byte) [][]byte { f[4] = forge(t, f[4]); return f })
		}, ErrTampered, "record 54"},
		{"a record removed in the last segment", func(_ *testing.T, l *log) {
			l.edit(seg6, func(f [][]byte) [][]byte { return slices.Delete(f, 4, 5) })
		}, ErrTampered, "record 55 where 54 belongs"},
		{"the end of the last segment cut", func(_ *testing.T, l *log) {
			l.edit(seg6, func(f [][]byte) [][]byte { return f[:8] })
		}, ErrTampered, "58 to 60"},
		{"the end of an older segment cut", func(_ *testing.T, l *log) {
			l.edit(seg2, func(f [][]byte) [][]byte { return f[:8] })
		}, ErrTampered, seg2},
		{"an older segment gone", func(_ *testing.T, l *log) { l.remove(seg2) }, ErrTampered, "11 to 20"},
		{"the first segment gone", func(_ *testing.T, l *log) { l.remove(seg1) }, ErrTampered, "1 to 10"},
		{"a record and the hash file altered", func(t *testing.T, l *log) {
			l.edit(seg2, func(f [][]byte) [][]byte { f[4] = forge(t, f[4]); return f })
			l.remove(hashesName)
		}, ErrTampered, "root"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := tenEach(t)
			c.spoil(t, l)
			was := listing(t, filepath.Dir(l.dir))
			j, err := Open(l.dir, l.keys, l.o)
			if err == nil {
				l.close(j)
				t.Fatalf("opened: %+v", j.Opened())
			}
			if c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Fatalf("%v, want %v with %q", err, c.want, c.text)
			}
			for name, b := range was {
				if now := listing(t, filepath.Dir(l.dir))[name]; now != b {
					t.Errorf("%s was changed", name)
				}
			}
		})
	}
}

// listing reads all files below dir.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	if err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		out[p] = string(b)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestToContinueLeavesTheEvidenceAndSaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(l *log)
		kinds []string // that Verify finds afterwards
	}{
		{"a record altered", func(l *log) { l.edit(seg6, func(f [][]byte) [][]byte { f[4][100] ^= 1; return f }) }, []string{"altered 54"}},
		{"the last record cut", func(l *log) { b := l.readFile(seg6); l.writeFile(seg6, b[:len(b)-3]) }, []string{"truncated 60"}},
		{"an older segment gone", func(l *log) { l.remove(seg2) }, []string{"missing_segment 11-20"}},
		{"the newest checkpoint put back", func(l *log) { l.dropLines(checkpointName, 3) }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := tenEach(t)
			c.spoil(l)
			evidence := map[string]string{}
			for name, b := range listing(t, l.dir) {
				if strings.HasSuffix(name, ".seg") {
					evidence[name] = b
				}
			}
			l.o.Continue = true
			for range 2 { // and it stays so
				j := l.open()
				if len(j.Opened().Tampered) == 0 && c.kinds != nil {
					t.Fatalf("nothing was said: %+v", j.Opened())
				}
				if _, err := j.AppendDurable(context.Background(), sample(1)); err != nil {
					t.Fatal(err)
				}
				l.close(j)
			}
			now := listing(t, l.dir)
			for name, b := range evidence {
				if !strings.HasPrefix(now[name], b) {
					t.Errorf("%s was changed", name)
				}
			}
			sum, found := l.verify("")
			if !slices.Equal(found, c.kinds) || sum.Size != 62 {
				t.Fatalf("found %q, %+v", found, sum)
			}
		})
	}
}

func TestAWipedLogIsBegunAgainOnlyWhenToldTo(t *testing.T) {
	l := tenEach(t)
	if err := os.RemoveAll(l.dir); err != nil {
		t.Fatal(err)
	}
	l.o.Continue = true
	j := l.open()
	if op := j.Opened(); !op.Created || len(op.Tampered) != 1 {
		t.Fatalf("%+v", op)
	}
	l.close(j)
	l.o.Continue = false
	l.fill(3)
	if _, found := l.verify(""); len(found) > 0 {
		t.Fatalf("found %q", found)
	}
}

func TestADamagedHashFileIsBuiltAgainFromTheRecords(t *testing.T) {
	for name, spoil := range map[string]func(l *log){
		"gone":        func(l *log) { l.remove(hashesName) },
		"cut":         func(l *log) { l.writeFile(hashesName, l.readFile(hashesName)[:700]) },
		"edge edited": func(l *log) { l.editHash(5, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			l := tenEach(t)
			good := l.readFile(hashesName)
			spoil(l)
			j := l.open()
			if op := j.Opened(); !op.HashesRebuilt || op.Size != 60 {
				t.Fatalf("%+v", op)
			}
			l.close(j)
			if !bytes.Equal(l.readFile(hashesName), good) {
				t.Fatal("the hash file is not as it was")
			}
		})
	}
}

func TestASecondWriterIsRefused(t *testing.T) {
	l := newLog(t)
	j := l.open()
	if _, err := Open(l.dir, l.keys, l.o); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	l.close(j)
	if _, err := j.Append(sample(1)); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatalf("a second close: %v", err)
	}
	l.fill(2)
}

func TestTheKeyIsForRootAlone(t *testing.T) {
	l := newLog(t)
	l.fill(1)
	for name, want := range map[string]os.FileMode{keyName: 0o600, pubName: 0o644} {
		st, err := os.Stat(filepath.Join(l.keys, name))
		if err != nil || st.Mode() != want {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
	if err := os.Remove(filepath.Join(l.keys, pubName)); err != nil {
		t.Fatal(err)
	}
	pub := ""
	l.fill(2)
	if pub = l.pub(); pub == "" {
		t.Fatal("the verifier's key was not written again")
	}
	if _, found := l.verify(pub); len(found) > 0 {
		t.Fatalf("found %q", found)
	}
}

func TestWhatOthersWriteIntoASegmentStaysApartFromWhatFollows(t *testing.T) {
	l := newLog(t)
	j := l.open()
	ctx := context.Background()
	if _, err := j.AppendDurable(ctx, sample(1)); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(l.dir, seg1), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	forged := forge(t, l.frames(seg1)[1])
	if _, err := f.Write(forged); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := j.AppendDurable(ctx, sample(i)); err != nil {
			t.Fatal(err)
		}
	}
	l.close(j)
	sum, found := l.verify("")
	if !slices.Equal(found, []string{"inserted 2"}) || sum.Matched != 4 {
		t.Fatalf("found %q, %+v", found, sum)
	}
}

func TestAHashFileRemovedWhileWritingIsBuiltAgainAtTheNextOpen(t *testing.T) {
	l := newLog(t)
	j := l.open()
	for i := range 5 {
		if i == 3 {
			l.remove(hashesName)
		}
		if _, err := j.AppendDurable(context.Background(), sample(i)); err != nil {
			t.Fatal(err)
		}
	}
	l.close(j)
	if _, found := l.verify(""); !slices.Equal(found, []string{"hashes 1-5"}) {
		t.Fatalf("found %q", found)
	}
	j = l.open()
	if !j.Opened().HashesRebuilt {
		t.Fatalf("%+v", j.Opened())
	}
	l.close(j)
	if _, found := l.verify(""); len(found) > 0 {
		t.Fatalf("found %q", found)
	}
}

func TestARecordThatIsTooLargeIsRefusedAndLeavesNoGap(t *testing.T) {
	l := newLog(t)
	j := l.open()
	r := sample(1)
	r.Reason = strings.Repeat("x", maxPayload)
	if _, err := j.Append(r); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	if seq, err := j.AppendDurable(context.Background(), sample(1)); err != nil || seq != 1 {
		t.Fatal(seq, err)
	}
	l.close(j)
}

func TestCheckpointsComeInTimeAndTheirFileStaysSmall(t *testing.T) {
	l := newLog(t)
	l.o.HistoryEvery = time.Hour
	j := l.open()
	ctx := context.Background()
	for i := range 700 {
		if _, err := j.AppendDurable(ctx, sample(i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(l.readFile(checkpointName)); n > compactAbove+1024 {
		t.Fatalf("%d bytes of checkpoints", n)
	}
	if notes, _ := splitNotes(l.readFile(historyName)); len(notes) != 1 {
		t.Fatalf("%d entries of history", len(notes))
	}
	seq, err := j.Append(sample(1))
	if err != nil {
		t.Fatal(err)
	}
	l.until("a checkpoint over an ordinary record", func() bool { return j.Stats().Durable == seq })
	l.close(j)
	if _, found := l.verify(""); len(found) > 0 {
		t.Fatalf("found %q", found)
	}
}
