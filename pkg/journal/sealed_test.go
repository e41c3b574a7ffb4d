package journal

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// sign puts a checkpoint that says size and first under the others, signed by s.
func (l *log) sign(s *signer, size, first uint64) {
	l.t.Helper()
	c := Checkpoint{Origin: s.name, Size: size, Root: tlog.Hash{1}, Time: 1_700_000_000_000_000_000, First: first}
	n, err := c.sign(s)
	must(l.t, err)
	l.writeFile(checkpointName, slices.Concat(l.readFile(checkpointName), n, []byte("\n")))
}

func TestACheckpointThatNobodySignedMovesNoReader(t *testing.T) {
	for what, forge := range map[string]func(l *log){
		"of a size that is not there": func(l *log) {
			s, err := newSigner(l.signer().name)
			must(l.t, err)
			l.sign(s, 1<<61, 1)
		},
		"that says all has expired": func(l *log) {
			s, err := newSigner(l.signer().name)
			must(l.t, err)
			l.sign(s, 1<<61, 1<<60)
		},
		"and the chain is gone": func(l *log) {
			s, err := newSigner(l.signer().name)
			must(l.t, err)
			l.sign(s, 1<<61, 1<<60)
			l.remove(chainName)
		},
		"and a segment far ahead": func(l *log) {
			s, err := newSigner(l.signer().name)
			must(l.t, err)
			l.sign(s, 1<<61, 1)
			l.writeFile(segmentName(1<<60), endFrame(1<<60+5))
		},
	} {
		t.Run(what, func(t *testing.T) {
			l := tenEach(t)
			good := l.readFile(checkpointName)
			chain := l.readFile(chainName)
			r, err := OpenReader(l.dir)
			must(t, err)
			defer r.Close()
			must(t, r.Seek(51))
			forge(l)
			if n, err := Newest(l.dir); err != nil || n != 60 {
				t.Errorf("newest is %d, %v", n, err)
			}
			if n, err := Oldest(l.dir); err != nil || n != 1 {
				t.Errorf("oldest is %d, %v", n, err)
			}
			want := uint64(51)
			read := func() {
				t.Helper()
				for {
					e, err := r.Next(context.Background())
					if errors.Is(err, io.EOF) {
						return
					}
					if err != nil || e.Seq != want {
						t.Fatalf("record %d, %v; want %d", e.Seq, err, want)
					}
					want++
				}
			}
			read()
			l.writeFile(checkpointName, good)
			l.writeFile(chainName, chain)
			must(t, os.RemoveAll(filepath.Join(l.dir, segmentName(1<<60))))
			l.fill(65)
			if read(); want != 66 {
				t.Errorf("the reader stopped before record %d", want)
			}
		})
	}
}

// TestNoFileMovesAReaderOutOfTheWritersBounds: also one that the log's own key signed.
func TestNoFileMovesAReaderOutOfTheWritersBounds(t *testing.T) {
	l := newLog(t)
	j := l.open()
	for i := range 20 {
		_, err := j.Append(sample(i))
		must(t, err)
	}
	l.sync(j)
	r, err := OpenReader(l.dir)
	must(t, err)
	defer r.Close()
	r.Bounds = j.Bounds
	l.sign(l.signer(), 1<<61, 1<<60)
	if n, err := r.End(); err != nil || n != 20 {
		t.Fatal(n, err)
	}
	for want := uint64(1); want <= 20; want++ {
		if e, err := r.Next(context.Background()); err != nil || e.Seq != want {
			t.Fatal(e.Seq, err)
		}
	}
	_, err = j.AppendDurable(context.Background(), sample(20))
	must(t, err)
	if e, err := r.Next(context.Background()); err != nil || e.Seq != 21 {
		t.Fatal(e.Seq, err)
	}
	l.close(j)
}
