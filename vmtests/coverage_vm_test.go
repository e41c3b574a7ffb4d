//go:build vm

package vmtests

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/vmtests/vm"
)

const (
	coverageDocument = "../docs/coverage.md"
	coverageResults  = "../.cache/coverage"
	coverageLimits   = "acts/limits.txt"
)

// everyPlace is what make coverage runs: the file system of most people on every
// kernel in every tier, and the others where the first kernel does its best.
func everyPlace(kernels []vm.Kernel) []place {
	var all []place
	for _, fs := range []string{"xfs", "btrfs", "tmpfs", "overlay"} {
		all = append(all, place{kernels[0].Name, "lsm", fs})
	}
	for _, k := range kernels {
		for _, tier := range []string{"lsm", "modify_return", "tracepoint"} {
			all = append(all, place{k.Name, tier, "ext4"})
		}
	}
	first := place{kernels[0].Name, "lsm", "ext4"}
	slices.SortStableFunc(all, func(a, b place) int { return cmp.Compare(btoi(b == first), btoi(a == first)) })
	return all
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestCoverage runs every act in a guest and compares what the records say with
// what docs/coverage.md says that they say, for the first place.
//
// With COVERAGE=write it runs every place (VM_KERNEL, VM_TIER and VM_FS select
// some), keeps the results in .cache/coverage and writes docs/coverage.md from
// all the results that are there. COVERAGE=again boots nothing: it reads what the
// last runs left in .cache/logs.
func TestCoverage(t *testing.T) {
	t.Parallel()
	kernels, err := readKernels()
	if err != nil {
		t.Fatal(err)
	}
	limits, err := readLimits(coverageLimits)
	if err != nil {
		t.Fatal(err)
	}
	all := everyPlace(kernels)
	how := os.Getenv("COVERAGE")
	bin := map[string]string{}
	if how != "again" {
		bin = programs(t)
	}
	if how == "" {
		text, err := os.ReadFile(coverageDocument)
		if err != nil {
			t.Fatal(err)
		}
		cells := runCoverage(t, kernels, all[0], bin)
		for _, err := range append(failures(cells, limits), worse(cells, string(text))...) {
			t.Error(err)
		}
		return
	}
	if err := os.MkdirAll(coverageResults, 0o755); err != nil {
		t.Fatal(err)
	}
	wanted := func(env, name string) bool { v := os.Getenv(env); return v == "" || v == name }
	for _, p := range all {
		if !wanted("VM_KERNEL", p.Kernel) || !wanted("VM_TIER", p.Tier) || !wanted("VM_FS", p.FS) {
			continue
		}
		if how == "again" {
			if _, err := os.Stat(filepath.Join(keptOf(p), "release")); err != nil {
				continue
			}
		}
		t.Run(strings.ReplaceAll(p.String(), " ", "-"), func(t *testing.T) {
			var cells []cell
			if how == "again" {
				cells = compare(t, p)
			} else {
				cells = runCoverage(t, kernels, p, bin)
			}
			file := filepath.Join(coverageResults, strings.ReplaceAll(p.String(), " ", "-")+".ndjson")
			if err := writeResults(file, cells); err != nil {
				t.Fatal(err)
			}
			for _, err := range failures(cells, limits) {
				t.Error(err)
			}
		})
	}
	cells, err := readResults[cell](filepath.Join(coverageResults, "*.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(coverageDocument, []byte(document(cells, all, limits)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// modes are those of the trees that a run has.
func (p place) modes() []string {
	if p.Tier == "tracepoint" {
		return []string{"observe"}
	}
	return []string{"observe", "block"}
}

// keptOf is where the guest's files of a run stay until the next one.
func keptOf(p place) string {
	return filepath.Join(logs, p.Kernel, "coverage-"+p.Tier+"-"+p.FS)
}

// runCoverage boots p's kernel, does every act on p's file system in p's tier and
// compares.
func runCoverage(t *testing.T, kernels []vm.Kernel, p place, bin map[string]string) []cell {
	t.Helper()
	k, err := vm.Find(kernels, p.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	keep := keptOf(p)
	if err := os.RemoveAll(keep); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(keep, 0o755); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"/run/vm/lib.sh": "scripts/lib.sh", "/run/vm/coverage.sh": "scripts/coverage.sh"}
	for name, host := range bin {
		files["/usr/local/bin/"+name] = host
	}
	// What modify_return is for is a kernel without bpf among its modules.
	params := map[string]string{"modify_return": "lsm=lockdown,capability"}[p.Tier]
	script := fmt.Sprintf("#!/bin/bash\nset -euo pipefail\n. /run/vm/lib.sh\n. /run/vm/coverage.sh\nTIER=%s FS=%s\ncoverage %s\n", p.Tier, p.FS, strings.Join(p.modes(), " "))
	res, err := vm.Run(context.Background(), vm.Options{
		Cache: "../.cache", Kernel: k, Files: files, Out: keep, Log: filepath.Join(keep, "serial.log"), Timeout: 30 * time.Minute, Append: params, Script: script, MiB: 2048,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: kernel %s, %s\n%s", p, res.Release, res.Took.Round(time.Second), res.Output)
	if res.Exit != 0 {
		t.Fatalf("exit code %d; kept: vmtests/%s", res.Exit, keep)
	}
	if err := os.WriteFile(filepath.Join(keep, "release"), []byte(res.Release), 0o644); err != nil {
		t.Fatal(err)
	}
	return compare(t, p)
}

// compare reads what a run of p left.
func compare(t *testing.T, p place) []cell {
	t.Helper()
	keep := keptOf(p)
	release, err := os.ReadFile(filepath.Join(keep, "release"))
	if err != nil {
		t.Fatal(err)
	}
	observed, err := readPass(keep, "observe")
	if err != nil {
		t.Fatal(err)
	}
	var blocked *pass
	if slices.Contains(p.modes(), "block") {
		b, err := readPass(keep, "block")
		if err != nil {
			t.Fatal(err)
		}
		blocked = &b
	}
	return cover(p, string(release), observed, blocked)
}
