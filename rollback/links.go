package rollback

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
)

// A file with several names is one inode, and each name has versions of its own.
// Two versions are of one such inode if they are the same in content and
// metadata and were taken at the same device and inode number, with more than one
// name. The numbers are those of the time of the capture: they tell who belonged
// together then, and need not be those of what is there now.

// linkKey is where a version of a file with several names was taken.
type linkKey struct{ dev, ino uint64 }

// linkKeyOf returns the key of a state that has several names; ok is false for
// any other.
func linkKeyOf(st *event.State) (k linkKey, ok bool) {
	return linkKey{st.Dev, st.Ino}, st.Exists && st.Type != event.TypeDir && st.Nlink > 1 && st.Ino != 0
}

// noteLink remembers the path of a version with several names.
func (c *catalog) noteLink(v *Version) {
	k, ok := linkKeyOf(&v.State)
	if ok && !slices.Contains(c.links[k], v.Path) {
		c.links[k] = append(c.links[k], v.Path)
	}
}

// oneInode reports whether two versions were taken of one inode.
func oneInode(a, b *event.State) bool {
	x, ok := linkKeyOf(a)
	y, also := linkKeyOf(b)
	return ok && also && x == y && a.Same(b)
}

// Links returns the other names that the inode of a version had, sorted: paths
// whose trusted version was taken of the same one.
func (s *Store) Links(v Version) []string {
	return s.linksBy(v, RestoreOptions{})
}

// linksBy is Links by the versions that a restore with these options takes.
func (s *Store) linksBy(v Version, o RestoreOptions) []string {
	k, ok := linkKeyOf(&v.State)
	if !ok {
		return nil
	}
	s.mu.RLock()
	paths := slices.Clone(s.catalog.links[k])
	s.mu.RUnlock()
	if o.Version != 0 {
		o = RestoreOptions{At: v.Time}
	}
	var out []string
	for _, p := range paths {
		if p == v.Path {
			continue
		}
		if w, ok := s.choose(p, o); ok && oneInode(&v.State, &w.State) {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

// Relink makes path another name of what is at from, which must be as version v
// of path says.
func (s *Store) Relink(ctx context.Context, path, from string, v Version) (Result, error) {
	r := s.restore(ctx, Step{Path: path, Action: ActionRelink, From: from, Want: v.State, Version: v.ID}, nil, false)
	return r, r.Err
}

// asItWas looks for a name of the same inode that is as the version says.
func (s *Store) asItWas(ctx context.Context, v Version) string {
	for _, p := range s.Links(v) {
		st, err := digest.ReadPath(ctx, p, nil)
		if err == nil && len(diff(&st, &v.State)) == 0 {
			return p
		}
	}
	return ""
}

// lead is the inode at another name, which the path of a job is to become a name
// of as well.
type lead struct {
	path  string
	off   *lifted // flags that forbid another name
	inode *inode
}

// borrow stages what is at from. The path is as wanted if it is that already.
func (j *job) borrow(from string) error {
	dir, base, err := digest.OpenParent(from)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	st, err := digest.Read(j.ctx, dir, base, nil)
	if err != nil {
		return err
	}
	if d := diff(&st, &j.step.Want); len(d) > 0 {
		return fmt.Errorf("%q, the other name of the same file, is not as it was: %q differ", from, d)
	}
	if j.have.Exists && j.have.Ino == st.Ino && j.have.Dev == st.Dev {
		j.phase = phaseAsIs
		return nil
	}
	i, err := pin(j.s.disk, dir, base, from, &st)
	if err != nil {
		return err
	}
	j.lead, j.mine = &lead{path: from, inode: i}, st
	if j.token == "" {
		if j.token, err = j.s.token(); err != nil {
			return err
		}
	}
	j.phase = phaseStaged
	j.note("another name of " + event.Text([]byte(from)))
	return nil
}

// sameAsFrom reports whether the path is another name of what is at From.
func (j *job) sameAsFrom() bool {
	st, err := digest.StatPath(j.step.From)
	return err == nil && st.Exists && st.Ino == j.have.Ino && st.Dev == j.have.Dev
}

// freeLead takes the flags off that forbid another name.
func (j *job) freeLead() error {
	l := j.lead
	if l == nil || l.off != nil || j.mine.Flags&held == 0 {
		return nil
	}
	var err error
	l.off, err = j.s.lift(l.inode, l.path, j.mine.Flags)
	return err
}

// drop puts the flags back and closes it.
func (l *lead) drop() error {
	err := l.off.back()
	l.inode.close()
	return err
}

// from is the descriptor of the inode that LinkFD is to name, -1 if it has a
// name in the private directory.
func (j *job) nameless() int {
	switch {
	case j.lead != nil:
		return j.lead.inode.at
	case j.private < 0:
		return j.staged
	}
	return -1
}

// links adds the steps that make the planned files that had several names one
// inode again: one of each group leads, the others become names of it. Of two
// that have to be made the first in order is the leader, so that it is there when
// its turn comes.
func (p *planner) links(versions map[string]Version, o RestoreOptions) error {
	done := map[string]bool{}
	paths := make([]string, 0, len(versions))
	for path, v := range versions {
		if _, ok := linkKeyOf(&v.State); ok {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	for _, path := range paths {
		if done[path] {
			continue
		}
		v := versions[path]
		group := append(p.s.linksBy(v, o), path)
		if o.Into != "" { // only what is brought along
			group = slices.DeleteFunc(group, func(q string) bool { _, ok := versions[q]; return !ok })
		}
		slices.Sort(group)
		for _, q := range group {
			done[q] = true
		}
		if err := p.group(group, v, o); err != nil {
			return err
		}
	}
	return nil
}

// group plans one group of names.
func (p *planner) group(names []string, v Version, o RestoreOptions) error {
	if len(names) < 2 {
		return nil
	}
	if o.Into != "" {
		p.ids.apply(&v.State)
	}
	place := func(name string) string {
		if o.Into != "" {
			return path.Join(o.Into, name)
		}
		return name
	}
	have := map[string]event.State{}
	leader, rank := "", 0
	for _, name := range names {
		at := place(name)
		st, err := p.present(at)
		if err != nil {
			p.conflict(at, "", err.Error())
			return p.ctx.Err()
		}
		have[at] = st
		r := 1 // to be made anew
		switch actionFor(&st, &v.State) {
		case ActionNone:
			r = 3
		case ActionMeta:
			r = 2
		}
		if r > rank {
			leader, rank = at, r
		}
	}
	p.makes = slices.DeleteFunc(p.makes, func(st Step) bool { _, in := have[st.Path]; return in })
	lead := have[leader]
	if rank < 3 {
		step := Step{Path: leader, Want: v.State, Version: v.ID, Have: lead, Source: v.Path, Reason: "one file with several names"}
		if !p.step(step) {
			return nil
		}
	}
	for _, name := range names {
		at := place(name)
		if at == leader || rank > 1 && have[at].Ino == lead.Ino && have[at].Dev == lead.Dev {
			continue
		}
		p.relinks = append(p.relinks, Step{Path: at, Action: ActionRelink, From: leader, Want: v.State, Have: have[at],
			Version: v.ID, Source: v.Path, Reason: "another name of " + event.Text([]byte(leader))})
	}
	return nil
}

// rejoin has the files that had several names become one inode again: one name of
// each leads, those that would be made anew become further names of it.
func (u *undo) rejoin() error {
	groups := map[linkKey][]name{}
	several := map[linkKey]bool{}
	for _, n := range u.order {
		b := u.touched[n].before
		if n.since != 0 || b == nil || !b.Exists || b.Type == event.TypeDir || b.Ino == 0 {
			continue
		}
		k := linkKey{b.Dev, b.Ino}
		groups[k] = append(groups[k], n)
		several[k] = several[k] || b.Nlink > 1 // of the name that went last it is 1
	}
	for k, names := range groups {
		if !several[k] {
			continue
		}
		slices.SortFunc(names, func(a, b name) int { return strings.Compare(a.path, b.path) })
		if err := u.rejoinOne(k, names); err != nil {
			return err
		}
	}
	slices.SortFunc(u.relinks, func(a, b Step) int { return strings.Compare(a.Path, b.Path) })
	return nil
}

// rejoinOne joins the names that the cause touched of what was one inode.
func (u *undo) rejoinOne(k linkKey, names []name) error {
	var anew []name // to be made
	leader, rank := name{}, 0
	lead := func(n name, r int) {
		if r > rank {
			leader, rank = n, r
		}
	}
	want := u.touched[names[0]].before
	for _, n := range names {
		switch t := u.touched[n]; {
		case !t.before.Same(want) || t.step != nil && t.step.Content != nil:
		case t.step == nil: // as it was, or a conflict
		case t.step.Action == ActionMeta:
			lead(n, 2)
		case t.step.Want.Exists:
			lead(n, 1)
			anew = append(anew, n)
		}
	}
	if len(anew) == 0 {
		return nil
	}
	u.s.mu.RLock()
	kept := slices.Clone(u.s.catalog.links[k])
	u.s.mu.RUnlock()
	for _, n := range names {
		kept = append(kept, n.path)
	}
	kept = append(kept, besides(names, k.ino)...)
	for _, p := range kept {
		n := name{path: p}
		if t := u.touched[n]; t != nil && t.step != nil {
			continue
		}
		have, err := u.there(n)
		if u.ctx.Err() != nil {
			return err
		}
		if err == nil && have.Ino == k.ino && have.Dev == k.dev && len(diff(&have, want)) == 0 {
			lead(n, 3)
		}
	}
	if rank == 1 && want.Type == event.TypeRegular {
		if ok, err := u.s.Has(want.Hash); !ok && err == nil {
			return nil // each is a conflict
		}
	}
	for _, n := range anew {
		if n == leader {
			continue
		}
		t := u.touched[n]
		st := *t.step
		st.From = leader.path // made anew if that is not as it was
		st.Reason += "; another name of " + event.Text([]byte(leader.path))
		u.relinks = append(u.relinks, st)
		t.step = nil
	}
	return nil
}

// besides finds names of an inode that no version tells of, in the directories of
// those that are known: a link is no change of the file's other names.
func besides(names []name, ino uint64) (out []string) {
	seen := map[string]bool{}
	for _, n := range names {
		dir := path.Dir(n.path)
		if seen[dir] {
			continue
		}
		seen[dir] = true
		ents, _ := os.ReadDir(dir) // one that cannot be read has none for us
		for _, e := range ents {
			p := path.Join(dir, e.Name())
			if st, err := digest.StatPath(p); err == nil && st.Ino == ino {
				out = append(out, p)
			}
		}
	}
	return out
}
