// Package respond is stage 7: it brings back the trusted state of what changed
// without leave.
//
// It owns the choice of steps (Plan), the order of journal and deed (Answer) and
// the flap breaker. It promises that a step is in the journal, durably, before it
// is taken, that its outcome is in the journal after, and that one path is put
// back at most Limit times a minute: then something keeps undoing us, and a
// person must look.
//
// What is done: a path with a trusted version is made equal to it, its missing
// directories first; a path that the trusted state does not have goes to the
// evidence; a removed directory comes back with all that was trusted below it. A
// path whose file system is read-only waits until it can be written to, with one
// record about that. A path that existed and of which no trusted version is kept is left alone, and
// the journal says so.
//
// Called by pkg/pipeline, one call at a time but for the deed. That itself is the Vault's
// (rollback, behind an interface). It does not guarantee that the step wins a race
// against somebody who goes on changing the path; each such change comes through
// the stages again.
package respond

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync/atomic"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
)

// The actions of a response.
const (
	ActionRestore    = "restore"
	ActionQuarantine = "quarantine"
	ActionRelink     = "relink" // make a path another name of a file again
)

// The outcomes of a response.
const (
	Intended = "intended"
	Success  = "done"
	Failed   = "failed"
	Skipped  = "skipped"
)

// Done is what the vault did.
type Done struct {
	After    event.State // what is at the path now
	Evidence string      // where the displaced object is kept, "" if there was none
	Skipped  bool        // nothing had to be done
	Note     string      // what a person should know of it, "" for nothing
}

// Vault puts back.
type Vault interface {
	// Trusted returns the state that a restore of path brings back; ok is false
	// if none is kept. A state that does not exist says that nothing belongs there.
	Trusted(path string) (s event.State, version uint64, ok bool)
	// Restore makes path equal to a version.
	Restore(ctx context.Context, path string, version uint64) (Done, error)
	// Remove moves what is at path to the evidence.
	Remove(ctx context.Context, path string) (Done, error)
	// Links returns the other names that the file of a version had.
	Links(path string, version uint64) []string
	// Linked reports whether two paths are names of one file now.
	Linked(a, b string) bool
	// Relink makes path another name of the file at from, which is as it should be.
	Relink(ctx context.Context, path, from string) (Done, error)
	// Below returns the paths below dir of which versions are kept, parents first.
	Below(dir string) []string
}

// Journal takes the records of a response.
type Journal interface {
	Append(ctx context.Context, r *event.Record) error
	AppendDurable(ctx context.Context, r *event.Record) error
}

// Options of a Responder. Vault, Journal, Now, Wall and Exists are required.
type Options struct {
	Vault   Vault
	Journal Journal
	Now     func() uint64           // ns since boot
	Wall    func(uint64) event.Time // wall clock of a moment since boot
	Exists  func(path string) bool  // whether there is anything at path
	// Restores reports whether path is to be put back at all; nil: each is.
	Restores func(path string) bool
	// ReadOnly reports whether the file system of a path is mounted read-only; nil:
	// the kernel is asked.
	ReadOnly func(path string) bool
	Limit    int           // restores of one path within Window; default 20
	Window   time.Duration // default a minute

	StormLimit  int           // paths to be put back within StormWindow; default DefaultStorm
	StormWindow time.Duration // default a minute
	Stormed     func(Storm)   // a storm has begun; nil: nobody is told
}

// DefaultStorm is how many paths are put back within a minute before it is a mass change.
const DefaultStorm = 500

// Target is a path that is not as it should be.
type Target struct {
	Path       string
	Rule, Mode string
	Foreign    bool // nothing was there in the trusted state
	Whole      bool // a directory that was taken away: all below it is wanted too
}

// Step is one thing to do.
type Step struct {
	Target
	Action  string
	Version uint64
	From    string // relink: the name that is as it should be
	Refused string // why it is not done, "" if it is
	rival   string // who keeps making the same change, "" if nobody does
	Until   uint64 // ns since boot until which it is refused, 0 for ever
}

// Outcome is what became of a step.
type Outcome struct {
	Step  Step
	Done  Done
	Err   error
	Retry uint64 // ns since boot at which to try again, 0: do not
}

// Stats counts.
type Stats struct {
	Done     uint64
	Failed   uint64
	Skipped  uint64
	Flapping uint64 // refused because one path was put back too often
	Storms   uint64 // times that too many paths were changed at once
	// Uncounted: put back without being counted for that, MaxFlaps other paths being.
	Uncounted uint64
}

// Responder is the stage.
type Responder struct {
	o     Options
	flaps breaker
	storm storm

	rivals rivals

	readOnly readOnly

	done, failed, skipped, flapping atomic.Uint64
}

// New returns a Responder.
func New(o Options) *Responder {
	if o.Limit <= 0 {
		o.Limit = 20
	}
	if o.Window <= 0 {
		o.Window = time.Minute
	}
	if o.StormLimit <= 0 {
		o.StormLimit = DefaultStorm
	}
	if o.StormWindow <= 0 {
		o.StormWindow = time.Minute
	}
	if o.ReadOnly == nil {
		o.ReadOnly = onReadOnly
	}
	if o.Stormed == nil {
		o.Stormed = func(Storm) {}
	}
	return &Responder{o: o, storm: storm{limit: o.StormLimit, window: uint64(o.StormWindow)}, flaps: breaker{limit: o.Limit, window: uint64(o.Window), paths: make(map[string]*flap)}}
}

// Stats returns the counters.
func (r *Responder) Stats() Stats {
	return Stats{Done: r.done.Load(), Failed: r.failed.Load(), Skipped: r.skipped.Load(), Flapping: r.flapping.Load(), Uncounted: r.flaps.uncounted.Load(), Storms: r.storms()}
}

// Plan chooses the steps for targets. It changes nothing but the breaker's memory.
func (r *Responder) Plan(targets []Target) []Step {
	var steps []Step
	for _, t := range targets {
		want, version, ok := r.o.Vault.Trusted(t.Path)
		switch {
		case ok && want.Exists:
			steps = append(steps, r.parents(t)...)
			steps = append(steps, r.step(t, ActionRestore, version))
			steps = append(steps, r.links(t, version)...)
			if t.Whole && want.Type == event.TypeDir {
				steps = append(steps, r.below(t)...)
			}
		case ok || t.Foreign:
			if r.o.Exists(t.Path) {
				steps = append(steps, r.step(t, ActionQuarantine, 0))
			}
		default:
			steps = append(steps, Step{Target: t, Action: ActionRestore, Refused: "no trusted version of it is kept"})
		}
	}
	return steps
}

// parents are the directories above a target that are missing and belong there.
func (r *Responder) parents(t Target) []Step {
	var up []Step
	for dir := path.Dir(t.Path); dir != "/" && !r.o.Exists(dir); dir = path.Dir(dir) {
		want, version, ok := r.o.Vault.Trusted(dir)
		if !ok || want.Type != event.TypeDir {
			break
		}
		d := t
		d.Path = dir
		up = append(up, Step{Target: d, Action: ActionRestore, Version: version})
	}
	for i, j := 0, len(up)-1; i < j; i, j = i+1, j-1 {
		up[i], up[j] = up[j], up[i]
	}
	return up
}

func (r *Responder) below(t Target) []Step {
	var steps []Step
	for _, p := range r.o.Vault.Below(t.Path) {
		want, version, ok := r.o.Vault.Trusted(p)
		if ok && want.Exists && !r.o.Exists(p) {
			b := t
			b.Path, b.Whole = p, false
			steps = append(steps, Step{Target: b, Action: ActionRestore, Version: version})
		}
	}
	return steps
}

// links are the other names of the file that a target was a name of.
func (r *Responder) links(t Target, version uint64) []Step {
	var steps []Step
	for _, p := range r.o.Vault.Links(t.Path, version) {
		if r.o.Restores != nil && !r.o.Restores(p) {
			continue
		}
		l := t
		l.Path, l.Whole, l.Foreign = p, false, false
		steps = append(steps, Step{Target: l, Action: ActionRelink, From: t.Path})
	}
	return steps
}

func (r *Responder) step(t Target, action string, version uint64) Step {
	s := Step{Target: t, Action: action, Version: version}
	if r.storm.count(r.o.Now()) {
		r.o.Stormed(r.Storm())
	}
	if until, tripped := r.flaps.count(t.Path, r.o.Now()); tripped {
		r.flapping.Add(1)
		s.Until = until
		s.Refused = fmt.Sprintf("put back %d times within %s, and changed again each time: stopped until %s, a person must look",
			r.o.Limit, r.o.Window, r.o.Wall(until).Go().Format(time.TimeOnly+"Z"))
	}
	return s
}

// Answer takes the steps that answer the record cause, which is in the journal.
// since is the kernel's moment of the change, and try counts the attempts before
// this one. The error says that the journal did not take a record; the outcomes
// that come with it did happen.
func (r *Responder) Answer(ctx context.Context, cause *event.Record, since uint64, try int, steps []Step) ([]Outcome, error) {
	var out []Outcome
	for _, s := range steps {
		if try == 0 && event.Text([]byte(s.Path)) == cause.Path {
			now := r.o.Now()
			s.rival = r.rivals.note(cause, s.Path, now, r.o.Wall(now))
		}
		o, err := r.answer(ctx, cause, since, try, s)
		if err != nil {
			return out, fmt.Errorf("answer %s: %w", cause.ID, err)
		}
		out = append(out, o)
	}
	return out, nil
}

func (r *Responder) answer(ctx context.Context, cause *event.Record, since uint64, try int, s Step) (Outcome, error) {
	o := Outcome{Step: s}
	if s.Refused != "" {
		o.Err, o.Retry = errors.New(s.Refused), s.Until
		return o, r.finish(ctx, cause, since, &o)
	}
	if s.Action == ActionRelink && r.o.Vault.Linked(s.Path, s.From) {
		o.Done.Skipped = true // as almost always: no word about it
		return o, nil
	}
	intent := r.record(cause, s, Intended)
	intent.Reason = fmt.Sprintf("about to %s it", s.Action)
	if err := r.o.Journal.AppendDurable(ctx, intent); err != nil {
		return o, err
	}
	switch s.Action {
	case ActionQuarantine:
		o.Done, o.Err = r.o.Vault.Remove(ctx, s.Path)
	case ActionRelink:
		o.Done, o.Err = r.o.Vault.Relink(ctx, s.Path, s.From)
	default:
		o.Done, o.Err = r.o.Vault.Restore(ctx, s.Path, s.Version)
	}
	switch {
	case r.readOnly.note(s.Path, o.Err, r.o.ReadOnly):
		o.Err = fmt.Errorf("read-only file system, it is put back as soon as that can be written to: %w", o.Err)
		o.Retry = r.o.Now() + readOnlyPause
	case o.Err != nil && try < maxTries:
		o.Retry = r.o.Now() + uint64(time.Second)<<try
	}
	return o, r.finish(ctx, cause, since, &o)
}

// maxTries bounds the attempts at one step; the delay doubles from a second.
const maxTries = 6

// finish writes what became of a step.
func (r *Responder) finish(ctx context.Context, cause *event.Record, since uint64, o *Outcome) error {
	outcome := Success
	switch {
	case o.Err != nil:
		outcome = Failed
		r.failed.Add(1)
	case o.Done.Skipped:
		outcome = Skipped
		r.skipped.Add(1)
		r.flaps.undo(o.Step.Path)
	default:
		r.done.Add(1)
	}
	rec := r.record(cause, o.Step, outcome)
	if now := r.o.Now(); now > since {
		rec.Response.TookNS = now - since
	}
	rec.Response.Evidence = event.Text([]byte(o.Done.Evidence))
	rec.Verdict = event.VerdictRestored
	switch {
	case o.Err != nil:
		rec.Verdict = event.VerdictRestoreFailed
		rec.Response.Error = o.Err.Error()
		rec.Reason = o.Err.Error()
		return r.o.Journal.AppendDurable(ctx, rec)
	case o.Done.Skipped:
		rec.Reason = "already in its trusted state"
	case o.Step.Action == ActionQuarantine:
		rec.Reason = "moved to the evidence: the trusted state has nothing there"
	case o.Step.Action == ActionRelink:
		rec.Reason = "another name of " + event.Text([]byte(o.Step.From)) + " again"
	default:
		rec.Reason = "put back to the trusted state"
	}
	for _, note := range []string{o.Done.Note, o.Step.rival} {
		if note != "" {
			rec.Reason += "; " + note
		}
	}
	after := o.Done.After
	rec.After = &after
	return r.o.Journal.Append(ctx, rec)
}

func (r *Responder) record(cause *event.Record, s Step, outcome string) *event.Record {
	return &event.Record{
		Time: r.o.Wall(r.o.Now()), Kind: event.RecResponse, Path: event.Text([]byte(s.Path)),
		Rule: s.Rule, Mode: s.Mode, Sensor: cause.Sensor,
		Response: &event.Response{Action: s.Action, Outcome: outcome, Of: cause.ID},
	}
}
