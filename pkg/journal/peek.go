package journal

import (
	"encoding/binary"
	"errors"
)

// errNoSeq says that bytes are not a record that we wrote.
var errNoSeq = errors.New("record without a number")

// peek reads the number of a record, and whether it declares a gap, without decoding it:
// in deterministic CBOR shorter names come first, so that few fields lie before seq.
// Reading a log is bound by this; what the record holds otherwise is not looked at.
func peek(b []byte) (seq uint64, gap bool, err error) {
	major, n, rest, ok := cborHead(b)
	if !ok || major != 5 {
		return 0, false, errNoSeq
	}
	for ; n > 0; n-- {
		major, size, after, ok := cborHead(rest)
		if !ok || major != 3 || size > uint64(len(after)) {
			return 0, false, errNoSeq
		}
		key := string(after[:size])
		rest = after[size:]
		switch key {
		case "seq":
			major, v, _, ok := cborHead(rest)
			if !ok || major != 0 {
				return 0, false, errNoSeq
			}
			return v, gap, nil
		case "gap":
			gap = true
		}
		if rest, ok = cborSkip(rest, 16); !ok {
			return 0, false, errNoSeq
		}
	}
	return 0, false, errNoSeq
}

// cborHead reads the head of a data item (RFC 8949 section 3); indefinite lengths are none.
func cborHead(b []byte) (major byte, n uint64, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, 0, nil, false
	}
	major, info := b[0]>>5, b[0]&31
	b = b[1:]
	if info < 24 {
		return major, uint64(info), b, true
	}
	size := 1 << (info - 24)
	if info > 27 || len(b) < size {
		return 0, 0, nil, false
	}
	var v [8]byte
	copy(v[8-size:], b[:size])
	return major, binary.BigEndian.Uint64(v[:]), b[size:], true
}

// cborSkip returns what follows the first data item of b, nested at most depth deep.
func cborSkip(b []byte, depth int) ([]byte, bool) {
	major, n, b, ok := cborHead(b)
	if !ok || depth == 0 {
		return nil, false
	}
	switch major {
	case 2, 3:
		if n > uint64(len(b)) {
			return nil, false
		}
		return b[n:], true
	case 5:
		if n > uint64(len(b)) { // an item is at least a byte: this also keeps 2n in range
			return nil, false
		}
		n *= 2
	case 6:
		return nil, false
	case 0, 1, 7:
		return b, true
	}
	for ; n > 0 && ok; n-- {
		b, ok = cborSkip(b, depth-1)
	}
	return b, ok
}
