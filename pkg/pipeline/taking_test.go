package pipeline_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/pipeline/pipelinetest"
)

// An undo of many files syncs them all before it is over: longer than the second look
// at our own events waits.
func TestWhatAnUndoChangesHasNoRecordOfTheStagesHoweverLongItTakes(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeObserve)
	plant(s)
	s.Start()
	done := s.P.Taking([]string{s.At("f")})
	s.Do(s.Actor(pipelinetest.Self).Write("f", "as it was", os.O_TRUNC))
	time.Sleep(200 * time.Millisecond) // four times SelfDelay
	s.Do(s.Actor(7).Write("d/x", "theirs", os.O_TRUNC))
	s.Wait("the record of the other", func(r []event.Record) bool { return len(changes(r)) == 1 })
	if err := s.P.Took(t.Context(), []string{s.At("f")}); err != nil {
		t.Fatal(err)
	}
	done()
	s.Do(s.Actor(pipelinetest.Self).Write("f", "forged", os.O_TRUNC))
	all := s.Wait("the record of a change behind it", func(r []event.Record) bool { return len(changes(r)) >= 2 })
	s.Stop()
	if len(changes(all)) != 2 || all[0].Process.PID != 7 {
		t.Errorf("%v", changes(all))
	}
}

func TestAllThatCameWithADirectoryIsOfWhoBroughtIt(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeObserve)
	plant(s)
	s.Start()
	s.Do(errors.Join(os.MkdirAll(s.Outside+"/o/p/q", 0o755), os.WriteFile(s.Outside+"/o/p/q/r", []byte("r"), 0o600)))
	s.Do(s.Actor(7).MoveIn("o", "n"))
	all := s.Wait("the records", func(r []event.Record) bool { return len(changes(r)) == 4 })
	s.Stop()
	for _, r := range all {
		if r.Process == nil || r.Process.PID != 7 {
			t.Errorf("%s is by %+v", r.Path, r.Process)
		}
	}
}
