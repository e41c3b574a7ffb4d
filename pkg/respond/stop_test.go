package respond

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// notes is a journal that writes down what it was given, among other things.
type notes struct{ list []string }

func (n *notes) put(r *event.Record, how string) error {
	n.list = append(n.list, fmt.Sprintf("%s %s of %s%s", r.Response.Action, r.Response.Outcome, r.Response.Of, how))
	return nil
}
func (n *notes) Append(_ context.Context, r *event.Record) error        { return n.put(r, "") }
func (n *notes) AppendDurable(_ context.Context, r *event.Record) error { return n.put(r, ", durable") }

func TestADeedAgainstAHolderLiesBetweenItsIntentAndItsOutcome(t *testing.T) {
	tests := []struct {
		name string
		h    Holder
		err  error
		want []string
	}{
		{"freeze", Holder{Key: event.ProcKey{PID: 10}}, nil, []string{"freeze intended of r1, durable", "signal 19 to 10", "freeze done of r1"}},
		{"kill", Holder{Key: event.ProcKey{PID: 10}, Kill: true}, nil, []string{"kill intended of r1, durable", "signal 9 to 10", "kill done of r1"}},
		{"gone", Holder{Key: event.ProcKey{PID: 10}}, unix.ESRCH, []string{"freeze intended of r1, durable", "signal 19 to 10", "freeze skipped of r1"}},
		{"fails", Holder{Key: event.ProcKey{PID: 10}}, unix.EPERM, []string{"freeze intended of r1, durable", "signal 19 to 10", "freeze failed of r1, durable"}},
		{"Holdfast itself", Holder{Key: event.ProcKey{PID: 77}, Kill: true}, nil, []string{"kill failed of r1, durable"}},
		{"pid 1", Holder{Key: event.ProcKey{PID: 1}}, nil, []string{"freeze failed of r1, durable"}},
		{"a kernel thread", Holder{Key: event.ProcKey{PID: 10}, Kthread: true}, nil, []string{"freeze failed of r1, durable"}},
		{"nobody", Holder{}, nil, []string{"freeze failed of r1, durable"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := &notes{}
			s := NewStopper(StopOptions{
				Journal: n, Now: func() uint64 { return 0 }, Wall: func(uint64) event.Time { return 0 }, Self: 77,
				Signal: func(h Holder, sig unix.Signal) error {
					n.list = append(n.list, fmt.Sprintf("signal %d to %d", sig, h.Key.PID))
					return tt.err
				},
			})
			if err := s.Stop(t.Context(), &event.Record{ID: "r1"}, tt.h); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(n.list, tt.want) {
				t.Errorf("%q, want %q", n.list, tt.want)
			}
		})
	}
}

func TestOnlyTheProcessThatWasMeantIsSignalled(t *testing.T) {
	c := exec.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		c.Process.Kill()
		c.Wait() // killed: says so
	}()
	dir := fmt.Sprintf("/proc/%d", c.Process.Pid)
	var st syscall.Stat_t
	if err := syscall.Stat(dir+"/exe", &st); err != nil {
		t.Fatal(err)
	}
	start, err := startOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	h := Holder{Key: event.ProcKey{PID: uint32(c.Process.Pid), Start: start * nsPerTick}, ExeIno: st.Ino}
	other, later := h, h
	other.ExeIno++
	later.Key.Start += nsPerTick
	for what, wrong := range map[string]Holder{"another program": other, "another start": later} {
		if err := Send(wrong, unix.SIGSTOP); !errors.Is(err, unix.ESRCH) {
			t.Errorf("%s: %v, want that it is gone", what, err)
		}
	}
	if err := Send(h, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(c.Process.Pid, &ws, syscall.WUNTRACED, nil); err != nil || !ws.Stopped() {
		t.Errorf("it was not stopped: %v %v", ws, err)
	}
	h.Key.PID = 1 << 22 // above what the kernel gives out
	if err := Send(h, unix.SIGSTOP); err == nil {
		t.Error("a process that does not exist was signalled")
	}
}
