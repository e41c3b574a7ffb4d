package attribute

import (
	"errors"
	"time"
)

const (
	procLimit = 250 * time.Millisecond
	hashLimit = 5 * time.Second
	maxStuck  = 64
)

var (
	errSlow = errors.New("gave up waiting for the process")
	errBusy = errors.New("too many processes keep us waiting")
)

// guard counts the goroutines that wait for what a process decides about.
type guard struct{ slots chan struct{} }

func newGuard() *guard { return &guard{slots: make(chan struct{}, maxStuck)} }

// within runs f and waits for it no longer than limit.
func within[T any](g *guard, limit time.Duration, f func() (T, error)) (T, error) {
	var none T
	select {
	case g.slots <- struct{}{}:
	default:
		return none, errBusy
	}
	type answer struct {
		v   T
		err error
	}
	c := make(chan answer, 1)
	go func() {
		v, err := f()
		<-g.slots
		c <- answer{v, err}
	}()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case a := <-c:
		return a.v, a.err
	case <-t.C:
		return none, errSlow
	}
}
