package pipeline_test

import (
	"os"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/pipeline/pipelinetest"
)

// When nothing waits, all that was told has its record: wherever on its way a
// change is, it counts. So it is asked without a pause while changes go through.
func TestWhenNothingWaitsAllIsRecorded(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeObserve)
	s.Do(os.WriteFile(s.At("f"), nil, 0o600))
	s.Options.Grace = time.Millisecond
	s.Start()
	a := s.Actor(7)
	for i := range uint64(300) {
		s.Do(a.Simple(event.OpChmod, "f", func(full string) error { return os.Chmod(full, 0o600+os.FileMode(i%2+1)) }))
		for s.P.Stats().Waiting > 0 {
			continue
		}
		if n := s.P.Stats().Changes; n != i+1 {
			t.Fatalf("nothing waits after %d changes, %d are recorded", i+1, n)
		}
	}
}
