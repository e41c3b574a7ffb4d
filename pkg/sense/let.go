package sense

import (
	"fmt"
	"maps"

	"github.com/holdfast/holdfast/bpf"
)

// Person is somebody whom a rule in block mode lets through: who logged in with
// this loginuid.
type Person struct {
	Rule     int // Rule.ID
	Loginuid uint32
}

// personBit of a key's rule says that its inode is a loginuid (bpf/rules.h, PERSON).
const personBit = 1 << 32

// LetIn makes the persons whom rules let through those that are listed, in place of
// those listed before: first come the new ones. Mounts, devices and directories above a
// watched path stay refused to them. The error is one of the kernel's; another call
// begins with what was done.
func (s *Sensor) LetIn(persons []Person) error {
	s.armMu.Lock()
	defer s.armMu.Unlock()
	now := make(map[bpf.TracerExeKey]uint32)
	for _, p := range persons {
		now[bpf.TracerExeKey{Inode: uint64(p.Loginuid), Rule: personBit | uint64(p.Rule)}] = 1
	}
	old := s.persons
	if maps.Equal(old, now) {
		return nil
	}
	s.persons = maps.Clone(now)
	maps.Copy(s.persons, old)
	if err := put(s.maps["allowed"], now); err != nil {
		return fmt.Errorf("let people in: %w", err)
	}
	if err := drop(s.maps["allowed"], old, now); err != nil {
		return fmt.Errorf("shut people out: %w", err)
	}
	s.persons = now
	return nil
}
