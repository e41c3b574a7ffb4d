package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// testEvent is one line of go test -json (go doc test2json).
type testEvent struct {
	Action     string
	Package    string
	ImportPath string // of build-output
	Test       string
	Output     string
	Elapsed    float64
}

// scriptTest is the test whose subtests are VM scripts, named kernel/script.
const scriptTest = "TestScripts/"

// counter counts the tests of one step.
type counter struct {
	w       io.Writer
	tests   map[string]string // package and test → how it ended
	parents map[string]bool   // tests that have subtests
	output  map[string]*strings.Builder
	failed  map[string]bool // packages of which a test failed
	alone   int             // packages that failed without a failing test
	events  int
	scripts []string
	last    map[string]string // of what is in no good order: the end of its output
}

func newCounter(w io.Writer) *counter {
	return &counter{w: w, tests: map[string]string{}, parents: map[string]bool{}, output: map[string]*strings.Builder{}, failed: map[string]bool{}, last: map[string]string{}}
}

// line takes one line of the step's output.
func (c *counter) line(s string) {
	var e testEvent
	if !strings.HasPrefix(s, "{") || json.Unmarshal([]byte(s), &e) != nil || e.Action == "" {
		fmt.Fprint(c.w, s)
		return
	}
	c.events++
	key := e.Package + " " + e.Test
	switch e.Action {
	case "build-output":
		fmt.Fprint(c.w, e.Output)
	case "run":
		c.tests[key] = "run" // stays so if the program dies before the test ends
		if i := strings.LastIndex(e.Test, "/"); i > 0 {
			c.parents[e.Package+" "+e.Test[:i]] = true
		}
	case "output":
		b := c.output[key]
		if b == nil {
			b = &strings.Builder{}
			c.output[key] = b
		}
		b.WriteString(e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			c.endPackage(e)
			return
		}
		c.endTest(e, key)
	}
}

func (c *counter) endTest(e testEvent, key string) {
	c.tests[key] = e.Action
	if name, ok := strings.CutPrefix(e.Test, scriptTest); ok && strings.Contains(name, "/") {
		c.scripts = append(c.scripts, name)
		fmt.Fprintf(c.w, "%s %s %.1f s\n", e.Action, name, e.Elapsed)
	}
	if e.Action != "pass" {
		c.failed[e.Package] = true
		c.dump(key)
	}
	delete(c.output, key)
}

func (c *counter) endPackage(e testEvent) {
	if e.Action == "fail" {
		for key, how := range c.tests {
			if how == "run" && strings.HasPrefix(key, e.Package+" ") {
				c.failed[e.Package] = true
				c.dump(key)
			}
		}
		c.dump(e.Package + " ")
		if !c.failed[e.Package] {
			c.alone++
		}
	}
	delete(c.output, e.Package+" ")
	if e.Action != "skip" { // "skip" of a package: it has no tests
		fmt.Fprintf(c.w, "%s %s %.1f s\n", e.Action, e.Package, e.Elapsed)
	}
}

func (c *counter) dump(key string) {
	if b := c.output[key]; b != nil {
		fmt.Fprint(c.w, b.String())
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		c.last[key] = strings.Join(lines[max(0, len(lines)-lastLines):], "\n")
		delete(c.output, key)
	}
}

// lastLines is how much of a failure's output is repeated at the very end, where
// it is found first.
const lastLines = 4

// count returns the outcome of the step whose command ended with err, and a line
// or a few about each failure.
func (c *counter) count(err error) (passed, failed int, told []string) {
	childFailed := map[string]bool{}
	for key, how := range c.tests {
		if how == "pass" {
			continue
		}
		for i := strings.LastIndex(key, "/"); i > strings.Index(key, " "); i = strings.LastIndex(key[:i], "/") {
			childFailed[key[:i]] = true
		}
	}
	for key, how := range c.tests {
		switch {
		case how == "pass" && !c.parents[key]:
			passed++
		case how != "pass" && !childFailed[key]:
			failed++
			name := key
			if how == "run" {
				name += " (the program ended in the middle of it)"
			}
			told = append(told, name+"\n"+c.last[key])
		}
	}
	for key, text := range c.last {
		if strings.HasSuffix(key, " ") {
			told = append(told, strings.TrimSpace(key)+"\n"+text)
		}
	}
	slices.Sort(told)
	failed += c.alone
	if c.events == 0 && err == nil {
		return 1, 0, nil
	}
	if err != nil && failed == 0 {
		failed = 1
	}
	if err != nil {
		told = append(told, err.Error())
	}
	return passed, failed, told
}
