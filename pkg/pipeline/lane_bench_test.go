package pipeline_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/pipeline/pipelinetest"
)

// BenchmarkSmallBesideLarge is the time from the close of a bad write to a small file
// until it is as it was, while a file of 1 GiB beside it was changed just before and is
// read, put back and read again: with large files aside, as by default, and in turn.
func BenchmarkSmallBesideLarge(b *testing.B) {
	const size = 1 << 30
	for name, large := range map[string]uint64{"aside": 0, "in turn": 1 << 62} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			j, err := journal.Open(dir+"/journal", dir+"/keys", journal.Options{HostID: "h", Host: "host", Boot: "b"})
			if err != nil {
				b.Fatal(err)
			}
			s := pipelinetest.NewScene(b, event.ModeRestore)
			s.Options.Journal, s.Options.Large = j, large
			s.Options.FlapLimit, s.Options.Drain = 1<<30, time.Minute
			good := []byte("good")
			s.Do(os.WriteFile(s.At("small"), good, 0o644))
			f, err := os.Create(s.At("large"))
			s.Do(err)
			_, err = io.CopyN(f, rand.NewChaCha8([32]byte{1}), size)
			s.Do(err)
			s.Do(f.Close())
			s.Start()
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				reads := s.P.Stats().Rehash.Reads
				s.Do(s.Actor(7).Write("large", fmt.Sprint("bad ", i), 0))
				for s.P.Stats().Rehash.Reads == reads { // until it is being read
					time.Sleep(time.Millisecond)
				}
				start := time.Now()
				s.Do(s.Actor(8).Write("small", fmt.Sprint("bad ", i), os.O_TRUNC))
				for {
					if now, err := os.ReadFile(s.At("small")); err == nil && bytes.Equal(now, good) {
						break
					}
					time.Sleep(100 * time.Microsecond)
				}
				took = append(took, time.Since(start))
				for s.P.Stats().Waiting > 0 {
					time.Sleep(10 * time.Millisecond)
				}
			}
			s.Stop()
			s.Do(j.Close())
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)-1].Microseconds())/1000, "max-ms")
		})
	}
}
