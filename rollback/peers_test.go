package rollback

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/rollback/storetest"
)

// peersFiles is how many files BenchmarkPeers works with.
const peersFiles = 1000

// sampleOf copies regular files of some size from a tree, spread over it, and
// returns how many bytes they have.
func sampleOf(b *testing.B, from, to string) (bytes int64) {
	b.Helper()
	var all []string
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil && info.Size() > 48<<10 && info.Size() < 8<<20 {
				all = append(all, p)
			}
		}
		return nil
	})
	if err != nil || len(all) < peersFiles {
		b.Fatal(len(all), err)
	}
	for i := range peersFiles {
		text, err := os.ReadFile(all[i*len(all)/peersFiles])
		if err != nil {
			b.Fatal(err)
		}
		bytes += int64(len(text))
		dir := filepath.Join(to, fmt.Sprint(i%40))
		mkdirs(b, dir)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), text, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	return bytes
}

// captureBoth keeps all paths, by as many goroutines as there are processors, as
// the daemon does, and makes them durable.
func captureBoth(b testing.TB, s *Store, dir string) {
	b.Helper()
	paths := make(chan string, 64)
	var wg sync.WaitGroup
	for range runtime.NumCPU() {
		wg.Go(func() {
			for p := range paths {
				if _, err := s.Capture(context.Background(), p, Provenance{Trust: true}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		paths <- p
		return err
	})
	close(paths)
	wg.Wait()
	if err != nil {
		b.Fatal(err)
	}
	sync1(b, s)
}

// allocated is what a tree takes on disk.
func allocated(b *testing.B, dir string) int64 {
	b.Helper()
	var n int64
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(p, &st)
		}
		n += st.Blocks * 512
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return n
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

// BenchmarkPeers enrols and puts back the same 1,000 files of /usr with the
// vault, with restic, and with cp, in turns; each has the median of its rounds. The
// vault's are durable, restic's as restic leaves them, and with a sync. It needs restic.
func BenchmarkPeers(b *testing.B) {
	const rounds = 5
	base := storetest.Disk(b)
	files := filepath.Join(base, "files")
	bytes := sampleOf(b, "/usr", files)
	took, spent := map[string][]time.Duration{}, map[string][]time.Duration{}
	timed := func(what string, f func()) {
		unix.Sync() // what others left is not counted
		cpu, start := processor(b), time.Now()
		f()
		took[what] = append(took[what], time.Since(start))
		spent[what] = append(spent[what], processor(b)-cpu)
	}
	restic := func(arg ...string) {
		c := exec.Command("restic", append([]string{"-q", "--no-cache"}, arg...)...)
		c.Env = append(os.Environ(), "RESTIC_PASSWORD=x", "RESTIC_REPOSITORY="+filepath.Join(base, "restic"), "GOMAXPROCS="+fmt.Sprint(runtime.NumCPU()))
		if out, err := c.CombinedOutput(); err != nil {
			b.Fatalf("restic %q: %v\n%s", arg, err, out)
		}
	}
	empty := func() { storetest.Run(b, "rm", "-rf", files) }
	var sizes [2]int64
	for b.Loop() {
		for round := range rounds {
			vault := filepath.Join(base, fmt.Sprint("state", round), "vault")
			mkdirs(b, filepath.Dir(vault))
			s := open1(b, vault, Options{})
			timed("enrol", func() { captureBoth(b, s, files) })
			timed("cp", func() {
				storetest.Run(b, "cp", "-r", files, filepath.Join(base, "copy"))
				storetest.Run(b, "sync", "-f", base)
			})
			storetest.Run(b, "rm", "-rf", filepath.Join(base, "copy"), filepath.Join(base, "restic"))
			restic("init")
			timed("restic backup", func() { restic("backup", files) })
			sizes = [2]int64{allocated(b, vault), allocated(b, filepath.Join(base, "restic"))}

			truth := storetest.Sh(b, `cd "$1"; find . -type f -print0 | sort -z | xargs -0 b3sum`, files)
			empty()
			timed("restic restore", func() { restic("restore", "latest", "--target", "/") })
			empty()
			timed("restic restore, sync", func() {
				restic("restore", "latest", "--target", "/")
				storetest.Run(b, "sync", "-f", base)
			})
			empty()
			timed("restore", func() {
				plan, err := s.PlanRestore(b.Context(), []string{files}, RestoreOptions{Recursive: true})
				if err == nil {
					err = s.Apply(b.Context(), plan, func(r Result) {
						if r.Err != nil {
							b.Error(r.Err)
						}
					})
				}
				if err != nil {
					b.Fatal(err)
				}
			})
			if storetest.Sh(b, `cd "$1"; find . -type f -print0 | sort -z | xargs -0 b3sum`, files) != truth {
				b.Fatal("the restored files differ")
			}
			for range 20 { // one small file: damaged, put back
				file := filepath.Join(files, "1", "1")
				v, ok := s.Trusted(file)
				if !ok {
					b.Fatal("no version of " + file)
				}
				write(b, file, "evil")
				timed("restore of one", func() {
					if _, err := s.RestorePath(b.Context(), file, v); err != nil {
						b.Fatal(err)
					}
				})
			}
			timed("restic restore of one", func() { restic("restore", "latest", "--target", "/", "--include", filepath.Join(files, "1", "1")) })
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			storetest.Run(b, "rm", "-rf", filepath.Dir(vault))
		}
	}
	median := func(of []time.Duration) float64 {
		slices.Sort(of)
		return of[len(of)/2].Seconds()
	}
	for what, times := range took {
		b.Logf("%-24s %8.1f ms (%.1f to %.1f), %8.1f ms of a processor", what, 1e3*median(times), 1e3*times[0].Seconds(),
			1e3*times[len(times)-1].Seconds(), 1e3*median(spent[what]))
	}
	ratio := func(of, by string, name string) {
		b.ReportMetric(median(took[of])/median(took[by]), name)
		b.ReportMetric(median(spent[of])/median(spent[by]), name+"-cpu")
	}
	ratio("restic backup", "enrol", "restic/enrol")
	ratio("enrol", "cp", "enrol/cp")
	ratio("restic restore", "restore", "restic/restore")
	ratio("restic restore, sync", "restore", "restic+sync/restore")
	ratio("restore", "cp", "restore/cp")
	ratio("restic restore of one", "restore of one", "restic/restore-one")
	b.ReportMetric(float64(sizes[0])/float64(sizes[1]), "size/restic")
	b.ReportMetric(float64(bytes)/1e6, "MB")
	b.ReportMetric(float64(bytes)/median(took["enrol"])/1e6, "enrol-MB/s")
}
