package policy

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
)

// Match says which rule holds for a path.
type Match struct {
	Rule *Rule
	Root string // the rule's path that the path lies at or below
	Why  string // one line for a person
}

// Candidate is a rule that was considered for a path, deepest first.
type Candidate struct {
	Rule   *Rule
	Root   string
	Except string // the except that takes the path out, "" if the rule holds
}

// Explanation is the answer to: which rule holds for this path, and why.
type Explanation struct {
	Match      *Match // nil if no rule holds
	Candidates []Candidate
	Why        string
}

// Match returns the rule that holds for p, an absolute clean path in raw bytes.
func (p *Policy) Match(path string) (Match, bool) {
	if p.own(path) != "" {
		return Match{}, false
	}
	var m Match
	excepted := ""
	p.walk(path, func(c Candidate) bool {
		if c.Except != "" {
			excepted = c.Rule.Name
			return true
		}
		m = Match{Rule: c.Rule, Root: c.Root}
		return false
	})
	if m.Rule == nil {
		return Match{}, false
	}
	m.Why = why(path, m, excepted)
	return m, true
}

// Explain is Match with all that was considered.
func (p *Policy) Explain(path string) Explanation {
	var e Explanation
	if own := p.own(path); own != "" {
		e.Why = fmt.Sprintf("lies under %s, which no rule watches", text(own))
		return e
	}
	p.walk(path, func(c Candidate) bool {
		e.Candidates = append(e.Candidates, c)
		return true
	})
	m, ok := p.Match(path)
	switch {
	case ok:
		e.Match, e.Why = &m, m.Why
	case len(e.Candidates) > 0:
		c := e.Candidates[0]
		e.Why = fmt.Sprintf("not watched: rule %s leaves it out (except %s)", c.Rule.Name, text(c.Except))
	default:
		e.Why = "not watched: no rule has a path at or above it"
	}
	return e
}

func why(p string, m Match, excepted string) string {
	how := "is a path of rule "
	if p != m.Root {
		how = fmt.Sprintf("lies below %s of rule ", text(m.Root))
	}
	s := how + m.Rule.Name
	if excepted != "" {
		s += fmt.Sprintf("; rule %s, which is nearer, leaves it out", excepted)
	}
	return s
}

func (p *Policy) own(path string) string {
	for _, o := range slices.Concat(forbidden(), p.Own) {
		if Within(o, path) {
			return o
		}
	}
	return ""
}

// walk visits the rules with a path at or above p, deepest first, until visit
// returns false.
func (p *Policy) walk(at string, visit func(Candidate) bool) {
	roots := p.roots
	if roots == nil { // a Policy that New did not make
		roots = make(map[string]int)
		for i := range p.Rules {
			for _, root := range p.Rules[i].Paths {
				roots[root] = i
			}
		}
	}
	for root := at; ; root = path.Dir(root) {
		if i, ok := roots[root]; ok {
			r := &p.Rules[i]
			ex, _ := r.Excepted(root, at)
			if !visit(Candidate{Rule: r, Root: root, Except: ex}) {
				return
			}
		}
		if root == "/" || root == "." {
			return
		}
	}
}

func text(s string) string { return event.Text([]byte(s)) }

// Covers reports whether p, an absolute clean path, is or lies below what pattern
// names: a path, or one with * ? [ ] in any component, none of which matches a slash.
func Covers(pattern, p string) bool {
	if !strings.ContainsAny(pattern, "*?[") {
		return Within(pattern, p)
	}
	depth := strings.Count(pattern, "/") // of what the pattern names: all below goes with it
	end := 0
	for range depth {
		i := strings.IndexByte(p[min(end+1, len(p)):], '/')
		if i < 0 {
			end = len(p)
			break
		}
		end += 1 + i
	}
	ok, err := path.Match(pattern, p[:end])
	return ok && err == nil
}

// Pattern checks what Covers is to be asked with and returns it clean, or what is
// wrong with it and what to do.
func Pattern(p string) (clean, msg, hint string) {
	if clean, msg, hint = cleanPath(p, true); msg != "" {
		return "", msg, hint
	}
	if strings.Contains(p, "**") {
		return "", "contains **", "a path covers all that is below it: end it at the directory"
	}
	if _, err := path.Match(clean, "/"); err != nil {
		return "", "is no valid pattern", `write [[] for the character [, and \\ for \`
	}
	return clean, "", ""
}
