package journal

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"
)

// BenchmarkAppend is the sustained rate of durable, signed records: the clock stops when all are.
func BenchmarkAppend(b *testing.B) {
	l := newLog(b)
	j := l.open()
	r := sample(1)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		for {
			_, err := j.Append(r)
			if err == nil {
				break
			}
			if !errors.Is(err, ErrFull) {
				b.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
	}
	l.sync(j)
	b.StopTimer()
	s := j.Stats()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(s.Bytes)/float64(b.N), "bytes/record")
	b.ReportMetric(float64(b.N)/float64(s.Commits), "records/commit")
	l.close(j)
}

// BenchmarkAppendDurableByMany is the rate of critical records that come at once and share commits.
func BenchmarkAppendDurableByMany(b *testing.B) {
	l := newLog(b)
	j := l.open()
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		r := sample(1)
		for p.Next() {
			if _, err := j.AppendDurable(context.Background(), r); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
	l.close(j)
}

func BenchmarkAppendDurable(b *testing.B) {
	l := newLog(b)
	j := l.open()
	r := sample(1)
	took := make([]time.Duration, 0, b.N)
	b.ResetTimer()
	for range b.N {
		t := time.Now()
		if _, err := j.AppendDurable(context.Background(), r); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(t))
	}
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	l.close(j)
}

// BenchmarkAppendDurableUnderLoad is how long a critical record waits for the disk while 100,000 others a second are appended.
func BenchmarkAppendDurableUnderLoad(b *testing.B) {
	l := newLog(b)
	j := l.open()
	ctx, cancel := context.WithCancel(context.Background())
	var load sync.WaitGroup
	var others, full uint64
	load.Go(func() {
		r := sample(1)
		began := time.Now()
		for ctx.Err() == nil {
			for due := uint64(time.Since(began).Seconds() * 100_000); others < due; {
				if _, err := j.Append(r); err != nil {
					full++
					break
				}
				others++
			}
			time.Sleep(time.Millisecond)
		}
	})
	took := make([]time.Duration, 0, b.N)
	r := sample(2)
	b.ResetTimer()
	for range b.N {
		t := time.Now()
		if _, err := j.AppendDurable(ctx, r); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(t))
		time.Sleep(time.Millisecond)
	}
	b.StopTimer()
	cancel()
	load.Wait()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(others)/b.Elapsed().Seconds(), "others/s")
	b.ReportMetric(float64(full), "refused")
	l.close(j)
}

func BenchmarkRead(b *testing.B) {
	l := newLog(b)
	l.fill(20000)
	b.ResetTimer()
	n := 0
	for n < b.N {
		n += len(l.read())
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkVerify(b *testing.B) {
	l := newLog(b)
	l.fill(20000)
	b.ResetTimer()
	for range b.N {
		if sum, err := Verify(context.Background(), l.dir, "", nil); err != nil || !sum.OK() {
			b.Fatal(sum, err)
		}
	}
	b.ReportMetric(20000*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkOpen is the start on a log whose last segment is full.
func BenchmarkOpen(b *testing.B) {
	l := newLog(b)
	l.fill(70000)
	b.ResetTimer()
	for range b.N {
		l.close(l.open())
	}
}

func BenchmarkEncode(b *testing.B) {
	r := sample(1)
	b.ReportAllocs()
	for range b.N {
		if _, err := Encode(r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	e, err := Encode(sample(1))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for range b.N {
		if _, err := Decode(e); err != nil {
			b.Fatal(err)
		}
	}
}
