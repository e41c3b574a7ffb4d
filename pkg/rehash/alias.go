package rehash

import (
	"time"

	"github.com/holdfast/holdfast/pkg/event"
)

// aliases are the other known names of a file that has several: what was done to
// one was done to all, but the kernel names one. Their known states follow.
func (k *check) aliases(f *Finding) []Finding {
	if f.From != nil {
		return nil
	}
	file := f.Now
	if k.lost.Exists { // the name that the kernel gave is not this file's any more
		file = k.lost
	}
	if file.Nlink < 2 || file.Type != event.TypeRegular || file.Ino == 0 {
		return nil
	}
	var out []Finding
	for _, p := range k.r.known.names(file.Dev, file.Ino) {
		if p == f.Path {
			continue
		}
		e, _ := k.r.known.Get(p)
		v, ok := glance(p)
		if !ok || v.ino != file.Ino || v.dev != file.Dev {
			// A directory above it has moved, and that is yet to be told: it is read then.
			k.r.putEntry(p, Entry{State: e.State, At: e.At, fresh: e.fresh, vague: true, owed: k.c})
			f.Looks = append(f.Looks, Look{Path: p, By: k.c})
			continue
		}
		o := Finding{Path: p, Op: f.Op, Before: e.State, Late: f.Late, Fresh: e.fresh, Alias: f.Path}
		if k.lost.Exists {
			l, after := k.read(p, nil)
			if after.Any || l.err != nil && !l.state.Exists {
				f.Looks = append(f.Looks, Look{Path: p, By: k.c})
				continue
			}
			o.After, o.Now = l.state, l.state
			k.r.put(p, l, e.fresh)
		} else {
			mine, _ := k.r.known.Get(f.Path)
			o.After, o.Now = f.After, f.Now
			k.r.putEntry(p, Entry{State: mine.State, At: mine.At, ctime: mine.ctime, fresh: e.fresh, vague: mine.vague, owed: mine.owed})
		}
		if o.Changed = !o.Before.Same(&o.After); o.Changed {
			out = append(out, o)
		}
	}
	return out
}

// doubt is an operation that left no difference when it was looked at. If another
// one is told of later that had been done by then, the two may have taken each
// other back, and the first was a change after all.
type doubt struct {
	c  *event.Change
	at uint64 // when it was looked at
}

// The doubts that are kept, and for how long: an event is told of within
// milliseconds of its operation.
const (
	doubtLimit = 4096
	doubtAge   = uint64(time.Second)
)

func (r *Rehash) doubt(path string, c *event.Change, at uint64) {
	if len(r.doubts) >= doubtLimit {
		for p, d := range r.doubts {
			if d.at+doubtAge < at {
				delete(r.doubts, p)
			}
		}
		if len(r.doubts) >= doubtLimit {
			return
		}
	}
	r.doubts[path] = doubt{c, at}
}

// doubted returns the change on path that c shows to have been one.
func (r *Rehash) doubted(path string, c *event.Change) *event.Change {
	d, ok := r.doubts[path]
	if !ok {
		return nil
	}
	delete(r.doubts, path)
	if d.c.Last <= c.First && c.First <= d.at+slack {
		return d.c
	}
	return nil
}
