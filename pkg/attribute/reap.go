package attribute

import "github.com/holdfast/holdfast/pkg/event"

// Reap looks at up to max running processes whether they still exist, and lets
// those go whose end was never reported. It returns the records of the sessions
// that ended so. Call it every few seconds, and after losses: without losses it
// finds nothing, but costs one look into /proc for each process. now is in
// nanoseconds since boot.
func (t *Table) Reap(now uint64, max int) []*event.Record {
	if t.o.Proc == nil {
		return nil
	}
	for n, i := t.live.First(), 0; n != nil && i < max && i < t.live.Len(); i++ {
		next := n.place.Next()
		n.place.Leave()
		t.live.Push(&n.place, n) // the next call goes on behind it
		if p, err := t.o.Proc(n.key.PID); gone(err) || err == nil && p.Ticks != n.key.Start/nsPerTick {
			t.n.reaped.Add(1)
			t.retire(n, now)
		}
		n = next
	}
	t.gather(now)
	t.expire(now)
	return t.taken()
}
