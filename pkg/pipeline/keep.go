package pipeline

import (
	"context"
	"errors"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/rehash"
)

var errTaken = errors.New("the vault could not take its content in")

// keep hands what a change left to the vault, named after its record: every
// version of what is observed or still being enrolled, and what an allowed executable made.
func (p *Pipeline) keep(ctx context.Context, c *event.Change, f *rehash.Finding, j *judgement, rec *event.Record) {
	if p.o.Vault == nil || j.Respond || j.rule.Mode != event.ModeObserve && !j.Promote && !j.rule.Enrolling {
		p.kept(f.Path, discard(f, nil))
		return
	}
	pr := Provenance{Record: rec.ID, Reason: rec.Op + " by " + rec.Actor.User, Trust: j.Promote, Time: doneAt(f, rec)}
	in := f.Content
	f.Content = nil
	switch {
	case f.After.Unread != "" || f.After.Type == event.TypeRegular && f.After.Exists && in == nil:
		// Its content is not in our hands; a later change has it.
		switch {
		case in != nil:
			p.kept(f.Path, in.Discard())
		case f.After.Unread == "" && f.After.Hash == f.Now.Hash:
			p.kept(f.Path, errTaken)
		}
	default:
		p.kept(f.Path, p.keepVersion(ctx, f.Path, f.After, in, pr))
	}
	for _, path := range f.Below {
		p.kept(path, p.keepVersion(ctx, path, event.State{}, nil, pr))
	}
	if f.From == nil {
		return
	}
	p.kept(f.From.Path, p.keepVersion(ctx, f.From.Path, f.From.After, nil, pr))
	if f.After.Type == event.TypeDir {
		p.keepMoved(ctx, f, pr)
	}
}

// doneAt is when what a change left was there, 0 if that is not known: of what was found,
// or had been changed again when it was looked at.
func doneAt(f *rehash.Finding, rec *event.Record) event.Time {
	if rec.Found != "" || f.Late {
		return 0
	}
	return max(rec.Time, rec.TimeEnd)
}

// keepMoved keeps what a renamed directory brought along under the new names.
// The contents are in the vault already, under the old ones.
func (p *Pipeline) keepMoved(ctx context.Context, f *rehash.Finding, pr Provenance) {
	states := make(map[string]event.State)
	p.states.Known().Walk(f.Path, func(path string, s *event.State) {
		if path != f.Path && s.Unread == "" {
			states[path] = *s
		}
	})
	for path, s := range states {
		if ctx.Err() != nil {
			return
		}
		old := f.From.Path + path[len(f.Path):]
		p.kept(path, p.keepVersion(ctx, path, s, nil, pr))
		p.kept(old, p.keepVersion(ctx, old, event.State{}, nil, pr))
	}
}

func (p *Pipeline) kept(path string, err error) {
	if err == nil {
		return
	}
	p.n.unkept.Add(1)
	p.o.Log.Warn("version is not kept", "stage", "rehash", "path", path, "err", err)
}

// discard ends the content of a finding that nobody keeps.
func discard(f *rehash.Finding, err error) error {
	in := f.Content
	f.Content = nil
	if in == nil {
		return err
	}
	return errors.Join(err, in.Discard())
}
