package cas_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/cas"
	"github.com/holdfast/holdfast/rollback/storetest"
)

func noise(n int, seed int64) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(seed)).Read(b)
	return b
}

func putLong(t *testing.T, s *cas.Store, b []byte) event.Hash {
	t.Helper()
	w := s.NewWriter()
	// Pieces of odd lengths, as a reader yields them.
	for at := 0; at < len(b); {
		n := min(len(b)-at, 1+(at*7919)%300_000)
		if _, err := w.Write(b[at : at+n]); err != nil {
			t.Fatal(err)
		}
		at += n
	}
	h := digest.Sum(b)
	if err := w.Commit(h); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestALongContentChangedInOnePlaceCostsAFewChunks(t *testing.T) {
	base := noise(12<<20, 1)
	at := 7 << 20
	for name, changed := range map[string][]byte{
		"a byte is another":    append(append(append([]byte{}, base[:at]...), base[at]^1), base[at+1:]...),
		"a byte is put in":     append(append(append([]byte{}, base[:at]...), 'x'), base[at:]...),
		"1,000 bytes are gone": append(append([]byte{}, base[:at]...), base[at+1000:]...),
		"a line at the end":    append(append([]byte{}, base...), "one more line\n"...),
		"a byte at the start":  append([]byte{'x'}, base...),
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, storetest.Temp(t), cas.Options{})
			putLong(t, s, base)
			n, before := s.Sizes()
			if n < 13 || n > 49 {
				t.Errorf("12 MiB are %d objects", n)
			}
			h := putLong(t, s, changed)
			_, after := s.Sizes()
			if t.Logf("it costs %d KiB", (after-before)>>10); after-before > 3<<20 {
				t.Error("that is too much")
			}
			if !bytes.Equal(get(t, s, h), changed) {
				t.Error("it came back as something else")
			}
		})
	}
}

// TestWhereALongContentIsCutIsKept: other cuts would store all long contents of
// a vault once more.
func TestWhereALongContentIsCutIsKept(t *testing.T) {
	s := open(t, storetest.Temp(t), cas.Options{})
	parts, err := s.Parts(putLong(t, s, noise(8<<20, 2)))
	if err != nil {
		t.Fatal(err)
	}
	var lens []int
	for _, p := range parts {
		b, small, err := s.Bytes(p)
		if err != nil || !small {
			t.Fatal(small, err)
		}
		lens = append(lens, len(b))
	}
	want := "[747937 561481 747880 728780 635721 594022 567983 541386 578639 877574 667836 857733 281636]"
	if got := fmt.Sprint(lens); got != want {
		t.Errorf("cut at %s, wanted %s", got, want)
	}
}

func TestALongContentThatIsNotKeptLeavesNothing(t *testing.T) {
	dir := storetest.Temp(t)
	s := open(t, dir, cas.Options{})
	w := s.NewWriter()
	for _, end := range []func() error{func() error { w.Reset(); return nil }, w.Abort} {
		if _, err := w.Write(noise(4<<20, 3)); err != nil {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(filepath.Join(dir, "tmp")); err != nil || len(left) == 0 {
			t.Fatalf("nothing was written: %v", err)
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(filepath.Join(dir, "tmp")); err != nil || len(left) > 0 {
			t.Errorf("left in tmp: %v, %v", left, err)
		}
	}
	if n, _ := s.Sizes(); n > 0 {
		t.Errorf("%d objects", n)
	}
}

// TestDamageToAListOrAChunkIsFoundAndMendedByPuttingItAgain in another process.
func TestDamageToAListOrAChunkIsFoundAndMendedByPuttingItAgain(t *testing.T) {
	b := noise(3<<20, 4)
	for _, kind := range []string{"list", "chunk"} {
		for _, how := range []string{"flipped", "cut short", "gone"} {
			t.Run(kind+" "+how, func(t *testing.T) {
				dir := storetest.Temp(t)
				s := open(t, dir, cas.Options{})
				h := putLong(t, s, b)
				bad := h
				if kind == "chunk" {
					parts, err := s.Parts(h)
					if err != nil {
						t.Fatal(err)
					}
					bad = parts[len(parts)/2]
				}
				file := filepath.Join(dir, "objects", bad.Hex()[:2], bad.Hex())
				whole, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				for i := 0; i < len(whole); i += 1 + len(whole)/6 {
					damaged := bytes.Clone(whole)
					damaged[i] ^= 4
					switch how {
					case "flipped":
						err = os.WriteFile(file, damaged, 0o400)
					case "cut short":
						err = os.WriteFile(file, whole[:i], 0o400)
					default:
						err = os.Remove(file)
					}
					if err != nil {
						t.Fatal(err)
					}
					var out bytes.Buffer
					if _, err := s.Stream(h, &out); err == nil && !bytes.Equal(out.Bytes(), b) {
						t.Fatalf("byte %d: wrong bytes and no error", i)
					} else if err != nil && !errors.Is(err, cas.ErrCorrupt) && !errors.Is(err, cas.ErrMissing) {
						t.Errorf("byte %d: %v", i, err)
					}
					if how == "gone" {
						break
					}
				}
				// Opened afresh, the store knows of no object that it can be read.
				s = open(t, dir, cas.Options{})
				putLong(t, s, b)
				r, err := s.Open(h)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(r)
				if err = errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, b) {
					t.Errorf("after putting it again: %v", err)
				}
			})
		}
	}
}
