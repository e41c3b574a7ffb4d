package rollback

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"testing"
	"time"

	"github.com/holdfast/holdfast/rollback/storetest"
)

// benchPlaces are a disk and memory: the difference is what durability costs.
func benchPlaces(b *testing.B) map[string]string {
	b.Helper()
	return map[string]string{"disk": storetest.Disk(b), "tmpfs": storetest.Temp(b)}
}

func percentiles(b *testing.B, took []time.Duration) {
	b.Helper()
	sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkRestoreSmallFile is from a damaged file to a restored one that is
// durable and read back; the damage itself is not counted.
func BenchmarkRestoreSmallFile(b *testing.B) {
	for name, dir := range benchPlaces(b) {
		for _, kind := range []struct{ name, damage string }{
			{"changed", "evil"},
			{"deleted", ""},
			{"chmod", "chmod"},
		} {
			b.Run(name+"/"+kind.name, func(b *testing.B) {
				base := filepath.Join(dir, kind.name)
				mkdirs(b, base)
				s := open1(b, filepath.Join(base, "vault"), Options{})
				file := filepath.Join(base, "f")
				if err := os.WriteFile(file, benchBytes(b, 4096), 0o644); err != nil {
					b.Fatal(err)
				}
				v := capture(b, s, file)
				sync1(b, s)
				var took []time.Duration
				for b.Loop() {
					var err error
					switch kind.damage {
					case "":
						err = os.Remove(file)
					case "chmod":
						err = os.Chmod(file, 0o666)
					default:
						err = os.WriteFile(file, []byte(kind.damage), 0o644)
					}
					if err != nil {
						b.Fatal(err)
					}
					start := time.Now()
					if r, err := s.RestorePath(b.Context(), file, v); err != nil || r.Outcome != OutcomeDone {
						b.Fatal(r.Outcome, err)
					}
					took = append(took, time.Since(start))
				}
				percentiles(b, took)
			})
		}
	}
}

// benchBytes are bytes of a real program, which compress as files do.
func benchBytes(b *testing.B, n int) []byte {
	b.Helper()
	src, err := os.ReadFile("/bin/bash")
	if err != nil {
		b.Fatal(err)
	}
	out := make([]byte, 0, n)
	for len(out) < n {
		out = append(out, src[:min(len(src), n-len(out))]...)
	}
	return out
}

// BenchmarkEnrol captures files of one size, all different, and syncs once.
func BenchmarkEnrol(b *testing.B) {
	for name, dir := range benchPlaces(b) {
		for _, set := range []struct{ files, size int }{{10_000, 1 << 10}, {500, 64 << 10}, {16, 4 << 20}} {
			b.Run(fmt.Sprintf("%s/%dx%dKiB", name, set.files, set.size>>10), func(b *testing.B) {
				base := filepath.Join(dir, fmt.Sprint(set.files))
				files := filepath.Join(base, "files")
				mkdirs(b, files)
				content := benchBytes(b, set.size)
				for i := range set.files {
					copy(content, fmt.Sprintf("%08d", i))
					if err := os.WriteFile(filepath.Join(files, fmt.Sprint(i)), content, 0o644); err != nil {
						b.Fatal(err)
					}
				}
				b.SetBytes(int64(set.files) * int64(set.size))
				n := 0
				for b.Loop() {
					n++
					s := open1(b, filepath.Join(base, fmt.Sprint("vault", n)), Options{})
					for i := range set.files {
						capture(b, s, filepath.Join(files, fmt.Sprint(i)))
					}
					if err := s.Close(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(set.files*n)/b.Elapsed().Seconds(), "files/s")
			})
		}
	}
}

// BenchmarkOpen reads the log of a vault with ten thousand paths.
func BenchmarkOpen(b *testing.B) {
	dir := storetest.Temp(b)
	vault := filepath.Join(dir, "vault")
	s := open1(b, vault, Options{})
	file := filepath.Join(dir, "f")
	write(b, file, "x")
	v := capture(b, s, file)
	for i := range 10_000 {
		if _, err := s.record(fmt.Sprintf("/etc/some/directory/file-%d", i), v.State, nil, Provenance{Trust: true}); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		s, err := OpenReadOnly(vault)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkApply restores many deleted files by one plan.
func BenchmarkApply(b *testing.B) {
	for name, dir := range benchPlaces(b) {
		b.Run(name, func(b *testing.B) {
			const n = 1000
			files := filepath.Join(dir, "files")
			mkdirs(b, files)
			s := open1(b, filepath.Join(dir, "vault"), Options{})
			for i := range n {
				f := filepath.Join(files, fmt.Sprint(i))
				write(b, f, fmt.Sprint("content ", i))
				capture(b, s, f)
			}
			sync1(b, s)
			var spent time.Duration
			for b.Loop() {
				for i := range n {
					if err := os.Remove(filepath.Join(files, fmt.Sprint(i))); err != nil {
						b.Fatal(err)
					}
				}
				plan, err := s.PlanRestore(b.Context(), []string{files}, RestoreOptions{Recursive: true})
				if err != nil {
					b.Fatal(err)
				}
				start := time.Now()
				if err := s.Apply(b.Context(), plan, nil); err != nil {
					b.Fatal(err)
				}
				spent += time.Since(start)
			}
			b.ReportMetric(float64(n*b.N)/spent.Seconds(), "files/s")
		})
	}
}
