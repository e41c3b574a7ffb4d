package respond

import "sync/atomic"

// breaker stops putting one path back for ever: after limit times within window
// it says no for as long as window.
type breaker struct {
	limit  int
	window uint64 // ns
	paths  map[string]*flap

	uncounted atomic.Uint64 // restores of paths that found no room
}

// flap is the memory of one path.
type flap struct {
	times []uint64 // of the restores within the window, oldest first
	until uint64   // tripped until then
}

// MaxFlaps bounds the paths remembered. Beyond it those are forgotten that were
// quiet for a window; if none was, the path is let through uncounted.
const MaxFlaps = 65536

// count notes that path is about to be put back at now; tripped says that it must
// not be, until the returned moment.
func (b *breaker) count(path string, now uint64) (until uint64, tripped bool) {
	f := b.paths[path]
	if f == nil {
		if len(b.paths) >= MaxFlaps {
			b.prune(now)
		}
		if len(b.paths) >= MaxFlaps {
			b.uncounted.Add(1)
			return 0, false
		}
		f = &flap{}
		b.paths[path] = f
	}
	if now < f.until {
		return f.until, true
	}
	keep := f.times[:0]
	for _, t := range f.times {
		if t+b.window > now {
			keep = append(keep, t)
		}
	}
	f.times = append(keep, now)
	if len(f.times) <= b.limit {
		return 0, false
	}
	f.times = f.times[:0]
	f.until = now + b.window
	return f.until, true
}

// undo takes the last count of path back: nothing had to be done.
func (b *breaker) undo(path string) {
	if f := b.paths[path]; f != nil && len(f.times) > 0 {
		f.times = f.times[:len(f.times)-1]
	}
}

func (b *breaker) prune(now uint64) {
	for p, f := range b.paths {
		if n := len(f.times); now >= f.until && (n == 0 || f.times[n-1]+b.window <= now) {
			delete(b.paths, p)
		}
	}
}
