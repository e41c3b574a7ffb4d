package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// A segment is a sequence of frames and nothing else:
//
//	 0        3      4         8
//	+--------+------+---------+----------------------+
//	| length | kind | CRC-32C | payload, length bytes |
//	+--------+------+---------+----------------------+
//
// little endian; the checksum covers the first four bytes and the payload, so
// that zeros are no frame. The first frame is a header, the last one of a
// finished segment an end. The checksum finds accidents, the Merkle tree intent.
const (
	frameHeader byte = 'H' // payload: CBOR segmentHead
	frameRecord byte = 'R' // payload: one record
	frameEnd    byte = 'E' // payload: number of the segment's last record, 8 bytes big endian

	frameHead  = 8
	maxPayload = 1 << 20
	endSize    = frameHead + 8
)

// castagnoli is the polynomial with hardware support on amd64 and arm64.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func frameSum(head, payload []byte) uint32 {
	t := castagnoli()
	return crc32.Update(crc32.Update(0, t, head[:4]), t, payload)
}

// sealFrame fills in the head of the frame that b is: frameHead free bytes and the payload.
func sealFrame(b []byte, kind byte) {
	binary.LittleEndian.PutUint32(b, uint32(len(b)-frameHead)|uint32(kind)<<24)
	binary.LittleEndian.PutUint32(b[4:], frameSum(b, b[frameHead:]))
}

func appendFrame(b []byte, kind byte, payload []byte) []byte {
	at := len(b)
	b = append(b, make([]byte, frameHead)...)
	b = append(b, payload...)
	sealFrame(b[at:], kind)
	return b
}

func endFrame(last uint64) []byte {
	return appendFrame(nil, frameEnd, binary.BigEndian.AppendUint64(nil, last))
}

// parseHead reads the first eight bytes of a frame.
func parseHead(h []byte) (size int, kind byte, sum uint32, ok bool) {
	w := binary.LittleEndian.Uint32(h)
	size, kind, sum = int(w&0xffffff), byte(w>>24), binary.LittleEndian.Uint32(h[4:])
	ok = size > 0 && size <= maxPayload && (kind == frameHeader || kind == frameRecord || kind == frameEnd && size == 8)
	return size, kind, sum, ok
}

// frame is one frame found in a segment. Payload is valid until the scanner moves on.
type frame struct {
	Kind    byte
	Off     int64 // of the frame in the segment
	Payload []byte
}

// badFrame says that there is no whole frame at Off. The scanner goes on at
// Next, the next place with a whole one; Next is the end of the file if there is none.
type badFrame struct {
	Off, Next int64
	Torn      bool // the file ends inside the frame and nothing whole follows
	One       bool // its length is right: it is one frame
	Cause     string
}

func (e *badFrame) Error() string { return fmt.Sprintf("frame at byte %d: %s", e.Off, e.Cause) }

const window = 256 << 10

// searchBytes bounds what is checksummed in search of the next whole frame in one
// segment, so that a segment full of what looks like frames cannot hold up a reader for hours. A byte that is
// passed over costs as much as searchStep: 128 MiB, twice a segment, are passed over at most.
const (
	searchBytes = 1 << 30
	searchStep  = 8
)

// scanner reads the frames of one segment, forward, through a window of memory.
type scanner struct {
	f    io.ReaderAt
	off  int64 // of the next frame
	buf  []byte
	base int64 // file offset of buf[0]

	searched int64 // bytes checksummed in search

	small bool // read single frames: no more ahead than buf has room for
}

// view returns n bytes at off, fewer at the end of the file.
func (s *scanner) view(off int64, n int) ([]byte, error) {
	if off >= s.base && off+int64(n) <= s.base+int64(len(s.buf)) {
		i := int(off - s.base)
		return s.buf[i : i+n : i+n], nil
	}
	want := max(n, window)
	if s.small {
		want = max(n, cap(s.buf))
	}
	if cap(s.buf) < want {
		s.buf = make([]byte, want)
	}
	s.buf, s.base = s.buf[:want], off
	got, err := s.f.ReadAt(s.buf, off)
	s.buf = s.buf[:got]
	if err != nil && !errors.Is(err, io.EOF) {
		s.buf = s.buf[:0]
		return nil, err
	}
	n = min(n, got)
	return s.buf[:n:n], nil
}

// at returns the frame at off, io.EOF at the end of the file, or a *badFrame
// without Next.
func (s *scanner) at(off int64) (frame, error) {
	h, err := s.view(off, frameHead)
	switch {
	case err != nil:
		return frame{}, err
	case len(h) == 0:
		return frame{}, io.EOF
	case len(h) < frameHead:
		return frame{}, &badFrame{Off: off, Torn: true, Cause: "cut off"}
	}
	size, kind, sum, ok := parseHead(h)
	if !ok {
		return frame{}, &badFrame{Off: off, Cause: "not a frame"}
	}
	b, err := s.view(off, frameHead+size)
	switch {
	case err != nil:
		return frame{}, err
	case len(b) < frameHead+size:
		return frame{}, &badFrame{Off: off, Torn: true, Cause: "cut off"}
	case frameSum(b, b[frameHead:]) != sum:
		return frame{}, &badFrame{Off: off, Cause: "checksum does not match"}
	}
	return frame{Kind: kind, Off: off, Payload: b[frameHead:]}, nil
}

// next returns the next frame and moves behind it. At the end of the file it
// returns io.EOF and stays, so that it can be called again when the file has
// grown; a *badFrame moves to the next whole frame.
func (s *scanner) next() (frame, error) {
	f, err := s.at(s.off)
	var bad *badFrame
	if errors.As(err, &bad) {
		err = s.resync(bad)
	}
	if err == nil {
		s.off = f.Off + frameHead + int64(len(f.Payload))
	}
	return f, err
}

// resync finds the next whole frame behind a bad one: where its length says, else
// at any byte. It returns bad, completed, or an error of reading.
func (s *scanner) resync(bad *badFrame) error {
	if h, err := s.view(bad.Off, frameHead); err != nil {
		return err
	} else if len(h) == frameHead {
		if size, _, _, ok := parseHead(h); ok {
			_, err := s.at(bad.Off + frameHead + int64(size))
			if err == nil || errors.Is(err, io.EOF) && !bad.Torn {
				bad.Next, bad.Torn, bad.One = bad.Off+frameHead+int64(size), false, true
				s.off = bad.Next
				return bad
			}
		}
	}
	for off := bad.Off + 1; ; off++ {
		h, err := s.view(off, frameHead+1)
		if err != nil {
			return err
		}
		if len(h) <= frameHead {
			bad.Next, bad.Torn = off+int64(len(h)), true
			break
		}
		if s.searched += searchStep; s.searched > searchBytes {
			bad.Next, bad.Torn = s.size(off), true
			break
		}
		// A record and a header are CBOR maps: this spares most checksums.
		size, kind, _, ok := parseHead(h)
		if !ok || kind != frameEnd && h[frameHead]>>5 != 5 {
			continue
		}
		s.searched += int64(size)
		if _, err := s.at(off); err == nil {
			bad.Next, bad.Torn = off, false
			break
		} else if b := (*badFrame)(nil); !errors.As(err, &b) {
			return err
		}
	}
	s.off = bad.Next
	return bad
}

// size is where the file ends, off if that is not known.
func (s *scanner) size(off int64) int64 {
	if f, ok := s.f.(*os.File); ok {
		if st, err := f.Stat(); err == nil {
			return max(off, st.Size())
		}
	}
	return off
}

// fresh forgets what was read, so that bytes written since are seen.
func (s *scanner) fresh() { s.buf, s.base = s.buf[:0], s.off }
