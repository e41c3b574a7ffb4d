package sense

import (
	"errors"
	"fmt"

	"github.com/holdfast/holdfast/bpf"
)

// ErrNoScan says that this kernel takes no program that finds what is held.
var ErrNoScan = errors.New("the kernel takes no program that finds it")

// CanScan reports whether Scan finds mappings on this kernel.
func (s *Sensor) CanScan() bool { return s.progs[s.mapsScan()] != nil }

// mapsScan names the program that finds mappings here.
func (s *Sensor) mapsScan() string {
	if s.progs["held_maps"] == nil {
		return "held_maps_list"
	}
	return "held_maps"
}

// Scan sends an event for each way in which a process can change a watched file
// without opening it again (KindHeld): descriptors, and behind the last one an
// event without an operation; then shared mappings, and the same. With arming,
// descriptors are left out whose opening was told by an event, and all events say
// FlagFirst. number comes back as Arg of all of them; it is the boot time, in ns,
// at which the scan begins.
//
// It may be called beside everything else. It costs a look at every descriptor
// and every mapping of the machine.
func (s *Sensor) Scan(number uint64, arming bool) error {
	s.armMu.Lock()
	defer s.armMu.Unlock()
	err := s.settings(func(c *bpf.TracerSettings) {
		c.Scan, c.Arming = number, 0
		if arming {
			c.Arming = 1
		}
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range []string{"held_files", s.mapsScan()} {
		if s.progs[name] == nil {
			errs = append(errs, fmt.Errorf("scan by %s: %w", name, ErrNoScan))
			continue
		}
		_, err := s.iterate(name)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
