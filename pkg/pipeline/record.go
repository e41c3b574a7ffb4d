package pipeline

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/accounts"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/rehash"
)

// record fills the record of a change or an attempt. The before and after of a
// rename or link are those of the name that was given, path_to: what the other
// name held before a rename is what path_to holds after it.
func (p *Pipeline) record(it *item, f *rehash.Finding, j *judgement) *event.Record {
	c := it.change
	r := &event.Record{
		Kind: event.RecChange, TimeEnd: p.o.Clock.Wall(c.Last),
		Op: f.Op.String(), Count: c.Count, Bytes: c.Bytes,
		Path: text(c.Path), PathTo: text(c.PathTo), PathSeen: text(c.Seen),
		File: fileOf(c, f), Rule: j.rule.Name, Mode: j.rule.Mode,
		Verdict: j.Verdict.Verdict, Reason: j.Reason,
		Sensor: &event.Sensor{Tier: p.o.Tier, Hook: p.o.Hook(c.Hook)},
	}
	r.Time = r.TimeEnd - event.Time(c.Last-c.First)
	if c.Path == "" {
		r.Path, r.PathTo = r.PathTo, ""
	}
	for _, op := range c.Ops {
		r.Ops = append(r.Ops, op.String())
	}
	if written(c, f) {
		r.Ops = append(r.Ops, event.OpWrite.String())
		if f.Op == event.OpTruncate {
			r.Op = event.OpWrite.String()
		}
	}
	if j.window != nil {
		r.Detail = j.window.Mark()
	}
	if len(r.Ops) == 0 {
		r.Ops = []string{r.Op}
	}
	if c.Exchange {
		r.Ops = append(r.Ops, opExchange)
	}
	r.Actor, r.Process = &c.Actor, &c.Process
	if p.foreign(it, f) {
		r.Actor, r.Process, r.Sensor.Hook = event.Nobody(), nil, ""
		if it.rescan == nil && it.reason == "" {
			r.Reason = reasonOther + "; " + r.Reason
		}
	}
	if it.rescan != nil {
		g := it.rescan.gap
		r.Found = it.rescan.found
		if r.Found == event.FoundUnplaced || r.Found == event.FoundAfterGap {
			if first := p.gaps.over(it.change.Path); first != nil && first != g {
				var why string
				g = first
				r.Found, why = g.finds()
				r.Reason = why + "; " + r.Reason
			}
		}
		if ops := p.gaps.doubts(it.rescan.gap); ops != "" && (r.Found == event.FoundUnplaced || r.Found == event.FoundOrder) {
			if r.Detail == nil {
				r.Detail = make(map[string]string)
			}
			r.Detail[event.DetailUnplaced] = ops
		}
		if g != nil && g.id != "" {
			// when it happened is not known: after what is known of it, before the look
			r.Time, r.TimeEnd = g.from, max(r.TimeEnd, g.to)
			r.Gap = &event.Gap{Of: g.id}
		}
	}
	if c.Why != "" {
		r.Reason = c.Why + "; " + r.Reason
		if c.Key.PID == 0 {
			r.Process = nil
		}
	}
	if it.reason != "" {
		r.Reason = it.reason + "; " + r.Reason
	}
	if c.Blocked {
		r.Kind = event.RecAttempt
		return r
	}
	before, after := f.Before, f.After
	r.Before, r.After = &before, &after
	switch {
	case f.Undone:
		r.Reason += "; its operations took each other back"
	case f.Late:
		r.Reason += "; later operations had been done when it was looked at"
	case c.Partial:
		r.Reason += "; the writer still held the file open"
	}
	return r
}

// foreign reports whether a finding is nobody's that we know: of a rescan, or of a
// second look that found another object than the operation was about.
func (p *Pipeline) foreign(it *item, f *rehash.Finding) bool {
	switch {
	case it.rescan != nil:
		by := it.rescan.by
		if by == nil || by.Op == event.OpRawWrite {
			return by == nil || !contentAlone(f)
		}
		return changedSince(f, p.o.Clock.Wall(by.Time))
	case !it.self:
		return false
	case it.change.Key.PID == 0:
		return true
	}
	return it.of != 0 && f.After.Ino != it.of
}

// changedSince reports whether somebody has changed what a finding is of after a moment,
// by the time of the inode's last change, which cannot be set: of a name that is gone,
// its directory's.
func changedSince(f *rehash.Finding, t event.Time) bool {
	at, ok := changedAt(f)
	return ok && at > t+event.Time(clockSlack)
}

// changedAt returns that time.
func changedAt(f *rehash.Finding) (t event.Time, ok bool) {
	path := f.Path
	if !f.After.Exists {
		path = filepath.Dir(path)
	}
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	return event.Time(st.Ctim.Nano()), err == nil
}

// clockSlack is more than what turning moments since boot into times of the wall clock
// is wrong by.
const clockSlack = time.Millisecond

// contentAlone reports whether nothing but the content of a file differs, as after a
// write to the device below it. What is written through the file system moves the
// time of modification (file_update_time, linux 6.1 fs/inode.c), and was not done by
// who wrote to the device.
func contentAlone(f *rehash.Finding) bool {
	return f.Before.Exists && f.After.Exists && slices.Equal(f.Before.Diff(&f.After), []string{"hash"})
}

// opExchange is among the ops of a rename that swapped its two names.
const opExchange = "exchange"

// written reports whether a file that an open emptied or made, and whose writes are
// not told of, has been written: it is not empty any more.
func written(c *event.Change, f *rehash.Finding) bool {
	return c.Opened && !slices.Contains(c.Ops, event.OpWrite) && f.After.Unread == "" && f.After.Type == event.TypeRegular && f.After.Size > 0
}

func text(s string) string { return event.Text([]byte(s)) }

// fileOf identifies the object: as the kernel side named its inode, else as it
// was found. The device is that of stat(2).
func fileOf(c *event.Change, f *rehash.Finding) *event.File {
	s := &f.After
	if !s.Exists {
		s = &f.Before
	}
	o := &event.File{Type: s.Type, Dev: s.Dev, Ino: s.Ino, Nlink: s.Nlink}
	if c.Ino != 0 {
		o.Dev, o.Ino, o.Gen = unix.Mkdev(uint32(c.Dev>>20), uint32(c.Dev&0xfffff)), c.Ino, c.Gen
		if c.Nlink != 0 {
			o.Nlink = c.Nlink
		}
	}
	if o.Type == "" {
		o.Type = event.TypeOfMode(uint32(c.FMode))
	}
	if *o == (event.File{}) {
		return nil
	}
	return o
}

// patient is the journal as respond sees it.
type patient struct{ p *Pipeline }

func (j patient) Append(ctx context.Context, r *event.Record) error { return j.p.must(ctx, r) }
func (j patient) AppendDurable(ctx context.Context, r *event.Record) error {
	return j.p.appendDurable(ctx, r)
}

// errStuck says that the journal can write nothing and has no room left for a record
// that nobody has to wait for.
var errStuck = errors.New("records cannot be written")

// append offers an ordinary record. errStuck: it was not taken, and its loss is to be declared.
func (p *Pipeline) append(ctx context.Context, r *event.Record) error {
	accounts.Scrub(r)
	return p.insist(ctx, p.o.Stuck, func() error { _, err := p.o.Journal.Append(r); return err })
}

// must is append for a record of which the next deed depends: where there is no room for
// ordinary ones it goes in as a critical one.
func (p *Pipeline) must(ctx context.Context, r *event.Record) error {
	if err := p.append(ctx, r); !errors.Is(err, errStuck) {
		return err
	}
	return p.appendDurable(ctx, r)
}

func (p *Pipeline) appendDurable(ctx context.Context, r *event.Record) error {
	accounts.Scrub(r)
	return p.insist(ctx, nil, func() error { _, err := p.o.Journal.AppendDurable(ctx, r); return err })
}

// stuckFor is how long, in ns, no gap is declared after a record found no room.
const stuckFor = 1_000_000_000

// insist offers a record until the journal takes it: meanwhile changes wait in
// the queue, and what finds no room there is declared and rescanned. While the
// journal is stuck nothing waits that need not: what has to be put back is behind it.
func (p *Pipeline) insist(ctx context.Context, stuck func() bool, try func() error) error {
	wait := time.Millisecond
	for {
		err := try()
		if err == nil {
			return nil
		}
		p.n.refused.Add(1)
		if wait == time.Millisecond {
			p.o.Log.Error("record is not taken: trying again", "stage", "journal", "err", err)
		}
		if stuck != nil && stuck() {
			p.stuck.Store(p.o.Clock.Boot() + stuckFor)
			return errStuck
		}
		t, stop := p.o.Clock.After(wait)
		select {
		case <-t:
		case <-ctx.Done():
			stop()
			return fmt.Errorf("append: %w", err)
		}
		wait = min(2*wait, time.Second)
	}
}

// unrecorded takes a change back that has no record: what was known before is known again,
// its loss is declared when records can be written, and the rescan finds what differs then.
func (p *Pipeline) unrecorded(c *event.Change, f *rehash.Finding) {
	p.states.Learn(f.Path, f.Before)
	trees := []string{f.Path}
	if f.From != nil {
		p.states.Learn(f.From.Path, f.From.Before)
		trees = append(trees, f.From.Path)
	}
	p.n.lost.Add(1)
	p.gaps.add(1, p.o.Clock.Wall(c.First), p.o.Clock.Wall(p.o.Clock.Boot()), event.CauseJournal, trees...)
}

// unwritten declares that a finished record was not taken.
func (p *Pipeline) unwritten(r *event.Record) {
	p.n.lost.Add(1)
	p.gaps.add(1, r.Time, max(r.Time, r.TimeEnd), event.CauseJournal)
}
