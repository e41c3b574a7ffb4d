package cas_test

import (
	"testing"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/cas"
	"github.com/holdfast/holdfast/rollback/storetest"
)

// TestWhatSomebodyCountsOnIsNotRemoved: a content that was found stored, and the
// chunks in the hands of a Writer.
func TestWhatSomebodyCountsOnIsNotRemoved(t *testing.T) {
	s := open(t, storetest.Temp(t), cas.Options{})
	put := func(text string) event.Hash {
		h := digest.Sum([]byte(text))
		if err := s.Put(h, []byte(text)); err != nil {
			t.Fatal(err)
		}
		return h
	}
	remove := func(what string, h event.Hash, want bool) {
		t.Helper()
		if got, err := s.RemoveUnclaimed(h); err != nil || got != want || has(t, s, h) == want {
			t.Errorf("%s: removed %v, %v; it is there: %v", what, got, err, has(t, s, h))
		}
	}
	again, once := put("again"), put("once")
	long := noise(2<<20, 5)
	parts, err := s.Parts(putLong(t, s, long))
	if err != nil {
		t.Fatal(err)
	}
	before := s.NewWriter()
	if _, err := before.Write(long); err != nil {
		t.Fatal(err)
	}
	waits := put("not flushed")
	s.Watch()
	put("again")
	remove("found stored since the watch began", again, false)
	remove("found by nobody", once, true)
	remove("not durable yet", waits, false)
	remove("a chunk that a writer has since before", parts[0], false)
	h := digest.Sum(long[:len(long)-1])
	w := s.NewWriter()
	if _, err := w.Write(long[:len(long)-1]); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(h); err != nil {
		t.Fatal(err)
	}
	if err := before.Abort(); err != nil {
		t.Fatal(err)
	}
	remove("a chunk of a list since the watch began", parts[0], false)
	s.Unwatch()
	if _, err := s.Check(h); err != nil {
		t.Error(err)
	}
	s.Watch()
	remove("found by nobody in a second watch", again, true)
	s.Unwatch()
}
