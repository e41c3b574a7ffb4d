package pipeline

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
)

func TestTheHandoverGivesBackWhatWasPutInOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	h := newHandover(256)
	var want [][]byte // a plain queue is the truth
	dropped := uint64(0)
	for range 20000 {
		if rng.IntN(2) == 0 {
			b := make([]byte, rng.IntN(100))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			if h.put(b) {
				want = append(want, b)
			} else {
				dropped++
			}
			continue
		}
		got := h.next()
		if len(want) == 0 {
			if got != nil {
				t.Fatalf("%x out of nothing", got)
			}
			continue
		}
		if !bytes.Equal(got, want[0]) {
			t.Fatalf("got %x, want %x", got, want[0])
		}
		want = want[1:]
		h.done()
	}
	for len(want) > 0 {
		if !bytes.Equal(h.next(), want[0]) {
			t.Fatal("the rest differs")
		}
		want = want[1:]
		h.done()
	}
	used, size, n := h.stats()
	if used != 0 || size != 256 || n != dropped || dropped == 0 {
		t.Errorf("%d of %d used, %d dropped, want %d", used, size, n, dropped)
	}
	// Empty, it takes the longest record that fits at all.
	if !h.put(make([]byte, 256-frame)) || h.put(nil) {
		t.Error("room is not what it should be")
	}
}

func TestTheHandoverDoesNotAllocate(t *testing.T) {
	h := newHandover(4096)
	b := make([]byte, 200)
	if n := testing.AllocsPerRun(100, func() {
		h.put(b)
		h.next()
		h.done()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestTheQueueKnowsWhatIsToComeForAPath(t *testing.T) {
	q := newQueue(8)
	write := &event.Change{Path: "/t/d/f", Op: event.OpWrite, Ops: []event.Op{event.OpWrite}, First: 5}
	chmod := &event.Change{Path: "/t/d/f", Op: event.OpChmod, Ops: []event.Op{event.OpChmod}, First: 6}
	move := &event.Change{Path: "/t/d", PathTo: "/t/e", Op: event.OpRename, Ops: []event.Op{event.OpRename}, First: 7}
	for _, c := range []*event.Change{write, chmod, move} {
		if !q.put(&item{change: c}) {
			t.Fatal("no room")
		}
	}
	l := q.later("/t/d/f")
	if !l.Content || !l.Meta || !l.Name || l.MovedTo != "/t/e/f" || l.First != 5 {
		t.Errorf("%+v", l)
	}
	q.take()
	q.take()
	if l := q.later("/t/d/f"); l.Content || l.Meta || !l.Name || l.First != 7 {
		t.Errorf("%+v", l)
	}
	q.take()
	if l := q.later("/t/d/f"); l.Any || len(q.paths) != 0 {
		t.Errorf("%+v %v", l, q.paths)
	}
}

func TestAFullQueueRefusesAndCounts(t *testing.T) {
	q := newQueue(2)
	var ok []bool
	for range 3 {
		ok = append(ok, q.put(&item{}))
	}
	if n, dropped := q.stats(); !slices.Equal(ok, []bool{true, true, false}) || n != 2 || dropped != 1 {
		t.Errorf("%v %d %d", ok, n, dropped)
	}
}
