package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/holdfast/holdfast/pkg/event"
)

// Env is the machine that a policy is checked against. With nil functions Check
// does not look at its files.
type Env struct {
	Own      []string // Holdfast's own directories
	CanBlock *bool    // whether the tier can refuse; nil if it is not known
	Lstat    func(path string) (fs.FileInfo, error)
	Real     func(path string) (string, error) // the path without symbolic links
}

// System is the Env of the machine this runs on.
func System(own ...string) Env {
	return Env{Own: own, Lstat: os.Lstat, Real: filepath.EvalSymlinks}
}

// Problem is what Check found. A policy with a Fatal one must not be loaded; the
// others work, but perhaps not as meant.
type Problem struct {
	Fatal   bool   `json:"fatal"`
	Rule    string `json:"rule"`
	Path    string `json:"path,omitempty"`
	Pos     string `json:"pos,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func (p Problem) String() string {
	if p.Pos == "" {
		return p.Message
	}
	return p.Pos + ": " + p.Message
}

// Check compares the policy with a machine.
func (p *Policy) Check(env Env) []Problem {
	var out []Problem
	for i := range p.Rules {
		r := &p.Rules[i]
		if r.Mode == event.ModeBlock && env.CanBlock != nil && !*env.CanBlock {
			out = append(out, Problem{Rule: r.Name, Pos: r.at("mode"),
				Message: fmt.Sprintf("rule %s says block, which this kernel cannot do", r.Name),
				Hint:    "changes will be put back instead of refused; holdfast doctor says what is missing"})
		}
		for j, root := range r.Paths {
			out = append(out, p.checkPath(env, r, fmt.Sprintf("paths[%d]", j), root)...)
		}
		for j, exe := range r.Allow {
			if env.Lstat == nil {
				break
			}
			at := r.at(fmt.Sprintf("allow[%d]", j))
			if info, err := env.Lstat(exe); errors.Is(err, fs.ErrNotExist) {
				out = append(out, Problem{Rule: r.Name, Path: text(exe), Pos: at, Message: fmt.Sprintf("executable %s does not exist", quote(exe)),
					Hint: "its changes count as unauthorized until it does"})
			} else if err == nil && info.Mode()&fs.ModeSymlink != 0 {
				out = append(out, Problem{Rule: r.Name, Path: text(exe), Pos: at, Message: fmt.Sprintf("executable %s is a symbolic link", quote(exe)),
					Hint: "name the file it leads to: " + realOr(env, exe)})
			}
		}
	}
	return out
}

func (p *Policy) checkPath(env Env, r *Rule, key, root string) []Problem {
	var out []Problem
	add := func(fatal bool, msg, hint string) {
		out = append(out, Problem{Fatal: fatal, Rule: r.Name, Path: text(root), Pos: r.at(key), Message: msg, Hint: hint})
	}
	for _, own := range env.Own {
		if Within(own, root) {
			add(true, fmt.Sprintf("path %s lies in Holdfast's own directory %s", quote(root), quote(own)), "it is guarded without a rule: remove the path")
			return out
		}
	}
	if root == "/" && r.Mode != event.ModeObserve {
		add(false, fmt.Sprintf("rule %s has mode %s for the whole machine", r.Name, r.Mode), "logs, logins and updates change files all the time: name the trees that must not change")
	}
	if env.Lstat == nil {
		return out
	}
	info, err := env.Lstat(root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		add(false, fmt.Sprintf("path %s does not exist", quote(root)), "it is armed when it appears")
	case err != nil:
		add(false, fmt.Sprintf("path %s cannot be looked at: %v", quote(root), err), "run as root")
	case info.Mode()&fs.ModeSymlink != 0:
		add(false, fmt.Sprintf("path %s is a symbolic link", quote(root)), "the link is watched, not what it leads to: add "+realOr(env, root)+" if you mean that")
	}
	if env.Real == nil || root == "/" {
		return out
	}
	dir, err := env.Real(path.Dir(root))
	if err != nil || dir == path.Dir(root) {
		return out // as long as the parent does not exist, nothing can be said
	}
	canonical := join(dir, path.Base(root))
	for _, f := range slices.Concat(forbidden(), env.Own) {
		if Within(f, canonical) {
			add(true, fmt.Sprintf("path %s leads to %s", quote(root), quote(canonical)), "nothing is watched there: remove the path")
			return out
		}
	}
	add(false, fmt.Sprintf("path %s leads through a symbolic link to %s", quote(root), quote(canonical)), "records carry the latter: write it in the rule")
	return out
}

func realOr(env Env, p string) string {
	if env.Real != nil {
		if t, err := env.Real(p); err == nil {
			return quote(t)
		}
	}
	return "that"
}

// Canonical returns the policy with every rule path rewritten to the place where
// it really is: real resolves the symbolic links of its directory, the last
// component is kept as it is. A path whose directory cannot be resolved stays.
// Excepts that are absolute and lay below a rewritten path move with it.
func (p *Policy) Canonical(real func(dir string) (string, error)) (*Policy, error) {
	rules := make([]Rule, 0, len(p.Rules))
	for i := range p.Rules {
		r := p.Rules[i].clone()
		for j, root := range r.Paths {
			if root == "/" {
				continue
			}
			dir, err := real(path.Dir(root))
			if err != nil || dir == path.Dir(root) {
				continue
			}
			moved := join(dir, path.Base(root))
			for k, ex := range r.Except {
				if len(ex) > 0 && ex[0] == '/' && Within(root, ex) {
					r.Except[k] = moved + ex[len(root):]
				}
			}
			r.Paths[j] = moved
		}
		asText(r.Paths, r.Except, r.Allow)
		rules = append(rules, r)
	}
	q, err := New(rules)
	if err != nil {
		return nil, err
	}
	q.Own = slices.Clone(p.Own)
	return q, nil
}

// asText writes raw bytes back as a rule file has them, which New reads.
func asText(lists ...[]string) {
	for _, l := range lists {
		for i, s := range l {
			l[i] = text(s)
		}
	}
}
