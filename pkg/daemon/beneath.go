package daemon

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/pipeline"
	"github.com/holdfast/holdfast/pkg/policy"
	"github.com/holdfast/holdfast/pkg/sense"
)

// beneath collects what may have changed what watched paths lead to, until the
// rules are looked at again. The table of mounts says what happened, the kernel
// side's events who did it.
type beneath struct {
	wake chan struct{} // has one token when there is something

	mu       sync.Mutex // guards what follows
	appeared bool       // a name that a rule waits for, or leads through, came or went
	linked   bool       // a file with several names came or went
	told     []pipeline.Beneath

	table []sense.Mount      // as it was when it was last looked at; of one goroutine
	ahead []pipeline.Beneath // calls that the table did not show yet; of the same
}

// toldLimit bounds the events that wait for the table of mounts to be read.
const toldLimit = 4096

func (b *beneath) tell(x pipeline.Beneath) {
	b.mu.Lock()
	if len(b.told) < toldLimit { // else a change of mounts has nobody who did it
		b.told = append(b.told, x)
	}
	b.mu.Unlock()
	signal(b.wake)
}

func (b *beneath) appear() {
	b.mu.Lock()
	b.appeared = true
	b.mu.Unlock()
	signal(b.wake)
}

func (b *beneath) link() {
	b.mu.Lock()
	b.linked = true
	b.mu.Unlock()
	signal(b.wake)
}

func (b *beneath) take() (appeared, linked bool, told []pipeline.Beneath) {
	b.mu.Lock()
	defer b.mu.Unlock()
	appeared, linked, told = b.appeared, b.linked, b.told
	b.appeared, b.linked, b.told = false, false, nil
	return appeared, linked, told
}

// The time that the event about a call has to come after the change of the table.
const (
	tellTime = 2 * time.Second
	tellStep = 25 * time.Millisecond
)

// settle looks at what was collected: it arms the rules again where what they lead
// to may have changed, records changes of mounts, and has what they show compared.
func (d *Daemon) settle(ctx context.Context) error {
	appeared, linked, told := d.beneath.take()
	read := d.clock.Boot()
	table, err := sense.Mounts()
	if err != nil {
		return err
	}
	roots := d.rules.paths()
	var changes []mountChange
	for _, c := range mountChanges(d.beneath.table, table) {
		if _, ok := concerned(&c, roots, d.rules.watched, table); ok {
			changes = append(changes, c)
		}
	}
	before := d.beneath.table
	d.beneath.table = table
	told = append(d.beneath.ahead, told...)
	var moved []string
	again := false
	if appeared || len(changes) > 0 {
		if moved, err = d.arm(ctx, "found when its tree appeared"); err != nil {
			d.beneath.table, d.beneath.ahead = before, told
			return err
		}
		linked = true
	}
	for wait := time.Duration(0); ; wait += tellStep {
		caught := d.pipe.CaughtUp() >= read // asked first: what was told until then is taken
		a, l, more := d.beneath.take()
		again, linked, told = again || a, linked || l, append(told, more...)
		missing := false
		for i := range changes {
			shows := table
			if changes[i].op == event.OpUmount {
				shows = before
			}
			changes[i].by = madeBy(&changes[i], told, shows)
			missing = missing || changes[i].by == nil && !changes[i].renamed()
		}
		if !missing && (len(changes) == 0 || caught) || wait >= tellTime {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(tellStep):
		}
	}
	for i := range changes {
		if c := &changes[i]; c.by != nil || !c.renamed() {
			d.noteMount(c, roots, table)
		}
	}
	d.beneath.ahead = nil
	for _, b := range brief(told, changes, roots, d.rules.watched, table) {
		if b.Time > read { // the table may show it the next time
			d.beneath.ahead = append(d.beneath.ahead, b)
			signal(d.beneath.wake)
			continue
		}
		d.noteBrief(&b, roots, table)
	}
	d.beneath.ahead = append(d.beneath.ahead, unshown(told, changes, read)...)
	for i := range told {
		switch b := &told[i]; {
		case b.Op == event.OpRawWrite:
			d.rawWrite(b)
		case b.Path != "" && b.Other:
			d.noteOther(b)
		}
	}
	d.compareMoved(moved, changes, told)
	if again { // what appeared meanwhile
		d.beneath.appear()
	}
	if linked {
		return d.link(ctx)
	}
	return nil
}

// rawWrite records writes to a device below a watched file system, and has the
// trees on it read when they are over.
func (d *Daemon) rawWrite(b *pipeline.Beneath) {
	trees := d.sensor.On(b.Device)
	if b.Device == 0 { // the file of a loop device
		trees = []string{b.Path}
	}
	if b.Closed {
		d.pipe.RescanFor(trees, fmt.Sprintf("found after the device %s had been open for writing", event.Text([]byte(b.At))), b, true)
		if !b.First {
			return
		}
	}
	r := d.beneathRecord(b.Op, b.Path, b.At, b)
	r.Reason = fmt.Sprintf("%s was opened for writing past the file system on it: what that changes may show only when the page cache lets go of it", event.Text([]byte(b.At)))
	if b.First {
		r.Reason = fmt.Sprintf("%s was closed, and had been open for writing past the file system on it since before the rule: if it was written to, that may show only when the page cache lets go of it", event.Text([]byte(b.At)))
	}
	d.pipe.Note(r)
}

func (d *Daemon) beneathRecord(op event.Op, path, at string, by *pipeline.Beneath) *event.Record {
	r := &event.Record{
		Time: now(), Kind: event.RecChange, Op: op.String(), Ops: []string{op.String()}, Count: 1,
		Path: event.Text([]byte(path)), Verdict: event.VerdictObserved, Actor: event.Nobody(), Sensor: &event.Sensor{Tier: d.tier},
	}
	if at != path {
		r.PathSeen = event.Text([]byte(at))
	}
	if rule, ok := d.rules.rule(path); ok {
		r.Rule, r.Mode = rule.Name, rule.Mode
	}
	if r.Mode == event.ModeRestore || r.Mode == event.ModeBlock {
		r.Verdict = event.VerdictUnauthorized
	}
	if by != nil {
		r.Time = d.clock.Wall(by.Time)
		r.Actor, r.Process, r.Sensor.Hook = &by.Actor, &by.Process, sense.HookName(by.Hook)
	}
	r.TimeEnd = r.Time
	return r
}

// compareMoved has the paths compared that lead to something else than before,
// and those at which mounts came or went, each put down to who did that.
func (d *Daemon) compareMoved(moved []string, changes []mountChange, told []pipeline.Beneath) {
	type cause struct {
		by *pipeline.Beneath
		op event.Op // OpNone: none that is known, the path was made anew
	}
	trees := make(map[cause][]string)
	add := func(c cause, p string) {
		if !slices.Contains(trees[c], p) {
			trees[c] = append(trees[c], p)
		}
	}
	renamer, renamed := onlyRenamer(told)
	for _, p := range moved {
		var why cause
		if renamed {
			why = cause{renamer, event.OpRename}
		}
		for i := range changes {
			if c := &changes[i]; (c.by != nil || !c.renamed()) && (policy.Within(c.at, p) || c.old.At != "" && policy.Within(c.old.At, p)) {
				why = cause{c.by, c.op}
			}
		}
		add(why, p)
	}
	for i := range changes {
		c := &changes[i]
		if d.rules.watched(c.at) && c.op != event.OpRemount && !slices.Contains(moved, c.at) {
			add(cause{c.by, c.op}, c.at)
		}
	}
	for why, trees := range trees {
		reason := "found when what its path leads to had changed"
		var note func(path string, before, after event.State)
		switch {
		case why.op == event.OpNone:
			d.pipe.RescanFor(trees, reason, nil, false)
			continue
		case why.op == event.OpRename:
			reason = "found after a directory above it was renamed"
			note = func(path string, before, after event.State) { d.noteRenamed(path, before, after, why.by) }
		case why.by != nil && why.by.At != "":
			reason = fmt.Sprintf("found after the %s at %s", why.op, event.Text([]byte(why.by.At)))
		}
		d.pipe.Swapped(trees, reason, why.by, note)
	}
}

// noteRenamed records that a rename above a path took it away, or brought it.
func (d *Daemon) noteRenamed(path string, before, after event.State, by *pipeline.Beneath) {
	r := d.beneathRecord(event.OpRename, path, path, by)
	r.Reason = "a directory was renamed to this path or to one above it"
	if before.Exists || after.Exists { // else it came, and a comparison tells what it is
		r.Before, r.After = &before, &after
	}
	if before.Exists {
		r.Reason = "it or a directory above it was renamed: nothing is at this path now"
	}
	d.pipe.Note(r)
}

// onlyRenamer is the one process that renamed something that rules lead through;
// nil if there are several. found: there is one at least.
func onlyRenamer(told []pipeline.Beneath) (one *pipeline.Beneath, found bool) {
	for i := range told {
		b := &told[i]
		if b.Op != event.OpRename {
			continue
		}
		if one != nil && one.Process.ExecID != b.Process.ExecID {
			return nil, true
		}
		one = b
	}
	return one, one != nil
}

// movedAnchors returns the paths that lead to something else than before.
func movedAnchors(before, after []sense.Anchor) []string {
	inodes := func(all []sense.Anchor) map[string]uint64 {
		m := make(map[string]uint64)
		for _, a := range all {
			if !a.Link && a.Rule != sense.RuleOwn {
				m[a.Path] = a.Inode
			}
		}
		return m
	}
	was, is := inodes(before), inodes(after)
	var out []string
	for p, inode := range is {
		if old, ok := was[p]; !ok || old != inode {
			out = append(out, p)
		}
	}
	for p := range was {
		if _, ok := is[p]; !ok {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

// link marks the files that have names outside the watched trees.
func (d *Daemon) link(ctx context.Context) error {
	paths, missed := d.pipe.Outside(ctx)
	links := make([]sense.Link, 0, len(paths))
	marked := make(map[string]bool, len(paths))
	var fresh []string
	for _, p := range paths {
		rule, ok := d.rules.rule(p)
		if !ok {
			continue
		}
		links = append(links, sense.Link{Rule: d.rules.number[rule.Name], Mode: rule.Mode, Path: p})
		marked[p] = true
		if !d.links[p] {
			fresh = append(fresh, p)
		}
	}
	n, err := d.sensor.Link(links)
	if err != nil {
		return fmt.Errorf("mark files with names outside their trees: %w", err)
	}
	d.names.SetRoots(d.roots())
	d.links = marked
	d.unlinked.Store(uint64(n + missed))
	if len(fresh) > 0 {
		d.pipe.RescanFor(fresh, "found when its names outside the watched trees were known", nil, false)
	}
	return nil
}

// armAgain settles whenever something was collected.
func (d *Daemon) armAgain(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.beneath.wake:
		}
		// one call for a burst; a directory that appeared is usually being filled
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(20 * time.Millisecond):
		}
		if err := d.settle(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			d.degrade("arm", fmt.Sprintf("rules could not be armed again, which is tried until they are: %v", err))
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(tellTime):
			}
			d.beneath.appear()
			continue
		}
		d.recover("arm")
	}
}
