package storetest

import (
	"os"
	"sync"
	"syscall"
)

// Faults counts the steps that change a disk and makes one of them, or all from
// one on, fail. Its method Before goes into cas.Disk. The zero value lets all
// pass.
type Faults struct {
	mu    sync.Mutex
	steps []string
	at    int // from 1; 0: never
	last  int
	err   error
	kill  bool
}

// Fail makes step n (from 1) fail with err.
func (f *Faults) Fail(n int, err error) { f.arm(n, n, err, false) }

// FailFrom makes step n and all after it fail with err.
func (f *Faults) FailFrom(n int, err error) { f.arm(n, 1<<62, err, false) }

// Kill makes the process die, as by kill -9, instead of step n.
func (f *Faults) Kill(n int) { f.arm(n, n, nil, true) }

func (f *Faults) arm(n, last int, err error, kill bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.steps, f.at, f.last, f.err, f.kill = nil, n, last, err, kill
}

// Before is for cas.Disk.
func (f *Faults) Before(op, object string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.steps = append(f.steps, op+" "+object)
	if n := len(f.steps); f.at == 0 || n < f.at || n > f.last {
		return nil
	}
	if f.kill {
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			return err
		}
		select {} // the signal takes the process
	}
	return f.err
}

// Steps returns the steps since the faults were set, "op object" each.
func (f *Faults) Steps() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.steps...)
}
