package pipeline

import (
	"context"
	"fmt"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/rehash"
)

// Survey takes note of what is in a root, so that it can be watched before it is
// enrolled: what is there, but no content. marks are those of an earlier run that did
// not come to the end of the enrolment, nil if there was none; what that run kept is
// taken as known. It returns the marks, in the order of the walk. It may be called
// before Run and beside it; the root must not be fed before.
func (p *Pipeline) Survey(ctx context.Context, root string, marks []rehash.Mark) ([]rehash.Mark, error) {
	if marks == nil {
		var err error
		if marks, err = p.states.Survey(ctx, p.tree(root)); err != nil {
			return nil, fmt.Errorf("survey %q: %w", root, err)
		}
	}
	kept := make(map[string]bool)
	if p.o.Vault != nil {
		t := p.tree(root)
		for _, path := range append([]string{root}, p.o.Vault.Below(root)...) {
			if s, ok := p.o.Vault.Latest(path); ok && !t.Skip(path) {
				kept[path] = true
				p.states.Learn(path, s)
			}
		}
	}
	for i := range marks {
		if !kept[marks[i].Path] {
			p.states.LearnMark(&marks[i])
		}
	}
	return marks, nil
}

// EnrolSurveyed keeps the content of a root that was surveyed and is watched. What
// nobody touched since the survey is trusted; of the rest a version is kept that is
// not, so that it cannot be put back until a person trusts it. It returns when all was
// compared. Rule says Enrolling until then.
func (p *Pipeline) EnrolSurveyed(ctx context.Context, root string, marks []rehash.Mark, pace func(context.Context, uint64)) (Enrolled, error) {
	e := Enrolled{Root: root}
	at := make(map[string]*rehash.Mark, len(marks))
	for i := range marks {
		at[marks[i].Path] = &marks[i]
	}
	one := func(path string) error {
		cost, err := p.enrolOne(ctx, path, at[path], &e)
		if err != nil {
			return err
		}
		pace(ctx, cost)
		return ctx.Err()
	}
	err := p.states.Each(ctx, p.tree(root), func(path string) error {
		if path == root {
			return nil
		}
		return one(path)
	})
	if err == nil {
		rerr := p.Rescan(ctx, []string{root}, "changed while its tree was being enrolled")
		if err = ctx.Err(); err == nil {
			err = p.scans.ctx.Err()
		}
		if rerr != nil {
			e.Errors = append(e.Errors, rerr)
		}
	}
	if err == nil { // what was moved from where the walk was still to come to where it had been
		for _, path := range p.states.Surveyed(root) {
			if err = one(path); err != nil {
				break
			}
		}
	}
	if err == nil { // last: that it is kept says that all was looked at
		err = one(root)
	}
	if err == nil {
		err = p.inTurn(root, func(context.Context) { e.Changed = p.changed(root, &e.Paths) })
	}
	if err == nil {
		err = p.o.Vault.Sync()
	}
	if err != nil {
		return e, fmt.Errorf("enrol %q: %w", root, err)
	}
	return e, nil
}

// enrolOne keeps one path and returns what reading it cost.
func (p *Pipeline) enrolOne(ctx context.Context, path string, m *rehash.Mark, e *Enrolled) (cost uint64, err error) {
	if _, ok := p.o.Vault.Latest(path); ok {
		return 0, nil // by its change, by a person, or by an earlier run
	}
	c := p.states.Capture(ctx, path)
	s, rerr := c.State()
	var kerr error
	err = p.inTurn(path, func(turn context.Context) {
		in := c.Content()
		_, kept := p.o.Vault.Latest(path)
		if kept || !s.Exists || rerr != nil {
			if in != nil {
				kerr = in.Discard()
			}
			if rerr != nil {
				p.states.Settle(&c)
			}
			return
		}
		pr := Provenance{Reason: "changed after its tree was watched and before it was enrolled"}
		if p.states.AsSurveyed(m, &c) {
			pr = Provenance{Reason: "found when its tree was enrolled", Trust: true}
		}
		p.aside(turn, s.Size, func() { kerr = p.o.Vault.Keep(path, s, in, pr) })
		if kerr == nil {
			p.states.Settle(&c)
		}
	})
	if rerr == nil {
		rerr = kerr
	}
	if rerr != nil && ctx.Err() == nil {
		e.Errors = append(e.Errors, fmt.Errorf("enrol %q: %w", path, rerr))
	}
	return s.Size + pathCost, err
}

// pathCost is what a path costs beside its content, for the pace.
const pathCost = 4096

// changed lists what is known below a root, is not observed only, and has a version
// but none that is trusted. n counts what exists.
func (p *Pipeline) changed(root string, n *int) []string {
	var all, out []string
	p.states.Known().Walk(root, func(path string, _ *event.State) { all = append(all, path) })
	t := p.tree(root)
	for _, path := range all {
		rule, ok := p.o.Rule(path)
		if !ok || t.Skip(path) {
			continue
		}
		*n++
		_, kept := p.o.Vault.Latest(path)
		if _, _, trusted := p.o.Vault.Trusted(path); kept && !trusted && rule.Mode != event.ModeObserve {
			p.states.Stays(path)
			out = append(out, path)
		}
	}
	return out
}

// inTurn does something about a path, and all below it, in its turn and waits for it.
func (p *Pipeline) inTurn(about string, f func(context.Context)) error {
	done := make(chan struct{})
	if err := p.scans.put(&item{about: []string{about}, call: func(ctx context.Context) { f(ctx); close(done) }}); err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-p.scans.ctx.Done():
		return p.scans.ctx.Err()
	}
}
