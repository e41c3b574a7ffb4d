package rehash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
)

// Options of a Rehash. Now is required.
type Options struct {
	Now func() uint64 // ns since boot

	// Read returns the state of a path now; default digest.ReadPath.
	Read func(ctx context.Context, path string, sink io.Writer) (event.State, error)
	// Aside is handed the reading of a path: it calls once and returns true if that takes
	// long, else false; nil: nothing does. once reads with ReadOnce: who keeps writing a
	// large file sends events, and it is looked at again. Default digest.ReadPathOnce, or
	// Read if that is set.
	Aside    func(ctx context.Context, path string, once func()) bool
	ReadOnce func(ctx context.Context, path string, sink io.Writer) (event.State, error)
	// Keep is Read for Enrol, which keeps what is read; nil: nothing is kept.
	Keep func(ctx context.Context, path string) (event.State, error)
	// Intake returns where the content goes that Check reads, so that it need not
	// be read again to be kept; nil: nowhere.
	Intake func() Intake

	// Returns tells of a root that may go by a rename and come back with all of its
	// tree, and is not put back meanwhile; nil: none does.
	Returns func(path string) (Tree, bool)

	Workers int // concurrent reads of a scan; default the number of CPUs
}

// Intake takes the bytes of one file as they are read. If it has a method Reset(),
// reading began anew. Who gets it in a Finding ends it.
type Intake interface {
	io.Writer
	Discard() error
}

// Stats counts what the stage did.
type Stats struct {
	Reads    uint64 // whole states taken
	Spared   uint64 // looks that a glance at the inode answered
	Unread   uint64 // contents that could not be told
	Late     uint64 // changes that were looked at too late to see their own effect alone
	Paths    int    // known to exist
	Unstable uint64
}

// Rehash is the stage.
type Rehash struct {
	o     Options
	known Known

	doubts map[string]doubt // of Check alone

	asideMu sync.Mutex         // guards aside
	aside   map[string][]aside // by root

	reads, spared, unread, late, unstable atomic.Uint64
	graves                                atomic.Int64 // names known to be gone since the last pruning
}

// New returns a Rehash that knows nothing.
func New(o Options) *Rehash {
	if o.ReadOnce == nil {
		o.ReadOnce = o.Read
	}
	if o.ReadOnce == nil {
		o.ReadOnce = digest.ReadPathOnce
	}
	if o.Read == nil {
		o.Read = digest.ReadPath
	}
	if o.Workers <= 0 {
		o.Workers = runtime.NumCPU()
	}
	return &Rehash{o: o, doubts: make(map[string]doubt)}
}

// Known returns the known states.
func (r *Rehash) Known() *Known { return &r.known }

// Read returns the state of a path now and writes its content to sink; what is known stays.
func (r *Rehash) Read(ctx context.Context, path string, sink io.Writer) (event.State, error) {
	return r.readPath(ctx, path, sink)
}

func (r *Rehash) readPath(ctx context.Context, path string, sink io.Writer) (s event.State, err error) {
	once := func() { s, err = r.o.ReadOnce(ctx, path, sink) }
	if r.o.Aside != nil && r.o.Aside(ctx, path, once) {
		return s, err
	}
	return r.o.Read(ctx, path, sink)
}

// Stats returns the counters.
func (r *Rehash) Stats() Stats {
	return Stats{
		Reads: r.reads.Load(), Spared: r.spared.Load(), Unread: r.unread.Load(), Late: r.late.Load(),
		Unstable: r.unstable.Load(), Paths: r.known.Len(),
	}
}

// look is one reading of a path.
type look struct {
	state    event.State
	at       uint64 // ns since boot at which the reading ended
	ctime    int64
	unstable bool
	err      error
	in       Intake // what was read of a regular file, nil if nobody keeps it
}

// settled is how long an inode must have been left alone for its times to tell
// every later change: more than the longest timer tick (linux kernel/time/timekeeping.c
// ktime_get_coarse_real_ts64, 10 ms at HZ=100).
const settled = int64(25 * time.Millisecond)

func (r *Rehash) read(ctx context.Context, path string, in Intake) look {
	var sink io.Writer
	if in != nil {
		sink = in
	}
	l := r.readBy(path, func() (event.State, error) { return r.readPath(ctx, path, sink) })
	if l.err != nil && !l.unstable && in != nil && ctx.Err() == nil {
		// It may be the receiver that failed: what is there is told all the same.
		derr := in.Discard()
		l = r.readBy(path, func() (event.State, error) { return r.readPath(ctx, path, nil) })
		l.err, in = errors.Join(l.err, derr), nil
	}
	l.in = in
	return l
}

// glimpse is what can be told of a path that cannot be opened, for want of
// descriptors for instance.
func glimpse(path string, err error) (event.State, error) {
	var st unix.Stat_t
	serr := unix.Lstat(path, &st)
	if errors.Is(serr, unix.ENOENT) || errors.Is(serr, unix.ENOTDIR) {
		return event.State{}, nil
	}
	s := event.State{Exists: true, Unread: err.Error()}
	var errno unix.Errno
	if errors.As(err, &errno) {
		s.Unread = errno.Error()
	}
	if serr == nil {
		s.Type, s.Mode, s.UID, s.GID = event.TypeOfMode(st.Mode), event.Mode(st.Mode&0o7777), st.Uid, st.Gid
		s.Size, s.Mtime = uint64(st.Size), event.Time(st.Mtim.Nano())
		s.Dev, s.Ino, s.Nlink = st.Dev, st.Ino, uint32(st.Nlink)
	}
	return s, err
}

func (r *Rehash) readBy(path string, read func() (event.State, error)) look {
	r.reads.Add(1)
	before, ok := glance(path)
	var l look
	l.state, l.err = read()
	l.at = r.o.Now()
	if l.err != nil {
		l.unstable = errors.Is(l.err, digest.ErrUnstable)
		if errors.Is(l.err, unix.ELOOP) && !l.state.Exists {
			// A directory on the way is a symlink now: the canonical path is not there.
			l.err = nil
		} else if !l.state.Exists {
			l.state, l.err = glimpse(path, l.err)
		}
	}
	if l.unstable {
		r.unstable.Add(1)
	}
	if l.err == nil && ok && time.Now().UnixNano()-before.ctime > settled {
		if after, ok := glance(path); ok && after == before {
			l.ctime = before.ctime
		}
	}
	return l
}

// version is what a glance tells of an inode: enough to see that it was not
// touched, if ctime is not too young.
type version struct {
	dev, ino, size uint64
	mtime, ctime   int64
}

func glance(path string) (version, bool) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return version{}, false
	}
	return version{st.Dev, st.Ino, uint64(st.Size), st.Mtim.Nano(), st.Ctim.Nano()}, true
}

// untouched reports whether a glance proves that path is still as known.
func (r *Rehash) untouched(path string, e Entry) bool {
	if !e.State.Exists {
		var st unix.Stat_t
		err := unix.Lstat(path, &st)
		return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
	}
	if e.ctime == 0 || e.State.Unread != "" && !e.surveyed {
		return false
	}
	v, ok := glance(path)
	return ok && v.ctime == e.ctime && v.ino == e.State.Ino && v.dev == e.State.Dev &&
		(e.State.Type == event.TypeDir || event.Time(v.mtime) == e.State.Mtime)
}

func (r *Rehash) put(path string, l look, fresh bool) {
	r.putEntry(path, Entry{State: l.state, At: l.at, ctime: l.ctime, fresh: fresh})
}

// graveLimit is how many names may be known to be gone before they are pruned,
// and graveAge how long they are kept for events that come late.
const (
	graveLimit = 8192
	graveAge   = uint64(time.Minute)
)

func (r *Rehash) putEntry(path string, e Entry) {
	r.known.put(path, e)
	if !e.State.Exists && r.graves.Add(1) > graveLimit {
		r.graves.Store(0)
		if now := r.o.Now(); now > graveAge {
			r.known.prune("/", now-graveAge)
		}
	}
}

// Put sets the known state of a path that Holdfast itself has brought to that
// state: its own events find no difference then.
func (r *Rehash) Put(path string, s event.State) {
	r.putEntry(path, Entry{State: s, At: r.o.Now(), ours: true})
}

// PutAbove takes the directories above path as Holdfast's own work that are not
// the ones known: a restore makes those that are missing.
func (r *Rehash) PutAbove(ctx context.Context, path string) {
	for dir := filepath.Dir(path); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		e, known := r.known.Get(dir)
		v, ok := glance(dir)
		if !known || !ok || e.State.Exists && e.State.Ino == v.ino && e.State.Dev == v.dev {
			return
		}
		l := r.read(ctx, dir, nil)
		if l.err != nil {
			return // it is looked at again when its own change comes
		}
		r.putEntry(dir, Entry{State: l.state, At: l.at, ctime: l.ctime, ours: true})
	}
}

// Learn sets the known state of a path from an earlier run; a scan compares with it.
func (r *Rehash) Learn(path string, s event.State) {
	r.putEntry(path, Entry{State: s})
}

// Told is what a record of an earlier run tells of names.
type Told struct {
	Path, To  string // To: the other name of a rename or link, which After is of then
	Moved     bool   // what was at and below Path went to To
	Exchanged bool   // and the other way round
	After     event.State
	ID        string // of the record
	Expected  bool   // the change was expected: what it left is to be trusted
}

// Follow lets what was learned follow a record that may be newer.
func (r *Rehash) Follow(t *Told) {
	at := t.Path
	if t.To != "" {
		at = t.To
	}
	from, ok := r.known.Get(t.Path)
	switch {
	case t.To == "" || !t.Moved:
	case t.Exchanged:
		r.known.exchange(t.Path, t.To)
	case ok && from.State.Exists:
		r.known.move(t.Path, t.To, 0)
	default: // it followed already
		r.Learn(t.Path, event.State{})
	}
	r.Learn(at, t.After)
}

// Refresh reads a path, and all below it that is known or there, and takes what
// it finds as Holdfast's own work.
func (r *Rehash) Refresh(ctx context.Context, path string) error {
	var errs []error
	seen := make(map[string]bool)
	take := func(p string, l look) {
		seen[p] = true
		if l.err != nil && !l.state.Exists {
			errs = append(errs, fmt.Errorf("refresh %q: %w", p, l.err))
			return
		}
		r.putEntry(p, Entry{State: l.state, At: l.at, ctime: l.ctime, ours: true})
	}
	read := func(ctx context.Context, p string) look { return r.read(ctx, p, nil) }
	l := read(ctx, path)
	take(path, l)
	if l.state.Type == event.TypeDir {
		errs = append(errs, r.scan(ctx, Tree{Root: path}, read, take))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var gone []string
	r.known.Walk(path, func(p string, _ *event.State) {
		if !seen[p] {
			gone = append(gone, p)
		}
	})
	for _, p := range gone {
		r.Put(p, event.State{})
	}
	return nil
}

// Differs reports whether a path is not as known now, without taking notice of it
// if it is not.
func (r *Rehash) Differs(ctx context.Context, path string) bool {
	e, _ := r.known.Get(path)
	if r.untouched(path, e) {
		r.spared.Add(1)
		return false
	}
	return r.DiffersRead(ctx, path)
}

// DiffersRead is Differs for a file that is or was mapped: stores need not move
// its times, so it is read.
func (r *Rehash) DiffersRead(ctx context.Context, path string) bool {
	e, _ := r.known.Get(path)
	l := r.read(ctx, path, nil)
	if l.err != nil || !e.same(&l.state) {
		return true
	}
	if e.surveyed {
		return l.state.Ino != e.State.Ino
	}
	if s := &l.state; s.Dev != e.State.Dev || s.Ino != e.State.Ino || s.Nlink != e.State.Nlink {
		// the same, but another inode, or with other names
		r.putEntry(path, Entry{State: l.state, At: e.At, ctime: l.ctime, ours: e.ours, fresh: e.fresh, vague: e.vague})
	}
	return false
}
