package rollback

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// UndoOptions are the choices of PlanUndo.
type UndoOptions struct {
	// Force plans steps where only somebody's later change stands in the way. It
	// does not help where a content is not kept.
	Force bool
	// Merger takes the cause's changes out of files that others changed since; nil:
	// such files are conflicts.
	Merger Merger
}

// PlanUndo plans to take back what the records of one cause changed. records are
// in order of their sequence; later are the newer changes of the same paths by
// others, records of the cause among them are passed over.
//
// Each path goes back to what it was before the cause first touched it. It is a
// conflict instead if somebody else changed it since, if it is not any more as the
// cause left it, or if the vault does not have the content.
func (s *Store) PlanUndo(ctx context.Context, records []*event.Record, later []*event.Record, o UndoOptions) (Plan, error) {
	u := undo{planner: planner{s: s, ctx: ctx}, o: o, touched: map[string]*touch{}, others: map[string]*event.Record{}}
	ours := map[string]bool{}
	for _, r := range records {
		ours[r.ID] = true
		u.read(r)
	}
	for _, r := range later {
		if r.Kind == event.RecChange && !ours[r.ID] {
			u.readOther(r)
		}
	}
	if err := u.moves(); err != nil {
		return Plan{}, fmt.Errorf("plan undo: %w", err)
	}
	if err := u.paths(); err != nil {
		return Plan{}, fmt.Errorf("plan undo: %w", err)
	}
	u.pairs()
	for _, p := range u.order {
		if t := u.touched[p]; t.step != nil {
			u.step(*t.step)
		}
	}
	return u.plan(), nil
}

// undo plans in the name space as it was before the cause: a directory that the
// cause renamed is given its old name first, so that all below it has the names
// that it had.
type undo struct {
	planner
	o       UndoOptions
	touched map[string]*touch // by the name before the cause
	order   []string
	renamed []move // directories, in the order in which the cause renamed them
	others  map[string]*event.Record
}

// touch is all that the cause did to one path.
type touch struct {
	before, after *event.State // before the first touch and after the last one, nil if unknown
	seq           uint64       // of the first touch
	record        string       // id of the last one
	step          *Step
	spans         []stretch // all of its changes, in order
	noMerge       string    // why they could not be taken out one by one
}

// move is a directory that the cause renamed.
type move struct {
	from, to string
	state    event.State
	seq      uint64
	record   string
	failed   bool
}

// raw gives the bytes of a path as a record has it.
func raw(path string) string { return string(event.Untext(path)) }

func (u *undo) read(r *event.Record) {
	if r.Kind != event.RecChange || r.Verdict == event.VerdictBlocked {
		return
	}
	path, to := raw(r.Path), raw(r.PathTo)
	op, _ := event.ParseOp(r.Op)
	switch {
	case op == event.OpMount, op == event.OpUmount:
		u.conflict(path, r.ID, "mounts are not undone")
	case op == event.OpRename && path != "" && to != "":
		u.readRename(r, path, to)
	case op == event.OpLink && to != "", path == "":
		u.touch(r, to, r.Before, r.After)
	default:
		u.touch(r, path, r.Before, r.After)
	}
}

// readRename takes a rename apart. The record's states are those of the new name:
// before what was there, after what came. One whose states are of one inode, or
// that ends with nothing, tells of the old name instead.
func (u *undo) readRename(r *event.Record, path, to string) {
	moved, replaced := r.After, r.Before
	before := r.Before
	switch {
	case moved == nil || !moved.Exists:
		moved, replaced = before, nil
	case before != nil && before.Exists && before.Ino == moved.Ino && before.Ino != 0:
		replaced = nil
	}
	if replaced == nil {
		replaced = &event.State{}
		if v, ok := u.s.At(to, r.Time-1); ok {
			replaced = &v.State
		}
	}
	if moved != nil && moved.Type == event.TypeDir {
		u.renamed = append(u.renamed, move{from: u.old(path), to: u.old(to), state: *moved, seq: r.Seq, record: r.ID})
		if replaced.Exists {
			u.touch(r, to, replaced, &event.State{})
		}
		return
	}
	u.touch(r, to, replaced, moved)
	u.touch(r, path, moved, &event.State{})
}

func (u *undo) touch(r *event.Record, path string, before, after *event.State) {
	p := u.old(path)
	t := u.touched[p]
	if t == nil {
		t = &touch{before: before, seq: r.Seq}
		u.touched[p] = t
		u.order = append(u.order, p)
	}
	if n := len(t.spans); n > 0 && before != nil && t.spans[n-1].after != nil && before.Hash == t.spans[n-1].after.Hash {
		t.spans[n-1].after = after
	} else {
		t.spans = append(t.spans, stretch{before, after})
	}
	t.after, t.record = after, r.ID
}

// old gives the name that a path had before the cause, in as far as it has been
// read; now gives the one that it has after all of it.
func (u *undo) old(path string) string {
	for i := len(u.renamed) - 1; i >= 0; i-- {
		if m := u.renamed[i]; within(path, m.to) {
			path = m.from + path[len(m.to):]
		}
	}
	return path
}

func (u *undo) now(path string) string {
	for _, m := range u.renamed {
		if within(path, m.from) {
			path = m.to + path[len(m.from):]
		}
	}
	return path
}

func (u *undo) readOther(r *event.Record) {
	for _, p := range []string{r.Path, r.PathTo} {
		if p == "" || p == r.Path && r.Op == event.OpLink.String() && r.PathTo != "" {
			continue
		}
		u.others[u.old(raw(p))] = r // the newest one stays
	}
}

// moves plans to give directories their old names back, last one first.
func (u *undo) moves() error {
	for i := len(u.renamed) - 1; i >= 0; i-- {
		m := &u.renamed[i]
		at := m.to
		for _, next := range u.renamed[i+1:] {
			if within(at, next.from) {
				at = next.to + at[len(next.from):]
			}
		}
		have, err := u.present(at)
		if err != nil {
			return err
		}
		if !have.Exists || have.Type != event.TypeDir || m.state.Ino != 0 && have.Ino != m.state.Ino {
			back, err := u.present(m.from)
			if err != nil {
				return err
			}
			m.failed = true
			if back.Type != event.TypeDir || m.state.Ino != 0 && back.Ino != m.state.Ino {
				u.conflict(m.from, m.record, fmt.Sprintf("the directory is not any more where it was moved to, %q", event.Text([]byte(at))))
			}
			continue
		}
		if other := u.others[m.from]; other != nil && other.Seq > m.seq && !u.o.Force {
			u.conflict(m.from, other.ID, "changed since by "+who(other))
			m.failed = true
			continue
		}
		u.first = append(u.first, Step{Path: m.from, From: m.to, Action: ActionRename, Want: have,
			Reason: "the directory was renamed"})
	}
	return nil
}

// paths decides about each path.
func (u *undo) paths() error {
	for _, p := range u.order {
		if err := u.decide(p, u.touched[p]); err != nil {
			return err
		}
	}
	// A directory goes only if all in it goes.
	for _, p := range u.order {
		t := u.touched[p]
		if t.step == nil || t.step.Have.Type != event.TypeDir || t.step.Want.Type == event.TypeDir {
			continue
		}
		stays, err := u.stays(p)
		if err != nil {
			return err
		}
		if stays != "" {
			t.step = nil
			u.conflict(p, t.record, fmt.Sprintf("the directory holds %q, which is not part of this", event.Text([]byte(stays))))
		}
	}
	return nil
}

func (u *undo) decide(p string, t *touch) error {
	now := u.now(p)
	have, err := u.present(now)
	if err != nil {
		u.conflict(p, t.record, err.Error())
		return u.ctx.Err()
	}
	switch {
	case t.before == nil:
		u.conflict(p, t.record, "the state before is not known")
		return nil
	case have.Unread == "" && len(diff(&have, t.before)) == 0:
		return nil // it is as it was
	case t.before.Unread != "" && t.before.Hash.IsZero() && t.before.Type == event.TypeRegular:
		u.conflict(p, t.record, "the content before is not known: "+t.before.Unread)
		return nil
	}
	for _, m := range u.renamed {
		if m.failed && within(now, m.to) {
			u.conflict(p, m.record, "its directory cannot be moved back")
			return nil
		}
	}
	if !u.o.Force {
		if record, reason := u.standsInTheWay(p, t, &have); reason != "" {
			merged, err := u.merge(p, t, &have)
			if merged || err != nil {
				return err
			}
			if t.noMerge != "" {
				reason += "; " + t.noMerge
			}
			u.conflict(p, record, reason)
			return nil
		}
	}
	st := Step{Path: p, Want: *t.before, Have: have, Reason: "undo of " + t.record}
	st.Action = actionFor(&have, t.before)
	if have.Type == event.TypeDir && !t.before.Exists {
		st.Action = ActionRmdir
	}
	t.step = &st
	return nil
}

// standsInTheWay says why p is not the cause's to take back, "" if it is.
func (u *undo) standsInTheWay(p string, t *touch, have *event.State) (record, reason string) {
	if other := u.others[p]; other != nil && other.Seq > t.seq {
		return other.ID, "changed since by " + who(other)
	}
	switch {
	case t.after == nil:
		return t.record, "what was left there is not known"
	case t.after.Type == event.TypeRegular && t.after.Hash.IsZero():
		return t.record, "the content that was left there is not known: " + t.after.Unread
	case have.Unread != "":
		return t.record, "its content cannot be read now: " + have.Unread
	}
	if d := diff(t.after, have); len(d) > 0 {
		return t.record, "it is not any more as it was left: " + strings.Join(d, ", ") + " differs"
	}
	return "", ""
}

func who(r *event.Record) string {
	if r.Actor == nil || r.Actor.User == "" {
		return "somebody else"
	}
	return r.Actor.User
}

// stays names something in the directory p that the plan does not remove.
func (u *undo) stays(p string) (string, error) {
	ents, err := os.ReadDir(u.now(p))
	if errors.Is(err, unix.ENOENT) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for _, e := range ents {
		t := u.touched[p+"/"+e.Name()]
		if t == nil || t.step == nil || t.step.Want.Exists {
			return e.Name(), nil
		}
	}
	return "", nil
}

// pairs turns a removal and a write that only undo a rename into one rename, for
// which the vault need not have the content.
func (u *undo) pairs() {
	gone := map[uint64]string{} // inode → path that is to be removed
	for _, p := range u.order {
		if t := u.touched[p]; t.step != nil && t.step.Action == ActionRemove && t.step.Have.Ino != 0 {
			gone[t.step.Have.Ino] = p
		}
	}
	for _, p := range u.order {
		t := u.touched[p]
		if t.step == nil || t.step.Have.Exists || !t.step.Want.Exists {
			continue
		}
		from, ok := gone[t.step.Want.Ino]
		if !ok {
			continue
		}
		other := u.touched[from].step
		if other.Have.Dev != t.step.Want.Dev || len(diff(&other.Have, &t.step.Want)) > 0 {
			continue
		}
		u.first = append(u.first, Step{Path: p, From: from, Action: ActionRename, Want: other.Have, Reason: t.step.Reason})
		t.step, u.touched[from].step = nil, nil
		delete(gone, other.Have.Ino)
	}
}

func isLoop(err error) bool { return errors.Is(err, unix.ELOOP) }
