package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/pipeline"
	"github.com/holdfast/holdfast/pkg/policy"
	"github.com/holdfast/holdfast/pkg/sense"
	"github.com/holdfast/holdfast/rollback"
)

// rules is the policy as far as this tier can keep it.
type rules struct {
	policy   *policy.Policy
	number   map[string]int    // rule name → id for the kernel side
	mode     map[string]string // rule name → effective mode
	weakened map[string]string // rule name → why its mode is less than asked for
	own      []string          // our own places, if they are guarded
	guardOff string            // why they are not

	mu        sync.RWMutex
	roots     []string        // paths of rules that exist
	enrolling map[string]bool // those whose content is still being taken into the vault
}

func newRules(cfg config.Config, tier string) (*rules, error) {
	p, err := cfg.Policy()
	if err != nil {
		return nil, err
	}
	if p, err = p.Canonical(filepath.EvalSymlinks); err != nil {
		return nil, err
	}
	if n := len(p.Rules); n >= sense.RuleOwn {
		return nil, fmt.Errorf("take %d rules: the kernel side numbers %d at most", n, sense.RuleOwn-1)
	}
	r := &rules{policy: p, number: make(map[string]int), mode: make(map[string]string), weakened: make(map[string]string)}
	for i, rule := range p.Rules {
		r.number[rule.Name], r.mode[rule.Name] = i, rule.Mode
		if rule.Mode == event.ModeBlock && !sense.CanBlock(tier) {
			r.mode[rule.Name] = event.ModeRestore
			r.weakened[rule.Name] = fmt.Sprintf("rule %s says block, tier %s cannot refuse: changes are put back instead", rule.Name, tier)
		}
	}
	switch {
	case !cfg.Guard:
		r.guardOff = "it is switched off (guard: false)"
	case !sense.CanBlock(tier):
		r.guardOff = fmt.Sprintf("tier %s cannot refuse", tier)
	default:
		if r.own, err = ownPlaces(cfg); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// rule is the rule that holds for a path.
func (r *rules) rule(path string) (pipeline.Rule, bool) {
	for _, o := range r.own {
		if policy.Within(o, path) {
			return pipeline.Rule{Name: event.RuleOwn, Mode: event.ModeBlock, Own: true}, true
		}
	}
	m, ok := r.policy.Match(path)
	if !ok {
		return pipeline.Rule{}, false
	}
	return pipeline.Rule{Name: m.Rule.Name, Mode: r.mode[m.Rule.Name], Held: m.Rule.Held, Enrolling: r.isEnrolling(m.Root)}, true
}

func (r *rules) isEnrolling(root string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.enrolling[root]
}

func (r *rules) setEnrolling(root string, on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.enrolling == nil {
		r.enrolling = make(map[string]bool)
	}
	r.enrolling[root] = on
}

// trees are the watched roots that exist.
func (r *rules) trees() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Clone(r.roots)
}

// sensed is what the kernel side needs of the rules. Our own directories are
// never watched.
func (r *rules) sensed() []sense.Rule {
	var out []sense.Rule
	for _, rule := range r.policy.Rules {
		s := sense.Rule{ID: r.number[rule.Name], Mode: r.mode[rule.Name], Paths: rule.Paths, Allow: rule.Allow}
		for _, root := range rule.Paths {
			for _, e := range rule.Excepts(root) {
				if e.Pattern == "" { // patterns are matched in user space
					s.Except = append(s.Except, e.Path)
				}
			}
			for _, o := range r.policy.Own {
				if policy.Within(root, o) {
					s.Except = append(s.Except, o)
				}
			}
		}
		out = append(out, s)
	}
	return out
}

func (r *rules) watched(path string) bool {
	_, ok := r.rule(path)
	return ok
}

// paths are the paths of all rules.
func (r *rules) paths() []string {
	var out []string
	for _, rule := range r.policy.Rules {
		out = append(out, rule.Paths...)
	}
	return out
}

// arm enrols what exists, marks it in the kernel, and compares once more, so that
// nothing that happened between the two is missed. The first time, what an earlier
// run has enrolled is compared with what that run knew. It returns the paths that
// lead to something else than when they were last armed, and were not enrolled now.
func (d *Daemon) arm(ctx context.Context, reason string) (moved []string, err error) {
	d.mu.Lock()
	first := !d.armed
	d.mu.Unlock()
	if first {
		if err := d.postpone(ctx); err != nil {
			return nil, err
		}
	}
	rs, trees := d.rules.sensed(), d.rules.trees()
	var fresh []string
	for _, r := range rs {
		for _, p := range r.Paths {
			d.mu.Lock()
			_, done := d.enrolled[p]
			d.mu.Unlock()
			known := done && slices.Contains(trees, p)
			if exists(p) && !known || !exists(p) && d.kept(p) && !done {
				fresh = append(fresh, p)
			}
		}
	}
	d.setRoots(rs)
	var known, enrolled []string // by an earlier run; now
	for _, p := range fresh {
		if d.isLater(p) {
			again, err := d.survey(ctx, p)
			if err != nil {
				return nil, err
			}
			if again {
				known = append(known, p)
			}
			continue
		}
		if err := d.finishEnrolment(ctx, p); err != nil {
			return nil, err
		}
		e, err := d.pipe.Enrol(ctx, p, nil)
		if err != nil {
			return nil, err
		}
		d.noteEnrolled(p, e)
		if e.Learned && first {
			known = append(known, p)
		} else {
			enrolled = append(enrolled, p)
		}
	}
	before, loops := d.sensor.Anchors(), d.sensor.Loops()
	// until it is known whether somebody held a descriptor before
	d.holds.arming.Add(1)
	d.need(filePermission, reasonArming)
	unarmed, err := d.sensor.Arm(append(d.rules.guard(), rs...))
	if err != nil {
		d.holds.armed()
		return nil, fmt.Errorf("arm: %w", err)
	}
	for _, p := range movedAnchors(before, d.sensor.Anchors()) {
		if !slices.ContainsFunc(fresh, func(f string) bool { return policy.Within(f, p) }) {
			moved = append(moved, p)
		}
	}
	d.names.SetRoots(d.roots())
	d.noteUnarmed(unarmed)
	d.noteLoops(loops, d.sensor.Loops())
	d.scanArmed()
	if first && (len(known) > 0 || len(d.before.open) > 0) {
		if err := d.pipe.Down(ctx, d.before.from, known, d.before.open); err != nil {
			return nil, fmt.Errorf("compare with an earlier run: %w", err)
		}
	}
	if len(enrolled) == 0 {
		return moved, nil
	}
	if err := d.pipe.Rescan(ctx, enrolled, reason); err != nil {
		return nil, fmt.Errorf("compare after arming: %w", err)
	}
	return moved, nil
}

// finishEnrolment keeps what an earlier run did not keep when it enrolled a tree:
// a file that could not be read, or that its rule excepted then. Without it such
// a file would look new now, and in restore mode be taken away. What is older
// than the enrolment was there: the time of an inode's last change cannot be set.
func (d *Daemon) finishEnrolment(ctx context.Context, root string) error {
	v, ok := d.vault.Latest(root)
	if !ok || !v.State.Exists || v.State.Type != event.TypeDir {
		return nil
	}
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return nil // gone meanwhile, or unreadable: the compare tells
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rule, watched := d.rules.rule(path)
		if _, known := d.vault.Latest(path); known || !watched || rule.Own {
			return nil
		}
		var st unix.Stat_t
		if unix.Lstat(path, &st) != nil || event.Time(st.Ctim.Nano()) >= v.Time {
			return nil
		}
		if _, err := d.vault.Capture(ctx, path, rollback.Provenance{Reason: "was not kept when its tree was enrolled", Trust: true}); err != nil {
			d.degrade("enrol "+path, fmt.Sprintf("%s is watched but cannot be put back: %v", event.Text([]byte(path)), err))
		}
		return nil
	})
}

// kept reports whether the vault says that something belongs at a path.
func (d *Daemon) kept(path string) bool {
	v, ok := d.vault.Trusted(path)
	return ok && v.State.Exists
}

// setRoots notes which rule paths exist, or ought to.
func (d *Daemon) setRoots(rs []sense.Rule) {
	var roots []string
	for _, r := range rs {
		for _, p := range r.Paths {
			if exists(p) || d.kept(p) {
				roots = append(roots, p)
			}
		}
	}
	slices.Sort(roots)
	d.rules.mu.Lock()
	d.rules.roots = slices.Compact(roots)
	d.rules.mu.Unlock()
}

func (d *Daemon) noteEnrolled(p string, e pipeline.Enrolled) {
	d.mu.Lock()
	d.enrolled[p] = e
	d.mu.Unlock()
	if len(e.Errors) == 0 {
		d.recover("enrol " + p)
		return
	}
	d.degrade("enrol "+p, fmt.Sprintf("%d paths below %s are watched but cannot be put back: %v", len(e.Errors), event.Text([]byte(p)), errors.Join(first(e.Errors, 3)...)))
}

func first(errs []error, n int) []error { return errs[:min(n, len(errs))] }

func (d *Daemon) noteUnarmed(unarmed []sense.Unarmed) {
	d.mu.Lock()
	before := d.unarmed
	d.unarmed = unarmed
	d.mu.Unlock()
	for _, u := range before {
		d.recover("arm " + u.Path)
	}
	for _, u := range unarmed {
		if u.Err != nil {
			d.degrade("arm "+u.Path, fmt.Sprintf("%s is not watched: %v", event.Text([]byte(u.Path)), u.Err))
		}
	}
}

func exists(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil
}

// describe is the policy for its record.
func (r *rules) describe() map[string]string {
	out := make(map[string]string)
	for _, rule := range r.policy.Rules {
		paths := make([]string, 0, len(rule.Paths))
		for _, p := range rule.Paths {
			paths = append(paths, event.Text([]byte(p)))
		}
		out[rule.Name] = r.mode[rule.Name] + " " + strings.Join(paths, " ")
	}
	return out
}
