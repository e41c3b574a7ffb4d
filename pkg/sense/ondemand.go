package sense

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// linger is how long a program stays attached after the last reason for it has
// gone: a reason that comes back soon costs nothing, and one that is found out a
// little late finds the program still there.
const linger = 5 * time.Second

// Demand is a program that is attached only while there is a reason to, as status
// shows it.
type Demand struct {
	Program  string
	Attached bool
	Reasons  []string // why it is needed now
	Times    uint64   // it was attached
	Err      error    // of the last attempt to attach it
}

// demands are the programs that are attached on demand, by the names of table().
type demands struct {
	mu     sync.Mutex // guards all below
	progs  map[string]*demand
	closed bool
}

type demand struct {
	attach  func() (attached, error)
	link    attached // nil: not attached
	reasons map[string]bool
	idle    *time.Timer // detaches it, nil if none is set
	idles   int         // how many were set
	times   uint64
	err     error
}

// attached is what an attached program is ended by.
type attached interface{ Close() error }

// claimed is an attached program that nobody else may lay hands on (hooks/guard.h).
type claimed struct {
	link.Link
	own *ebpf.Map
	key uint64 // in own, 0 if it has none
}

// Close detaches the program. Its key goes first: the number may be given anew.
func (c *claimed) Close() error {
	var err error
	if c.key != 0 {
		err = c.own.Delete(c.key)
	}
	return errors.Join(err, c.Link.Close())
}

// demand makes a loaded program one that is attached on demand.
func (s *Sensor) demand(p program, prog *ebpf.Program) {
	s.demands.add(strings.TrimPrefix(p.name, "m_"), func() (attached, error) {
		l, err := attachProgram(prog, p.how)
		if err != nil {
			return nil, err
		}
		key, err := s.claimLink(l)
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		return &claimed{Link: l, own: s.maps["own"], key: key}, nil
	})
}

// add takes a loaded program that is not attached yet.
func (d *demands) add(name string, attach func() (attached, error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.progs == nil {
		d.progs = make(map[string]*demand)
	}
	d.progs[name] = &demand{attach: attach, reasons: make(map[string]bool)}
}

// Need says that a program is needed, and why; when it returns, the program is
// attached and stays so until Done has been called for each reason. A program that
// this tier or kernel does not have, or that is always attached, is no error.
func (s *Sensor) Need(program, reason string) error {
	s.demands.mu.Lock()
	defer s.demands.mu.Unlock()
	d := s.demands.progs[program]
	if d == nil || s.demands.closed {
		return nil
	}
	d.reasons[reason] = true
	if d.idle != nil {
		d.idle.Stop()
		d.idle = nil
	}
	if d.link != nil {
		return nil
	}
	if d.link, d.err = d.attach(); d.err != nil {
		d.link = nil
		return fmt.Errorf("attach %s: %w", program, d.err)
	}
	d.times++
	return nil
}

// Has reports whether a program is loaded, by its name in the table.
func (s *Sensor) Has(program string) bool {
	return s.progs[program] != nil || s.progs["m_"+program] != nil
}

// Done takes a reason back. Behind the last one the program is detached after a
// little while.
func (s *Sensor) Done(program, reason string) {
	s.demands.mu.Lock()
	defer s.demands.mu.Unlock()
	d := s.demands.progs[program]
	if d == nil || !d.reasons[reason] {
		return
	}
	delete(d.reasons, reason)
	if len(d.reasons) > 0 || d.link == nil || s.demands.closed {
		return
	}
	d.idles++
	nth := d.idles
	d.idle = time.AfterFunc(linger, func() { s.demands.detach(d, nth) })
}

// detach ends the nth idle time of a program, unless Need came before.
func (d *demands) detach(x *demand, nth int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if x.idle == nil || x.idles != nth || x.link == nil {
		return
	}
	x.err = x.link.Close()
	x.link, x.idle = nil, nil
}

// OnDemand lists the programs that are attached on demand.
func (s *Sensor) OnDemand() []Demand {
	s.demands.mu.Lock()
	defer s.demands.mu.Unlock()
	var out []Demand
	for _, name := range slices.Sorted(maps.Keys(s.demands.progs)) {
		d := s.demands.progs[name]
		out = append(out, Demand{
			Program: name, Attached: d.link != nil, Reasons: slices.Sorted(maps.Keys(d.reasons)), Times: d.times, Err: d.err,
		})
	}
	return out
}

// close detaches everything for good.
func (d *demands) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	var first error
	for _, x := range d.progs {
		if x.idle != nil {
			x.idle.Stop()
			x.idle = nil
		}
		if x.link == nil {
			continue
		}
		if err := x.link.Close(); err != nil && first == nil {
			first = err
		}
		x.link = nil
	}
	return first
}

// attachProgram attaches a loaded program by way of how.
func attachProgram(prog *ebpf.Program, how how) (link.Link, error) {
	if how == byLSM {
		return link.AttachLSM(link.LSMOptions{Program: prog})
	}
	return link.AttachTracing(link.TracingOptions{Program: prog})
}
