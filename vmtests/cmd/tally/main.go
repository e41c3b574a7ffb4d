// Command tally runs the steps of a test run one after another and counts.
//
//	tally 'check=make check' 'unit=go test -json ./...'
//
// Each argument is a name, = and a shell command. Lines that a command prints
// in the format of go test -json are counted as tests: those without subtests,
// and those with subtests that fail by themselves. A command that prints none
// counts as one test by its exit code; a skipped test counts as failed, because
// it proved nothing. A step that fails does not keep the next from running.
//
// It prints the output of what failed, one line per package, then once more the
// end of each failure, a table of the steps, the VM scripts that ran, and as its
// last line
//
//	N passed, M failed
//
// and exits 1 unless M is 0.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: tally 'name=command' ...")
		os.Exit(2)
	}
	os.Exit(run(os.Args[1:], os.Stdout))
}

// total is the outcome of one step.
type total struct {
	step           string
	passed, failed int
	told           []string // of each failure, its name and its last lines
	took           time.Duration
}

func run(steps []string, w io.Writer) int {
	var totals []total
	var scripts []string
	for _, s := range steps {
		name, command, ok := strings.Cut(s, "=")
		if !ok {
			fmt.Fprintf(os.Stderr, "tally: step %q: want name=command\n", s)
			return 2
		}
		fmt.Fprintf(w, "\n=== %s: %s\n", name, command)
		start := time.Now()
		c, err := runStep(command, w)
		if err != nil {
			fmt.Fprintf(w, "--- %s: %v\n", name, err)
		}
		t := total{step: name, took: time.Since(start)}
		t.passed, t.failed, t.told = c.count(err)
		scripts = append(scripts, c.scripts...)
		totals = append(totals, t)
	}
	return report(totals, scripts, w)
}

func runStep(command string, w io.Writer) (*counter, error) {
	c := newCounter(w)
	cmd := exec.Command("sh", "-c", command)
	cmd.Stderr = cmd.Stdout
	out, err := cmd.StdoutPipe()
	if err != nil {
		return c, err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return c, err
	}
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		if line != "" {
			c.line(line)
		}
		if err != nil {
			break
		}
	}
	return c, cmd.Wait()
}

func report(totals []total, scripts []string, w io.Writer) int {
	var passed, failed int
	fmt.Fprintln(w)
	for _, t := range totals {
		for _, s := range t.told {
			fmt.Fprintf(w, "failed: %s: %s\n", t.step, strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n    "))
		}
	}
	for _, t := range totals {
		fmt.Fprintf(w, "%-8s %5d passed %4d failed %6.0f s\n", t.step, t.passed, t.failed, t.took.Seconds())
		passed, failed = passed+t.passed, failed+t.failed
	}
	if len(scripts) > 0 {
		fmt.Fprintf(w, "VM scripts that ran: %s\n", strings.Join(scripts, " "))
	}
	fmt.Fprintf(w, "%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		return 1
	}
	return 0
}
