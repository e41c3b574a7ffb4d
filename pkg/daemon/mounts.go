package daemon

import (
	"context"
	"fmt"
	"slices"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/pipeline"
	"github.com/holdfast/holdfast/pkg/policy"
	"github.com/holdfast/holdfast/pkg/sense"
)

// mountChange is one difference between two tables of mounts.
type mountChange struct {
	op       event.Op
	at       string
	old, now sense.Mount // the zero Mount where there is none
	by       *pipeline.Beneath
}

// renamed reports whether a directory above the mount point was renamed, as far
// as the tables tell: the mount is at another path of the same parent.
func (c *mountChange) renamed() bool {
	return c.op == event.OpMount && c.old.ID != 0 && c.old.Parent == c.now.Parent
}

// mountChanges compares two tables.
func mountChanges(old, now []sense.Mount) []mountChange {
	before := make(map[uint64]sense.Mount, len(old))
	for _, m := range old {
		before[m.ID] = m
	}
	var out []mountChange
	for _, m := range now {
		was, ok := before[m.ID]
		same := ok && was.Dev == m.Dev && was.Root == m.Root && was.Type == m.Type
		switch {
		case !same:
			out = append(out, mountChange{op: event.OpMount, at: m.At, now: m})
			continue // an old one with that number is gone
		case was.At != m.At || was.Parent != m.Parent:
			out = append(out, mountChange{op: event.OpMount, at: m.At, old: was, now: m})
		case was.Options != m.Options || was.Super != m.Super:
			out = append(out, mountChange{op: event.OpRemount, at: m.At, old: was, now: m})
		}
		delete(before, m.ID)
	}
	for _, m := range old {
		if _, gone := before[m.ID]; gone {
			out = append(out, mountChange{op: event.OpUmount, at: m.At, old: m})
		}
	}
	return out
}

// concerned returns the watched path that a change of mounts concerns: the mount
// point where that is watched, else the first root below it.
func concerned(c *mountChange, roots []string, watched func(string) bool, table []sense.Mount) (string, bool) {
	for _, at := range []string{c.at, c.old.At} {
		if at == "" {
			continue
		}
		if watched(at) {
			return at, true
		}
		for _, r := range roots {
			if policy.Within(at, r) && (c.op != event.OpRemount || holder(r, table).ID == c.now.ID) {
				return r, true
			}
		}
	}
	return "", false
}

// holder is the mount that a path lies in.
func holder(path string, table []sense.Mount) sense.Mount {
	var best sense.Mount
	for _, m := range table {
		if policy.Within(m.At, path) && len(m.At) >= len(best.At) {
			best = m
		}
	}
	return best
}

// madeBy finds who made a change of mounts: one call can change a whole tree of
// them, another namespace the options of a file system that is seen in ours, and a
// call at a peer of a mount the mount. table is the one that has what changed.
func madeBy(c *mountChange, told []pipeline.Beneath, table []sense.Mount) *pipeline.Beneath {
	for _, at := range []string{c.at, c.old.At} {
		if at == "" {
			continue
		}
		for i := range slices.Backward(told) {
			b := &told[i]
			if b.Op != c.op && !(c.op == event.OpMount && b.Op == event.OpUmount && c.old.ID != 0) || b.Path != "" {
				continue
			}
			if !b.Other && b.At != "" && policy.Within(b.At, at) || c.op == event.OpRemount && (b.Other || b.At == "") {
				return b
			}
		}
	}
	for i := range slices.Backward(told) {
		if b := &told[i]; b.Op == c.op && !b.Other && b.Path == "" && b.At != "" && sense.Spreads(table, b.At, c.at) {
			return b
		}
	}
	return nil
}

// putDown reports whether a change of mounts was put down to a call.
func putDown(changes []mountChange, b *pipeline.Beneath) bool {
	return slices.ContainsFunc(changes, func(c mountChange) bool { return c.by == b })
}

// brief lists the calls that changed mounts on the way to watched paths, and that no
// change of the table was put down to: what they did was undone before it was read.
func brief(told []pipeline.Beneath, changes []mountChange, roots []string, watched func(string) bool, table []sense.Mount) []pipeline.Beneath {
	var out []pipeline.Beneath
	for i := range told {
		b := &told[i]
		if b.Op != event.OpMount && b.Op != event.OpUmount || b.Other || b.Path != "" || b.At == "" {
			continue
		}
		if putDown(changes, b) {
			continue
		}
		if _, ok := concerned(&mountChange{op: b.Op, at: b.At}, roots, watched, table); ok {
			out = append(out, *b)
		}
	}
	return out
}

// unshown lists the calls for other options of a mount that no change of the table was
// put down to, and that it may show the next time it is read: they are told of before
// they are done. read is when it was read, in ns since boot.
func unshown(told []pipeline.Beneath, changes []mountChange, read uint64) []pipeline.Beneath {
	var out []pipeline.Beneath
	for i := range told {
		b := &told[i]
		if b.Op == event.OpRemount && b.Path == "" && b.Time+uint64(tellTime) > read && !putDown(changes, b) {
			out = append(out, *b)
		}
	}
	return out
}

// noteBrief records a call that the table of mounts does not show.
func (d *Daemon) noteBrief(b *pipeline.Beneath, roots []string, table []sense.Mount) {
	path, _ := concerned(&mountChange{op: b.Op, at: b.At}, roots, d.rules.watched, table)
	r := d.beneathRecord(b.Op, path, b.At, b)
	r.Reason = fmt.Sprintf("%s at %s, which was undone again before the table of mounts was read: what was to be seen there meanwhile is not known", b.Op, event.Text([]byte(b.At)))
	d.pipe.Note(r)
}

// noteMount records a change of mounts.
func (d *Daemon) noteMount(c *mountChange, roots []string, table []sense.Mount) {
	path, _ := concerned(c, roots, d.rules.watched, table)
	r := d.beneathRecord(c.op, path, c.at, c.by)
	m := c.now
	if m.ID == 0 {
		m = c.old
	}
	switch {
	case c.op == event.OpUmount:
		r.Reason = fmt.Sprintf("the %s file system mounted at %s was unmounted", m.Type, event.Text([]byte(c.at)))
	case c.op == event.OpRemount:
		r.Reason = fmt.Sprintf("the options of the mount at %s changed from %s %s to %s %s", event.Text([]byte(c.at)), c.old.Options, c.old.Super, m.Options, m.Super)
	case c.old.ID != 0:
		r.Reason = fmt.Sprintf("the mount at %s was moved to %s", event.Text([]byte(c.old.At)), event.Text([]byte(c.at)))
	default:
		r.Reason = fmt.Sprintf("a %s file system was mounted at %s", m.Type, event.Text([]byte(c.at)))
	}
	r.Detail = map[string]string{"type": m.Type, "source": event.Text([]byte(m.Source)), "root": event.Text([]byte(m.Root)), "device": m.Dev}
	if c.by == nil {
		r.Reason += "; no call was seen that did it"
	}
	if r.Verdict == event.VerdictUnauthorized {
		r.Reason += "; mounts are not put back, what they show is"
	}
	d.pipe.Note(r)
}

// noteOther records what somebody did to a view of his own.
func (d *Daemon) noteOther(b *pipeline.Beneath) {
	r := d.beneathRecord(b.Op, b.Path, b.At, b)
	r.Verdict = event.VerdictObserved
	r.Reason = fmt.Sprintf("asked for in another mount namespace: only what is seen there at %s changes", event.Text([]byte(b.At)))
	d.pipe.Note(r)
}

// watchMounts tells of every change of the table of mounts.
func (d *Daemon) watchMounts(ctx context.Context) error {
	return sense.WatchMounts(ctx, func() { signal(d.beneath.wake) })
}

// watchLoops arms the rules again when loop devices were bound or let go.
func (d *Daemon) watchLoops(ctx context.Context) error {
	err := sense.WatchLoops(ctx, d.beneath.appear)
	if err != nil && ctx.Err() == nil {
		d.degrade("loops", fmt.Sprintf("loop devices of watched files are looked for only when rules are armed: %v", err))
	}
	return nil
}

// noteLoops tells of files in block mode that a mounted file system changes.
func (d *Daemon) noteLoops(before, now []sense.Loop) {
	for _, l := range before {
		d.recover("loop " + l.Path)
	}
	for _, l := range now {
		if rule, ok := d.rules.rule(l.Path); ok && rule.Mode == event.ModeBlock && sense.CanBlock(d.tier) && l.Mounted != "" {
			d.degrade("loop "+l.Path, fmt.Sprintf("%s is not kept unchanged: the file system mounted at %s is on %s, which is made of it", event.Text([]byte(l.Path)), event.Text([]byte(l.Mounted)), l.Device))
		}
	}
}

// mounted reports whether rules reach into what is mounted at a path.
func (d *Daemon) mounted(at string) bool {
	table, err := sense.Mounts()
	if err != nil {
		return false
	}
	m := holder(at, table)
	return m.At == at && m.Watchable()
}
