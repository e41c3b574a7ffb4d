package sense

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/holdfast/holdfast/bpf"
)

// RuleOwn is the ID of the Rule of our own places: what the daemon does there
// makes no event (bpf/maps.h, RULE_OWN).
const RuleOwn = 0xfffff

// The commands of bpf(2) that give a descriptor of an object by its id (linux
// include/uapi/linux/bpf.h).
const (
	progByID = 13
	mapByID  = 14
	linkByID = 30
)

// Guard says whether signals to the daemon, attaching to it, and descriptors of
// its programs, maps and links are refused to others. It does nothing in a tier
// that cannot refuse.
func (s *Sensor) Guard(on bool) error {
	return s.settings(func(c *bpf.TracerSettings) {
		c.Guard = 0
		if on {
			c.Guard = 1
		}
	})
}

// claim tells the kernel side which objects are ours.
func (s *Sensor) claim() error {
	put := func(cmd, id uint32) error {
		if err := s.maps["own"].Put(uint64(cmd)<<32|uint64(id), uint32(1)); err != nil {
			return fmt.Errorf("claim bpf objects: %w", err)
		}
		return nil
	}
	for name, m := range s.maps {
		i, err := m.Info()
		if err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
		if id, ok := i.ID(); ok {
			if err := put(mapByID, uint32(id)); err != nil {
				return err
			}
		}
	}
	for name, p := range s.progs {
		i, err := p.Info()
		if err != nil {
			return fmt.Errorf("program %s: %w", name, err)
		}
		if id, ok := i.ID(); ok {
			if err := put(progByID, uint32(id)); err != nil {
				return err
			}
		}
	}
	for _, l := range s.links {
		if _, err := s.claimLink(l); err != nil {
			return err
		}
	}
	return nil
}

// claimLink returns the key under which a link is claimed, 0 if it has none.
func (s *Sensor) claimLink(l link.Link) (key uint64, err error) {
	i, err := l.Info()
	if errors.Is(err, ebpf.ErrNotSupported) {
		return 0, nil // a link of a kind that has no id cannot be had by one
	}
	if err != nil {
		return 0, fmt.Errorf("link: %w", err)
	}
	key = uint64(linkByID)<<32 | uint64(i.ID)
	if err := s.maps["own"].Put(key, uint32(1)); err != nil {
		return 0, fmt.Errorf("claim bpf objects: %w", err)
	}
	return key, nil
}

// Attempts gives handle an event for each process that went on reaching for the
// daemon after that was told, at least age ns before now (CLOCK_BOOTTIME): it
// counts what was tried since. What is tried while this runs may be in the
// counters of the hook alone.
func (s *Sensor) Attempts(now, age uint64, handle func(raw []byte)) error {
	var k bpf.TracerReach
	var v bpf.TracerAttempt
	var due []bpf.TracerReach
	m := s.maps["attempts"]
	for it := m.Iterate(); it.Next(&k, &v); {
		if v.Body.Count > 0 && v.Body.Opener+age <= now {
			due = append(due, k)
		}
	}
	for _, k := range due {
		raw, err := m.LookupBytes(&k)
		if err != nil {
			return fmt.Errorf("read attempts: %w", err)
		}
		if raw == nil {
			continue // pushed out meanwhile
		}
		if err := m.Delete(&k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("read attempts: %w", err)
		}
		handle(raw)
	}
	return nil
}
