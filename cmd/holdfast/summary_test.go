package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/control"
)

// outcome is of so many steps and conflicts in a few directories.
func outcomeOf(n int) *control.Outcome {
	o := &control.Outcome{Record: "h/b/7"}
	for i := range n {
		path := control.Path(fmt.Sprintf("/srv/app/%d/f%d", i%3, i))
		switch {
		case i%10 == 9:
			o.Conflicts = append(o.Conflicts, control.Conflict{Path: path, Reason: "changed since by alice", Record: "h/b/1"})
		case i == 4:
			o.Steps = append(o.Steps, control.Step{Path: path, Action: "write", Outcome: control.StepFailed, Error: "no space left on device"})
		default:
			o.Steps = append(o.Steps, control.Step{Path: path, Action: "write", Outcome: control.StepDone, Reason: "undo of h/b/1"})
		}
	}
	return o
}

func printed(o *control.Outcome, verbose bool) string {
	var b bytes.Buffer
	a := &app{out: &b}
	a.open()
	a.printOutcome(o, verbose, "nothing")
	a.buf.Flush()
	return b.String()
}

func TestManyStepsAndConflictsAreSummedUpByDirectory(t *testing.T) {
	few := printed(outcomeOf(10), false)
	if strings.Count(few, "\n") != 10+1+2 || !strings.Contains(few, "conflict  /srv/app/0/f9  changed since by alice\n          holdfast show h/b/1\n") {
		t.Errorf("10:\n%s", few)
	}
	many := printed(outcomeOf(10_000), false)
	for _, want := range []string{
		"done  write  3000 in /srv/app/", "failed  write  /srv/app/1/f4  no space left on device\n",
		"conflict    333 in /srv/app/1  changed since by alice\n", "--verbose prints each path\n",
		"8999 done, 1 failed, 0 skipped, 1000 conflicts left for you: --force undoes these too\n", "holdfast undo --record h/b/7 takes this back\n",
	} {
		if !strings.Contains(many, want) {
			t.Errorf("%q is missing in\n%s", want, many)
		}
	}
	if n := strings.Count(many, "\n"); n > 15 {
		t.Errorf("%d lines for 10,000 paths", n)
	}
	if n := strings.Count(printed(outcomeOf(10_000), true), "\n"); n != 10_000+1000+2 {
		t.Errorf("--verbose prints %d lines", n)
	}
	o := &control.Outcome{}
	for i := range 1000 {
		o.Conflicts = append(o.Conflicts, control.Conflict{Path: control.Path(fmt.Sprintf("/d%d/f", i)), Reason: "changed since by alice"})
	}
	if got := printed(o, false); strings.Count(got, "\n") > maxGroups+4 || !strings.Contains(got, "and 980 more in 980 groups\n") {
		t.Errorf("a directory for each:\n%s", got)
	}
}
