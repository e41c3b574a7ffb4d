// Command holdfast records who changed protected files, puts them back, and
// answers questions about it.
//
// One file holds one verb. main.go runs the command line and maps errors to exit
// codes; app.go holds what verbs share: settings, stores, the daemon.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast/holdfast/pkg/clickhouse"
	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/query"
)

// The exit codes. They are documented and do not change.
const (
	exitDone      = 0
	exitFailed    = 1
	exitUsage     = 2 // usage or configuration
	exitNotFound  = 3
	exitConflicts = 4 // left for a person to decide
	exitDegraded  = 5 // works, but less than configured
	exitUnproven  = 6 // verification failed
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends what does not end by itself
	a := &app{file: config.DefaultFile, out: os.Stdout, err: os.Stderr, now: time.Now, terminal: isTerminal(os.Stdout), noColor: os.Getenv("NO_COLOR") != ""}
	code := a.main(ctx, os.Args)
	stop()
	os.Exit(code)
}

// main runs one command line and returns its exit code.
func (a *app) main(ctx context.Context, args []string) int {
	err := a.run(ctx, args)
	if flushErr := a.flush(); err == nil {
		err = flushErr
	}
	if err != nil && !errors.As(err, new(silent)) && !errors.Is(err, syscall.EPIPE) {
		report(a.err, err)
	}
	return exitCode(err)
}

// The errors of the command line itself.
var (
	errDegraded  = errors.New("degraded")
	errConflicts = errors.New("conflicts are left for a person")
	errUnproven  = errors.New("verification failed")
	errNotFound  = errors.New("not found")
)

// usageError is a command line or configuration that makes no sense.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// silent is an exit code whose reason was printed already.
type silent struct{ error }

func (s silent) Unwrap() error { return s.error }

// hinted is an error with what to do about it.
type hinted struct {
	error
	hints []string
}

func (h hinted) Unwrap() error   { return h.error }
func (h hinted) Hints() []string { return h.hints }

// hint adds what to do to err, or returns nil for nil.
func hint(err error, hints ...string) error {
	if err == nil {
		return nil
	}
	return hinted{err, hints}
}

// exitCode maps an error to an exit code.
func exitCode(err error) int {
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, new(usageError)), errors.Is(err, control.ErrInvalid), errors.Is(err, clickhouse.ErrConfig):
		return exitUsage
	case errors.Is(err, errNotFound), errors.Is(err, query.ErrNotFound), errors.Is(err, query.ErrNoIndex), errors.Is(err, control.ErrNotFound):
		return exitNotFound
	case errors.Is(err, errConflicts):
		return exitConflicts
	case errors.Is(err, errDegraded):
		return exitDegraded
	case errors.Is(err, errUnproven):
		return exitUnproven
	default:
		return exitFailed
	}
}

// report prints an error, one line for each that it joins, and each one's hints.
func report(w io.Writer, err error) {
	for _, e := range flatten(err) {
		fmt.Fprintln(w, "holdfast: "+strings.ReplaceAll(printableLines(e.Error()), "\n", "\n  "))
		var h interface{ Hints() []string }
		if errors.As(e, &h) {
			for _, line := range h.Hints() {
				fmt.Fprintln(w, "hint: "+printableText(line))
			}
		}
	}
}

// flatten splits errors that were joined, so that each keeps its own hint.
func flatten(err error) []error {
	var top any = err // this error itself, not one that it wraps
	if u, ok := top.(usageError); ok {
		return flatten(u.err)
	}
	j, ok := top.(interface{ Unwrap() []error })
	if !ok || errors.Join(j.Unwrap()...).Error() != err.Error() {
		return []error{err}
	}
	var out []error
	for _, e := range j.Unwrap() {
		out = append(out, flatten(e)...)
	}
	return out
}
