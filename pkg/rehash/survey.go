package rehash

import (
	"context"
	"time"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
)

// Mark is what a survey notes of a path: what is there, without its content, and
// what shows later whether it was touched.
type Mark struct {
	Path  string
	State event.State
	Ctime int64 // ns, of the inode's last change; 0: too young to tell every later one
}

// unreadSurvey is why a surveyed file has no hash.
const unreadSurvey = "not read yet: its tree is being enrolled"

// unreadMeta is why there is no hash of a surveyed file of which a look tells that its
// metadata changed. Who writes can set the time back: that size and time are the same is no
// proof that nobody did.
const unreadMeta = "not read before its metadata changed: size and time of the content are the same, whether it changed is not known"

// metadataOf names the operation that made a surveyed file what it is now, if all that is seen
// to differ is metadata; ok is false else.
func (e *Entry) metadataOf(now *event.State) (op event.Op, ok bool) {
	s := &e.State
	if !e.surveyed || s.Type != event.TypeRegular || now.Type != s.Type || now.Ino != s.Ino || now.Size != s.Size || now.Mtime != s.Mtime {
		return 0, false
	}
	c := *now
	c.Hash = s.Hash
	op = OpOf(s, &c)
	return op, op.Metadata()
}

// Survey notes what is in a tree and reads no content, parents before their
// children. What cannot be looked at is left out.
func (r *Rehash) Survey(ctx context.Context, t Tree) ([]Mark, error) {
	var out []Mark
	var young []int
	err := walk(ctx, t, func(path string, _ bool) error {
		m, ok := markOf(path)
		if !ok {
			return ctx.Err()
		}
		if m.Ctime == 0 {
			young = append(young, len(out))
		}
		out = append(out, m)
		return ctx.Err()
	})
	if err == nil && len(young) > 0 {
		select {
		case <-time.After(2 * time.Duration(settled)):
		case <-ctx.Done():
			err = ctx.Err()
		}
		for _, i := range young {
			if m, ok := markOf(out[i].Path); ok {
				out[i] = m
			}
		}
	}
	return out, err
}

func markOf(path string) (Mark, bool) {
	before, ok := glance(path)
	if !ok {
		return Mark{}, false
	}
	s, err := digest.StatPath(path)
	if err != nil {
		s, _ = glimpse(path, err)
	}
	if !s.Exists {
		return Mark{}, false
	}
	m := Mark{Path: path, State: s}
	if s.Type == event.TypeRegular {
		m.State = unread(s, unreadSurvey)
	}
	if after, ok := glance(path); ok && after == before && err == nil && time.Now().UnixNano()-before.ctime > settled {
		m.Ctime = before.ctime
	}
	return m, true
}

// LearnMark takes what a survey noted as known.
func (r *Rehash) LearnMark(m *Mark) {
	r.putEntry(m.Path, Entry{State: m.State, ctime: m.Ctime, surveyed: true})
}

// same reports whether s is as known, as far as that is known.
func (e *Entry) same(s *event.State) bool {
	if !e.surveyed || e.State.Type != event.TypeRegular {
		return s.Same(&e.State)
	}
	c := *s
	c.Hash = e.State.Hash
	return c.Same(&e.State)
}

// Capture is a path that was read with its content, to be kept.
type Capture struct {
	path string
	l    look
}

// State is what was read; the error says why not all of it was.
func (c *Capture) State() (event.State, error) { return c.l.state, c.l.err }

// Content is that of a regular file, nil if there is none. Who takes it ends it.
func (c *Capture) Content() Intake { return c.l.in }

// Capture reads a path and its content; what is known stays.
func (r *Rehash) Capture(ctx context.Context, path string) Capture {
	var in Intake
	if r.o.Intake != nil {
		in = r.o.Intake()
	}
	return Capture{path, r.read(ctx, path, in)}
}

// AsSurveyed reports whether a capture is of what the survey found: nobody has
// touched the path since. m is its mark, nil if it has none.
func (r *Rehash) AsSurveyed(m *Mark, c *Capture) bool {
	e, ok := r.known.Get(c.path)
	s := &c.l.state
	if m == nil || !ok || !e.surveyed || c.l.err != nil || s.Ino != m.State.Ino || !e.same(s) {
		return false
	}
	// the times of a directory move with what is in it, and a link cannot be written to
	return s.Type != event.TypeRegular || c.l.ctime != 0 && c.l.ctime == m.Ctime
}

// Settle takes a capture as known where that tells no change: what a survey noted of
// the path, if anything, is the same as far as it goes. From then on the name counts
// as one that was there.
func (r *Rehash) Settle(c *Capture) {
	if e, ok := r.known.Get(c.path); ok && e.surveyed && (e.same(&c.l.state) || c.l.err != nil) {
		r.put(c.path, c.l, false)
	}
}

// Surveyed lists the paths at and below root of which no more is known than a survey
// noted.
func (r *Rehash) Surveyed(root string) []string {
	var all, out []string
	r.known.Walk(root, func(p string, _ *event.State) { all = append(all, p) })
	for _, p := range all {
		if e, ok := r.known.Get(p); ok && e.surveyed {
			out = append(out, p)
		}
	}
	return out
}

// Stays takes a name that came while its tree was being enrolled for one that was
// there: what it was changed to then is not what it is to be, but it is not put away.
func (r *Rehash) Stays(path string) {
	if e, ok := r.known.Get(path); ok && e.fresh {
		e.fresh = false
		r.putEntry(path, e)
	}
}

// Each calls visit for each path of a tree, parents first.
func (r *Rehash) Each(ctx context.Context, t Tree, visit func(path string) error) error {
	return walk(ctx, t, func(path string, _ bool) error { return visit(path) })
}
