package respond

import (
	"fmt"
	"sync"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
)

// Storm is a mass change under way: more paths than StormLimit asked to be put
// back within a window. Restores go on; what destroys or replaces trusted versions
// waits until it is over, for in a mass change an allowed program may be the tool.
type Storm struct {
	On    bool
	Since uint64 // ns since boot
	Paths uint64 // put back or refused since
}

// storm is the breaker: it counts answers in slices of a window.
type storm struct {
	limit  int
	window uint64 // ns

	mu     sync.Mutex // guards all below
	slices [storming]int
	slice  uint64 // number of the newest slice
	now    Storm
	times  uint64 // it began
}

// storming is into how many slices the window is cut.
const storming = 12

// count notes an answer at now; began is true for the one that is too many.
func (s *storm) count(now uint64) (began bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(now)
	s.slices[s.slice%storming]++
	if s.now.On {
		s.now.Paths++
		return false
	}
	if n := s.sum(); n > s.limit {
		s.now = Storm{On: true, Since: now, Paths: uint64(n)}
		s.times++
		return true
	}
	return false
}

// over ends it once fewer than half as many came in a whole window; ended is true
// for the call that finds that.
func (s *storm) over(now uint64) (was Storm, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(now)
	was = s.now
	if !was.On || now < was.Since+s.window || s.sum() > s.limit/2 {
		return was, false
	}
	s.now = Storm{}
	return was, true
}

func (s *storm) turn(now uint64) {
	n := now / max(s.window/storming, 1)
	if n-s.slice >= storming {
		s.slices = [storming]int{}
	} else {
		for i := s.slice + 1; i <= n; i++ {
			s.slices[i%storming] = 0
		}
	}
	s.slice = n
}

func (s *storm) sum() int {
	n := 0
	for _, k := range s.slices {
		n += k
	}
	return n
}

// Storm tells whether a mass change is under way.
func (r *Responder) Storm() Storm {
	r.storm.mu.Lock()
	defer r.storm.mu.Unlock()
	return r.storm.now
}

func (r *Responder) storms() uint64 {
	r.storm.mu.Lock()
	defer r.storm.mu.Unlock()
	return r.storm.times
}

// StormOver looks whether the mass change has ended; it is true once for each.
func (r *Responder) StormOver() (Storm, bool) { return r.storm.over(r.o.Now()) }

// rival is a program that keeps giving a path the same content.
type rival struct {
	exe   string
	hash  event.Hash
	times int
	first uint64 // ns since boot
	last  uint64
}

// rivals remembers who changed what was put back: two programs that both manage
// a file take turns for ever, at any pace, where nobody attacks anything.
type rivals struct {
	mu    sync.Mutex // guards all below
	paths map[string]*rival
	told  map[string]string // path → what is known of it
}

// After so many times the same, with no more than that between, two managers are
// told of. Beyond maxRivals paths none is added.
const (
	rivalTimes  = 3
	rivalWithin = uint64(25 * time.Hour)
	maxRivals   = 4096
)

// note takes a change that is about to be put back; what it returns, if anything,
// is for a person.
func (v *rivals) note(cause *event.Record, path string, now uint64, wall event.Time) string {
	if cause.After == nil || !cause.After.Exists || cause.Process == nil || cause.Process.Exe == "" {
		return ""
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.paths == nil {
		v.paths, v.told = map[string]*rival{}, map[string]string{}
	}
	r := v.paths[path]
	if r == nil && len(v.paths) >= maxRivals {
		for p, old := range v.paths {
			if now-old.last > rivalWithin {
				delete(v.paths, p)
				delete(v.told, p)
			}
		}
		if len(v.paths) >= maxRivals {
			return ""
		}
	}
	if r == nil || r.exe != cause.Process.Exe || r.hash != cause.After.Hash || now-r.last > rivalWithin {
		r = &rival{exe: cause.Process.Exe, hash: cause.After.Hash, first: now}
		v.paths[path] = r
		delete(v.told, path)
	}
	r.times++
	r.last = now
	if r.times < rivalTimes {
		return ""
	}
	text := fmt.Sprintf("%s has made the same change %d times, the last at %s: two managers of one file; allow it in the rule, or take the file out of one of them",
		r.exe, r.times, wall.Go().Format(time.DateTime+"Z"))
	v.told[path] = text
	return text
}

// Rivals lists by path which programs keep undoing the restores.
func (r *Responder) Rivals() map[string]string {
	r.rivals.mu.Lock()
	defer r.rivals.mu.Unlock()
	out := make(map[string]string, len(r.rivals.told))
	for p, t := range r.rivals.told {
		if r.o.Now()-r.rivals.paths[p].last <= rivalWithin {
			out[p] = t
		}
	}
	return out
}
