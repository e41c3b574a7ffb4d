package window

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// crashAt makes this test binary a child that opens a window and ends another one, and
// is killed before a step of that: "FILE STEP".
const crashAt = "HOLDFAST_TEST_WINDOW_CRASH"

func TestMain(m *testing.M) {
	arg := os.Getenv(crashAt)
	if arg == "" {
		os.Exit(m.Run())
	}
	fmt.Fprintln(os.Stderr, openAndEnd(arg))
	os.Exit(1)
}

func openAndEnd(arg string) error {
	name, text, _ := strings.Cut(arg, " ")
	kill, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	s, err := Open(noon().options(name))
	if err != nil {
		return err
	}
	n := 0
	s.step = func() {
		if n == kill {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			time.Sleep(time.Hour)
		}
		n++
	}
	w, err := s.New(Window{Ticket: "second"}, time.Hour)
	w.Record = "h/b1/2"
	if err := errors.Join(err, s.Add(w)); err != nil {
		return err
	}
	return errors.Join(s.Remove(1), fmt.Errorf("there are only %d steps", n))
}

// A process is killed before each step of opening a window and of ending another one:
// what is in force after is what was before the step or what was wanted.
func TestKilledAtEachStepTheFileIsOldOrNew(t *testing.T) {
	name := filepath.Join(t.TempDir(), "windows")
	m := noon()
	m.open(t, name).must(t, Window{Ticket: "first"}, time.Hour)
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for step := 0; ; step++ {
		if err := os.WriteFile(name, before, 0o600); err != nil {
			t.Fatal(err)
		}
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", crashAt, name, step))
		out, err := c.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatal(err)
		}
		s := m.open(t, name) // never damaged
		var open []string
		for _, w := range s.List() {
			open = append(open, w.Ticket)
		}
		seen[strings.Join(open, " ")]++
		if st, ok := exit.Sys().(syscall.WaitStatus); !ok || !st.Signaled() {
			if !strings.Contains(string(out), fmt.Sprintf("only %d steps", step)) || strings.Join(open, " ") != "second" {
				t.Fatalf("step %d: %s, open %v", step, out, open)
			}
			break
		}
		// and it can go on
		if w := s.must(t, Window{Ticket: "third"}, time.Hour); w.Number < 2 {
			t.Errorf("step %d: the next is number %d", step, w.Number)
		}
	}
	if len(seen) != 3 || seen["first"] < 5 || seen["first second"] < 5 || seen["second"] < 2 {
		t.Errorf("seen: %v", seen)
	}
}
