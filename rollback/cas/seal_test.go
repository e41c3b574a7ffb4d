package cas_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/cas"
	"github.com/holdfast/holdfast/rollback/storetest"
)

func objectPath(dir string, h event.Hash) string {
	return filepath.Join(dir, "objects", h.Hex()[:2], h.Hex())
}

func readObject(t *testing.T, dir string, h event.Hash) []byte {
	t.Helper()
	b, err := os.ReadFile(objectPath(dir, h))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeObject(t *testing.T, dir string, h event.Hash, b []byte) {
	t.Helper()
	if err := os.Chmod(objectPath(dir, h), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(objectPath(dir, h), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// putAll stores all contents, the long ones as they come, and makes them durable.
func putAll(t *testing.T, s *cas.Store, all map[string][]byte) {
	t.Helper()
	for _, b := range all {
		if len(b) > cas.SmallSize {
			putLong(t, s, b)
		} else if err := s.Put(digest.Sum(b), b); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestSealedContentsComeBackAndEachObjectSaysItsKey(t *testing.T) {
	dir := storetest.Temp(t)
	all := contents()
	putAll(t, open(t, dir, cas.Options{Sealer: storetest.NewKeys("a")}), all)
	s := open(t, dir, cas.Options{Sealer: storetest.NewKeys("b", "a")})
	for name, b := range all {
		if h := digest.Sum(b); !bytes.Equal(get(t, s, h), b) {
			t.Errorf("%s came back as something else", name)
		}
	}
	n := 0
	err := s.Walk(t.Context(), func(h event.Hash, _ int64) error {
		b := readObject(t, dir, h)
		if id, _, err := cas.SealedWith(b); err != nil || id != storetest.KeyID("a") {
			t.Errorf("%s: key %q, %v", h, id, err)
		}
		n++
		return nil
	}, func(name string) error { t.Error(name); return nil })
	if err != nil || n < len(all) {
		t.Errorf("%d objects, %v", n, err)
	}
	// What is stored is not stored once more with the new key.
	before, _ := s.Sizes()
	putAll(t, s, all)
	if after, _ := s.Sizes(); after != before {
		t.Errorf("%d objects, %d before", after, before)
	}
	b := all["text"]
	if id, _, err := cas.SealedWith(readObject(t, dir, digest.Sum(b))); err != nil || id != storetest.KeyID("a") {
		t.Errorf("sealed again with %q, %v", id, err)
	}
}

func TestAnyFlippedBitOfASealedObjectIsDamageAndMended(t *testing.T) {
	dir := storetest.Temp(t)
	text := []byte("a content that is short, so that each bit can be tried")
	h := digest.Sum(text)
	keys := storetest.NewKeys("a")
	putAll(t, open(t, dir, cas.Options{Sealer: keys}), map[string][]byte{"": text})
	whole := readObject(t, dir, h)
	s := open(t, dir, cas.Options{Sealer: keys})
	for i := range len(whole) * 8 {
		b := bytes.Clone(whole)
		b[i/8] ^= 1 << (i % 8)
		writeObject(t, dir, h, b)
		var out bytes.Buffer
		if _, err := s.Stream(h, &out); !errors.Is(err, cas.ErrCorrupt) || errors.Is(err, cas.ErrSealed) || out.Len() > 0 {
			t.Fatalf("bit %d of byte %d: %v, %q", i%8, i/8, err, out.Bytes())
		}
	}
	for _, n := range []int{0, 2, 3, 9, 20, len(whole) - 1} {
		writeObject(t, dir, h, whole[:n])
		if _, err := s.Stream(h, io.Discard); !errors.Is(err, cas.ErrCorrupt) {
			t.Errorf("%d bytes of it: %v", n, err)
		}
	}
	if _, err := s.Check(h); err == nil {
		t.Error("the damage does not show")
	}
	putAll(t, s, map[string][]byte{"": text})
	if got := get(t, s, h); !bytes.Equal(got, text) {
		t.Errorf("%q", got)
	}
}

func TestASealedObjectAtAnotherAddressIsDamage(t *testing.T) {
	dir := storetest.Temp(t)
	a, b := []byte("one content"), []byte("two content")
	s := open(t, dir, cas.Options{Sealer: storetest.NewKeys("a")})
	putAll(t, s, map[string][]byte{"a": a, "b": b})
	writeObject(t, dir, digest.Sum(a), readObject(t, dir, digest.Sum(b)))
	if _, err := s.Stream(digest.Sum(a), io.Discard); !errors.Is(err, cas.ErrCorrupt) {
		t.Error(err)
	}
}

// TestAFormOfALaterVersionIsNoDamage has a head that only its fixed parts are known of.
func TestAFormOfALaterVersionIsNoDamage(t *testing.T) {
	later := append([]byte("HFS\x02"), 0, 0)
	later = append(later, "whatever it says"...)
	binary.LittleEndian.PutUint16(later[4:], uint16(len(later)+4))
	sum := digest.Sum(later)
	later = append(append(later, sum[:4]...), "and what is sealed"...)
	for name, sealer := range map[string]cas.Sealer{"without keys": nil, "with keys": storetest.NewKeys("a")} {
		for _, b := range [][]byte{[]byte("short"), noise(3<<20, 9)} {
			dir := storetest.Temp(t)
			h := digest.Sum(b)
			s := open(t, dir, cas.Options{Sealer: sealer})
			putAll(t, s, map[string][]byte{"": b})
			parts, err := s.Parts(h)
			if err != nil {
				t.Fatal(err)
			}
			places := append(parts, h)
			for _, at := range places {
				whole := readObject(t, dir, at)
				writeObject(t, dir, at, later)
				s := open(t, dir, cas.Options{Sealer: sealer})
				if _, err := s.Check(h); !errors.Is(err, cas.ErrSealed) || errors.Is(err, cas.ErrCorrupt) {
					t.Errorf("%s: %v", name, err)
				}
				if _, err := s.Parts(at); !errors.Is(err, cas.ErrSealed) {
					t.Errorf("%s: its chunks: %v", name, err)
				}
				w := s.NewWriter()
				if _, err := w.Write(b); err != nil && !errors.Is(err, cas.ErrSealed) {
					t.Error(err)
				}
				if err := w.Commit(h); !errors.Is(err, cas.ErrSealed) {
					t.Errorf("%s: stored over it: %v", name, err)
				}
				if !bytes.Equal(readObject(t, dir, at), later) {
					t.Errorf("%s: it was replaced", name)
				}
				writeObject(t, dir, at, whole)
			}
		}
	}
}

// forgetful is a Sealer that does not return what it was to append to.
type forgetful struct{ *storetest.Keys }

func (f forgetful) Seal(id string, dst, plain, aad []byte) ([]byte, error) {
	b, err := f.Keys.Seal(id, dst, plain, aad)
	return b[len(dst):], err
}

func TestWhatASealerDoesNotAppendToTheHeadIsNotStored(t *testing.T) {
	s := open(t, storetest.Temp(t), cas.Options{Sealer: forgetful{storetest.NewKeys("a")}})
	h := digest.Sum([]byte("text"))
	if err := s.Put(h, []byte("text")); err == nil || has(t, s, h) {
		t.Errorf("stored: %v", err)
	}
}
