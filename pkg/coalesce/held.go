package coalesce

import (
	"cmp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
)

// Holding is one way in which a process can change a watched file without opening
// it again: a descriptor that no event told the opening of (OpOpen), or a shared
// mapping that is writable or may be made so (OpMapWrite).
type Holding struct {
	Path     string
	Op       event.Op
	Before   bool   // it was there before the file was watched
	Writable bool   // a mapping: stores succeed now
	Bytes    uint64 // of a mapping, where a scan told
	Allowed  bool   // the kernel found the executable on the rule's list
	Kthread  bool
	At       uint64 // ns since boot at which it was told
	Dev, Ino uint64
	Gen      uint32
	Nlink    uint32
	FMode    uint16
	Hook     uint16
	Exe      [2]uint64 // kernel dev_t and inode of the program

	Key     event.ProcKey
	Actor   event.Actor
	Process event.Process
}

// holder is a Holding that lasts.
type holder struct {
	Holding
	opener uint64
	seen   uint64        // number of the last scan that told of it
	copyOf event.ProcKey // who forked it, if it was not seen making the mapping
	execed bool          // it ended by executing another program
}

func (h *holder) mapped() bool { return h.Op == event.OpMapWrite }

// heldFile is a file with holders.
type heldFile struct {
	path    string
	anchor  uint32
	holders []*holder
	gone    []*holder // mappings that ended since the file was last looked at
}

func (f *heldFile) mappings() int {
	n := 0
	for _, h := range f.holders {
		if h.mapped() {
			n++
		}
	}
	return n
}

// held is the table of live holders. A mapped file is looked at every so often, and
// when its last mapping goes: stores through a mapping pass no hook, nor do they
// move the times of the inode.
//
//	due ── Scan asked ── the scan's events ── its end: what it did not tell of is gone ── looks
type held struct {
	files  map[string]*heldFile
	procs  map[uint32]int // holders of a process
	mapped int            // holders that are mappings
	loose  int            // and those that are descriptors

	due     uint64 // when a scan is asked for next, 0: nothing is held
	asked   uint64 // when a scan was asked for whose end has not come, 0: none
	looks   bool   // that scan is for looks
	doubted uint64 // when events were last lost, as of the last round of looks

	lost atomic.Uint64 // when events were last lost; not guarded: who tells must not wait
}

// looseShare is how many times less often descriptors alone are scanned for: their
// last close is told of, only what displaces a file is not.
const looseShare = 60

// scanSoon is how long after a sign that a mapping has ended a scan is asked for:
// the kernel side tells of such signs less often than this (bpf/hooks/syscall.h).
const scanSoon = 200 * time.Millisecond

// Lost tells that events were lost at now, which is not 0: who stored what is not
// certain then. It never waits.
func (t *Table) Lost(now uint64) { t.held.lost.Store(now) }

// Held lists the live holders, by path and process.
func (t *Table) Held() []Holding {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Holding
	for _, f := range t.held.files {
		for _, h := range f.holders {
			out = append(out, h.Holding)
		}
	}
	slices.SortFunc(out, func(a, b Holding) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), cmp.Compare(a.Key.PID, b.Key.PID), cmp.Compare(a.Op, b.Op))
	})
	return out
}

// scanned takes one event of a scan.
func (t *Table) scanned(ev *event.Event, at Place, who Who) {
	if at.Path == "" || unnamed(ev) {
		return
	}
	arming := ev.Flags&event.FlagFirst != 0
	if f := t.held.files[at.Path]; f != nil {
		for _, h := range f.holders {
			if h.opener == ev.Opener && h.Op == ev.Op && sameProcess(h.Key, ev.Key) {
				h.seen, h.Writable = ev.Arg, ev.Ret != 0
				return
			}
		}
	}
	if o := t.openers[ev.Opener]; ev.Op == event.OpOpen && (!arming || o != nil && o.path == at.Path) {
		return // its opening was told
	}
	h := t.hold(ev, ev.Op, at, who)
	if h == nil {
		return
	}
	h.Writable, h.Bytes, h.seen = ev.Ret != 0, ev.Bytes, ev.Arg
	if arming {
		h.Before = true
		t.stats.HeldBefore++
		t.found = append(t.found, h.Holding)
		if h.mapped() {
			t.lookFirst(t.held.files[at.Path], ev.Time)
		}
	}
}

// hold adds a holder; nil if there is no room.
func (t *Table) hold(ev *event.Event, op event.Op, at Place, who Who) *holder {
	if t.held.mapped+t.held.loose >= t.o.MaxHeld {
		t.stats.HeldOverflow++
		return nil
	}
	f := t.held.files[at.Path]
	if f == nil {
		f = &heldFile{path: at.Path, anchor: at.Anchor}
		t.held.files[at.Path] = f
	}
	h := &holder{opener: ev.Opener, Holding: Holding{
		Path: at.Path, Op: op, Allowed: ev.Flags&event.FlagAllowed != 0, Kthread: ev.Kthread, At: ev.Time,
		Dev: ev.Dev, Ino: ev.Ino, Gen: ev.Gen, Nlink: ev.Nlink, FMode: ev.FMode, Hook: ev.Hook,
		Exe: [2]uint64{ev.ExeDev, ev.ExeIno}, Key: ev.Key,
	}}
	if who != nil {
		h.Actor, h.Process = who(ev)
	}
	f.holders = append(f.holders, h)
	t.counted(h, 1)
	t.wind(ev.Time)
	return h
}

// wind sets the clock for what is held.
func (t *Table) wind(now uint64) {
	h := &t.held
	next := uint64(0)
	switch {
	case h.mapped > 0:
		next = now + uint64(t.o.MappedEvery)
	case h.loose > 0:
		next = now + looseShare*uint64(t.o.MappedEvery)
	}
	if next == 0 || h.due == 0 || next < h.due {
		h.due = next
	}
}

// sooner lets the next scan come soon, if one is to come at all.
func (t *Table) sooner(now uint64) {
	if t.held.due != 0 {
		t.held.due = min(t.held.due, now+uint64(scanSoon))
	}
}

// Displaced tells that Holdfast has put another inode in the place of a file: who
// holds the old one may hold it no longer.
func (t *Table) Displaced(path string, now uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held.files[path] != nil {
		t.sooner(now)
	}
}

// counted keeps the sums when a holder comes (1) or goes (-1).
func (t *Table) counted(h *holder, n int) {
	if h.mapped() {
		t.held.mapped += n
	} else {
		t.held.loose += n
	}
	if t.held.procs[h.Key.PID] += n; t.held.procs[h.Key.PID] <= 0 {
		delete(t.held.procs, h.Key.PID)
	}
}

// mapping notes that the process of ev has a shared mapping of a file: it made
// one, or stored through one.
func (t *Table) mapping(ev *event.Event, at Place, who Who) {
	if at.Path == "" || unnamed(ev) {
		return
	}
	if f := t.held.files[at.Path]; f != nil {
		for _, h := range f.holders {
			if h.mapped() && sameProcess(h.Key, ev.Key) && (h.opener == ev.Opener || ev.Flags&event.FlagMapped != 0) {
				h.At = ev.Time
				return
			}
		}
	}
	if h := t.hold(ev, event.OpMapWrite, at, who); h != nil {
		h.Writable = true
	}
}

// received notes a descriptor that came from another process.
func (t *Table) received(ev *event.Event, at Place, who Who) {
	if at.Path == "" || unnamed(ev) {
		return
	}
	t.hold(ev, event.OpOpen, at, who)
}

func sameProcess(a, b event.ProcKey) bool { return a.PID == b.PID && a.Start == b.Start }

// drop takes the holders away that match, and looks at files that have lost their
// last mapping by that.
func (t *Table) drop(now uint64, match func(*holder) bool) {
	for _, f := range t.held.files {
		ended := false
		f.holders = slices.DeleteFunc(f.holders, func(h *holder) bool {
			if !match(h) {
				return false
			}
			t.counted(h, -1)
			if h.mapped() {
				ended = true
				f.gone = append(f.gone, h)
			}
			return true
		})
		if ended && f.mappings() == 0 {
			t.lookHeld(f, now)
		}
		if len(f.holders) == 0 {
			delete(t.held.files, f.path)
		}
	}
	t.wind(now)
}

// family follows a process that holds: its children hold the same, its mappings
// end with its program, and all ends with itself.
func (t *Table) family(ev *event.Event, who Who) {
	switch ev.Kind {
	case event.KindFork:
		if t.held.procs[ev.Parent.PID] > 0 {
			t.inherit(ev, who)
		}
	case event.KindExec:
		if t.held.procs[ev.Key.PID] > 0 {
			t.drop(ev.Time, func(h *holder) bool {
				h.execed = h.mapped() && h.Key.PID == ev.Key.PID
				return h.execed
			})
		}
	case event.KindExit:
		if t.held.procs[ev.Key.PID] > 0 {
			t.drop(ev.Time, func(h *holder) bool { return h.Key.PID == ev.Key.PID })
		}
	}
}

func (t *Table) inherit(ev *event.Event, who Who) {
	var child Holding
	if who != nil {
		child.Actor, child.Process = who(ev)
	}
	for _, f := range t.held.files {
		for _, h := range slices.Clone(f.holders) {
			if !sameProcess(h.Key, ev.Parent) {
				continue
			}
			if t.held.mapped+t.held.loose >= t.o.MaxHeld {
				t.stats.HeldOverflow++
				return
			}
			c := *h
			c.Key, c.At, c.seen, c.copyOf = ev.Key, ev.Time, 0, h.Key
			c.Actor, c.Process = child.Actor, child.Process
			f.holders = append(f.holders, &c)
			t.counted(&c, 1)
		}
	}
}

// unmapped is a sign that a process has ended a mapping of some watched file.
func (t *Table) unmapped(ev *event.Event) {
	if t.held.procs[ev.Key.PID] > 0 {
		t.sooner(ev.Time)
	}
}

// movedHeld lets holders of what was renamed be known by its new name.
func (t *Table) movedHeld(from, to string) {
	var moved []*heldFile
	for p, f := range t.held.files {
		if p == from || below(p, from) {
			moved = append(moved, f)
			delete(t.held.files, p)
		}
	}
	for _, f := range moved {
		if to == "" {
			for _, h := range f.holders {
				t.counted(h, -1)
			}
			continue
		}
		f.path = to + f.path[len(from):]
		for _, h := range f.holders {
			h.Path = f.path
		}
		// who holds what was there before holds a file without a name now
		if old := t.held.files[f.path]; old != nil {
			for _, h := range old.holders {
				t.counted(h, -1)
			}
		}
		t.held.files[f.path] = f
	}
}
