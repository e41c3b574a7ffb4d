package pipeline

import (
	"fmt"
	"slices"

	"github.com/holdfast/holdfast/pkg/coalesce"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/respond"
)

// misplaced adds what a directory brought along, or lacks, that was renamed over an
// empty one or exchanged with something: its own metadata may be as trusted, and
// what is below it another directory's.
func (p *Pipeline) misplaced(f *find, j *judgement) {
	c := f.change
	dir := f.After.Type == event.TypeDir || f.Before.Type == event.TypeDir
	if c.Blocked || c.Op != event.OpRename || c.PathTo == "" || !dir || j.Promote || p.responder == nil {
		return
	}
	more := p.notAsTrusted(f.Path)
	if c.Exchange {
		more = append(more, p.notAsTrusted(f.From.Path)...)
	}
	if len(more) == 0 {
		return
	}
	if !j.Respond {
		j.Verdict.Verdict, j.Verdict.Respond = event.VerdictUnauthorized, true
		j.Reason = fmt.Sprintf("rule %s lets no such change stay: what is below the directory is another one's", more[0].Rule)
	}
	j.targets = append(j.targets, more...)
}

// notAsTrusted lists what is known below a directory that is not as trusted, and what
// is missing there: parents first, and nothing below what goes as a whole.
func (p *Pipeline) notAsTrusted(root string) (out []respond.Target) {
	if want, _, ok := p.o.Vault.Trusted(root); !ok || want.Type != event.TypeDir {
		return nil // then it goes, or comes, as a whole
	}
	known := map[string]event.State{}
	p.states.Known().Walk(root, func(path string, s *event.State) { known[path] = *s })
	paths := p.o.Vault.Below(root)
	for path := range known {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	gone := ""
	for _, path := range slices.Compact(paths) {
		rule, ok := p.o.Rule(path)
		if path == root || !ok || rule.Own || rule.Mode == event.ModeObserve || gone != "" && coalesce.Within(gone, path) {
			continue
		}
		have := known[path]
		want, _, kept := p.o.Vault.Trusted(path)
		switch {
		case want.Exists && !have.Same(&want):
			out = append(out, respond.Target{Path: path, Rule: rule.Name, Mode: rule.Mode})
		case !want.Exists && have.Exists:
			out = append(out, respond.Target{Path: path, Rule: rule.Name, Mode: rule.Mode, Foreign: !kept})
			gone = path
		}
	}
	return out
}
