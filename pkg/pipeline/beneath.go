package pipeline

import (
	"context"
	"slices"

	"github.com/holdfast/holdfast/pkg/coalesce"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/rehash"
)

// Beneath is what somebody did to the mounts that watched paths lead through, or
// to the devices below their file systems (event.Op.Beneath). What came of it is
// for the daemon to find out, which knows the table of mounts.
type Beneath struct {
	Op   event.Op
	At   string // mount point or device, absolute in our mount namespace unless Other; "" if the call named none
	Path string // the watched path that the kernel found concerned; "" if it only told of a call
	// Other: done in another mount namespace, to a view of its own.
	Other   bool
	Device  uint64 // raw writes: the kernel's number of the device
	Closed  bool   // raw writes: the last one through this descriptor is over
	First   bool   // raw writes: its opening was not seen
	Time    uint64 // ns since boot
	Hook    uint16
	Actor   event.Actor
	Process event.Process
}

// beneath hands over an event about what lies below paths.
func (p *Pipeline) beneath(ev *event.Event) {
	b := Beneath{Op: ev.Op, At: string(ev.Base), Time: ev.Time, Hook: ev.Hook}
	if ev.Flags&event.FlagNamed == 0 {
		root, _, ok := p.o.Anchors.Path(ev.Anchor)
		if !ok {
			return // the rule is gone
		}
		b.Path, b.Other = root, true
		if len(ev.Path) > 0 {
			b.Path = coalesce.Join(root, string(ev.Path))
		}
		if ev.Op == event.OpRawWrite {
			b.Other, b.Device, b.Closed, b.First = false, ev.Arg>>1, ev.Arg&1 != 0, ev.Flags&event.FlagFirst != 0
		} else if p.o.Resolver != nil && !p.o.Resolver.Elsewhere(ev.MntNS) {
			return // another way to the same files: what the watched path leads to stays
		}
	} else if len(ev.Base)+len(ev.Path) > 0 && p.o.Resolver != nil {
		q := coalesce.Query{Base: string(ev.Base), Path: string(ev.Path), Follow: true, PID: ev.Key.PID, TID: ev.TID, MntNS: ev.MntNS}
		b.At, b.Other = p.o.Resolver.Locate(q)
	}
	b.Actor, b.Process = p.o.Attribute.Who(ev)
	p.o.Beneath(b)
}

// Note appends a record in its turn.
func (p *Pipeline) Note(r *event.Record) { p.put(&item{record: r}) }

// RescanFor compares trees, and does not wait for the end of it. What it finds is
// put down to by, if that is not nil. With whole every file is read, even where
// its inode says that it was not touched.
func (p *Pipeline) RescanFor(trees []string, reason string, by *Beneath, whole bool) {
	p.scans.begin(&job{trees: p.outermost(trees), found: event.FoundBeneath, reason: reason, by: by, whole: whole})
}

// Swapped is RescanFor for paths that lead to other directories than before because
// of a mount or a rename above them. Where they are only observed, what is hidden by
// that or comes back as it was is no change. note, which may be nil, is called for
// those at which there is something now and was nothing, or the other way round, as
// far as no record tells of that, with what is known of both.
func (p *Pipeline) Swapped(trees []string, reason string, by *Beneath, note func(path string, before, after event.State)) {
	p.scans.begin(&job{trees: p.outermost(trees), found: event.FoundBeneath, reason: reason, by: by, swapped: true, note: note})
}

// returns is the tree of a path that is a root and only observed.
func (p *Pipeline) returns(path string) (rehash.Tree, bool) {
	rule, ok := p.o.Rule(path)
	if !ok || rule.Mode != event.ModeObserve || !slices.Contains(p.o.Trees(), path) {
		return rehash.Tree{}, false
	}
	return p.tree(path), true
}

// Outside lists the known files that have names outside the watched trees, one of
// their paths each, and how many more there are than are looked at.
func (p *Pipeline) Outside(ctx context.Context) (paths []string, missed int) {
	return p.states.Outside(ctx)
}
