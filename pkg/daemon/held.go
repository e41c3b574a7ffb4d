package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/holdfast/holdfast/pkg/coalesce"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/sense"
)

// scanShare is how many times longer than a scan the pause after it is: a scan
// looks at every descriptor and mapping of the machine.
const scanShare = 50

// scanHeld looks who holds watched files whenever the stages ask for it.
func (d *Daemon) scanHeld(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.scan:
		}
		begun := newClock().Boot()
		if err := d.sensor.Scan(begun, false); err != nil {
			d.degrade("held", fmt.Sprintf("who holds watched files is not known: %v", err))
		} else {
			d.recover("held")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(scanShare * time.Duration(newClock().Boot()-begun)):
		}
	}
}

// scanArmed looks who could change what is now watched before it was: the events
// of that come through the stages like all others.
func (d *Daemon) scanArmed() {
	if !d.sensor.Has(mmapBackingFile) && overlays() {
		d.need(fileUpdateTime, reasonOverlay)
	}
	if sense.CanBlock(d.tier) && sense.Rings("/proc") > 0 { // elsewhere requests are counted, and the trees compared
		d.need(filePermission, reasonRings)
	} else {
		d.sensor.Done(filePermission, reasonRings)
	}
	err := d.sensor.Scan(newClock().Boot(), true)
	if err == nil {
		return // its events say when Armed is due
	}
	d.holds.armed()
	if !errors.Is(err, sense.ErrNoScan) { // else the missing program says so
		d.degrade("held", fmt.Sprintf("who held watched files before is not known: %v", err))
	}
}

// The programs that are attached only while there is something for them to see,
// and why they may be.
const (
	filePermission = "file_permission"
	fileUpdateTime = "file_update_time"

	mmapBackingFile = "mmap_backing_file" // always attached, where there is such a hook

	reasonArming      = "rules are being armed"
	reasonRings       = "an io_uring holds files of its own since before"
	reasonDescriptors = "descriptors are held whose opening was not seen"
	reasonMappings    = "watched files are mapped for writing"
	reasonOverlay     = "this kernel does not tell what overlayfs maps below"
	reasonWriters     = "watched files stay open for writing"
)

// lasting is how long a watched file is open for writing before file_permission is
// attached for its sake: that costs every read and write of the machine, and what
// is closed sooner is told of by its close.
const lasting = time.Second

// holds is what the stages last told of what is held.
type holds struct {
	changed chan struct{}
	now     atomic.Pointer[coalesce.Holds] // nil before the first word

	arming atomic.Int64 // times that rules were armed whose scan has not told of all descriptors
	ended  atomic.Int64 // such scans that have, but are not taken off arming
}

// armed tells that a scan at arming has told of all descriptors.
func (h *holds) armed() {
	h.ended.Add(1)
	signal(h.changed)
}

func (h *holds) set(now coalesce.Holds) {
	h.now.Store(&now)
	signal(h.changed)
}

// demand has programs attached while what is held asks for them.
func (d *Daemon) demand(ctx context.Context) error {
	for {
		ended := d.holds.ended.Swap(0)
		var now coalesce.Holds
		if p := d.holds.now.Load(); p != nil {
			now = *p
		}
		for _, x := range []struct {
			program, reason string
			n               int
		}{
			{filePermission, reasonDescriptors, now.Descriptors},
			{filePermission, reasonWriters, now.Writers},
			{fileUpdateTime, reasonMappings, now.Mappings},
		} {
			if x.n > 0 {
				d.need(x.program, x.reason)
			} else {
				d.sensor.Done(x.program, x.reason)
			}
		}
		if d.holds.arming.Add(-ended) == 0 { // what was found is a reason of its own by now
			d.sensor.Done(filePermission, reasonArming)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.holds.changed:
		}
	}
}

func (d *Daemon) need(program, reason string) {
	if err := d.sensor.Need(program, reason); err != nil {
		d.degrade("program "+program, fmt.Sprintf("%s is needed, because %s, and is not there: %v", program, reason, err))
		return
	}
	d.recover("program " + program)
}

// overlays reports whether this kernel has overlayfs at hand (proc(5), /proc/filesystems).
func overlays() bool {
	b, err := os.ReadFile("/proc/filesystems")
	return err != nil || bytes.Contains(b, []byte("\toverlay\n"))
}

// unblocked are the reasons why a rule that blocks does not keep everything out:
// stores through a mapping that was there before it.
func (d *Daemon) unblocked(held []coalesce.Holding) []string {
	var out []string
	for i := range held {
		h := &held[i]
		rule, ok := d.rules.rule(h.Path)
		if !ok || rule.Mode != event.ModeBlock || !sense.CanBlock(d.tier) || h.Op != event.OpMapWrite || h.Allowed {
			continue
		}
		since := "since before it was watched"
		if !h.Before {
			since = "though mapping it should have been refused"
		}
		out = append(out, fmt.Sprintf("%s is not kept unchanged: %s[%d] has it mapped for writing %s; stores are found and put back, and this ends with the mapping",
			event.Text([]byte(h.Path)), programOf(h), h.Key.PID, since))
	}
	return out
}

func programOf(h *coalesce.Holding) string {
	if h.Process.Exe != "" {
		return h.Process.Exe
	}
	return h.Process.Comm
}

// heldShown bounds the holders that status lists.
const heldShown = 100

func (d *Daemon) heldStatus(held []coalesce.Holding) []control.Held {
	var out []control.Held
	for i := range held[:min(len(held), heldShown)] {
		h := &held[i]
		out = append(out, control.Held{
			Path: control.Path(h.Path), PID: h.Key.PID, Exe: programOf(h), User: h.Actor.User, Mapped: h.Op == event.OpMapWrite, Before: h.Before,
		})
	}
	return out
}
