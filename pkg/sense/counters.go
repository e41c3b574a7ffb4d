package sense

import (
	"fmt"

	"github.com/holdfast/holdfast/bpf"
)

// Counters are what the kernel side did at one hook since it was loaded. They
// add up: Seen = Skipped + Folded + Blocked + Sent + Lost + Failed + Deep.
type Counters struct {
	Hook    string
	Seen    uint64
	Skipped uint64 // not watched, or failed by itself
	Folded  uint64 // counted into an event that is sent later
	Blocked uint64 // refused, and sent
	Sent    uint64
	Lost    uint64 // no room in the ring
	Failed  uint64 // no room to put the event together, or a system call of another ABI
	Deep    uint64 // of a request of io_uring, or deeper on a watched file system than the kernel side looks up: not known whether watched
}

// Counters reads the counters of all hooks that fired.
func (s *Sensor) Counters() ([]Counters, error) {
	var out []Counters
	for i := range hookNames() {
		var cpus []bpf.TracerCounters
		k := uint32(i)
		if err := s.maps["stats"].Lookup(&k, &cpus); err != nil {
			return nil, fmt.Errorf("read kernel counters: %w", err)
		}
		c := Counters{Hook: HookName(uint16(i))}
		for _, v := range cpus {
			c.Seen += v.Seen
			c.Skipped += v.Skipped
			c.Folded += v.Folded
			c.Blocked += v.Blocked
			c.Sent += v.Sent
			c.Lost += v.Lost
			c.Failed += v.Failed
			c.Deep += v.Deep
		}
		if c != (Counters{Hook: c.Hook}) {
			out = append(out, c)
		}
	}
	return out, nil
}

// Losses are the counts of Counters that mean that something may be missing.
type Losses struct {
	Ring   []uint64 // by CPU
	Failed uint64
	Deep   uint64
	Rings  uint64 // requests of io_uring of which no event tells
}

// Losses reads them; it is cheap enough to be asked each second.
func (s *Sensor) Losses() (Losses, error) {
	var l Losses
	var streams []bpf.TracerStream
	k := uint32(0)
	if err := s.maps["streams"].Lookup(&k, &streams); err != nil {
		return l, fmt.Errorf("read kernel counters: %w", err)
	}
	for _, st := range streams {
		l.Ring = append(l.Ring, st.Lost)
	}
	hooks, err := s.Counters()
	for _, h := range hooks {
		l.Failed += h.Failed
		if h.Hook == HookRing {
			l.Rings = h.Deep
		} else {
			l.Deep += h.Deep
		}
	}
	return l, err
}

// Waiting reports whether a record waits in the ring, or is in the hands of Run: one
// that has left the ring is not with handle yet, and may be long on its way there
// when the machine is busy.
func (s *Sensor) Waiting() bool {
	return s.reader.AvailableBytes() > 0 || s.inHand.Load()
}

// RingUse returns how many bytes wait in the ring, and its size.
func (s *Sensor) RingUse() (used, size int) {
	return s.reader.AvailableBytes(), s.reader.BufferSize()
}
