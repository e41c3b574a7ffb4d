package rollback

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/storetest"
)

// BenchmarkUndo takes back a session of 10,000 changes, durable and read back: of
// 4 KiB files half were overwritten, a quarter deleted, and a quarter made. The
// peer is cp -a of the 7,500 files that come back, with a sync.
func BenchmarkUndo(b *testing.B) {
	const changes = 10_000
	for b.Loop() {
		base := storetest.Disk(b)
		files := filepath.Join(base, "files")
		mkdirs(b, files)
		s := open1(b, filepath.Join(base, "vault"), Options{})
		content := benchBytes(b, 4096)
		name := func(i int) string { return filepath.Join(files, fmt.Sprint(i%100), fmt.Sprint(i)) }
		fill := func(i int, text string) {
			copy(content, fmt.Sprintf("%s%08d", text, i))
			if err := os.WriteFile(name(i), content, 0o644); err != nil {
				b.Fatal(err)
			}
		}
		for d := range 100 {
			mkdirs(b, filepath.Join(files, fmt.Sprint(d)))
		}
		before := make([]event.State, changes)
		for i := range changes {
			if i%4 != 3 {
				fill(i, "good")
				before[i] = capture(b, s, name(i)).State
			}
		}
		sync1(b, s)
		storetest.Run(b, "sync", "-f", base)
		start := time.Now()
		storetest.Sh(b, `cp -a "$1" "$1.copy"; sync -f "$1.copy"`, files)
		copied := time.Since(start)
		var recs []*event.Record
		for i := range changes {
			op := "write"
			switch i % 4 {
			case 2:
				op = "unlink"
				if err := os.Remove(name(i)); err != nil {
					b.Fatal(err)
				}
			case 3:
				op = "create"
				fill(i, "evil")
			default:
				fill(i, "evil")
			}
			v, err := s.Capture(b.Context(), name(i), Provenance{})
			if err != nil {
				b.Fatal(err)
			}
			recs = append(recs, &event.Record{Kind: event.RecChange, Op: op, ID: fmt.Sprint(i), Seq: uint64(i + 1), Time: v.Time,
				Path: name(i), Before: &before[i], After: &v.State})
		}
		sync1(b, s)
		storetest.Run(b, "sync", "-f", base)
		start = time.Now()
		plan, err := s.PlanUndo(b.Context(), recs, nil, UndoOptions{})
		if err != nil || len(plan.Steps) != changes || len(plan.Conflicts) > 0 {
			b.Fatal(len(plan.Steps), len(plan.Conflicts), err)
		}
		planned := time.Since(start)
		if err := s.Apply(b.Context(), plan, nil); err != nil {
			b.Fatal(err)
		}
		took := time.Since(start)
		if again, err := s.PlanUndo(b.Context(), recs, nil, UndoOptions{}); err != nil || len(again.Steps) > 0 {
			b.Fatal(len(again.Steps), err)
		}
		b.ReportMetric(took.Seconds(), "s/undo")
		b.ReportMetric(planned.Seconds(), "s/plan")
		b.ReportMetric(took.Seconds()/copied.Seconds(), "×cp")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
