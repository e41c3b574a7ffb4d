package rehash

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// Later tells what is known to have happened to a path after a change.
type Later struct {
	Any     bool
	First   uint64 // ns since boot of the first such operation
	Content bool
	Meta    bool
	Name    bool
	MovedTo string
}

// Finding is what a change turned out to be.
type Finding struct {
	Path    string // the path that the states are of
	Op      event.Op
	Before  event.State
	After   event.State
	Now     event.State // what was read, whoever made it so
	Changed bool        // verified, or done by the kernel's word while the look came too late
	Late    bool        // the states before or after could not be told from later operations
	Again   bool        // look again: it was changing
	Undone  bool        // the operations took each other back: nothing differs any more
	Fresh   bool        // the name was new already before this change
	Err     error       // why Now could not be read
	Barred  bool        // it could not be read although nobody was changing it

	// Content is what was read of After, nil if it was not asked for or is not all
	// of it. The receiver ends it.
	Content Intake
	// From is the other name of a rename within the watched trees.
	From *Finding
	// Inside are paths found in a directory that has appeared with them.
	Inside []string
	// Below are the known paths that went with a removed directory, parents first.
	Below []string

	// Looks are paths that ought to be looked at once more, a little later.
	Looks []Look
	// Compare are directories whose inside ought to be compared with what is known:
	// operations in them and on their names may have been told in another order than
	// they were done.
	Compare []string

	// Alias is the name that the kernel gave, if Path is another one of that file.
	Alias string
	// Aliases are the same for the other names of the file.
	Aliases []Finding
	// Doubted is an earlier change of Path that was taken for none: that was wrong.
	// Its states could not be told, but for Before.
	Doubted *event.Change

	in Intake
}

// Look is a path to be looked at, and the change whose outcome that is expected to
// tell; nil: nobody is known to have done anything there.
type Look struct {
	Path string
	By   *event.Change
}

// slack is how long before its event an operation may have taken effect: the
// event is told when the system call ends, and a process can lose its CPU between.
const slack = uint64(10 * time.Millisecond)

// Reasons in State.Unread.
const (
	unreadGone     = "gone before it could be read"
	unreadReplaced = "replaced before it could be read"
	unreadAgain    = "changed again before it could be read"
	unreadBack     = "put back before it could be read"
	unreadAlong    = "read only together with a later change"
	unreadUndone   = "taken back before it could be read"
)

// Check finds out what c did and makes the known state follow. later tells what
// is known to have happened to a path after c; keep asks for the content too.
func (r *Rehash) Check(ctx context.Context, c *event.Change, later func(path string) Later, keep bool) (Finding, error) {
	k := &check{r: r, ctx: ctx, c: c, later: later, keep: keep && r.o.Intake != nil}
	var f Finding
	switch {
	case c.Op == event.OpOpen:
		f = k.look()
	case c.Op == event.OpRename && c.Path != "" && c.PathTo != "":
		f = k.rename()
	case c.Exchange && c.PathTo == "":
		f = k.appeared(c.Path) // what was outside is there now
	case c.Op == event.OpUnlink, c.Op == event.OpRmdir, c.Op == event.OpRename && c.PathTo == "":
		f = k.removed()
	case c.Op == event.OpLink && c.PathTo == "":
		f = k.modified()
		f.Op, f.Changed = c.Op, true // nothing in the tree differs, but the file has a name outside it now
	case c.Op == event.OpLink, c.Op == event.OpRename:
		f = k.appeared(c.PathTo)
	case c.Op.Namespace():
		f = k.appeared(c.Path)
	default:
		f = k.modified()
	}
	if f.Changed || f.Op == event.OpOpen {
		f.Aliases = k.aliases(&f)
	}
	f.Compare = k.compare
	if f.After.Unread != "" {
		r.unread.Add(1)
	}
	if f.Late {
		r.late.Add(1)
	}
	if f.in == nil {
		return f, nil
	}
	if f.Changed && f.After.Type == event.TypeRegular && !f.After.Hash.IsZero() && f.After.Hash == f.Now.Hash {
		f.Content = f.in
		return f, nil
	}
	if err := f.in.Discard(); err != nil {
		return f, fmt.Errorf("discard content of %q: %w", f.Path, err)
	}
	return f, nil
}

// Taken returns the finding of a doubted change: something was done, and taken
// back by the next one.
func Taken(c *event.Change, before event.State) Finding {
	return Finding{Path: c.Path, Op: c.Op, Before: before, After: unread(before, unreadUndone), Changed: true, Late: true}
}

// check is one call of Check.
type check struct {
	r     *Rehash
	ctx   context.Context
	c     *event.Change
	later func(string) Later
	keep  bool
	lost  event.State // of a file whose name has gone on before it was looked at

	compare []string // Finding.Compare
}

// main reads the path that the finding is of.
func (k *check) main(path string) (l look, after Later) {
	var in Intake
	if k.keep {
		in = k.r.o.Intake()
	}
	return k.read(path, in)
}

// read reads a path and tells whether later operations may have been read along.
func (k *check) read(path string, in Intake) (l look, after Later) {
	l = k.r.read(k.ctx, path, in)
	after = k.later(path)
	if after.Any && after.First > l.at {
		after = Later{}
	}
	return l, after
}

func (k *check) finding(path string, l look) Finding {
	return Finding{Path: path, Op: k.c.Op, Now: l.state, Again: l.unstable, Err: l.err, Barred: l.err != nil && !l.unstable, in: l.in}
}

// look is for a change without an operation.
func (k *check) look() Finding {
	path := k.c.Path
	e, _ := k.r.known.Get(path)
	if k.later(path).Any {
		return Finding{Path: path, Before: e.State, After: e.State, Now: e.State}
	}
	if !k.c.Mapped && k.r.untouched(path, e) {
		k.r.spared.Add(1)
		return Finding{Path: path, Before: e.State, After: e.State, Now: e.State}
	}
	l, after := k.main(path)
	f := k.finding(path, l)
	f.Before, f.After, f.Fresh = e.State, l.state, e.fresh
	if after.Any || l.err != nil && !l.state.Exists {
		return f
	}
	if replaced(k.c, &e, &l.state) { // who gave the name to another file, or took it, is about to be told
		f.After, f.Again = e.State, true
		return f
	}
	if e.surveyed && e.same(&l.state) && l.state.Ino == e.State.Ino {
		return f // it is read when it is enrolled
	}
	if l.state.Same(&e.State) {
		e.ctime = l.ctime
		k.r.putEntry(path, Entry{State: l.state, At: l.at, ctime: l.ctime, ours: e.ours, fresh: e.fresh})
		return f
	}
	k.r.put(path, l, fresh(&e))
	f.Changed = true
	f.Op = OpOf(&f.Before, &f.After)
	if op, ok := e.metadataOf(&f.After); ok {
		f.Before, f.Op = unread(e.State, unreadMeta), op
	}
	if k.c.Mapped && (f.Op == event.OpWrite || f.Op == event.OpUtimes) { // a store moves the time too
		f.Op = event.OpMapWrite
	}
	switch {
	case l.state.Type != event.TypeDir:
	case !e.State.Exists && k.r.returned(path, &l.state):
		f.Op = event.OpRename
		k.compare = append(k.compare, path)
	case !e.State.Exists:
		f.Inside = children(path)
	case e.State.Ino != l.state.Ino:
		k.compare = append(k.compare, path)
	}
	return f
}

// modified is for operations on content and metadata of a file that keeps its name.
func (k *check) modified() Finding {
	c, path := k.c, k.c.Path
	e, _ := k.r.known.Get(path)
	l, after := k.main(path)
	f := k.finding(path, l)
	content, meta := kinds(c)
	f.Before, f.Fresh = e.State, e.fresh
	late := e.At >= c.First && e.At != 0
	f.Doubted = k.r.doubted(path, c)
	if l.state.Type == event.TypeDir && (e.State.Type != event.TypeDir || e.State.Ino != l.state.Ino) {
		k.compare = append(k.compare, path) // what is in it is not known
	}

	switch {
	case !l.state.Exists || after.Name || replaced(c, &e, &l.state):
		// The name is not this file's any more.
		k.lost = e.State
		f.After = k.elsewhere(path, &e, after)
		f.Changed = true
		if late {
			f.Before, f.Late = earlier(&e, c, content, meta), true
		}
		if !late || !e.ours {
			k.remember(path, f.After, e.fresh)
			k.lookBelow(path, &e)
		}
		f.Again = f.Again || !after.Any
		return f
	case late && e.ours && (e.At >= c.Last || l.state.Same(&e.State)):
		// It happened before a restore that has already been made.
		f.Before, f.After = earlier(&e, c, content, meta), unread(e.State, unreadBack)
		f.Changed, f.Late = true, true
		if !l.state.Same(&e.State) {
			f.Again = true
		}
		return f
	case after.Any && after.Content && content, after.Any && after.Meta && meta:
		f.After = unread(k.own(l.state, &e, content, meta), unreadAgain)
		f.Changed, f.Late = true, true
		k.remember(path, f.After, e.fresh)
		return f
	case after.Any && after.Meta:
		f.After = withMeta(l.state, &e.State)
	case after.Any && after.Content:
		f.After = withContent(l.state, &e.State)
	default:
		f.After = l.state
	}
	f.Changed = !f.After.Same(&f.Before)
	if !f.Changed && late {
		f.Before = earlier(&e, c, content, meta)
		f.Changed, f.Late = true, true
	}
	if !f.Changed && (e.vague || e.At+slack >= c.First && e.At != 0) {
		// What is known may have the effect of c in it already.
		f.Changed, f.Late = true, true
	}
	if !f.Changed && c.Count > 1 && !onlyMapped(c) {
		// Several operations that cancel each other out were several changes.
		f.Changed, f.Undone = true, true
	}
	if !f.Changed {
		k.r.doubt(path, c, l.at)
	}
	if after.Any {
		k.remember(path, f.After, e.fresh)
	} else if l.err == nil || l.state.Exists {
		k.r.put(path, l, e.fresh)
	}
	return f
}

// onlyMapped reports whether c tells of mappings and stores through them alone: a
// store is told of when it may happen, and another one need not be.
func onlyMapped(c *event.Change) bool {
	return !slices.ContainsFunc(c.Ops, func(op event.Op) bool { return op != event.OpMapWrite })
}

// own takes from now what later operations may have done to the metadata, as far
// as that can be told.
func (k *check) own(now event.State, e *Entry, content, meta bool) event.State {
	switch {
	case content && !meta:
		return withMeta(now, &e.State)
	case createsName(k.c) && k.c.FMode != 0 && k.c.Op != event.OpLink && k.c.Op != event.OpRename:
		now.Mode = event.Mode(k.c.FMode & 0o7777)
	}
	return now
}

// remember keeps a state that was told rather than read: as of the change.
func (k *check) remember(path string, s event.State, fresh bool) {
	e := Entry{State: s, At: k.c.Last, fresh: fresh, vague: true}
	if s.Exists {
		e.owed = k.c
	}
	k.r.putEntry(path, e)
}

// lookBelow has the inside of a name compared that was taken for a directory and
// is told to be none any more, or another one.
func (k *check) lookBelow(path string, was *Entry) {
	if was.State.Exists && was.State.Type == event.TypeDir && pathExists(path) {
		k.compare = append(k.compare, path)
	}
}

// elsewhere tells what a file was whose name has gone on: at its new name if it
// was only renamed, else not at all.
func (k *check) elsewhere(path string, e *Entry, after Later) event.State {
	c := k.c
	if after.MovedTo != "" {
		l, next := k.read(after.MovedTo, nil)
		if l.err == nil && l.state.Exists && (c.Ino == 0 || l.state.Ino == c.Ino) && !next.Content && !next.Name && !next.Meta {
			return l.state
		}
	}
	s := event.State{Exists: true, Type: typeOf(c), Mode: event.Mode(c.FMode & 0o7777)}
	if e.State.Exists && !createsName(c) {
		s = e.State
		if c.FMode != 0 {
			s.Mode = event.Mode(c.FMode & 0o7777)
		}
	}
	why := unreadGone
	if after.Any && after.Name || pathExists(path) {
		why = unreadReplaced
	}
	return unread(s, why)
}

// appeared is for a name that was given to a new object, or to one from elsewhere.
func (k *check) appeared(path string) Finding {
	c := k.c
	e, _ := k.r.known.Get(path)
	l, after := k.main(path)
	f := k.finding(path, l)
	f.Before, f.Fresh, f.Changed = e.State, e.fresh, true
	late := e.At >= c.First && e.At != 0
	if late || c.Op != event.OpRename && c.Op != event.OpMount && c.Op != event.OpUmount {
		// The kernel makes a name only where none was; a rename may replace one.
		f.Before = event.State{}
		if c.Op == event.OpRename {
			f.Before = before(&e, c)
		}
		f.Late = late
	}
	backAgain := late && e.ours && e.At >= c.Last
	if !backAgain && c.Op == event.OpRename { // what was there has gone with all below it
		f.Below = k.below(path)
		k.r.known.clear(path)
	}
	if c.Op == event.OpLink && c.Path != "" {
		k.r.known.nlink(c.Path, &l.state)
	}
	if t := typeOf(c); t != "" && l.state.Exists && l.state.Type != t && c.Op != event.OpRename && c.Op != event.OpLink {
		after.Any, after.Name, f.Again = true, true, true // something else has that name by now
	}
	switch {
	case backAgain:
		f.After = unread(event.State{Exists: true, Type: typeOf(c)}, unreadBack)
		f.Again = f.Again || !l.state.Same(&e.State)
		if l.state.Type == event.TypeDir {
			f.Inside = children(path) // a directory that is as it should be in itself was left where it is, with what it brought
		}
		return f
	case !l.state.Exists || after.Name:
		f.After = k.elsewhere(path, &e, after)
		f.Again = f.Again || !after.Any
		k.remember(path, f.After, fresh(&e))
		return f
	case after.Any && after.Content:
		f.After = unread(k.own(l.state, &e, true, true), unreadAgain)
		k.remember(path, f.After, fresh(&e))
	case after.Any:
		f.After = k.own(l.state, &e, true, true)
		k.remember(path, f.After, fresh(&e))
	default:
		f.After = l.state
		k.r.put(path, l, fresh(&e))
	}
	switch {
	case l.state.Type != event.TypeDir:
	case !after.Any:
		f.Inside = children(path)
	default:
		k.compare = append(k.compare, path)
	}
	return f
}

// removed is for a name that was taken away, or moved out of every watched tree.
func (k *check) removed() Finding {
	c, path := k.c, k.c.Path
	e, _ := k.r.known.Get(path)
	l, after := k.main(path)
	f := k.finding(path, l)
	f.Before, f.Fresh, f.Changed = e.State, e.fresh, true
	if e.At >= c.First && e.At != 0 {
		f.Late = true
		f.Before = before(&e, c)
		if e.ours && e.At >= c.Last {
			f.Again = f.Again || !l.state.Same(&e.State)
			return f
		}
	}
	if !f.Before.Exists {
		f.Before = unread(event.State{Exists: true, Type: typeOf(c)}, unreadGone)
	}
	if t, ok := k.r.returns(path); ok && c.Op == event.OpRename {
		k.r.leave(t, c.Last)
	} else {
		f.Below = k.below(path)
		k.remember(path, event.State{}, e.fresh)
	}
	if l.state.Exists && !after.Any {
		f.Looks = append(f.Looks, Look{Path: path}) // there again, and nobody has told of it yet
	}
	return f
}

// below lists the paths known below a name, parents first.
func (k *check) below(path string) []string {
	var out []string
	k.r.known.Walk(path, func(p string, _ *event.State) {
		if p != path {
			out = append(out, p)
		}
	})
	return out
}

// rename is for a move within the watched trees. The finding is of the new name:
// before is what was there, after what was moved there. What is known moves as a
// reader of the record moves it: all below the old name goes along, and with an
// exchange comes the other way too.
func (k *check) rename() Finding {
	c := k.c
	from, to := c.Path, c.PathTo
	a, _ := k.r.known.Get(from)
	b, _ := k.r.known.Get(to)
	l, after := k.main(to)
	back, backAfter := k.read(from, nil)
	f := k.finding(to, l)
	if from == to || !c.Exchange && !after.Any && !backAfter.Any && twoNames(&a, &b, &l.state, &back.state) {
		// rename(2) leaves a name that is the same, and two names of one file, alone.
		// What was taken for moved on its account is still where it was.
		f.Before, f.After = b.State, b.State
		f.Looks = append(k.r.known.owing(from), k.r.known.owing(to)...)
		return f
	}
	f.Changed = true
	f.Before, f.Fresh = b.State, b.fresh
	if b.At >= c.First && b.At != 0 {
		f.Before, f.Late = before(&b, c), true
	}
	f.From = &Finding{Path: from, Op: c.Op, Before: a.State, Now: back.state, Changed: true, Fresh: a.fresh, Err: back.err}
	if a.At > c.Last {
		f.From.Before = before(&a, c)
	}

	moved := f.From.Before
	if moved.Ino != 0 && l.state.Exists && l.state.Ino != moved.Ino {
		// Something else has that name by now, and nobody has told of it yet.
		after.Any, f.Again = true, true
	}
	owed := a.owed
	switch {
	case (after.Any || !l.state.Exists) && moved.Exists && moved.Unread == "":
		f.After = moved // a rename changes neither content nor metadata
	case after.Any || !l.state.Exists:
		f.After = k.elsewhere(to, &Entry{}, after)
		if owed == nil {
			owed = c
		}
	default:
		f.After, owed = l.state, nil
	}
	if !moved.Exists {
		f.From.Before = f.After
	}

	// Holdfast itself gave the old name again before this was told of: that stays.
	given := a.ours && a.At > c.Last
	switch {
	case c.Exchange:
		k.r.known.exchange(from, to)
		f.From.After = b.State
		switch {
		case back.err == nil && back.state.Same(&b.State):
			f.From.After = back.state
			k.r.put(from, back, a.fresh)
		case !backAfter.Any:
			f.Looks = append(f.Looks, Look{Path: from})
		}
		f.Looks = append(f.Looks, k.r.known.owing(from)...)
	case !given:
		k.r.known.move(from, to, c.Last)
		f.From.Now = back.state
		if back.state.Exists && !backAfter.Any {
			f.Looks = append(f.Looks, Look{Path: from})
		}
	}
	switch {
	case b.ours && b.At >= c.Last:
		f.After, f.Late = moved, true
		if f.After.Exists {
			f.After = unread(f.After, unreadBack)
		}
		k.r.putEntry(to, b)
		// A directory that is as it should be in itself was left where it is, with what it brought.
		if l.state.Type == event.TypeDir {
			k.compare = append(k.compare, to)
		}
		// So were, as far as is known, those that the exchange took to the other name, which may have gone on.
		if c.Exchange && (back.state.Type == event.TypeDir || mayBeDir(&b.State)) {
			k.compare = append(k.compare, from)
		}
		return f
	case after.Any || !l.state.Exists:
		k.r.putEntry(to, Entry{State: f.After, At: c.Last, fresh: fresh(&b), vague: true, owed: owed})
		if !after.Any {
			f.Again = true
		}
	default:
		k.r.put(to, l, fresh(&b))
	}
	if mayBeDir(&f.After) || mayBeDir(&moved) || mayBeDir(&b.State) {
		f.Looks = append(f.Looks, k.r.known.owing(to)...)
		k.compare = append(k.compare, to)
		if c.Exchange {
			k.compare = append(k.compare, from)
		}
	}
	return f
}

// mayBeDir reports whether a state is one of a directory, as far as that is known.
func mayBeDir(s *event.State) bool { return s.Type == event.TypeDir || s.Type == "" && s.Exists }

// twoNames reports whether both names of a rename were, and still are, those of
// one file.
func twoNames(a, b *Entry, to, from *event.State) bool {
	return from.Exists && to.Exists && from.Ino == to.Ino && from.Dev == to.Dev && from.Type != event.TypeDir &&
		a.State.Exists && b.State.Exists && a.State.Ino == from.Ino && b.State.Ino == from.Ino
}

// fresh reports whether a name that is there now was not in the state that was
// learned, enrolled or put back.
func fresh(e *Entry) bool { return !e.State.Exists || e.fresh }

func pathExists(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil
}
