package pipeline

import (
	"sync"

	"golang.org/x/sys/unix"
)

// handover passes raw records from the ring reader to the fast side: a ring of
// bytes. Each record lies in one piece behind its length; where it does not fit
// before the end, the rest of the ring is left out. It is made for bursts: memory
// that was not needed is not there, and what a burst took is given back after it.
//
//	0        tail            head      len(buf)
//	|  free  | len rec len rec |  free  |
type handover struct {
	mu      sync.Mutex // guards all below
	buf     []byte
	head    int // where the next record goes
	tail    int // the oldest record
	wrap    int // end of the records before the start, when head < tail
	used    int // bytes in use, the gap at the end included
	high    int // end of the bytes that were ever written since memory was given back
	size    int
	n       int
	dropped uint64
	waits   int  // how many wait for room
	closed  bool // nobody takes records any more

	ready chan struct{} // has one token when there may be records
	freed *sync.Cond    // there may be room
}

const frame = 4 // bytes of a length

// keptBytes of memory are not given back: a multiple of any page size.
const keptBytes = 1 << 20

func newHandover(size int) *handover {
	h := &handover{size: size, ready: make(chan struct{}, 1)}
	h.freed = sync.NewCond(&h.mu)
	var err error
	h.buf, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil { // less address space than that is odd, but no reason to give up
		h.buf = make([]byte, size)
	}
	return h
}

// put copies raw when there is room. False: there never will be; it was counted.
func (h *handover) put(raw []byte) bool {
	h.mu.Lock()
	for !h.try(raw) {
		if h.closed || frame+len(raw) > len(h.buf) {
			h.dropped++
			h.mu.Unlock()
			return false
		}
		h.waits++
		h.freed.Wait()
		h.waits--
	}
	h.mu.Unlock()
	signal(h.ready)
	return true
}

// try copies raw if there is room now. It is called with mu held.
func (h *handover) try(raw []byte) bool {
	need := frame + len(raw)
	at, ok := h.room(need)
	if !ok {
		return false
	}
	b := h.buf[at:]
	b[0], b[1], b[2], b[3] = byte(len(raw)), byte(len(raw)>>8), byte(len(raw)>>16), byte(len(raw)>>24)
	copy(b[frame:], raw)
	h.head = at + need
	h.high = max(h.high, h.head)
	h.used += need
	h.n++
	return true
}

// close ends the taking of records.
func (h *handover) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.freed.Broadcast()
	if h.n == 0 && h.buf != nil {
		_ = unix.Munmap(h.buf) // fails for memory of the heap alone
		h.buf = nil
	}
}

// empty reports whether every record was dealt with.
func (h *handover) empty() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.n == 0
}

// room finds a place for need bytes in one piece.
func (h *handover) room(need int) (at int, ok bool) {
	if h.n == 0 {
		h.head, h.tail, h.used, h.wrap = 0, 0, 0, 0
	}
	switch {
	case h.n > 0 && h.head <= h.tail: // the free part is in the middle
		return h.head, h.tail-h.head >= need
	case len(h.buf)-h.head >= need:
		return h.head, true
	case h.tail >= need && h.n > 0:
		h.used += len(h.buf) - h.head
		h.wrap = h.head
		return 0, true
	}
	return 0, false
}

// next returns the oldest record, borrowed until done is called; nil if there is
// none.
func (h *handover) next() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n == 0 {
		return nil
	}
	h.skip()
	n := h.length()
	return h.buf[h.tail+frame : h.tail+frame+n : h.tail+frame+n]
}

// skip moves the tail to the start when it has come to the end of the records.
func (h *handover) skip() {
	if h.wrap != 0 && h.tail == h.wrap {
		h.used -= len(h.buf) - h.tail
		h.tail, h.wrap = 0, 0
	}
}

func (h *handover) length() int {
	b := h.buf[h.tail:]
	return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 | int(b[3])<<24
}

// done gives the oldest record's room back.
func (h *handover) done() {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := frame + h.length()
	h.tail += n
	h.used -= n
	h.n--
	if h.n == 0 && h.high > keptBytes {
		_ = unix.Madvise(h.buf[keptBytes:], unix.MADV_DONTNEED) // else it stays: no harm
		h.high = 0
	}
	if h.waits > 0 && (h.used <= len(h.buf)/4*3 || h.n == 0) {
		h.freed.Broadcast()
	}
}

// stats returns the bytes in use, the size and how many records found no room.
func (h *handover) stats() (used, size int, dropped uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.used, h.size, h.dropped
}
