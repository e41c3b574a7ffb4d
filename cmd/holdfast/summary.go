package main

import (
	"cmp"
	"fmt"
	"path"
	"slices"

	"github.com/holdfast/holdfast/pkg/control"
)

// Beyond so many steps and conflicts what came of an operation is summed up by directory,
// unless --verbose asks for each. So many groups are printed, the largest first.
const (
	manyLines = 60
	maxGroups = 20
)

// group is what has the same outcome, for the same reason, in one directory.
type group struct{ what, action, dir, why string }

// tally counts groups and keeps the first member of each.
type tally struct {
	n     map[group]int
	first map[group]string
}

func newTally() tally { return tally{n: map[group]int{}, first: map[group]string{}} }

func (h *tally) add(what, action, p, why string) {
	g := group{what, action, path.Dir(p), why}
	if h.n[g]++; h.n[g] == 1 {
		h.first[g] = p
	}
}

// printTally writes the groups and how many are left out.
func (a *app) printTally(h *tally, color func(what string) string) {
	all := make([]group, 0, len(h.n))
	for g := range h.n {
		all = append(all, g)
	}
	slices.SortFunc(all, func(x, y group) int {
		return cmp.Or(cmp.Compare(h.n[y], h.n[x]), cmp.Compare(x.dir, y.dir), cmp.Compare(x.action, y.action), cmp.Compare(x.why, y.why))
	})
	t, left, dirs := &table{}, 0, 0
	for i, g := range all {
		n := h.n[g]
		if i >= maxGroups {
			left, dirs = left+n, dirs+1
			continue
		}
		where := shellQuote(h.first[g])
		if n > 1 {
			where = fmt.Sprintf("%d in %s", n, shellQuote(g.dir))
		}
		t.add(g.what, g.action, where, printableText(g.why))
		t.paint(0, color(g.what))
	}
	a.print(t)
	if left > 0 {
		a.linef("and %d more in %s", left, plural(uint64(dirs), "group"))
	}
}

// printSummed prints steps and conflicts by directory. Steps that failed and each kind of
// conflict come with what went wrong; what changes accounts has a line of its own.
func (a *app) printSummed(o *control.Outcome) {
	steps, failed, conflicts := newTally(), newTally(), newTally()
	t := &table{}
	for i := range o.Steps {
		s := &o.Steps[i]
		if len(s.Meaning) > 0 {
			t.add(s.Outcome, s.Action, shellQuote(string(s.Path)), stepText(s))
			t.paint(0, outcomeColor(s.Outcome))
			continue
		}
		if s.Outcome == control.StepFailed {
			failed.add(s.Outcome, s.Action, string(s.Path), cut(s.Error, 120))
		} else {
			steps.add(s.Outcome, s.Action, string(s.Path), "")
		}
	}
	for _, c := range o.Conflicts {
		conflicts.add("conflict", "", string(c.Path), c.Reason)
	}
	a.print(t)
	a.printTally(&steps, outcomeColor)
	a.printTally(&failed, outcomeColor)
	a.printTally(&conflicts, func(string) string { return red })
	a.line("--verbose prints each path")
}

// outcomeColor is how the outcome of a step is painted.
func outcomeColor(outcome string) string {
	switch outcome {
	case control.StepFailed:
		return red
	case control.StepPlanned, control.StepSkipped:
		return yellow
	}
	return green
}
