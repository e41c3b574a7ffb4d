package digest

import (
	"io"
	"sync"

	"github.com/zeebo/blake3"

	"github.com/holdfast/holdfast/pkg/event"
)

// bufSize is the unit of reading: large enough that BLAKE3 uses its wide
// paths and that a system call is rare.
const bufSize = 128 << 10

// Sum returns the BLAKE3 of b.
func Sum(b []byte) event.Hash { return blake3.Sum256(b) }

// Hasher is a running BLAKE3. Make one with NewHasher.
type Hasher struct{ b *blake3.Hasher }

// NewHasher returns a Hasher that has seen no bytes.
func NewHasher() *Hasher { return &Hasher{b: blake3.New()} }

// Write adds p; it never fails.
func (h *Hasher) Write(p []byte) (int, error) { return h.b.Write(p) }

// Reset forgets the bytes seen.
func (h *Hasher) Reset() { h.b.Reset() }

// Sum returns the digest of the bytes seen so far.
func (h *Hasher) Sum() event.Hash {
	var v event.Hash
	h.b.Sum(v[:0])
	return v
}

// scratch is what hashing one file needs. Its pool holds no state that
// outlives a use: it only spares the allocation of 140 KiB per file.
type scratch struct {
	hash *Hasher
	buf  []byte
}

var scratches = sync.Pool{New: func() any {
	return &scratch{hash: NewHasher(), buf: make([]byte, bufSize)}
}}

func getScratch() *scratch {
	s := scratches.Get().(*scratch)
	s.hash.Reset()
	return s
}

// Reader returns the BLAKE3 and the number of the bytes that r yields.
func Reader(r io.Reader) (event.Hash, int64, error) {
	s := getScratch()
	defer scratches.Put(s)
	var n int64
	for {
		k, err := r.Read(s.buf)
		n += int64(k)
		if _, herr := s.hash.Write(s.buf[:k]); herr != nil {
			return event.Hash{}, n, herr
		}
		if err == io.EOF {
			return s.hash.Sum(), n, nil
		}
		if err != nil {
			return event.Hash{}, n, err
		}
	}
}
