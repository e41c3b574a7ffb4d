package respond

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// The actions against a process that holds a file.
const (
	ActionFreeze = "freeze"
	ActionKill   = "kill"
)

// Holder is a process that can change a protected file without opening it.
type Holder struct {
	Key            event.ProcKey
	ExeDev, ExeIno uint64 // kernel dev_t and inode of its program
	Kthread        bool
	Kill           bool // end it; else freeze it
}

// Signal sends a signal to the process that h names, and to no other one.
type Signal func(h Holder, sig unix.Signal) error

// StopOptions of a Stopper. Journal, Now and Wall are required.
type StopOptions struct {
	Journal Journal
	Now     func() uint64
	Wall    func(uint64) event.Time
	Self    uint32 // our own pid: never stopped
	Signal  Signal // default Send
}

// StopStats counts.
type StopStats struct{ Done, Failed, Refused uint64 }

// Stopper freezes or ends processes that hold what is protected. It promises that
// the intent is in the journal, durably, before the deed, and what came of it
// after; and that neither Holdfast itself, nor pid 1, nor a kernel thread, nor a
// process that took the pid of another one is ever touched. Who was frozen stays
// so until a person sends SIGCONT.
type Stopper struct {
	o                     StopOptions
	done, failed, refused atomic.Uint64
}

// NewStopper returns a Stopper.
func NewStopper(o StopOptions) *Stopper {
	if o.Signal == nil {
		o.Signal = Send
	}
	return &Stopper{o: o}
}

// Stats returns the counters.
func (s *Stopper) Stats() StopStats {
	return StopStats{Done: s.done.Load(), Failed: s.failed.Load(), Refused: s.refused.Load()}
}

// Stop answers the record cause, which is in the journal. The error says that the
// journal did not take a record.
func (s *Stopper) Stop(ctx context.Context, cause *event.Record, h Holder) error {
	action, sig, doing := ActionFreeze, unix.SIGSTOP, "about to freeze the process"
	if h.Kill {
		action, sig, doing = ActionKill, unix.SIGKILL, "about to end the process"
	}
	if why := s.untouchable(h); why != "" {
		s.refused.Add(1)
		return s.record(ctx, cause, action, Failed, why, errors.New(why), true)
	}
	if err := s.record(ctx, cause, action, Intended, doing, nil, true); err != nil {
		return err
	}
	err := s.o.Signal(h, sig)
	switch {
	case err == nil:
		s.done.Add(1)
		why := "frozen: SIGCONT lets it go on"
		if h.Kill {
			why = "ended"
		}
		return s.record(ctx, cause, action, Success, why, nil, false)
	case errors.Is(err, unix.ESRCH):
		return s.record(ctx, cause, action, Skipped, "the process was gone", nil, false)
	}
	s.failed.Add(1)
	return s.record(ctx, cause, action, Failed, err.Error(), err, true)
}

// untouchable says why a process must not be stopped, "" if it may.
func (s *Stopper) untouchable(h Holder) string {
	switch {
	case h.Key.PID == s.o.Self && s.o.Self != 0:
		return "it is Holdfast itself, which is never stopped"
	case h.Key.PID == 1:
		return "it is pid 1, without which the machine does not run"
	case h.Kthread || h.Key.PID == 0:
		return "it is a thread of the kernel, which cannot be stopped"
	}
	return ""
}

func (s *Stopper) record(ctx context.Context, cause *event.Record, action, outcome, reason string, err error, durable bool) error {
	r := &event.Record{
		Time: s.o.Wall(s.o.Now()), Kind: event.RecResponse, Path: cause.Path, Rule: cause.Rule, Mode: cause.Mode, Reason: reason,
		Sensor: cause.Sensor, Process: cause.Process,
		Response: &event.Response{Action: action, Outcome: outcome, Of: cause.ID},
	}
	if err != nil {
		r.Response.Error = err.Error()
	}
	put := s.o.Journal.Append
	if durable {
		put = s.o.Journal.AppendDurable
	}
	if err := put(ctx, r); err != nil {
		return fmt.Errorf("record %s of %s: %w", action, cause.ID, err)
	}
	return nil
}

// Send signals a process by a descriptor of it, so that it cannot be taken for
// another one: what /proc says after the descriptor was opened is about whoever
// has the pid, and if that one began when h did, the descriptor is of h. A process
// that runs another program than h is left alone.
func Send(h Holder, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(int(h.Key.PID), 0)
	if err != nil {
		return fmt.Errorf("open process %d: %w", h.Key.PID, err)
	}
	defer unix.Close(fd)
	dir := "/proc/" + strconv.FormatUint(uint64(h.Key.PID), 10)
	start, err := startOf(dir)
	if err != nil {
		return err
	}
	if start != h.Key.Start/nsPerTick {
		return fmt.Errorf("process %d is another one by now: %w", h.Key.PID, unix.ESRCH)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir+"/exe", &st); err != nil {
		return fmt.Errorf("stat program of process %d: %w", h.Key.PID, err)
	}
	if h.ExeIno != 0 && st.Ino != h.ExeIno {
		return fmt.Errorf("process %d runs another program by now: %w", h.Key.PID, unix.ESRCH)
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil {
		return fmt.Errorf("signal process %d: %w", h.Key.PID, err)
	}
	return nil
}

// nsPerTick is the unit of /proc/PID/stat: USER_HZ is 100 on every machine we run on.
const nsPerTick = 10_000_000

// startOf reads when the process of a /proc directory began, in ticks since boot:
// field 22 of stat, the 20th behind the name in parentheses, which may hold anything.
func startOf(dir string) (uint64, error) {
	b, err := os.ReadFile(dir + "/stat")
	if errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("read %s/stat: %w", dir, unix.ESRCH)
	}
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 20 {
		return 0, fmt.Errorf("read %s/stat: cut short", dir)
	}
	start, err := strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s/stat: start: %w", dir, err)
	}
	return start, nil
}
