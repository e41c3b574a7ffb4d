package pipeline

import (
	"context"
	"sync"

	"github.com/holdfast/holdfast/pkg/coalesce"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/respond"
)

// item is one piece of work for the slow side.
type item struct {
	change *event.Change             // a change, or a look if its Op is OpOpen
	record *event.Record             // a finished record to append
	call   func(ctx context.Context) // something to be done in turn
	about  []string                  // the paths that call is about, with all below them
	held   *coalesce.Holding         // somebody can change a file without opening it

	// reason is why a look is made, when nobody is known to have done anything.
	reason string
	rescan *job // the rescan that it belongs to, nil if none
	seen   glance
	at     uint64 // when it was seen, ns since boot
	looks  int
	ready  bool     // nothing more is waited for
	self   bool     // a second look at what our own events left, or one at a mapped file
	came   bool     // it came with a directory that was renamed to where it is
	of     uint64   // inode that a second look is about, 0 if that is not known
	late   bool     // a look at a mapped file that had to wait for its turn
	names  []string // all names of the file that is changed, if these are several

	// again is an answer to be tried once more.
	again *again

	// scope is what it is about, once it is with the lane.
	scope scope
}

// again is an answer that failed and will be tried once more.
type again struct {
	cause  *event.Record
	since  uint64
	try    int
	target respond.Target
}

// queue is the bounded way from the fast side to the slow one. It also knows
// what is to come for each path.
type queue struct {
	limit int

	mu      sync.Mutex // guards all below
	items   []*item    // a ring
	first   int
	n       int
	most    int // waited at once since told was made
	dropped uint64
	told    told
	taken   uint64 // first moment of the change that was taken and is not done with, 0 if none

	ready chan struct{} // has one token when there may be items
	space chan struct{} // has one token when an item was taken
}

func newQueue(limit int) *queue {
	return &queue{
		limit: limit, items: make([]*item, limit), told: newTold(),
		ready: make(chan struct{}, 1), space: make(chan struct{}, 1),
	}
}

// put adds an item if there are fewer than limit. False: it was counted as dropped.
func (q *queue) put(it *item) bool { return q.putBelow(it, q.limit, true) }

// putBelow adds an item if fewer than limit wait.
func (q *queue) putBelow(it *item, limit int, count bool) bool {
	q.mu.Lock()
	if q.n >= limit {
		if count {
			q.dropped++
		}
		q.mu.Unlock()
		return false
	}
	q.items[(q.first+q.n)%len(q.items)] = it
	q.n++
	q.most = max(q.most, q.n)
	q.told.add(it.change)
	q.mu.Unlock()
	signal(q.ready)
	return true
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// take returns the oldest item, nil if there is none; oldest knows it until done.
func (q *queue) take() *item {
	q.mu.Lock()
	if q.n == 0 {
		q.mu.Unlock()
		return nil
	}
	it := q.items[q.first]
	q.items[q.first] = nil
	q.first = (q.first + 1) % len(q.items)
	if q.n--; q.n == 0 && q.most > 4096 {
		q.told, q.most = newTold(), 0 // a map keeps the room of a burst
	}
	if it.change != nil {
		q.taken = it.change.First
	}
	q.told.remove(it.change)
	q.mu.Unlock()
	signal(q.space)
	return it
}

// done ends the work on what was taken last.
func (q *queue) done() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taken = 0
}

// later tells what waits for a path.
func (q *queue) later(path string) coalesce.Later {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.told.later(path)
}

// oldest is the moment of the first operation that waits or is worked on, false if
// there is none.
func (q *queue) oldest() (uint64, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	at, ok := q.taken, q.taken != 0
	for i := range q.n {
		if c := q.items[(q.first+i)%len(q.items)].change; c != nil {
			if !ok || c.First < at {
				at, ok = c.First, true
			}
			break
		}
	}
	return at, ok
}

func (q *queue) stats() (n int, dropped uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n, q.dropped
}
