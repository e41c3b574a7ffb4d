package pipeline_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/pipeline/pipelinetest"
)

// TestInAMassChangeAllIsPutBackAndNothingBecomesTrusted has many files changed at
// once, and an allowed program among those who do it.
func TestInAMassChangeAllIsPutBackAndNothingBecomesTrusted(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeRestore)
	s.Options.StormLimit, s.Options.StormWindow = 10, 3*time.Second
	plant(s)
	s.Start()
	a := s.Actor(7)
	const files = 30
	for i := range files {
		s.Do(a.Write(fmt.Sprint("encrypted", i), "bad", os.O_CREATE))
	}
	s.Wait("all answers", func(r []event.Record) bool { return len(outcomes(r)) == files })
	if !s.P.Storm().On {
		t.Fatal("no storm")
	}
	good := digest.Sum([]byte("good"))
	allowed := s.Actor(8)
	allowed.Flags = event.FlagAllowed
	s.Do(allowed.Write("f", "release", os.O_TRUNC))
	s.Wait("the allowed change", func(r []event.Record) bool {
		return len(r) > 0 && r[len(r)-1].Verdict == event.VerdictPromoted || r[len(r)-1].Verdict == event.VerdictExpected
	})
	time.Sleep(100 * time.Millisecond) // its version comes after its record
	if v, ok := s.Store.Trusted(s.At("f")); !ok || v.State.Hash != good {
		t.Errorf("trusted during the storm: %+v", v.State)
	}
	begun, over := 0, 0
	s.Wait("the end of the storm", func(all []event.Record) bool {
		begun, over = 0, 0
		for i := range all {
			if all[i].Kind == event.RecAgent && all[i].Op == "storm" {
				if begun == 0 {
					begun = i + 1
				} else {
					over = i + 1
				}
			}
		}
		return over > 0
	})
	if v, ok := s.Store.Trusted(s.At("f")); !ok || v.State.Hash != digest.Sum([]byte("release")) {
		t.Errorf("trusted after the storm: %+v", v.State)
	}
	for i := range files {
		if _, err := os.Lstat(s.At(fmt.Sprint("encrypted", i))); err == nil {
			t.Errorf("file %d is still there", i)
		}
	}
	if s.P.Storm().On {
		t.Error("the storm is not over")
	}
}
