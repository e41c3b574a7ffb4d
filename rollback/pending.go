package rollback

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/cas"
)

// A plan that is being carried out is kept in plans/, from before its first step
// until its end is told: a file of frames as the log has them, the first about the
// plan, one for each step. Its name is 16 hex digits, a dot, and how often it was
// begun. What a crash cut off is found there and goes on.

// MaxTries is how often a plan is begun: one that ends the process each time must
// not keep it from starting.
const MaxTries = 4

// Pending is a plan whose carrying out was begun and not ended.
type Pending struct {
	ID    string
	Tries int // how often it was begun, from 1
	Begun event.Time
	Note  []byte // the caller's own, from Begin
	Plan  Plan   // its conflicts were told and are not kept
}

// pendingHead and pendingStep are the frames of such a file.
type pendingHead struct {
	Begun event.Time `cbor:"1,keyasint"`
	Note  []byte     `cbor:"2,keyasint"`
	Steps int        `cbor:"3,keyasint"`
}

type pendingStep struct {
	Path    []byte      `cbor:"1,keyasint"`
	Action  string      `cbor:"2,keyasint"`
	Want    event.State `cbor:"3,keyasint"`
	Have    event.State `cbor:"4,keyasint"`
	Version uint64      `cbor:"5,keyasint,omitempty"`
	Source  []byte      `cbor:"6,keyasint,omitempty"`
	From    []byte      `cbor:"7,keyasint,omitempty"`
	Reason  string      `cbor:"8,keyasint,omitempty"`
	Content []byte      `cbor:"9,keyasint"`            // null: the vault's; empty is a content
	Sealed  []byte      `cbor:"10,keyasint,omitempty"` // an envelope in place of Content
}

func (s *Store) plansDir() string { return filepath.Join(s.dir, "plans") }

// openPlans makes the directory of begun plans and removes what was never begun:
// a file without its name.
func (s *Store) openPlans() error {
	if err := s.disk.Mkdir(unix.AT_FDCWD, s.plansDir(), 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	var err error
	if s.plans, err = digest.AgainInt(func() (int, error) { return unix.Open(s.plansDir(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) }); err != nil {
		return fmt.Errorf("open %s: %w", s.plansDir(), err)
	}
	names, err := s.planNames()
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".new") {
			if err := s.disk.Unlink(s.plans, name, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) planNames() ([]string, error) {
	ents, err := os.ReadDir(s.plansDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a vault of before, opened for reading
	}
	if err != nil {
		return nil, fmt.Errorf("list plans: %w", err)
	}
	names := make([]string, 0, len(ents))
	for _, e := range ents {
		names = append(names, e.Name())
	}
	return names, nil
}

// Begin keeps a plan that is about to be carried out, durably, so that a process
// that comes later can go on with it if this one ends before End. note is the
// caller's own.
func (s *Store) Begin(p Plan, note []byte) (id string, err error) {
	if s.readOnly {
		return "", fmt.Errorf("begin plan: %w", ErrReadOnly)
	}
	if id, err = s.token(); err == nil {
		err = s.reserve.use(func() error { return s.begun(id, p, note) })
	}
	if err != nil {
		return "", fmt.Errorf("begin plan: %w", err)
	}
	return id, nil
}

func (s *Store) begun(id string, p Plan, note []byte) error {
	b, err := s.enc.Marshal(pendingHead{Begun: event.TimeOf(s.now()), Note: note, Steps: len(p.Steps)})
	if err != nil {
		return err
	}
	text := frame(b)
	for i := range p.Steps {
		st := &p.Steps[i]
		ps := pendingStep{Path: []byte(st.Path), Action: st.Action, Want: st.Want, Have: st.Have, Version: st.Version,
			Source: []byte(st.Source), From: []byte(st.From), Reason: st.Reason, Content: st.Content}
		if s.sealer != nil && st.Content != nil {
			if ps.Sealed, err = cas.Seal(s.sealer, sealedStep(id, i), st.Content); err != nil {
				return err
			}
			ps.Content = nil
		}
		b, err := s.enc.Marshal(ps)
		if err != nil {
			return err
		}
		text = append(text, frame(b)...)
	}
	temp := id + ".new"
	fd, err := s.disk.Create(s.plans, temp, 0o600)
	if errors.Is(err, unix.EEXIST) { // of a try that found the disk full
		if err = s.disk.Unlink(s.plans, temp, 0); err == nil {
			fd, err = s.disk.Create(s.plans, temp, 0o600)
		}
	}
	if err != nil {
		return err
	}
	err = s.disk.Write(fd, temp, text, 0)
	if err == nil {
		err = s.disk.Fsync(fd, temp)
	}
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return err
	}
	if err := s.disk.Rename(s.plans, temp, s.plans, id+".1", unix.RENAME_NOREPLACE); err != nil {
		return err
	}
	return s.disk.Fsync(s.plans, "plans")
}

// End forgets a plan: all that is to be told of it is told. After a power cut it may
// be there once more; going on with it then finds nothing to do.
func (s *Store) End(id string) error {
	name, _, err := s.planFile(id)
	if err == nil {
		err = s.disk.Unlink(s.plans, name, 0)
	}
	if err != nil {
		return fmt.Errorf("end plan %s: %w", id, err)
	}
	return nil
}

// planFile finds the file of a plan and how often the plan was begun.
func (s *Store) planFile(id string) (name string, tries int, err error) {
	names, err := s.planNames()
	if err != nil {
		return "", 0, err
	}
	for _, name := range names {
		if rest, ok := strings.CutPrefix(name, id+"."); ok {
			if _, err := fmt.Sscanf(rest, "%d", &tries); err == nil {
				return name, tries, nil
			}
		}
	}
	return "", 0, fmt.Errorf("plan %s: %w", id, fs.ErrNotExist)
}

// Pending returns the plans that were begun and not ended, those that are carried
// out at this moment among them, oldest first. One that cannot be read is passed
// over; its error is joined to those of the others.
func (s *Store) Pending() ([]Pending, error) {
	var out []Pending
	var errs []error
	err := s.readPlans(func(p Pending) { out = append(out, p) }, func(name string, err error) error {
		errs = append(errs, fmt.Errorf("plan %s: %w", name, err))
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b Pending) int { return cmp.Or(cmp.Compare(a.Begun, b.Begun), cmp.Compare(a.ID, b.ID)) })
	return out, errors.Join(errs...)
}

// readPlans calls each for every begun plan, and bad for those that cannot be read.
func (s *Store) readPlans(each func(Pending), bad func(name string, err error) error) error {
	names, err := s.planNames()
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".new") {
			continue
		}
		p, err := readPending(s.plansDir(), name, s.sealer)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it has ended meanwhile
		case err != nil:
			if err := bad(name, err); err != nil {
				return err
			}
		default:
			each(p)
		}
	}
	return nil
}

// fsckPlans reports begun plans that cannot be read. A repair removes those that are
// damaged: what they did is whole, and what caused them can be asked for again.
func (s *Store) fsckPlans(repair bool, report func(Problem)) error {
	return s.readPlans(func(Pending) {}, func(name string, err error) error {
		kind, repair := ProblemPlan, repair
		var unread *fs.PathError
		switch {
		case errors.Is(err, ErrSealed):
			kind, repair = ProblemSealed, false
		case errors.As(err, &unread): // it may be whole, and the disk answer again
			repair = false
		}
		if repair {
			if err := s.disk.Unlink(s.plans, name, 0); err != nil {
				return err
			}
		}
		report(Problem{Kind: kind, Object: "plans/" + name, Detail: err.Error(), Repaired: repair})
		return nil
	})
}

// sealedStep is what the sealed content of a step is of.
func sealedStep(id string, step int) string { return fmt.Sprintf("plan %s %d", id, step) }

func readPending(dir, name string, sealer Sealer) (p Pending, err error) {
	b, err := readPlain(dir, name)
	if err != nil {
		return p, err
	}
	id, tries, _ := strings.Cut(name, ".")
	p.ID = id
	if _, err := fmt.Sscanf(tries, "%d", &p.Tries); err != nil {
		return p, fmt.Errorf("its name: %w", err)
	}
	var head *pendingHead
	end := readFrames(b, func(_ int, body []byte) {
		if head == nil {
			head = &pendingHead{}
			err = errors.Join(err, cbor.Unmarshal(body, head))
			return
		}
		var st pendingStep
		err = errors.Join(err, cbor.Unmarshal(body, &st))
		if st.Sealed != nil {
			var serr error
			st.Content, serr = cas.Unseal(sealer, sealedStep(id, len(p.Plan.Steps)), []byte{}, st.Sealed)
			if serr == nil && digest.Sum(st.Content) != st.Want.Hash {
				serr = ErrCorrupt
			}
			err = errors.Join(err, serr)
		}
		p.Plan.Steps = append(p.Plan.Steps, Step{Path: string(st.Path), Action: st.Action, Want: st.Want, Have: st.Have, Version: st.Version,
			Source: string(st.Source), From: string(st.From), Reason: st.Reason, Content: st.Content})
	}, func(int, int) { err = ErrCorrupt })
	if err == nil && (head == nil || end != len(b) || len(p.Plan.Steps) != head.Steps) {
		err = ErrCorrupt
	}
	if err != nil {
		return p, err
	}
	p.Begun, p.Note = head.Begun, head.Note
	return p, nil
}

// Passing reports whether an error of Apply or Continue has a cause that may pass, a
// full disk or keys that are out of reach: a plan that ended with it may go on later.
func Passing(err error) bool {
	for _, e := range []error{unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.ENOMEM, unix.EMFILE, unix.ENFILE, context.Canceled} {
		if errors.Is(err, e) {
			return true
		}
	}
	return errors.Is(err, ErrSealed) // where the keys are, may answer again
}

// Continue goes on with a plan that another process began: as Apply, but a step that
// was done already is skipped, and one that was cut off half way is done to its end.
// What somebody else changed since the plan was made is left alone (ErrRaced).
func (s *Store) Continue(ctx context.Context, p Pending, each func(Result)) error {
	name, tries, err := s.planFile(p.ID)
	if err == nil {
		err = s.disk.Rename(s.plans, name, s.plans, fmt.Sprintf("%s.%d", p.ID, tries+1), 0)
	}
	if err == nil {
		err = s.disk.Fsync(s.plans, "plans")
	}
	if err != nil {
		return fmt.Errorf("go on with plan %s: %w", p.ID, err)
	}
	steps := append([]Step(nil), p.Plan.Steps...)
	for i := range steps {
		steps[i].again = true
	}
	passed := s.passed(steps)
	for i := range steps {
		if i < passed && each != nil {
			now, _ := digest.ReadPath(ctx, steps[i].Path, nil) // nothing, where it cannot be read
			each(Result{Step: steps[i], Outcome: OutcomeSkipped, After: now})
		}
	}
	return s.Apply(ctx, Plan{Steps: steps[passed:]}, each)
}

// passed counts the steps up to the last rename that is done: those before it were
// tried, and what they made may have been moved on or removed since.
func (s *Store) passed(steps []Step) int {
	for i := len(steps) - 1; i >= 0; i-- {
		if steps[i].Action == ActionRename && renamed(&steps[i]) {
			return i + 1
		}
	}
	return 0
}

// renamed reports whether a rename is done: its inode has the name.
func renamed(st *Step) bool {
	now, err := digest.StatPath(st.Path)
	return err == nil && now.Exists && st.moves(&now)
}

// moves reports whether a state is of the inode that a rename is about. The number of
// its device says nothing: it may be another one since the machine has started again.
func (st *Step) moves(now *event.State) bool {
	return now.Ino == st.Want.Ino && now.Type == st.Want.Type
}

// halfway reports whether what is at a path may be what this step left when it was
// cut off: the new inode without what is set when it has its name, or the old one
// with flags taken off and metadata partly set.
func halfway(now *event.State, st *Step) bool {
	have, want := &st.Have, &st.Want
	if now.Flags&held&^(have.Flags|want.Flags) != 0 {
		return false // no step sets one that neither has
	}
	like := func(o *event.State) event.State { // now, but for what hold sets
		c := *now
		c.Flags, c.Project = now.Flags&^held|o.Flags&held, o.Project
		return c
	}
	if c := like(want); len(diff(&c, want)) == 0 {
		return true
	}
	if c := like(have); len(diff(&c, have)) == 0 && now.Ino == have.Ino {
		return true
	}
	if st.Action != ActionMeta && st.Action != ActionTimes || now.Ino != have.Ino ||
		now.Type != have.Type || now.Hash != have.Hash || string(now.Target) != string(have.Target) {
		return false
	}
	either := func(x, a, b uint64) bool { return x == a || x == b }
	const setID = unix.S_ISUID | unix.S_ISGID // chown takes them off
	if !either(uint64(now.UID), uint64(have.UID), uint64(want.UID)) || !either(uint64(now.GID), uint64(have.GID), uint64(want.GID)) ||
		!either(uint64(now.Mode)&^setID, uint64(have.Mode)&^setID, uint64(want.Mode)&^setID) ||
		!either(uint64(now.Mtime), uint64(have.Mtime), uint64(want.Mtime)) && now.Type != event.TypeDir {
		return false
	}
	if (now.Flags^have.Flags)&(now.Flags^want.Flags)&event.FlagsSet&^held != 0 {
		return false
	}
	for name, v := range want.Xattrs {
		_, there := now.Xattrs[name]
		if w, had := have.Xattrs[name]; had && string(v) == string(w) && !there && name != event.XattrCaps && name != event.XattrACL {
			return false // nobody but others takes that off
		}
	}
	for name, v := range now.Xattrs {
		// the mask of an ACL goes with the mode
		if string(v) != string(have.Xattrs[name]) && string(v) != string(want.Xattrs[name]) && name != event.XattrACL {
			return false
		}
	}
	return true
}
