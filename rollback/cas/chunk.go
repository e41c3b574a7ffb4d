package cas

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
)

// A content longer than SmallSize is cut where its bytes say so (FastCDC, Xia et
// al., USENIX ATC 2016: a gear hash of the last 64 bytes, a stricter mask before
// the wanted length than behind it), so that a change moves only the cuts beside
// it. Other cuts would do no harm beyond storing things twice.
const (
	chunkMin  = 256 << 10
	chunkAvg  = 512 << 10
	chunkMax  = SmallSize
	maskSmall = uint64(1<<21-1) << 43 // the high bits depend on all of the last bytes
	maskLarge = uint64(1<<17-1) << 47
)

// gear has a random number for each byte value.
type gear [256]uint64

// newGear fills the table by splitmix64 (Steele, Lea, Flood, OOPSLA 2014) from 0.
func newGear() *gear {
	var g gear
	for i := range g {
		x := uint64(i+1) * 0x9e3779b97f4a7c15
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		g[i] = x ^ x>>31
	}
	return &g
}

// cut returns the length of the first chunk of b, which is all there is or at
// least chunkMax bytes.
func (g *gear) cut(b []byte) int {
	if len(b) <= chunkMin {
		return len(b)
	}
	b = b[:min(len(b), chunkMax)]
	h, i := uint64(0), chunkMin-64
	for mask := maskSmall; ; mask = maskLarge {
		end := len(b)
		if mask == maskSmall {
			end = min(end, chunkAvg)
		}
		for ; i < end; i++ {
			h = h<<1 + g[b[i]]
			if h&mask == 0 && i >= chunkMin {
				return i + 1
			}
		}
		if end == len(b) {
			return len(b)
		}
	}
}

// A list names the chunks of a long content, in order:
//
//	0        4        12                        n-32
//	+--------+--------+-------------------------+---------------+
//	| "HFC1" | length | 32 bytes of BLAKE3 and  | BLAKE3 of all |
//	|        | of all | length (4) of each chunk| before it     |
//	+--------+--------+-------------------------+---------------+
//
// all little endian. Each chunk is an object like that of a short content.
const (
	listMagic = "HFC1"
	listHead  = 12
	partSize  = 36
	sumSize   = 32
)

type part struct {
	hash event.Hash
	len  uint32
}

var errList = errors.New("its list of chunks is damaged")

func encodeList(parts []part) []byte {
	b := make([]byte, listHead, listHead+len(parts)*partSize+sumSize)
	copy(b, listMagic)
	var total uint64
	for _, p := range parts {
		total += uint64(p.len)
		b = append(b, p.hash[:]...)
		b = binary.LittleEndian.AppendUint32(b, p.len)
	}
	binary.LittleEndian.PutUint64(b[4:], total)
	sum := digest.Sum(b)
	return append(b, sum[:]...)
}

func decodeList(b []byte) ([]part, error) {
	n := len(b) - listHead - sumSize
	if n < 0 || n%partSize != 0 || string(b[:4]) != listMagic || digest.Sum(b[:len(b)-sumSize]) != event.Hash(b[len(b)-sumSize:]) {
		return nil, errList
	}
	parts := make([]part, n/partSize)
	var total uint64
	for i := range parts {
		p := b[listHead+i*partSize:]
		parts[i] = part{event.Hash(p[:32]), binary.LittleEndian.Uint32(p[32:])}
		total += uint64(parts[i].len)
	}
	if total != binary.LittleEndian.Uint64(b[4:]) {
		return nil, fmt.Errorf("%w: its lengths do not add up", errList)
	}
	return parts, nil
}
