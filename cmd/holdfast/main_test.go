package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/holdfast/holdfast/pkg/control"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/rollback"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"holdfast":   func() { testMain(os.Args) },
		"nobody":     func() { nobody(os.Args) },
		"mkjournal":  func() { must(mkjournal(os.Args[1], os.Args[2])) },
		"mkvault":    func() { must(mkvault(os.Args[1], os.Args[2], os.Args[3:])) },
		"flip":       func() { must(flip(os.Args[1], os.Args[2])) },
		"fakedaemon": func() { must(fakeDaemon(os.Args[1], os.Args[2])) },
	})
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// testMain is main with the configuration of the script and a fixed local zone.
func testMain(args []string) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{file: os.Getenv("HOLDFAST_TEST_CONFIG"), out: os.Stdout, err: os.Stderr, now: time.Now, terminal: os.Getenv("HOLDFAST_TEST_TERMINAL") != "", noColor: os.Getenv("NO_COLOR") != ""}
	os.Exit(a.main(ctx, args))
}

// nobody runs "holdfast args" as a user without rights.
func nobody(args []string) {
	must(syscall.Setgroups(nil))
	must(syscall.Setresgid(65534, 65534, 65534))
	must(syscall.Setresuid(65534, 65534, 65534))
	testMain(args[1:])
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("TZ", "UTC")
			e.Setenv("HOLDFAST_TEST_CONFIG", filepath.Join(e.WorkDir, "etc", "holdfast.yaml"))
			e.Setenv("NO_COLOR", "")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "answers": answers},
	})
}

// exits CODE command…: the command must end with this exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE command…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// answers SOCKET: waits until something accepts connections on it, at most a minute.
func answers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: answers SOCKET")
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		c, err := net.Dial("unix", ts.MkAbs(args[0]))
		if err == nil {
			ts.Check(c.Close())
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("nothing answers: %v", err)
		}
	}
}

// mkjournal writes the records of file, one JSON object a line, to the journal
// of a state directory.
func mkjournal(state, file string) (err error) {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	j, err := journal.Open(filepath.Join(state, "journal"), filepath.Join(state, "keys"), journal.Options{HostID: "0123456789abcdef0123456789abcdef", Host: "web1", Boot: "b1"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	for s := bufio.NewScanner(f); s.Scan(); {
		if len(s.Bytes()) == 0 {
			continue
		}
		var r event.Record
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			return fmt.Errorf("%s: %w", s.Text(), err)
		}
		if _, err := j.Append(&r); err != nil {
			return err
		}
	}
	return nil
}

// mkvault captures paths as they are now; trust is trust or keep.
func mkvault(state, trust string, paths []string) (err error) {
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	s, err := rollback.Open(filepath.Join(state, "vault"), rollback.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for _, p := range paths {
		abs, err := filepath.Abs(p)
		if err != nil {
			return err
		}
		if _, err := s.Capture(context.Background(), abs, rollback.Provenance{Reason: "enrolled", Trust: trust == "trust"}); err != nil {
			return err
		}
	}
	return s.Sync()
}

// flip changes one bit in the middle of the file that pattern names.
func flip(pattern, offset string) error {
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		return fmt.Errorf("flip %s: %w", pattern, errors.Join(err, os.ErrNotExist))
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		return err
	}
	at, err := strconv.Atoi(offset)
	if err != nil {
		return err
	}
	b[at] ^= 1
	return os.WriteFile(names[0], b, 0o600)
}

// fakeDaemon answers on a socket from a file: {"status": …, "outcome": …}. It
// prints each request that it gets.
type fake struct {
	StatusIs  control.Status  `json:"status"`
	OutcomeIs control.Outcome `json:"outcome"`
	Error     string          `json:"error"`
}

func fakeDaemon(socket, file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	f := &fake{}
	if err := json.Unmarshal(b, f); err != nil {
		return err
	}
	l, err := control.Listen(socket)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return control.NewServer(f, nil).Serve(ctx, l)
}

func (f *fake) answer(req any) (control.Outcome, error) {
	b, err := json.Marshal(req)
	if err != nil {
		return control.Outcome{}, err
	}
	if _, err := io.WriteString(os.Stdout, string(b)+"\n"); err != nil {
		return control.Outcome{}, err
	}
	switch {
	case strings.HasPrefix(f.Error, "not found"):
		return control.Outcome{}, fmt.Errorf("/nowhere: %w", control.ErrNotFound)
	case f.Error != "":
		return control.Outcome{}, errors.New(f.Error)
	}
	return f.OutcomeIs, nil
}

func (f *fake) Status(context.Context) (control.Status, error) { return f.StatusIs, nil }

func (f *fake) Restore(_ context.Context, r control.RestoreRequest) (control.Outcome, error) {
	return f.answer(r)
}

func (f *fake) Undo(_ context.Context, r control.UndoRequest) (control.Outcome, error) {
	return f.answer(r)
}

func (f *fake) Trust(_ context.Context, r control.TrustRequest) (control.Outcome, error) {
	return f.answer(r)
}

func (f *fake) Hold(_ context.Context, r control.HoldRequest) (control.Outcome, error) {
	return f.answer(r)
}

func (f *fake) Window(_ context.Context, r control.WindowRequest) (control.Outcome, error) {
	return f.answer(r)
}

func (f *fake) Prune(_ context.Context, r control.PruneRequest) (control.Outcome, error) {
	return f.answer(r)
}

func (f *fake) Reindex(context.Context, control.ReindexRequest) (control.Outcome, error) {
	return control.Outcome{}, nil
}

func (f *fake) Stop(_ context.Context, r control.StopRequest) (control.Outcome, error) {
	return f.answer(r)
}
