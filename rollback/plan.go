package rollback

import (
	"context"
	"fmt"
	"math"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
)

// The actions of a step.
const (
	ActionNone   = "none"   // nothing to do
	ActionWrite  = "write"  // a new regular file takes the path
	ActionLink   = "link"   // a new symlink takes the path
	ActionMkdir  = "mkdir"  // a new directory takes the path
	ActionMknod  = "mknod"  // a new FIFO or device node takes the path
	ActionMeta   = "meta"   // metadata is set on the inode that is there
	ActionRemove = "remove" // what is there goes to the evidence
	ActionRmdir  = "rmdir"  // an empty directory is removed
	ActionRename = "rename" // what is at From gets its old name back
	ActionRelink = "relink" // what is at From gets this name too
	ActionTimes  = "times"  // a directory gets its modification time back
)

// Step makes one path equal to Want.
type Step struct {
	Path    string // raw bytes
	Action  string
	Want    event.State
	Have    event.State // what the plan found there
	Version uint64      // of Source, 0 if Want is no version
	Source  string      `json:",omitempty"` // the path whose version it is, if that is not Path
	From    string      `json:",omitempty"` // rename: where it is now; relink: its other name; else one to share the inode of, if it is as wanted
	Reason  string
	// Content is what Want.Hash stands for, if the vault need not have it.
	Content []byte `json:"-"`

	again bool // another process began with it: it may be done in part
}

// Conflict is what a plan leaves to a person.
type Conflict struct {
	Path   string
	Reason string
	Record string // id of the record that stands in the way, if one does
}

// Plan is what Apply carries out, in order.
type Plan struct {
	Steps     []Step
	Conflicts []Conflict
}

// actionFor names what turns have into want.
func actionFor(have, want *event.State) string {
	switch {
	case len(diff(have, want)) == 0 && have.Unread == "":
		return ActionNone
	case !want.Exists:
		return ActionRemove
	case have.Type == want.Type && have.Hash == want.Hash && have.Unread == "" &&
		string(have.Target) == string(want.Target) && have.Rdev == want.Rdev:
		return ActionMeta
	}
	switch want.Type {
	case event.TypeRegular:
		return ActionWrite
	case event.TypeSymlink:
		return ActionLink
	case event.TypeDir:
		return ActionMkdir
	}
	return ActionMknod
}

// diff is State.Diff without the attributes and flags that the kernel keeps itself.
func diff(a, b *event.State) []string {
	d := a.Diff(b)
	if !slices.Contains(d, "xattrs") && !slices.Contains(d, "flags") {
		return d
	}
	x, y := *a, *b
	x.Flags, y.Flags = a.Flags&event.FlagsSet, b.Flags&event.FlagsSet
	x.Xattrs, y.Xattrs = settable(a.Xattrs), settable(b.Xattrs)
	return x.Diff(&y)
}

func settable(m map[string]event.Bytes) map[string]event.Bytes {
	out := make(map[string]event.Bytes, len(m))
	for n, v := range m {
		if !kernelOwns(n) {
			out[n] = v
		}
	}
	return out
}

// RestoreOptions say which versions PlanRestore takes. The zero value takes the
// trusted ones.
type RestoreOptions struct {
	Version   uint64     // this version, for a single path
	At        event.Time // what was there at that time (see Store.At)
	Into      string     // below this directory instead of in place: Into + path
	Recursive bool       // all paths of the vault below the given ones too
}

// PlanRestore plans to bring paths back. A path without such a version is an
// error that wraps ErrNoVersion; below a directory it is passed over.
func (s *Store) PlanRestore(ctx context.Context, paths []string, o RestoreOptions) (Plan, error) {
	var p planner
	p.s, p.ctx = s, ctx
	seen := map[string]Version{}
	if o.Into != "" {
		var err error
		if p.ids, err = idsFor(o.Into); err != nil {
			return Plan{}, fmt.Errorf("plan restore into %s: %w", o.Into, err)
		}
	}
	for _, root := range paths {
		if o.Version != 0 && (len(paths) > 1 || o.Recursive) {
			return Plan{}, fmt.Errorf("plan restore of %q: a version number belongs to one path", root)
		}
		all := []string{root}
		if o.Recursive {
			all = append(all, s.Paths(root)...)
		}
		found := false
		for _, path := range all {
			if _, ok := seen[path]; ok {
				found = true
				continue
			}
			v, ok := s.choose(path, o)
			if !ok {
				if o.At != 0 && s.Destroyed(path, o.At) {
					p.conflict(path, "", "what was there at that time was destroyed: its time to be kept was over")
					seen[path], found = Version{}, true
				}
				continue
			}
			seen[path], found = v, true
			if err := p.add(v, o.Into); err != nil {
				return Plan{}, fmt.Errorf("plan restore: %w", err)
			}
		}
		if !found {
			return Plan{}, fmt.Errorf("plan restore of %q: %w", root, ErrNoVersion)
		}
	}
	err := p.links(seen, o)
	switch {
	case err != nil:
	case o.Into != "":
		err = p.intoParents(o.Into)
	case o.Version == 0 && o.At == 0:
		err = p.times(seen)
	}
	if err != nil {
		return Plan{}, fmt.Errorf("plan restore: %w", err)
	}
	return p.plan(), nil
}

func (s *Store) choose(path string, o RestoreOptions) (Version, bool) {
	switch {
	case o.Version != 0:
		return s.Version(path, o.Version)
	case o.At != 0:
		return s.At(path, o.At)
	}
	return s.Trusted(path)
}

// planner gathers steps and puts them in order.
type planner struct {
	s         *Store
	ctx       context.Context
	ids       idMap  // of where Into leads
	first     []Step // renames
	removes   []Step
	makes     []Step
	relinks   []Step // after all that they lead to is there
	last      []Step // the times of directories, when nothing in them changes any more
	conflicts []Conflict
}

func (p *planner) conflict(path, record, reason string) {
	p.conflicts = append(p.conflicts, Conflict{Path: path, Reason: reason, Record: record})
}

// add plans to bring a version back.
func (p *planner) add(v Version, into string) error {
	step := Step{Path: v.Path, Want: v.State, Version: v.ID}
	if into != "" {
		if !v.State.Exists {
			return nil
		}
		step.Path, step.Source = path.Join(into, v.Path), v.Path
	}
	have, err := p.present(step.Path)
	if err != nil {
		p.conflict(step.Path, "", err.Error())
		return nil
	}
	step.Have = have
	step.Reason = fmt.Sprintf("version %d of %s", v.ID, v.Since())
	if into != "" {
		if what := p.ids.apply(&step.Want); what != "" {
			step.Reason += "; " + what
		}
	}
	p.step(step)
	return p.ctx.Err()
}

// present reads what is at a path now. Below something that is no directory, or
// a symlink that took the place of one, there is nothing of ours.
func (p *planner) present(path string) (event.State, error) {
	have, err := digest.ReadPath(p.ctx, path, nil)
	if isLoop(err) {
		return event.State{}, nil
	}
	if err != nil && have.Exists && p.ctx.Err() == nil {
		return have, nil // its content cannot be read: it counts as different
	}
	return have, err
}

// step adds a step if there is something to do and the content for it; it is
// false if it cannot be done.
func (p *planner) step(st Step) bool {
	if st.Action == "" {
		st.Action = actionFor(&st.Have, &st.Want)
	}
	w := &st.Want
	kept, cause := true, error(nil)
	if st.Action == ActionWrite && st.Content == nil && !w.Hash.IsZero() {
		kept, cause = p.s.Has(w.Hash)
	}
	switch {
	case st.Action == ActionNone:
		return true
	case w.Type == event.TypeSocket:
		p.conflict(st.Path, "", ErrKind.Error())
		return false
	case st.Content != nil:
	case st.Action == ActionWrite && w.Hash.IsZero():
		p.conflict(st.Path, "", "its content was not read when the version was made: "+w.Unread)
		return false
	case cause != nil:
		p.conflict(st.Path, "", "whether its content is kept cannot be told: "+cause.Error())
		return false
	case !kept:
		p.conflict(st.Path, "", "content not kept: "+w.Hash.String())
		return false
	}
	if st.Action == ActionRemove || st.Action == ActionRmdir {
		p.removes = append(p.removes, st)
	} else {
		p.makes = append(p.makes, st)
	}
	return true
}

// intoParents adds the directories between into and the planned paths, with the
// metadata of the directories that they stand for.
func (p *planner) intoParents(into string) error {
	planned := map[string]bool{}
	for _, st := range p.makes {
		planned[st.Path] = true
	}
	for _, st := range append(append([]Step(nil), p.makes...), p.relinks...) {
		for dir := path.Dir(st.Path); dir != "/" && dir != path.Clean(into) && !planned[dir]; dir = path.Dir(dir) {
			planned[dir] = true
			have, err := p.present(dir)
			if err != nil {
				return err
			}
			if have.Type == event.TypeDir {
				continue
			}
			source := strings.TrimPrefix(dir, path.Clean(into))
			want := event.State{Exists: true, Type: event.TypeDir, Mode: 0o755, Mtime: event.TimeOf(p.s.now())}
			v, ok := p.s.Trusted(source)
			if ok && v.State.Type == event.TypeDir {
				want = v.State
				p.ids.apply(&want)
			}
			p.step(Step{Path: dir, Source: source, Want: want, Have: have, Version: v.ID, Reason: "directory of a restored path"})
		}
	}
	return nil
}

// plan orders the steps: renames as they were added, then what goes, deepest
// first, then the directories that come, highest first, and what comes into them, then
// further names, then times.
func (p *planner) plan() Plan {
	sort.SliceStable(p.removes, func(i, j int) bool { return p.removes[i].Path > p.removes[j].Path })
	sort.SliceStable(p.makes, func(i, j int) bool {
		a, b := &p.makes[i], &p.makes[j]
		if x, y := height(a), height(b); x != y {
			return x < y
		}
		return a.Path < b.Path
	})
	sort.SliceStable(p.last, func(i, j int) bool { return p.last[i].Path > p.last[j].Path })
	sort.SliceStable(p.conflicts, func(i, j int) bool { return p.conflicts[i].Path < p.conflicts[j].Path })
	steps := slices.Concat(p.first, p.removes, p.makes, p.relinks, p.last)
	return Plan{Steps: steps, Conflicts: p.conflicts}
}

// height orders what comes: directories by their depth, then all else.
func height(st *Step) int {
	if st.Action != ActionMkdir {
		return math.MaxInt
	}
	return strings.Count(st.Path, "/")
}
