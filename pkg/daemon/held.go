package daemon

import (
	"context"
	"fmt"
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
	if !d.sensor.CanScan() {
		return // the missing program says so
	}
	if err := d.sensor.Scan(newClock().Boot(), true); err != nil {
		d.degrade("held", fmt.Sprintf("who held watched files before is not known: %v", err))
	}
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
