package coalesce

// timer is one thing that is due at a time: a change to settle, or an opener to
// look at again.
type timer struct {
	at  uint64
	pos int // index in the heap, -1 if not in it
	e   *entry
	o   *opener
}

// heap orders timers by time.
type heap []*timer

// set puts t into the heap at a time, or moves it there.
func (h *heap) set(t *timer, at uint64) {
	if t.pos < 0 {
		t.at, t.pos = at, len(*h)
		*h = append(*h, t)
		h.up(t.pos)
		return
	}
	earlier := at < t.at
	t.at = at
	if earlier {
		h.up(t.pos)
	} else {
		h.down(t.pos)
	}
}

// drop takes t out.
func (h *heap) drop(t *timer) {
	i := t.pos
	if i < 0 {
		return
	}
	last := len(*h) - 1
	h.swap(i, last)
	(*h)[last] = nil
	*h = (*h)[:last]
	t.pos = -1
	if i < last {
		h.down(i)
		h.up(i)
	}
}

func (h heap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

func (h heap) up(i int) {
	for i > 0 {
		p := (i - 1) / 2
		if h[p].at <= h[i].at {
			return
		}
		h.swap(i, p)
		i = p
	}
}

func (h heap) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && h[c+1].at < h[c].at {
			c++
		}
		if h[i].at <= h[c].at {
			return
		}
		h.swap(i, c)
		i = c
	}
}
