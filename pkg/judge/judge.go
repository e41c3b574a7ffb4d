// Package judge is stage 6: it says what a change is, by the rule that holds for
// its path.
//
// It is pure: no clock, no file, no memory of earlier changes. The same table of
// cases (judge/judgetest) runs against it and against the kernel side's rules
// (bpf/rules.h), because both read one policy. It promises a verdict and one line
// of reason for every input. It does not act; pkg/respond does.
//
// Called by pkg/pipeline.
package judge

import (
	"fmt"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
)

// Case is all that a verdict depends on.
type Case struct {
	Rule    string // name of the rule
	Mode    string // of the rule, as far as this tier can keep it
	Op      event.Op
	Blocked bool   // a hook refused it
	Allowed bool   // the kernel found the executable on the rule's list
	Window  string // names the approved window that covers it, "" if none does; where a rule blocks, one of a person
	Self    bool   // done under Holdfast's own pid
	Before  event.State
	After   event.State
	Trusted *event.State // what a restore would bring back, nil if nothing is kept
}

// Verdict is the answer.
type Verdict struct {
	Verdict string // event.Verdict*
	Reason  string // one line a person understands
	Promote bool   // the state after is the trusted one from now on
	Respond bool   // the trusted state should be brought back
}

// Judge returns the verdict on a case.
func Judge(c Case) Verdict {
	switch {
	case c.Blocked:
		return Verdict{Verdict: event.VerdictBlocked, Reason: fmt.Sprintf("refused in the kernel: rule %s blocks changes", c.Rule)}
	case c.Mode != event.ModeRestore && c.Mode != event.ModeBlock:
		v := Verdict{Verdict: event.VerdictObserved, Reason: fmt.Sprintf("rule %s observes", c.Rule)}
		if approved(c) {
			v.Verdict, v.Reason, v.Promote = event.VerdictExpected, approval(c), true
		}
		return v
	case approved(c):
		return Verdict{Verdict: event.VerdictExpected, Reason: approval(c), Promote: true}
	case c.Op == event.OpLink && c.Before.Exists && c.Before.Same(&c.After):
		return Verdict{Verdict: event.VerdictObserved, Reason: "a name outside the watched trees was given to it: nothing inside them differs"}
	case back(c):
		return Verdict{Verdict: event.VerdictExpected, Reason: "this is the trusted state"}
	}
	v := Verdict{Verdict: event.VerdictUnauthorized, Respond: true}
	v.Reason = fmt.Sprintf("rule %s lets no such change stay: %s", c.Rule, what(c))
	if c.Mode == event.ModeBlock {
		v.Reason = fmt.Sprintf("rule %s blocks, but this was not refused: %s", c.Rule, what(c))
	}
	if c.Self {
		v.Reason += " (under Holdfast's own pid)"
	}
	return v
}

// approved reports whether the change was wanted: by the rule, or for a time.
func approved(c Case) bool { return c.Allowed || c.Window != "" }

func approval(c Case) string {
	if !c.Allowed {
		return "approved: " + c.Window
	}
	return fmt.Sprintf("the executable is on the list of rule %s", c.Rule)
}

// back reports whether the change brought the trusted state about.
func back(c Case) bool {
	return c.Trusted != nil && c.After.Unread == "" && c.After.Same(c.Trusted)
}

// what names the difference in a few words.
func what(c Case) string {
	switch {
	case !c.Before.Exists && c.After.Exists:
		return "new " + typeName(c.After.Type)
	case c.Before.Exists && !c.After.Exists:
		return typeName(c.Before.Type) + " removed"
	case c.After.Unread != "":
		return c.Op.String() + ", content " + c.After.Unread
	case c.Before.Unread != "":
		return c.Op.String()
	}
	d := c.Before.Diff(&c.After)
	if len(d) == 0 {
		return c.Op.String()
	}
	for i, n := range d {
		if n == "hash" {
			d[i] = "content"
		}
	}
	return strings.Join(d, ", ") + " changed"
}

func typeName(t string) string {
	switch t {
	case "":
		return "object"
	case event.TypeRegular:
		return "file"
	case event.TypeDir:
		return "directory"
	}
	return t
}
