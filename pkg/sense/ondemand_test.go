package sense

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// plug counts how often a program was attached and detached.
type plug struct {
	in, out int
	err     error
}

func (p *plug) Close() error { p.out++; return nil }

func (p *plug) attach() (attached, error) {
	if p.err != nil {
		return nil, p.err
	}
	p.in++
	return p, nil
}

func TestAProgramIsAttachedWhileThereIsAReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Sensor
		var p plug
		s.demands.add("file_permission", p.attach)
		is := func(when string, in, out int) {
			t.Helper()
			synctest.Wait()
			if p.in != in || p.out != out {
				t.Errorf("%s: attached %d times, detached %d times; want %d and %d", when, p.in, p.out, in, out)
			}
			d := s.OnDemand()[0]
			if d.Attached != (in > out) || d.Times != uint64(in) {
				t.Errorf("%s: status says %+v", when, d)
			}
		}
		need := func(reason string) {
			t.Helper()
			if err := s.Need("file_permission", reason); err != nil {
				t.Fatal(err)
			}
		}
		is("at first", 0, 0)
		need("a")
		is("needed", 1, 0)
		need("b")
		need("a")
		s.Done("file_permission", "a")
		time.Sleep(2 * linger)
		is("one of two reasons gone", 1, 0)
		if got := s.OnDemand()[0].Reasons; !slices.Equal(got, []string{"b"}) {
			t.Errorf("reasons %q, want b", got)
		}
		s.Done("file_permission", "never said")
		s.Done("file_permission", "b")
		time.Sleep(linger - 1)
		is("just after the last reason", 1, 0)
		need("c") // before it was detached
		time.Sleep(2 * linger)
		is("needed again in time", 1, 0)
		s.Done("file_permission", "c")
		time.Sleep(linger)
		is("after the pause", 1, 1)
		need("c")
		is("needed once more", 2, 1)
		if err := s.demands.close(); err != nil {
			t.Fatal(err)
		}
		need("d")
		is("closed", 2, 2)
	})
}

func TestAProgramThatCannotBeAttachedIsTriedAgain(t *testing.T) {
	var s Sensor
	p := plug{err: errors.New("no")}
	s.demands.add("x", p.attach)
	if err := s.Need("x", "a"); !errors.Is(err, p.err) {
		t.Errorf("need: %v, want the error", err)
	}
	if d := s.OnDemand()[0]; d.Attached || !errors.Is(d.Err, p.err) {
		t.Errorf("status says %+v", d)
	}
	p.err = nil
	if err := s.Need("x", "a"); err != nil || p.in != 1 {
		t.Errorf("need again: %v, attached %d times", err, p.in)
	}
	if err := s.Need("always there", "a"); err != nil {
		t.Errorf("a program that is always attached: %v", err)
	}
}
