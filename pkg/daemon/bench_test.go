package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/config"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/policy"
	"github.com/holdfast/holdfast/pkg/query"
)

// BenchmarkAnswer changes a protected file of 4 KiB again and again and reports
// the time from the kernel's event to the durable record of the change, and to
// the restored file.
func BenchmarkAnswer(b *testing.B) {
	top := b.TempDir()
	file := filepath.Join(top, "conf")
	content := strings.Repeat("trusted\n", 512)
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		b.Fatal(err)
	}
	cfg := config.Default()
	cfg.State, cfg.Socket = filepath.Join(top, "state"), filepath.Join(top, "socket")
	cfg.Limits.Restores = 1 << 20
	r, err := policy.ParseWatch(file + "=" + event.ModeRestore)
	if err != nil {
		b.Fatal(err)
	}
	cfg.Rules = []policy.Rule{r}
	d := startWith(b, cfg)
	n := 0
	for b.Loop() {
		n++
		if err := as(0, fmt.Sprintf("change %d\n", n), "tee", file); err != nil {
			b.Fatal(err)
		}
		for {
			if now, err := os.ReadFile(file); err == nil && string(now) == content {
				break
			}
			time.Sleep(200 * time.Microsecond)
		}
	}
	b.StopTimer()
	d.wait(b, query.Filter{Verdict: event.VerdictRestored}, n)
	changes := make(map[string]*event.Record)
	var durable, restored []float64
	for _, rec := range d.records(b, query.Filter{}) {
		switch {
		case rec.Kind == event.RecChange:
			changes[rec.ID] = rec
		case rec.Response != nil && changes[rec.Response.Of] != nil:
			// the intent is written when the change is durable
			if rec.Response.Outcome == "intended" {
				durable = append(durable, float64(rec.Time-changes[rec.Response.Of].TimeEnd)/1e6)
			} else {
				restored = append(restored, float64(rec.Response.TookNS)/1e6)
			}
		}
	}
	report(b, durable, "durable")
	report(b, restored, "restored")
}

// report gives the middle and the 99th percentile of a sample of milliseconds.
func report(b *testing.B, ms []float64, what string) {
	if len(ms) == 0 {
		b.Fatalf("no sample of %s", what)
	}
	slices.Sort(ms)
	b.ReportMetric(ms[len(ms)/2], what+"-p50-ms")
	b.ReportMetric(ms[len(ms)*99/100], what+"-p99-ms")
}

// BenchmarkIdle runs a daemon that watches 2,000 files and has nothing to do but
// to see the machine's processes, and reports its processor time and memory.
func BenchmarkIdle(b *testing.B) {
	top := b.TempDir()
	tree := filepath.Join(top, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		b.Fatal(err)
	}
	for i := range 2000 {
		if err := os.WriteFile(filepath.Join(tree, strconv.Itoa(i)), fmt.Appendf(nil, "file %d\n", i), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	cfg := config.Default()
	cfg.State, cfg.Socket = filepath.Join(top, "state"), filepath.Join(top, "socket")
	r, err := policy.ParseWatch(tree + "=" + event.ModeRestore)
	if err != nil {
		b.Fatal(err)
	}
	cfg.Rules = []policy.Rule{r}
	c := spawn(b, cfg)
	defer kill(b, c)
	time.Sleep(2 * time.Second)
	from, begin := ticks(b, c.Process.Pid), time.Now()
	for b.Loop() {
		time.Sleep(10 * time.Second)
	}
	used := float64(ticks(b, c.Process.Pid)-from) / 100 // USER_HZ
	b.ReportMetric(100*used/time.Since(begin).Seconds(), "cpu-%")
	b.ReportMetric(rss(b, c.Process.Pid), "rss-MiB")
}

// ticks is the processor time of a process (proc(5), stat fields 14 and 15).
func ticks(b *testing.B, pid int) uint64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, err1 := strconv.ParseUint(f[11], 10, 64)
	system, err2 := strconv.ParseUint(f[12], 10, 64)
	if err1 != nil || err2 != nil {
		b.Fatal(err1, err2)
	}
	return user + system
}

func rss(b *testing.B, pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				b.Fatal(err)
			}
			return kib / 1024
		}
	}
	b.Fatal("no VmRSS")
	return 0
}
