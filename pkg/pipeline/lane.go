package pipeline

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/coalesce"
	"github.com/holdfast/holdfast/pkg/respond"
)

// lane is where the slow side sends what takes long: that a file of many GiB changed
// must not keep another one from being put back at once. One goroutine deals with it
// as the slow side would. It has the turn as long as it does anything but read a large
// file, put one back or keep one; meanwhile the slow side goes on.
//
// What meets something that waits there waits there too, behind it: so the records of
// one path, of what is above and below it where names change, and of all names of one file
// are in the order of the changes, as if there were no lane.
//
//	queue ──► slow side ──► record, answer
//	              │  ▲ the turn
//	              ▼  ▼
//	            lane: large file ◄─ what meets it ◄─ another large file ...
type lane struct {
	p    *Pipeline
	back func(context.Context, *item) error
	n    atomic.Int64 // items

	mu     sync.Mutex // guards all below
	items  []*item    // in order, the one that is dealt with among them
	scopes scopes     // of items
	told   told       // changes of items, without the one that is dealt with
	large  uint64     // files that were sent here, and directories
	full   uint64     // times that there was no room
	err    error      // why it ended early

	ready chan struct{} // has one token when there may be items to deal with
	moved chan struct{} // has one token when an item was dealt with
}

func newLane(p *Pipeline) *lane {
	return &lane{p: p, scopes: newScopes(), told: newTold(), ready: make(chan struct{}, 1), moved: make(chan struct{}, 1)}
}

// start begins; the returned function ends it.
func (l *lane) start(ctx context.Context, back func(context.Context, *item) error) (end func()) {
	l.back = back
	ctx, cancel := context.WithCancel(context.WithValue(ctx, onLane{}, true))
	var wg sync.WaitGroup
	wg.Go(func() { l.run(ctx) })
	return func() { cancel(); wg.Wait() }
}

// onLane is the key of a context in which the lane's goroutine has the turn.
type onLane struct{}

func (l *lane) run(ctx context.Context) {
	for ctx.Err() == nil {
		batch := l.free()
		for _, it := range batch {
			if err := l.do(ctx, it); err != nil {
				l.mu.Lock()
				l.err = err
				l.mu.Unlock()
				signal(l.p.queue.ready)
				signal(l.moved)
				return
			}
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-l.ready:
		case <-ctx.Done():
		}
	}
}

// free returns what may be dealt with next, in order: what takes no time and no large
// one before it has to be waited for, else the oldest large one.
func (l *lane) free() (out []*item) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := newScopes()
	for _, it := range l.items {
		if it.scope.bytes > l.p.o.Large || before.meet(&it.scope) {
			before.count(&it.scope, 1)
			continue
		}
		out = append(out, it)
	}
	if len(out) == 0 && len(l.items) > 0 {
		out = []*item{l.items[0]}
	}
	return out
}

// do deals with one item in turn.
func (l *lane) do(ctx context.Context, it *item) error {
	p := l.p
	p.turn.Lock()
	l.mu.Lock()
	l.told.remove(it.change)
	l.mu.Unlock()
	err := p.work(ctx, it, l.back)
	p.turn.Unlock()
	l.mu.Lock()
	l.items = slices.DeleteFunc(l.items, func(o *item) bool { return o == it })
	l.scopes.count(&it.scope, -1)
	l.mu.Unlock()
	l.n.Add(-1)
	signal(l.moved)
	signal(p.queue.ready)
	return err
}

// takes reports whether an item waits in the lane from now on. The slow side asks, in turn.
func (l *lane) takes(it *item) bool {
	if it.change == nil && it.again == nil && it.held == nil && len(it.about) == 0 {
		return false
	}
	it.scope = l.p.scopeOf(it)
	l.mu.Lock()
	defer l.mu.Unlock()
	large := it.scope.bytes > l.p.o.Large
	if !large && (len(l.items) == 0 || !l.scopes.meet(&it.scope)) {
		return false
	}
	if large {
		l.large++
	}
	l.items = append(l.items, it)
	l.scopes.count(&it.scope, 1)
	l.told.add(it.change)
	l.n.Add(1)
	signal(l.ready)
	return true
}

// room reports whether another item may come, or why none ever will. While there is
// none the slow side waits, and the queue before it fills.
func (l *lane) room() (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	full := len(l.items) >= l.p.o.Behind
	if full {
		l.full++
	}
	return !full, l.err
}

// later tells what waits for a path.
func (l *lane) later(path string) coalesce.Later {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.told.later(path)
}

// oldest is the moment of the first operation whose change waits, false if none does.
func (l *lane) oldest() (at uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, it := range l.items {
		if c := it.change; c != nil && (!ok || c.First < at) {
			at, ok = c.First, true
		}
	}
	return at, ok
}

func (l *lane) stats() (n int, large, full uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.items), l.large, l.full
}

// aside does something that takes as long as n bytes do, on the lane without the turn.
func (p *Pipeline) aside(ctx context.Context, n uint64, do func()) {
	if ctx.Value(onLane{}) == nil {
		do()
		return
	}
	if n > p.o.Large {
		signal(p.queue.ready) // something may be due sooner than the slow side knows
		p.turn.Unlock()
		defer p.turn.Lock()
		do()
		return
	}
	do()
	p.turn.Unlock() // a directory may have many files that are small
	p.turn.Lock()
}

// readAside is rehash.Options.Aside: what is large is read without the turn.
func (p *Pipeline) readAside(ctx context.Context, path string, once func()) bool {
	var st unix.Stat_t
	if ctx.Value(onLane{}) == nil || unix.Lstat(path, &st) != nil || regular(&st) <= p.o.Large {
		return false
	}
	p.aside(ctx, regular(&st), once)
	return true
}

// restorer is the vault of respond.
type restorer struct {
	Vault
	p *Pipeline
}

// Restore implements respond.Vault.
func (r restorer) Restore(ctx context.Context, path string, version uint64) (d respond.Done, err error) {
	n := r.p.displaced(ctx, path)
	if want, _, ok := r.Trusted(path); ok {
		n = max(n, want.Size)
	}
	r.p.aside(ctx, n, func() { d, err = r.Vault.Restore(ctx, path, version) })
	return d, err
}

// Remove implements respond.Vault.
func (r restorer) Remove(ctx context.Context, path string) (d respond.Done, err error) {
	r.p.aside(ctx, r.p.displaced(ctx, path), func() { d, err = r.Vault.Remove(ctx, path) })
	return d, err
}

// displaced is how much there is at a path that goes to the evidence, which may be on
// another file system; the slow side need not know.
func (p *Pipeline) displaced(ctx context.Context, path string) uint64 {
	if ctx.Value(onLane{}) == nil {
		return 0
	}
	return p.bytesIn(path)
}
