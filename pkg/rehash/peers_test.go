package rehash

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// BenchmarkPeers reads all of /usr/lib and /usr/share, content and metadata, as a
// full compare does, beside b3sum, which reads content alone, and AIDE, which
// compares with its database (SHA-256, as many workers as processors). It needs both.
func BenchmarkPeers(b *testing.B) {
	trees := []string{"/usr/lib", "/usr/share"}
	dir := b.TempDir()
	conf := fmt.Sprintf("database_in=file:%s/db\ndatabase_out=file:%[1]s/db\nreport_url=file:%[1]s/report\nnum_workers=%d\nlog_level=error\n"+
		"R = p+i+n+u+g+s+m+c+acl+xattrs+sha256\n/usr/lib R\n/usr/share R\n", dir, runtime.NumCPU())
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o600); err != nil {
		b.Fatal(err)
	}
	aide := func(what string) {
		out, err := exec.Command("aide", "--config="+filepath.Join(dir, "conf"), what).CombinedOutput()
		if exit, ok := err.(*exec.ExitError); err != nil && (!ok || exit.ExitCode() > 7) { // 1 to 7: something differs
			b.Fatalf("aide: %v\n%s", err, out)
		}
	}
	aide("--init") // and everything is in the page cache
	wall, spent := map[string]time.Duration{}, map[string]time.Duration{}
	timed := func(what string, f func()) {
		cpu, start := processor(b), time.Now()
		f()
		if took := time.Since(start); wall[what] == 0 || took < wall[what] {
			wall[what] = took
		}
		if cpu = processor(b) - cpu; spent[what] == 0 || cpu < spent[what] {
			spent[what] = cpu
		}
	}
	paths, bytes := 0, uint64(0)
	for b.Loop() {
		for range 2 {
			paths, bytes = 0, 0
			timed("holdfast", func() {
				r := New(Options{Now: func() uint64 { return 0 }})
				for _, root := range trees {
					err := r.Scan(context.Background(), Tree{Root: root}, func(path string, s event.State, err error) {
						if err != nil {
							b.Errorf("%s: %v", path, err)
						}
						paths++
						bytes += s.Size
					})
					if err != nil {
						b.Fatal(err)
					}
				}
			})
			timed("b3sum", func() {
				out, err := exec.Command("sh", "-c", "find /usr/lib /usr/share -xdev -type f -print0 | xargs -0 b3sum --num-threads $(nproc) > /dev/null").CombinedOutput()
				if err != nil {
					b.Fatalf("b3sum: %v\n%s", err, out)
				}
			})
		}
		timed("aide", func() { aide("--check") })
	}
	for what, took := range wall {
		b.Logf("%-8s %6.1f s, %6.1f s of a processor", what, took.Seconds(), spent[what].Seconds())
	}
	b.ReportMetric(float64(paths), "paths")
	b.ReportMetric(float64(bytes)/1e6, "MB")
	b.ReportMetric(wall["aide"].Seconds()/wall["holdfast"].Seconds(), "aide/holdfast")
	b.ReportMetric(spent["aide"].Seconds()/spent["holdfast"].Seconds(), "aide/holdfast-cpu")
	b.ReportMetric(wall["holdfast"].Seconds()/wall["b3sum"].Seconds(), "holdfast/b3sum")
	b.ReportMetric(spent["holdfast"].Seconds()/spent["b3sum"].Seconds(), "holdfast/b3sum-cpu")
}

// processor is the time that this process, and those it waited for, have used.
func processor(b *testing.B) time.Duration {
	b.Helper()
	var sum int64
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		sum += u.Utime.Nano() + u.Stime.Nano()
	}
	return time.Duration(sum)
}
