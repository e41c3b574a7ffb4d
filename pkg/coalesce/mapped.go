package coalesce

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
)

// lookFirst has a file read of which it has just become known that it is mapped:
// what differs was done before anybody could tell by whom.
func (t *Table) lookFirst(f *heldFile, now uint64) {
	t.stats.HeldLooks++
	t.send(&event.Change{
		Anchor: f.anchor, Path: f.path, Op: event.OpOpen, First: now, Last: now, Hook: f.holders[0].Hook, Mapped: true,
		Actor: *event.Nobody(), Why: "changed before it was seen who has it mapped: " + names(f.holders),
	})
}

// ended is the end of a scan: what it should have told of and did not is gone.
// It tells nothing if events were lost since it began.
func (t *Table) ended(ev *event.Event) {
	op := event.OpOpen
	if ev.Flags&event.FlagMapped != 0 {
		op = event.OpMapWrite
	}
	if t.held.lost.Load() < ev.Arg {
		t.drop(ev.Time, func(h *holder) bool { return h.Op == op && h.seen < ev.Arg && h.At < ev.Arg })
	}
	if op == event.OpOpen && ev.Flags&event.FlagFirst != 0 {
		t.armed = true
	}
	if op != event.OpMapWrite || t.held.asked == 0 || ev.Flags&event.FlagFirst != 0 {
		return
	}
	t.held.asked = 0
	if t.held.looks {
		t.lookAll(ev.Time)
	}
}

// tickHeld asks for a scan when it is time, or looks where none can be had.
func (t *Table) tickHeld(now uint64) {
	h := &t.held
	if h.due == 0 || now < h.due {
		return
	}
	h.due = 0
	t.wind(now)
	if h.asked != 0 && h.looks || t.o.Scan == nil {
		// The last scan did not end, or there is none: look all the same.
		t.stats.HeldBlind++
		t.lookAll(now)
	}
	h.asked, h.looks = now, true
	t.scan = t.o.Scan != nil
}

// lookAll looks at every file that is mapped, or was since the last time.
func (t *Table) lookAll(now uint64) {
	t.held.looks = false
	lost := t.held.lost.Load()
	for _, f := range t.held.files {
		if len(f.gone) > 0 || f.mappings() > 0 {
			t.lookHeld(f, now)
		}
	}
	t.held.doubted = lost
}

// lookHeld has a mapped file read, and forgets who has ended since the last time.
func (t *Table) lookHeld(f *heldFile, now uint64) {
	if c := t.storeLook(f, now); c != nil {
		t.send(c)
	}
}

// storeLook is a look in the name of who may have stored: it is the actor if
// nobody else could. nil: nobody could.
func (t *Table) storeLook(f *heldFile, now uint64) *event.Change {
	var could []*holder
	for _, h := range slices.Concat(f.holders, f.gone) {
		if h.mapped() && !slices.ContainsFunc(could, func(o *holder) bool { return sameProcess(o.Key, h.Key) }) {
			could = append(could, h)
		}
	}
	f.gone = nil
	if len(could) == 0 {
		return nil
	}
	// A child that has executed another program since was a copy of its parent while it
	// had the mapping: the same program, for the same person.
	all := could
	could = slices.DeleteFunc(slices.Clone(all), func(h *holder) bool {
		return h.execed && slices.ContainsFunc(all, func(o *holder) bool { return sameProcess(o.Key, h.copyOf) })
	})
	h := could[0]
	c := &event.Change{
		Anchor: f.anchor, Path: f.path, Op: event.OpOpen, First: now, Last: now, Hook: h.Hook, Mapped: true,
		Actor: *event.Nobody(),
	}
	switch {
	case t.held.lost.Load() > t.held.doubted:
		c.Why = "stored through a shared mapping or written while events were lost; mapped by " + names(could)
	case len(could) > 1:
		c.Why = fmt.Sprintf("stored through a shared mapping, which no hook sees; any of %d processes may have: %s", len(could), names(could))
	default:
		c.Why = "stored through a shared mapping, which no hook sees; no other process had it mapped: " + names(could)
		if len(all) > 1 {
			c.Why += ", but for children that it forked, until they executed another program"
		}
		c.Actor, c.Process, c.Key, c.Allowed = h.Actor, h.Process, h.Key, h.Allowed
	}
	t.stats.HeldLooks++
	return c
}

// lookMade is what becomes of a change that tells of nothing but a mapping: who made
// it need not be who stores.
func (t *Table) lookMade(c *event.Change) {
	if f := t.held.files[c.Path]; f != nil && f.mappings() > 0 {
		t.lookHeld(f, c.Last)
		return
	}
	if t.stats.HeldOverflow == 0 {
		return // it has ended, and was looked at with that
	}
	// perhaps there was no room to remember it
	c.Op, c.Ops, c.Count, c.Bytes = event.OpOpen, nil, 0, 0
	c.Why = "stored through a shared mapping, which no hook sees; who had it mapped is not known any more"
	c.Actor, c.Process, c.Key, c.Allowed = *event.Nobody(), event.Process{}, event.ProcKey{}, false
	t.send(c)
}

// LookMapped returns a look at a file if it is mapped: what differs there may have
// been stored, and by whom is known here. nil: it is not.
func (t *Table) LookMapped(path string, now uint64) *event.Change {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.held.files[path]
	if f == nil || f.mappings() == 0 {
		return nil
	}
	t.stats.Changes++
	return t.storeLook(f, now)
}

// maps reports whether a file is mapped by way of an opener.
func (t *Table) maps(opener uint64, path string) bool {
	f := t.held.files[path]
	return f != nil && slices.ContainsFunc(f.holders, func(h *holder) bool { return h.mapped() && h.opener == opener })
}

// names lists processes for people, at most eight of them.
func names(hs []*holder) string {
	const most = 8
	var out []string
	for _, h := range hs[:min(len(hs), most)] {
		name := h.Process.Exe
		if name == "" {
			name = cmp.Or(h.Process.Comm, "process")
		}
		out = append(out, fmt.Sprintf("%s[%d]", name, h.Key.PID))
	}
	if len(hs) > most {
		out = append(out, fmt.Sprintf("and %d more", len(hs)-most))
	}
	return strings.Join(out, ", ")
}
