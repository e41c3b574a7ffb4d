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
	refused := 0
	for range 20000 {
		if rng.IntN(2) == 0 {
			b := make([]byte, rng.IntN(100))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			if h.try(b) {
				want = append(want, b)
			} else {
				refused++
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
	if used != 0 || size != 256 || n != 0 || refused == 0 {
		t.Errorf("%d of %d used, %d dropped, %d refused", used, size, n, refused)
	}
	// Empty, it takes the longest record that fits at all.
	if !h.put(make([]byte, 256-frame)) || h.try(nil) {
		t.Error("room is not what it should be")
	}
	if h.put(make([]byte, 257-frame)) {
		t.Error("it took what can never fit")
	}
}

func TestWhoHandsOverWaitsForRoom(t *testing.T) {
	h := newHandover(256)
	const records = 10000
	go func() {
		for i := range records {
			h.put([]byte{byte(i), byte(i >> 8), 30: 0})
		}
		h.close()
	}()
	for i := 0; i < records; {
		b := h.next()
		if b == nil {
			<-h.ready
			continue
		}
		if got := int(b[0]) | int(b[1])<<8; got != i {
			t.Fatalf("record %d follows record %d", got, i-1)
		}
		h.done()
		i++
	}
	if _, _, n := h.stats(); n != 0 {
		t.Errorf("%d dropped", n)
	}
	h.close()
	for range 20 {
		h.put(make([]byte, 100)) // nobody takes it: it must not wait
	}
	if _, _, n := h.stats(); n == 0 {
		t.Error("nothing is dropped when nobody takes it")
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
	if l := q.later("/t/d/f"); l.Any || len(q.told.paths) != 0 {
		t.Errorf("%+v %v", l, q.told.paths)
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
