package window

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
)

// ErrFull says that MaxOpen windows are open.
var ErrFull = fmt.Errorf("%d windows are open, more are not allowed", MaxOpen)

// Options of Open. All are required.
type Options struct {
	File  string
	Boot  string       // id of this boot
	Now   func() int64 // ns since boot, sleep included (CLOCK_BOOTTIME)
	Wall  func() event.Time
	MntNS string // the mount namespace whose paths programs have, as records name it
	// Vouch reports why a window of the file is not to be believed, nil if it is.
	Vouch func(*Window) error
}

// entry is a window in the time of this boot.
type entry struct {
	Window
	from, end int64 // ns since this boot; before it: negative
}

// Set is the windows of a host. Any goroutine may ask; what changes the set is the
// caller's to put in order.
type Set struct {
	o    Options
	step func()

	mu    sync.RWMutex // guards all below
	next  uint64
	open  []entry // by number; may have ended by the clock (Due)
	ended []entry // not forgotten yet
}

// maxEnded bounds the windows that are remembered after their end.
const maxEnded = 16 * MaxOpen

// Open reads the file. A window that is not to be believed, and all of a damaged file,
// is left out: the error says so, and comes with a Set that can be used.
func Open(o Options) (*Set, error) {
	s := &Set{o: o, next: 1, step: func() {}}
	ws, next, err := Read(o.File)
	s.next = next
	errs := []error{err}
	for _, w := range ws {
		if err := o.Vouch(&w); err != nil {
			errs = append(errs, fmt.Errorf("%s is not in force: %w", w.Name(), err))
			continue
		}
		s.open = append(s.open, s.place(w))
	}
	return s, errors.Join(errs...)
}

// place puts a window into the time of this boot. After a reboot only the wall clock
// tells how much of it is left.
func (s *Set) place(w Window) entry {
	long := int64(w.Until - w.Opened)
	if w.Boot == s.o.Boot {
		return entry{w, w.From, w.From + long}
	}
	now, wall := s.o.Now(), s.o.Wall()
	if wall < w.Opened { // it cannot be
		return entry{w, now, now - 1}
	}
	from := now - int64(wall-w.Opened)
	return entry{w, from, from + long}
}

// New makes a window that begins now, for Add. The error says what is wrong with it;
// ErrFull if there is no room.
func (s *Set) New(w Window, long time.Duration) (Window, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	w.Number, w.Boot, w.From, w.Opened = s.next, s.o.Boot, s.o.Now(), s.o.Wall()
	w.Until = w.Opened + event.Time(long)
	if err := w.Check(); err != nil {
		return w, err
	}
	if len(s.open) >= MaxOpen {
		return w, ErrFull
	}
	return w, nil
}

// Add opens a window, durably.
func (s *Set) Add(w Window) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := append(slices.Clone(s.open), s.place(w))
	if err := s.save(open, w.Number+1); err != nil {
		return err
	}
	s.open, s.next = open, w.Number+1
	return nil
}

// Remove ends a window, now or when it ended by the clock, durably. What was done in
// it stays covered until Forget.
func (s *Set) Remove(number uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.open, func(e entry) bool { return e.Number == number })
	if i < 0 {
		return nil
	}
	e := s.open[i]
	open := slices.Delete(slices.Clone(s.open), i, i+1)
	if err := s.save(open, s.next); err != nil {
		return err
	}
	e.end = min(e.end, s.o.Now())
	s.open, s.ended = open, append(s.ended, e)
	s.ended = s.ended[max(0, len(s.ended)-maxEnded):]
	return nil
}

func (s *Set) save(open []entry, next uint64) error {
	ws := make([]Window, 0, len(open))
	for _, e := range open {
		ws = append(ws, e.Window)
	}
	b, err := format(ws, next)
	if err != nil {
		return fmt.Errorf("write windows: %w", err)
	}
	return write(s.o.File, b, s.step)
}

// List returns the windows that are open now.
func (s *Set) List() []Window { return s.pick(func(e *entry) bool { return s.o.Now() <= e.end }) }

// Due returns those that have ended by the clock and are still to be removed.
func (s *Set) Due() []Window { return s.pick(func(e *entry) bool { return s.o.Now() > e.end }) }

func (s *Set) pick(which func(*entry) bool) []Window {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []Window
	for i := range s.open {
		if which(&s.open[i]) {
			out = append(out, s.open[i].Window)
		}
	}
	return out
}

// Left is for how long a window goes on: less than 0 if it has ended.
func (s *Set) Left(w *Window) time.Duration { return time.Duration(s.place(*w).end - s.o.Now()) }

// Forget drops the windows that ended before a moment (ns since boot): all that was
// done before is judged.
func (s *Set) Forget(before int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = slices.DeleteFunc(s.ended, func(e entry) bool { return e.end < before })
}

// May reports whether a window could cover a change of a path by somebody.
func (s *Set) May(path string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	may := func(e entry) bool { return e.CoversPath(path) }
	return slices.ContainsFunc(s.open, may) || slices.ContainsFunc(s.ended, may)
}

// Covering returns the window that covers a change, an ended one before an open one, then the lower number.
func (s *Set) Covering(c *Change) (Window, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, list := range [][]entry{s.ended, s.open} {
		for i := range list {
			e := &list[i]
			if c.First <= c.Last && e.from <= c.First && c.Last <= e.end && e.covers(c, s.o.MntNS) {
				return e.Window, true
			}
		}
	}
	return Window{}, false
}
