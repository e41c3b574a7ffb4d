package rehash

import (
	"time"

	"github.com/holdfast/holdfast/pkg/event"
)

// aliases are the other known names of a file that has several: what was done to
// one was done to all, but the kernel names one. Their known states follow.
func (k *check) aliases(f *Finding) []Finding {
	if f.Now.Nlink < 2 || f.Now.Type != event.TypeRegular || f.From != nil {
		return nil
	}
	var names []string
	k.r.known.Walk("/", func(p string, s *event.State) {
		if s.Ino == f.Now.Ino && s.Dev == f.Now.Dev && p != f.Path {
			names = append(names, p)
		}
	})
	var out []Finding
	for _, p := range names {
		v, ok := glance(p)
		e, known := k.r.known.Get(p)
		if !ok || !known || v.ino != f.Now.Ino || v.dev != f.Now.Dev {
			continue
		}
		o := Finding{Path: p, Op: f.Op, Before: e.State, After: f.After, Now: f.Now, Late: f.Late, Fresh: e.fresh, Alias: f.Path}
		o.Changed = !o.Before.Same(&o.After)
		mine, _ := k.r.known.Get(f.Path)
		k.r.putEntry(p, Entry{State: mine.State, At: mine.At, ctime: mine.ctime, fresh: e.fresh, vague: mine.vague})
		if o.Changed {
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
