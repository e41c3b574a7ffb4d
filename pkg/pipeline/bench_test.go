package pipeline_test

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/pipeline/pipelinetest"
)

// BenchmarkCloseToRestored is the time from the close of a bad write to the
// recorded restore, with the real journal and vault on the disk of TMPDIR.
func BenchmarkCloseToRestored(b *testing.B) {
	dir := b.TempDir()
	j, err := journal.Open(dir+"/journal", dir+"/keys", journal.Options{HostID: "h", Host: "host", Boot: "b"})
	if err != nil {
		b.Fatal(err)
	}
	s := pipelinetest.NewScene(b, event.ModeRestore)
	s.Options.Journal = j
	s.Options.FlapLimit = 1 << 30
	s.Do(os.WriteFile(s.At("f"), make([]byte, 4096), 0o644))
	s.Start()
	a := s.Actor(7)
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		s.Do(a.Write("f", fmt.Sprint("bad ", i), os.O_TRUNC))
		start := time.Now()
		for s.P.Stats().Respond.Done <= uint64(i) {
			time.Sleep(50 * time.Microsecond)
		}
		took = append(took, time.Since(start))
	}
	s.Stop()
	s.Do(j.Close())
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkObservedChanges is the whole path without a restore: create, write
// and close of small files, recorded in memory.
func BenchmarkObservedChanges(b *testing.B) {
	s := pipelinetest.NewScene(b, event.ModeObserve)
	s.Options.Queue = 1 << 20
	s.Options.HandoverBytes = 64 << 20
	s.Start()
	a := s.Actor(7)
	n := 0
	for ; b.Loop(); n++ {
		s.Do(a.Write(fmt.Sprint(n), "x", os.O_CREATE))
	}
	for s.P.Stats().Changes < uint64(n) {
		time.Sleep(time.Millisecond)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "changes/s")
}
