package pipeline

import (
	"container/heap"
	"sync/atomic"
)

// delayed are items for later, soonest first; but for n it belongs to the slow side.
type delayed struct {
	list timed
	n    atomic.Int64  // of items
	hit  atomic.Uint64 // times that an item was due early for want of room
}

type timedItem struct {
	at uint64
	n  uint64 // order among equals
	it *item
}

type timed struct {
	items []timedItem
	n     uint64
}

func (t *timed) Len() int { return len(t.items) }
func (t *timed) Less(i, j int) bool {
	a, b := &t.items[i], &t.items[j]
	return a.at < b.at || a.at == b.at && a.n < b.n
}
func (t *timed) Swap(i, j int) { t.items[i], t.items[j] = t.items[j], t.items[i] }
func (t *timed) Push(x any)    { t.items = append(t.items, x.(timedItem)) }
func (t *timed) Pop() any {
	last := len(t.items) - 1
	x := t.items[last]
	t.items[last] = timedItem{}
	t.items = t.items[:last]
	return x
}

// maxDelayed bounds the items; beyond it the soonest become due at once.
const maxDelayed = 1 << 16

func (d *delayed) put(at uint64, it *item) {
	d.list.n++
	heap.Push(&d.list, timedItem{at, d.list.n, it})
	d.n.Add(1)
}

// due returns the soonest item if its time has come, or if there are too many.
func (d *delayed) due(now uint64) *item {
	if len(d.list.items) == 0 || d.list.items[0].at > now && len(d.list.items) <= maxDelayed {
		return nil
	}
	if d.list.items[0].at > now {
		d.hit.Add(1)
	}
	d.n.Add(-1)
	return heap.Pop(&d.list).(timedItem).it
}

func (d *delayed) next() (uint64, bool) {
	if len(d.list.items) == 0 {
		return 0, false
	}
	return d.list.items[0].at, true
}
