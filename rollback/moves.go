package rollback

import (
	"fmt"
	"path"
	"sort"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
)

// name is a path as it was before the cause (since 0), or one that the cause made
// where it had renamed a directory away before: then the path as it was after that
// many renames of directories, and before them there was something else.
//
// Undo takes the renames back one by one, the last one first. When those after the
// i-th are taken back, names are as they were after the i-th: what was made at the
// vacated name since then goes, then the directory comes back.
type name struct {
	path  string
	since int
}

// move is a directory that the cause renamed. Its names are those of that moment.
type move struct {
	from, to string
	state    event.State
	seq      uint64
	record   string
	failed   bool // it cannot be moved back
	gone     bool // the cause removed it later
	undone   bool // it has its old name again
}

// name gives the name of what was at path after the first renames of the cause.
func (u *undo) name(p string, renames int) name { return u.back(p, renames, false) }

// named gives the name of what is at path now.
func (u *undo) named(p string) name { return u.back(p, len(u.renamed), true) }

func (u *undo) back(p string, renames int, now bool) name {
	moved := false
	for i := renames - 1; i >= 0; i-- {
		switch m := u.renamed[i]; {
		case now && m.undone:
		case now && m.gone && !moved && within(p, m.to): // something else is there now
		case within(p, m.to):
			p, moved = m.from+p[len(m.to):], true
		case within(p, m.from):
			return name{p, i + 1}
		}
	}
	return name{p, 0}
}

// asKnown is the state of what was renamed from path, if it was gone before it could
// be read: as the cause, or the vault, had it before.
func (u *undo) asKnown(r *event.Record, path string, moved *event.State) *event.State {
	if t := u.touched[u.name(path, len(u.renamed))]; t != nil {
		if t.after != nil && t.after.Exists {
			return t.after
		}
	} else if v, ok := u.s.At(path, r.Time-1); ok && v.State.Exists {
		return &v.State
	}
	return moved
}

// readExchange takes an exchange of two names apart. The record's states are those of
// the second name: before what was there, after what came from the first.
func (u *undo) readExchange(r *event.Record, a, b string) {
	first, second := r.After, r.Before
	went := func(from, to string, st *event.State) {
		u.renamed = append(u.renamed, move{from: from, to: to, state: *st, seq: r.Seq, record: r.ID})
	}
	switch none := (&event.State{}); {
	case first.Type == event.TypeDir && second.Type == event.TypeDir:
		// Taken back in three renames, by a name that was free.
		between := fmt.Sprintf("%s/.exchanged-%d", strings.TrimSuffix(path.Dir(a), "/"), r.Seq)
		went(a, between, first)
		went(b, a, second)
		went(between, b, first)
	case first.Type == event.TypeDir:
		u.touch(r, b, second, none)
		went(a, b, first)
		u.touch(r, a, none, second)
	case second.Type == event.TypeDir:
		u.touch(r, a, first, none)
		went(b, a, second)
		u.touch(r, b, none, first)
	default:
		u.touch(r, b, second, first)
		u.touch(r, a, first, second)
	}
}

// now gives the path at which a name is now.
func (u *undo) now(n name) string { return u.after(n.path, n.since) }

// after follows a path from a moment on through the renames since.
func (u *undo) after(p string, renames int) string {
	for _, m := range u.renamed[renames:] {
		if within(p, m.from) && !m.undone {
			p = m.to + p[len(m.from):]
		}
	}
	return p
}

// there reads what is at a name now: nothing if only something that moved there
// has its path.
func (u *undo) there(n name) (event.State, error) {
	now := u.now(n)
	if u.named(now) != n {
		return event.State{}, nil
	}
	return u.present(now)
}

// stuck returns a move that cannot be taken back and has the name in it, nil if
// there is none.
func (u *undo) stuck(n name) *move {
	for i := n.since; i < len(u.renamed); i++ {
		if m := &u.renamed[i]; m.failed && within(u.after(n.path, n.since), u.after(m.to, i+1)) {
			return m
		}
	}
	return nil
}

// moves finds out which directories can be given their old names back.
func (u *undo) moves() error {
	for i := len(u.renamed) - 1; i >= 0; i-- {
		m := &u.renamed[i]
		at := u.after(m.to, i+1)
		have, err := u.present(at)
		if err != nil {
			return err
		}
		old := u.name(m.to, i+1)
		if !m.is(&have) {
			if err := u.elsewhere(m, i, old, at); err != nil {
				return err
			}
			continue
		}
		if other := u.others[old]; other != nil && other.Seq > m.seq && !u.o.Force {
			u.conflict(old.path, other.ID, "changed since by "+who(other))
			m.failed = true
		}
	}
	return nil
}

// is reports whether a state is that of the directory.
func (m *move) is(st *event.State) bool {
	return st.Type == event.TypeDir && (m.state.Ino == 0 || st.Ino == m.state.Ino)
}

// elsewhere finds out what became of a directory that is not where the i-th rename
// and those after it left it.
func (u *undo) elsewhere(m *move, i int, old name, at string) error {
	for _, p := range []string{u.after(m.from, i+1), old.path} {
		back, err := u.present(p)
		if err != nil {
			return err
		}
		if m.is(&back) {
			m.undone = true
			return nil
		}
	}
	t := u.touched[old]
	if t != nil && t.before != nil && t.after != nil && t.before.Type == event.TypeDir && !t.after.Exists && u.touched[name{m.from, i + 1}] == nil {
		m.undone = true // made anew at its old name, if what is there is no other one
		if have, err := u.there(old); err == nil && len(diff(&have, t.before)) == 0 {
			return nil
		}
		m.undone = false
	}
	m.gone = t != nil && (t.after == nil || !t.after.Exists || t.before != nil && !t.before.Exists)
	if !m.gone {
		m.failed = true
		u.conflict(old.path, m.record, fmt.Sprintf("the directory is not any more where it was moved to, %q", event.Text([]byte(at))))
	}
	return nil
}

// moveBack plans the renames back, the last one first, with what has to be done
// before each.
func (u *undo) moveBack() {
	for i := len(u.renamed) - 1; i >= 0; i-- {
		u.vacate(i + 1)
		m := &u.renamed[i]
		if m.failed || m.gone || m.undone {
			continue
		}
		have := m.state
		have.Exists, have.Type = true, event.TypeDir
		u.parents(path.Dir(m.from), i)
		if k := len(u.first) - 1; k >= 0 && u.first[k].Action == ActionRename && u.first[k].Path == m.to && u.first[k].From == m.from {
			u.first = u.first[:k] // it had its name back
			continue
		}
		u.first = append(u.first, Step{Path: m.from, From: m.to, Action: ActionRename, Want: have, Reason: "the directory was renamed"})
	}
}

// vacate removes what was made where the directory of a rename has to come back.
func (u *undo) vacate(renames int) {
	var steps []Step
	for _, n := range u.order {
		if t := u.touched[n]; n.since == renames && t.step != nil {
			steps = append(steps, *t.step)
		}
	}
	sort.SliceStable(steps, func(i, j int) bool { return steps[i].Path > steps[j].Path })
	u.first = append(u.first, steps...)
}

// parents makes a directory, and those above it, that the cause removed after
// something was moved out of it. dir is its path after so many renames. One that
// the cause had made itself goes again.
func (u *undo) parents(dir string, renames int) {
	n := u.name(dir, renames)
	t := u.touched[n]
	if t == nil || u.made[n] || t.after != nil && t.after.Exists {
		return
	}
	u.made[n] = true
	u.parents(path.Dir(dir), renames)
	want := event.State{Exists: true, Type: event.TypeDir, Mode: 0o700, Mtime: event.TimeOf(u.s.now())}
	if t.before != nil && t.before.Type == event.TypeDir {
		want = *t.before
	} else {
		gone := Step{Path: n.path, Action: ActionRmdir, Have: want, Reason: "only needed to move others back"}
		if n.since == 0 {
			u.removes = append(u.removes, gone)
		} else {
			t.step = &gone
		}
	}
	u.first = append(u.first, Step{Path: dir, Action: ActionMkdir, Want: want, Reason: "undo of " + t.record})
}
