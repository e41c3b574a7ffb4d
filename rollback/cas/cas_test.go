package cas_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/cas"
	"github.com/holdfast/holdfast/rollback/storetest"
)

func open(t *testing.T, dir string, o cas.Options) *cas.Store {
	t.Helper()
	s, err := cas.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// contents are of all the sizes that are handled in different ways.
func contents() map[string][]byte {
	noise := make([]byte, 3<<20)
	rand.New(rand.NewSource(1)).Read(noise)
	return map[string][]byte{
		"empty":           {},
		"a byte":          {1},
		"text":            bytes.Repeat([]byte("some text "), 1000),
		"zeros":           make([]byte, 700_000),
		"the small limit": noise[:cas.SmallSize],
		"above the limit": noise[:cas.SmallSize+1],
		"long noise":      noise,
		"long zeros":      make([]byte, 5<<20),
	}
}

func has(t *testing.T, s *cas.Store, h event.Hash) bool {
	t.Helper()
	ok, err := s.Has(h)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func get(t *testing.T, s *cas.Store, h event.Hash) []byte {
	t.Helper()
	r, err := s.Open(h)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatWasPutComesBackBeforeAndAfterFlushAndByAnotherProcess(t *testing.T) {
	dir := storetest.Disk(t)
	s := open(t, dir, cas.Options{})
	all := contents()
	check := func(s *cas.Store) {
		t.Helper()
		for name, b := range all {
			h := digest.Sum(b)
			if !has(t, s, h) || !bytes.Equal(get(t, s, h), b) {
				t.Errorf("%s came back as something else", name)
			}
			var out bytes.Buffer
			if n, err := s.Stream(h, &out); err != nil || n != int64(len(b)) || !bytes.Equal(out.Bytes(), b) {
				t.Errorf("%s streamed as something else: %v", name, err)
			}
			if n, err := s.Check(h); err != nil || n != int64(len(b)) {
				t.Errorf("%s: check %d, %v", name, n, err)
			}
		}
	}
	for name, b := range all {
		if name[0] == 'l' {
			w := s.NewWriter()
			if _, err := w.Write(all["text"]); err != nil {
				t.Fatal(err)
			}
			w.Reset()
			if _, err := w.Write(b); err != nil {
				t.Fatal(err)
			}
			if err := w.Commit(digest.Sum(b)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := s.Put(digest.Sum(b), b); err != nil {
			t.Fatal(err)
		}
	}
	check(s)
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	check(s)
	check(open(t, dir, cas.Options{ReadOnly: true}))
	found := map[event.Hash]bool{}
	err := s.Walk(context.Background(), func(h event.Hash, _ int64) error { found[h] = true; return nil }, func(odd string) error { return fmt.Errorf("odd %s", odd) })
	for name, b := range all {
		h := digest.Sum(b)
		parts, perr := s.Parts(h)
		err = errors.Join(err, perr)
		if cut := name[0] == 'l'; !found[h] || cut != (len(parts) > 0) {
			t.Errorf("%s: walked %v, %d chunks", name, found[h], len(parts))
		}
		delete(found, h)
		for _, p := range parts {
			delete(found, p)
		}
	}
	if err != nil || len(found) > 0 {
		t.Errorf("walked %d objects that nothing needs, %v", len(found), err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "tmp")); err != nil || len(left) > 0 {
		t.Errorf("left in tmp: %v, %v", left, err)
	}
}

func TestWhatWasNotFlushedIsGoneAfterReopening(t *testing.T) {
	dir := storetest.Temp(t)
	s, err := cas.Open(dir, cas.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(digest.Sum([]byte("x")), []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, cas.Options{})
	if has(t, s, digest.Sum([]byte("x"))) {
		t.Error("it is there")
	}
	if _, err := s.Open(digest.Sum([]byte("x"))); !errors.Is(err, cas.ErrMissing) {
		t.Errorf("open: %v", err)
	}
}

func TestAnyFlippedByteIsAnErrorNeverWrongBytes(t *testing.T) {
	for name, b := range contents() {
		t.Run(name, func(t *testing.T) {
			dir := storetest.Temp(t)
			s := open(t, dir, cas.Options{})
			h := digest.Sum(b)
			if err := s.Put(h, b); err != nil {
				t.Fatal(err)
			}
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "objects", h.Hex()[:2], h.Hex())
			whole, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i < len(whole); i += 1 + len(whole)/30 {
				bad := bytes.Clone(whole)
				bad[i] ^= 4
				if err := os.WriteFile(file, bad, 0o400); err != nil {
					t.Fatal(err)
				}
				r, err := s.Open(h)
				if err != nil {
					if !errors.Is(err, cas.ErrCorrupt) {
						t.Errorf("byte %d: %v", i, err)
					}
					continue
				}
				got, err := io.ReadAll(r)
				if err := r.Close(); err != nil {
					t.Error(err)
				}
				if err != nil || !bytes.Equal(got, b) { // a bit that the frame does not use
					t.Errorf("byte %d: wrong bytes, %v", i, err)
				}
			}
			if err := os.WriteFile(file, whole[:len(whole)/2], 0o400); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Open(h); !errors.Is(err, cas.ErrCorrupt) {
				t.Errorf("half an object: %v", err)
			}
		})
	}
}

// TestAContentIsWrittenAfreshAfterAFailedFsync: the kernel may have dropped it.
func TestAContentIsWrittenAfreshAfterAFailedFsync(t *testing.T) {
	for _, n := range []int{3, 100} { // by fsync and by syncfs
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			failed := false
			creates := 0
			d := cas.Disk{Before: func(op, _ string) error {
				if op == "create" {
					creates++
				}
				if (op == "fsync" || op == "syncfs") && !failed {
					failed = true
					return unix.EIO
				}
				return nil
			}}
			s := open(t, storetest.Temp(t), cas.Options{Disk: d})
			for i := range n {
				b := []byte(fmt.Sprint("content ", i))
				if err := s.Put(digest.Sum(b), b); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Flush(); !errors.Is(err, unix.EIO) {
				t.Fatalf("flush: %v", err)
			}
			if err := s.Flush(); err != nil {
				t.Fatalf("second flush: %v", err)
			}
			if creates == n {
				t.Error("nothing was written again")
			}
			for i := range n {
				b := []byte(fmt.Sprint("content ", i))
				if got := get(t, s, digest.Sum(b)); !bytes.Equal(got, b) {
					t.Errorf("content %d is %q", i, got)
				}
			}
		})
	}
}

func TestManyGoroutinesPutReadAndFlush(t *testing.T) {
	s := open(t, storetest.Temp(t), cas.Options{})
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for g := range 8 {
		wg.Go(func() {
			for i := range 100 {
				b := []byte(fmt.Sprint("content ", i%50))
				if err := s.Put(digest.Sum(b), b); err != nil {
					errs <- err
					return
				}
				if i%20 == g {
					if err := s.Flush(); err != nil {
						errs <- err
						return
					}
				}
				if _, err := s.Check(digest.Sum(b)); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if err := s.Flush(); err != nil {
		t.Error(err)
	}
}
