package rollback

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
)

// Errors of restores that callers tell apart.
var (
	// ErrBusy: the path is a mount point. Its inode cannot be exchanged, and
	// writing into it would show readers half a file.
	ErrBusy = errors.New("it is a mount point: unmount it, or restore the file that is mounted there")
	// ErrRaced: what is at the path is not what the plan was made for.
	ErrRaced = errors.New("it changed since the plan was made")
	// ErrHalted: a step that this one needs failed for a cause that may pass.
	ErrHalted = errors.New("not tried: a step before it failed")
	// ErrKind: nothing can make such a file anew.
	ErrKind = errors.New("a socket cannot be restored: restart the program that owns it")
)

// errRaced makes an attempt start again from looking.
var errRaced = errors.New("it changed meanwhile")

// attempts bounds how often a restore starts again because somebody changes the
// path at the same time.
const attempts = 4

// The outcomes of a step.
const (
	OutcomeDone    = "done"
	OutcomeFailed  = "failed"
	OutcomeSkipped = "skipped" // the path was as wanted already
)

// Result is what became of one step.
type Result struct {
	Step     Step
	Outcome  string
	Evidence string      // where the displaced inode is, "" if nothing was displaced
	After    event.State // read back from the path
	TookNS   uint64
	Err      error
}

// RestorePath makes path equal to v, durably: the daemon's way to one path.
// Nothing there, if v says so: then what is there goes to the evidence, whole
// trees included. Directories that are missing above path are made as their own
// trusted versions say. Result.Step.Have is what was there; its Hash is only
// known where it was needed.
func (s *Store) RestorePath(ctx context.Context, path string, v Version) (Result, error) {
	step := Step{Path: path, Want: v.State, Version: v.ID}
	if _, several := linkKeyOf(&v.State); several {
		v.Path = path
		step.From = s.asItWas(ctx, v)
	}
	r := s.restore(ctx, step, v.Holes, false)
	return r, r.Err
}

// restore carries out one step. A strict one touches nothing but what it was
// planned for.
func (s *Store) restore(ctx context.Context, step Step, holes []digest.Extent, strict bool) Result {
	j := s.newJob(ctx, step, holes, strict)
	defer j.close()
	err := j.open()
	for try := 1; err == nil; try++ {
		err = j.attempt()
		if !errors.Is(err, errRaced) {
			break
		}
		j.note("it changed while it was restored")
		if try < attempts {
			err = nil
		}
	}
	return j.result(err)
}

// job is one restore under way. Its phases are stage, settle, swap and finish,
// in this order; finish follows an error of any of them too.
type job struct {
	s      *Store
	ctx    context.Context
	start  time.Time
	step   Step
	holes  []digest.Extent
	strict bool

	base    string
	parent  int         // directory of the path, -1 if there is none
	staged  int         // the new regular file, -1 if there is none
	lead    *lead       // instead: the inode at another name, nil if there is none
	grouped bool        // others change the same directories at the same time
	private int         // directory of our own that holds what is new, -1 if there is none
	mine    event.State // identity of the new inode
	token   string      // of the intent and the temporary name
	marked  bool        // the intent exists
	stuck   bool        // the temporary name holds a displaced inode and must stay, or the parent lacks flags: the mark stays
	loose   uint32      // flags taken off the parent
	swapped bool        // the names in the parent have changed

	parentTime unix.Timespec // modification time of the parent before

	have   event.State // found by the last look
	first  event.State // found by the first one
	looked bool
	phase  phase
	kept   string // evidence
	after  event.State
	notes  []string
}

// phase is how far an attempt has come.
type phase int

const (
	phaseLook   phase = iota
	phaseAsIs         // the path is as wanted
	phaseMended       // metadata was set in place
	phaseStaged       // the new inode waits to be swapped in, or nothing is to be there
)

func (s *Store) newJob(ctx context.Context, step Step, holes []digest.Extent, strict bool) *job {
	return &job{s: s, ctx: ctx, start: time.Now(), step: step, holes: holes, strict: strict,
		parent: -1, staged: -1, private: -1}
}

func (j *job) note(text string) {
	for _, n := range j.notes {
		if n == text {
			return
		}
	}
	j.notes = append(j.notes, text)
}

// open opens the parent directory and makes it first if it is missing.
func (j *job) open() error {
	if j.s.readOnly {
		return ErrReadOnly
	}
	var err error
	j.parent, j.base, err = digest.OpenParent(j.step.Path)
	missing := errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
	switch {
	case missing && !j.step.Want.Exists:
		return nil
	case missing || errors.Is(err, unix.ELOOP) && j.step.Want.Exists:
		if err := j.s.makeParents(j.ctx, j.step.Path); err != nil {
			return err
		}
		j.parent, j.base, err = digest.OpenParent(j.step.Path)
	}
	if err == nil && j.base == "." {
		err = errors.New("the root directory cannot be restored as a path")
	}
	var st unix.Stat_t
	if err == nil && digest.Again(func() error { return unix.Fstat(j.parent, &st) }) == nil {
		j.parentTime = st.Mtim
	}
	return err
}

// attempt goes through all phases once.
func (j *job) attempt() error {
	err := j.stage()
	if err == nil && j.phase == phaseStaged {
		err = j.settle()
	}
	if err == nil && j.phase == phaseStaged {
		err = j.swap()
		j.swapped = err == nil
	}
	return j.finish(err)
}

// stage looks at the path and prepares what swap needs. What needs no new inode
// is carried out at once.
func (j *job) stage() error {
	j.phase, j.token, j.marked, j.stuck = phaseLook, "", false, false
	if j.parent < 0 {
		j.phase = phaseAsIs
		return nil
	}
	if err := j.look(); err != nil {
		return err
	}
	want := &j.step.Want
	if j.step.Action == ActionRelink {
		return j.borrow(j.step.From)
	}
	if j.step.Action == ActionTimes {
		return j.mendTime()
	}
	if len(diff(&j.have, want)) == 0 && j.have.Unread == "" {
		if t, ok := j.s.dirTime(j.step.Path); ok && t == want.Mtime {
			return j.mendTime()
		}
		j.phase = phaseAsIs
		return nil
	}
	if want.Exists && j.mendable() {
		j.phase = phaseMended
		return j.mend()
	}
	var err error
	if j.token, err = j.s.token(); err != nil {
		return err
	}
	j.phase = phaseStaged
	if !want.Exists {
		return nil
	}
	if j.step.From != "" { // another name of the file is as it was
		if err := j.borrow(j.step.From); err == nil {
			return nil
		}
	}
	return j.s.reserve.use(j.build)
}

// look finds out what is at the path now. Content is hashed only if metadata
// cannot tell whether it differs.
func (j *job) look() error {
	var err error
	j.have, err = digest.Stat(j.parent, j.base)
	if err != nil {
		return err
	}
	want, planned := &j.step.Want, &j.step.Have
	if j.have.Type == event.TypeRegular {
		if want.Type == event.TypeRegular && want.Size == j.have.Size || j.strict && planned.Size == j.have.Size {
			j.have, err = digest.Read(j.ctx, j.parent, j.base, nil)
			if err != nil && (!j.have.Exists || j.ctx.Err() != nil) {
				return err // else it cannot be read: it counts as different
			}
		} else {
			j.have.Unread = "not hashed: not needed to tell that it differs"
		}
	}
	if !j.looked {
		j.first, j.looked = j.have, true
	}
	if j.step.Action == ActionRelink { // taking flags off one name takes them off all
		now, then := j.have, *planned
		now.Flags, then.Flags, planned = 0, 0, &then
		if j.strict && (len(diff(&now, planned)) > 0 || now.Ino != planned.Ino) && !(j.step.again && j.sameAsFrom()) {
			return ErrRaced
		}
		return nil
	}
	if j.strict && (len(diff(&j.have, planned)) > 0 || j.have.Ino != planned.Ino && planned.Ino != 0) &&
		(len(diff(&j.have, want)) > 0 || j.have.Unread != "") && // nor did somebody do it already
		!(j.step.again && halfway(&j.have, &j.step)) {
		return ErrRaced
	}
	return nil
}

// mendable reports whether the inode that is there has the right content, and
// changing its metadata changes no other file: an inode with several names might
// be somebody else's file, linked here to have us give it away.
func (j *job) mendable() bool {
	h, w := &j.have, &j.step.Want
	if h.Type != w.Type || h.Hash != w.Hash || h.Unread != "" || string(h.Target) != string(w.Target) || h.Rdev != w.Rdev {
		return false
	}
	return h.Type == event.TypeDir || h.Nlink == 1 || h.Ino == w.Ino && h.Dev == w.Dev
}

// mend sets metadata on the inode that is there.
func (j *job) mend() error {
	i, err := pin(j.s.disk, j.parent, j.base, j.step.Path, &j.have)
	if err != nil {
		return err
	}
	defer i.close()
	want := j.step.Want
	if _, ok := j.s.dirTime(j.step.Path); want.Type == event.TypeDir && !ok {
		want.Mtime = j.have.Mtime
	}
	off, err := j.s.lift(i, j.step.Path, j.have.Flags)
	if err != nil {
		return err
	}
	have := j.have
	have.Flags &^= held
	if err := off.settle(i.dress(have, &want, nil, true)); err != nil {
		return err
	}
	if i.read >= 0 {
		return j.s.disk.Fsync(i.read, j.step.Path)
	}
	return j.s.disk.Fsync(j.parent, j.step.Path)
}

// finish removes what is temporary, puts the parent's flags back, makes the
// names durable and reads back.
func (j *job) finish(err error) error {
	if j.parent < 0 || j.asIs(err) {
		return err
	}
	err = errors.Join(err, j.clean())
	if j.phase == phaseStaged && err == nil {
		err = j.s.disk.Fsync(j.parent, j.step.Path)
	}
	return j.conclude(err)
}

// asIs reports whether nothing was to be done.
func (j *job) asIs(err error) bool {
	if j.phase != phaseAsIs || err != nil {
		return false
	}
	j.after = j.have
	return true
}

// conclude ends the mark of a step whose names are durable, and reads back.
func (j *job) conclude(err error) error {
	if j.marked && !j.stuck {
		err = errors.Join(err, j.s.end(j.token))
		j.marked = false
	}
	if err != nil {
		return err
	}
	return j.readBack()
}

func (j *job) readBack() error {
	var err error
	j.after, err = digest.Read(j.ctx, j.parent, j.base, nil)
	if errors.Is(err, digest.ErrUnstable) {
		return errRaced
	}
	if err != nil {
		return err
	}
	if d := diff(&j.after, &j.step.Want); len(d) > 0 {
		return fmt.Errorf("%w: afterwards it differs in %q", errRaced, d)
	}
	return nil
}

// clean releases what the attempt held besides the parent.
func (j *job) clean() error {
	var err error
	if j.staged >= 0 {
		err = unix.Close(j.staged)
		j.staged = -1
	}
	if j.lead != nil {
		err = errors.Join(err, j.lead.drop())
		j.lead = nil
	}
	if j.private >= 0 {
		err = errors.Join(err, j.dropPrivate())
	}
	j.setParentTime()
	if j.loose != 0 {
		i := &inode{disk: j.s.disk, object: j.step.Path, at: j.parent, read: j.parent}
		if ferr := i.addFlags(j.loose); ferr != nil {
			j.stuck = true // so that the mark stays and the next Open puts them back
			err = errors.Join(err, ferr)
		}
		j.loose = 0
	}
	return err
}

func (j *job) close() {
	if j.parent >= 0 {
		unix.Close(j.parent)
		j.parent = -1
	}
}

// result tells what became of it.
func (j *job) result(err error) Result {
	r := Result{Step: j.step, Evidence: j.kept, After: j.after, Err: err, TookNS: uint64(time.Since(j.start))}
	j.noteMounts()
	if !j.s.readOnly {
		if gone := j.s.evidence.tellDropped(); gone != "" {
			j.note(gone)
		}
	}
	if !j.strict {
		r.Step.Have = j.first
	}
	if r.Step.Action == "" {
		r.Step.Action = actionFor(&j.first, &j.step.Want)
	}
	for _, n := range j.notes {
		if strings.Contains(r.Step.Reason, n) {
			continue // the plan said so
		}
		if r.Step.Reason != "" {
			r.Step.Reason += "; "
		}
		r.Step.Reason += n
	}
	switch {
	case err != nil:
		r.Outcome, r.Err = OutcomeFailed, fmt.Errorf("restore %q: %w", j.step.Path, err)
	case j.phase == phaseAsIs && j.kept == "":
		r.Outcome = OutcomeSkipped
	default:
		r.Outcome = OutcomeDone
	}
	return r
}
