package journal

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// tree is the right edge of a Merkle tree as RFC 6962 defines it: for each set
// bit of size the hash of the complete subtree of that height. It is all that
// appending needs. The zero tree is empty.
type tree struct {
	size int64
	edge [63]tlog.Hash
}

// add appends a leaf and returns out with the hashes that tlog's storage order has for it:
// the leaf and each node that it completes.
func (t *tree) add(leaf tlog.Hash, out []byte) []byte {
	h, level := leaf, 0
	out = append(out, h[:]...)
	for n := t.size; n&1 == 1; n >>= 1 {
		h = tlog.NodeHash(t.edge[level], h)
		out = append(out, h[:]...)
		level++
	}
	t.edge[level] = h
	t.size++
	return out
}

// root returns the tree's hash.
func (t *tree) root() tlog.Hash {
	if t.size == 0 {
		return sha256.Sum256(nil)
	}
	level := bits.TrailingZeros64(uint64(t.size))
	h := t.edge[level]
	for level++; t.size>>level != 0; level++ {
		if t.size>>level&1 == 1 {
			h = tlog.NodeHash(t.edge[level], h)
		}
	}
	return h
}

// hashFile reads single hashes of the hash file; it is a tlog.HashReader.
type hashFile struct{ f io.ReaderAt }

var _ tlog.HashReader = hashFile{}

func (h hashFile) at(level int, n int64) (v tlog.Hash, err error) {
	_, err = h.f.ReadAt(v[:], tlog.StoredHashIndex(level, n)*tlog.HashSize)
	return v, err
}

// ReadHashes implements tlog.HashReader.
func (h hashFile) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if _, err := h.f.ReadAt(out[i][:], x*tlog.HashSize); err != nil {
			return nil, fmt.Errorf("read hash %d: %w", x, err)
		}
	}
	return out, nil
}

// loadTree reads the right edge of the tree of that size.
func loadTree(h hashFile, size int64) (*tree, error) {
	t := &tree{size: size}
	for level := 0; size>>level != 0; level++ {
		if size>>level&1 == 1 {
			v, err := h.at(level, size>>level-1)
			if err != nil {
				return nil, fmt.Errorf("read hashes at size %d: %w", size, err)
			}
			t.edge[level] = v
		}
	}
	return t, nil
}

// hashesIn returns of how many records a hash file of that length has all hashes.
func hashesIn(length int64) int64 {
	stored := length / tlog.HashSize
	lo, hi := int64(0), stored
	for lo < hi {
		mid := lo + (hi-lo+1)/2
		if tlog.StoredHashCount(mid) <= stored {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	return lo
}
