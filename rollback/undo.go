package rollback

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
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
// in order of their sequence; later are the newer changes by others
// of the same paths and below the directories that the cause renamed, and the gaps since;
// records of the cause among them are passed over.
//
// Each path goes back to what it was before the cause first touched it. It is a
// conflict instead if somebody else changed it since, if it is not any more as the
// cause left it, or if the vault does not have the content.
func (s *Store) PlanUndo(ctx context.Context, records []*event.Record, later []*event.Record, o UndoOptions) (Plan, error) {
	u := undo{planner: planner{s: s, ctx: ctx}, o: o, touched: map[name]*touch{}, others: map[name]*event.Record{}, made: map[name]bool{}, closed: map[name]bool{}}
	ours := map[string]bool{}
	for _, r := range records {
		ours[r.ID] = true
		u.read(r)
	}
	for _, r := range later {
		switch {
		case ours[r.ID]:
		case r.Kind == event.RecGap:
			u.gaps = append(u.gaps, r)
		case r.Kind != event.RecChange:
		case compared(r):
			u.found = append(u.found, r)
		default:
			u.readOther(r)
		}
	}
	u.follow()
	u.adopt()
	if err := u.moves(); err != nil {
		return Plan{}, fmt.Errorf("plan undo: %w", err)
	}
	if err := u.paths(); err != nil {
		return Plan{}, fmt.Errorf("plan undo: %w", err)
	}
	u.moveBack()
	u.pairs()
	if err := u.rejoin(); err != nil {
		return Plan{}, fmt.Errorf("plan undo: %w", err)
	}
	for _, n := range u.order {
		if t := u.touched[n]; t.step != nil && n.since == 0 && !u.made[n] {
			u.step(*t.step)
		}
	}
	return u.plan(), nil
}

// undo plans in the name space as it was before the cause: a directory that the
// cause renamed is given its old name first, so that all below it has the names
// that it had. See name.
type undo struct {
	planner
	o       UndoOptions
	touched map[name]*touch
	order   []name
	renamed []move // directories, in the order in which the cause renamed them
	others  map[name]*event.Record
	made    map[name]bool   // directories that are made before others are moved back into them
	found   []*event.Record // by nobody, when a directory was compared
	closed  map[name]bool   // what could not be looked at: what is below is left alone, too
	gaps    []*event.Record // of events that may be missing
}

// touch is all that the cause did to one path.
type touch struct {
	before, after *event.State // before the first touch and after the last one, nil if unknown
	seq, last     uint64       // of the first touch and the last one
	between       bool         // somebody else changed it in between
	record        string       // id of the last one
	step          *Step
	spans         []stretch       // all of its changes, in order
	noMerge       string          // why they could not be taken out one by one
	unread        []*event.Record // those that left a file which could not be read
}

// raw gives the bytes of a path as a record has it.
func raw(path string) string { return string(event.Untext(path)) }

func (u *undo) read(r *event.Record) {
	switch {
	case r.Kind == event.RecChange && r.Verdict != event.VerdictBlocked:
	case r.Kind == event.RecResponse && r.Verdict == event.VerdictRestored: // an undo or restore, to be undone
	default:
		return
	}
	path, to := raw(r.Path), raw(r.PathTo)
	op, _ := event.ParseOp(r.Op)
	switch {
	case op == event.OpMount, op == event.OpUmount:
		u.conflict(path, r.ID, "mounts are not undone")
	case op == event.OpRename && path != "" && to != "":
		u.readRename(r, path, to)
	case op == event.OpRename && to == "" && left(r):
		u.readLeft(r, path)
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
	case slices.Contains(r.Ops, "exchange") && moved != nil && moved.Exists && before != nil && before.Exists:
		u.readExchange(r, path, to)
		return
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
	if moved != nil && moved.Exists && moved.Type == "" { // it was gone before it could be read
		moved = u.asKnown(r, path, moved)
	}
	if moved != nil && moved.Type == event.TypeDir {
		if replaced.Exists {
			u.touch(r, to, replaced, &event.State{})
		}
		u.renamed = append(u.renamed, move{from: path, to: to, state: *moved, seq: r.Seq, record: r.ID})
		return
	}
	u.touch(r, to, replaced, moved)
	u.touch(r, path, moved, &event.State{})
}

// left reports whether a directory was renamed out of what is watched.
func left(r *event.Record) bool {
	return r.Before != nil && r.Before.Exists && r.Before.Type == event.TypeDir && r.After != nil && !r.After.Exists
}

// readLeft is about a directory that left with all in it: the vault knows what that was.
func (u *undo) readLeft(r *event.Record, dir string) {
	u.touch(r, dir, r.Before, r.After)
	then := u.name(dir, len(u.renamed)).path // it may have had that name when its files were kept
	known := map[string]bool{}
	for _, as := range []string{dir, then} {
		for _, p := range u.s.Paths(as) {
			at := dir + p[len(as):]
			if v, ok := u.s.At(p, r.Time-1); ok && v.State.Exists && p != as && !known[at] {
				known[at] = true
				u.touch(r, at, &v.State, r.After)
			}
		}
	}
}

func (u *undo) touch(r *event.Record, path string, before, after *event.State) {
	n := u.name(path, len(u.renamed))
	t := u.touched[n]
	if t == nil {
		t = &touch{before: before, seq: r.Seq}
		u.touched[n] = t
		u.order = append(u.order, n)
	}
	if k := len(t.spans); k > 0 && before != nil && t.spans[k-1].after != nil && before.Hash == t.spans[k-1].after.Hash {
		t.spans[k-1].after = after
	} else {
		t.spans = append(t.spans, stretch{before, after})
	}
	if unread(after) {
		t.unread = append(t.unread, r)
	}
	t.after, t.record, t.last = after, r.ID, r.Seq
}

func (u *undo) readOther(r *event.Record) {
	renamed := u.renamedBefore(r.Seq)
	for _, p := range []string{r.Path, r.PathTo} {
		if p == "" || p == r.Path && r.Op == event.OpLink.String() && r.PathTo != "" {
			continue
		}
		n := u.name(raw(p), renamed)
		if other := u.others[n]; other == nil || other.Seq < r.Seq {
			u.others[n] = r
		}
		if t := u.touched[n]; t != nil && r.Seq > t.seq && r.Seq < t.last {
			t.between = true
		}
	}
}

// renamedBefore counts the renames of directories before a record.
func (u *undo) renamedBefore(seq uint64) int {
	n := 0
	for n < len(u.renamed) && u.renamed[n].seq < seq {
		n++
	}
	return n
}

// paths decides about each path.
func (u *undo) paths() error {
	for _, n := range u.order {
		if err := u.decide(n, u.touched[n]); err != nil {
			return err
		}
	}
	for _, n := range u.order {
		t := u.touched[n]
		for dir := path.Dir(n.path); t.step != nil && len(dir) > 1; dir = path.Dir(dir) {
			if u.closed[name{dir, n.since}] {
				t.step = nil
				u.conflict(n.path, t.record, fmt.Sprintf("what is at %q cannot be told", event.Text([]byte(dir))))
			}
		}
	}
	// A directory goes only if all in it goes.
	for _, n := range u.order {
		t := u.touched[n]
		if t.step == nil || t.step.Have.Type != event.TypeDir || t.step.Want.Type == event.TypeDir {
			continue
		}
		stays, err := u.stays(n)
		if err != nil {
			return err
		}
		if stays != "" {
			t.step = nil
			u.conflict(n.path, t.record, fmt.Sprintf("the directory holds %q, which is not part of this", event.Text([]byte(stays))))
		}
	}
	return nil
}

func (u *undo) decide(n name, t *touch) error {
	have, err := u.there(n)
	if err != nil {
		u.conflict(n.path, t.record, err.Error())
		u.closed[n] = true
		return u.ctx.Err()
	}
	switch {
	case t.before == nil, t.before.Exists && t.before.Type == "":
		u.conflict(n.path, t.record, "the state before is not known")
		return nil
	case have.Unread == "" && len(diff(&have, t.before)) == 0:
		return nil // it is as it was
	case t.before.Unread != "" && t.before.Hash.IsZero() && t.before.Type == event.TypeRegular:
		u.conflict(n.path, t.record, "the content before is not known: "+t.before.Unread)
		return nil
	}
	if m := u.stuck(n); m != nil {
		u.conflict(n.path, m.record, "its directory cannot be moved back")
		return nil
	}
	if !u.o.Force {
		if record, reason := u.standsInTheWay(n, t, &have); reason != "" {
			merged, err := u.merge(n, t, &have)
			if merged || err != nil {
				return err
			}
			if t.noMerge != "" {
				reason += "; " + t.noMerge
			}
			u.conflict(n.path, record, reason)
			return nil
		}
	}
	st := Step{Path: n.path, Want: *t.before, Have: have, Reason: "undo of " + t.record}
	st.Action = actionFor(&have, t.before)
	if have.Type == event.TypeDir && !t.before.Exists {
		st.Action = ActionRmdir
	}
	t.step = &st
	return nil
}

// asLeft reports whether what others did to a path is not there any more: it was put
// back, and the path is as the cause left it.
func (t *touch) asLeft(have *event.State) bool {
	a := t.after
	return !t.between && a != nil && have.Unread == "" && a.Unread == "" && len(diff(a, have)) == 0 &&
		(a.Type != event.TypeRegular || !a.Hash.IsZero())
}

// standsInTheWay says why a path is not the cause's to take back, "" if it is.
func (u *undo) standsInTheWay(n name, t *touch, have *event.State) (record, reason string) {
	if other := u.others[n]; other != nil && other.Seq > t.seq && !t.asLeft(have) {
		return other.ID, "changed since by " + who(other)
	}
	switch {
	case t.after == nil:
		return t.record, "what was left there is not known"
	case t.after.Type == event.TypeRegular && t.after.Hash.IsZero():
		return t.record, "the content that was left there is not known: " + t.after.Unread
	case t.after.Unread != "" && t.before != nil && !t.before.Exists && have.Type == t.after.Type:
		return "", "" // the cause made it, nobody else has touched it, and it went on before it was read
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

// stays names something in a directory that the plan does not remove.
func (u *undo) stays(n name) (string, error) {
	now := u.now(n)
	ents, err := os.ReadDir(now)
	if errors.Is(err, unix.ENOENT) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for _, e := range ents {
		in := u.named(now + "/" + e.Name())
		if path.Dir(in.path) != n.path {
			continue // it was moved here, and is moved back
		}
		t := u.touched[in]
		if t == nil || t.step == nil || t.step.Want.Exists {
			return e.Name(), nil
		}
	}
	return "", nil
}

// pairs turns a removal and a write that only undo a rename into one rename, for
// which the vault need not have the content.
func (u *undo) pairs() {
	gone := map[uint64]name{} // inode → path that is to be removed
	for _, n := range u.order {
		if t := u.touched[n]; n.since == 0 && t.step != nil && t.step.Action == ActionRemove && t.step.Have.Ino != 0 {
			gone[t.step.Have.Ino] = n
		}
	}
	for _, n := range u.order {
		t := u.touched[n]
		if n.since != 0 || t.step == nil || t.step.Have.Exists || !t.step.Want.Exists {
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
		u.parents(path.Dir(n.path), 0)
		u.first = append(u.first, Step{Path: n.path, From: from.path, Action: ActionRename, Want: other.Have, Reason: t.step.Reason})
		t.step, u.touched[from].step = nil, nil
		delete(gone, other.Have.Ino)
	}
}

func isLoop(err error) bool { return errors.Is(err, unix.ELOOP) }
