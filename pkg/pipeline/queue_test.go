package pipeline

import (
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
)

// What is worked on is older than what waits, and not over before it is done with.
func TestTheOldestIsKnownUntilItIsDone(t *testing.T) {
	q := newQueue(4)
	for _, at := range []uint64{5, 9} {
		if !q.put(&item{change: &event.Change{Path: "/f", Op: event.OpChmod, First: at}}) {
			t.Fatal("no room")
		}
	}
	for _, want := range []uint64{5, 9} {
		q.take()
		if at, ok := q.oldest(); !ok || at != want {
			t.Errorf("the oldest is %d %v while %d is worked on", at, ok, want)
		}
		q.done()
	}
	if at, ok := q.oldest(); ok {
		t.Errorf("the oldest is %d when all is done", at)
	}
}

func TestASecondLookThatIsEarlyForWantOfRoomIsCounted(t *testing.T) {
	var d delayed
	for i := range maxDelayed + 2 {
		d.put(uint64(1000+i), &item{})
	}
	for range 5 {
		d.due(500)
	}
	if n := d.hit.Load(); n != 2 {
		t.Errorf("%d were early, want 2", n)
	}
	if it := d.due(1002); it == nil || d.hit.Load() != 2 {
		t.Errorf("what is due in time counts as early: %d", d.hit.Load())
	}
}
