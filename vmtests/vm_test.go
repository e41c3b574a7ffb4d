//go:build vm

package vmtests

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/vmtests/vm"
)

// TestScripts runs each script in the kernels that it names. VM_KERNEL and VM_RUN
// select one kernel and the scripts whose name matches a pattern of path.Match;
// both together run a script in a kernel that it does not name, too. VM_ENV is variables
// for the script (A=1 B=2), VM_TIME its time limit.
func TestScripts(t *testing.T) {
	t.Parallel()
	kernels, err := readKernels()
	if err != nil {
		t.Fatal(err)
	}
	only, pattern := os.Getenv("VM_KERNEL"), os.Getenv("VM_RUN")
	if only != "" {
		if _, err := vm.Find(kernels, only); err != nil {
			t.Fatal(err)
		}
	}
	byHand := only != "" && pattern != ""
	if pattern == "" {
		pattern = "*"
	}
	files, err := filepath.Glob("scripts/" + pattern + ".txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no script matches %s: %v", pattern, err)
	}
	bin := programs(t)
	for _, k := range kernels {
		if only != "" && only != k.Name {
			continue
		}
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel() // with the other kernels: else each waits for the last script of the one before
			for _, f := range files {
				s, err := readScript(f)
				if err != nil {
					t.Fatal(err)
				}
				on, err := s.on(kernels)
				if err != nil {
					t.Fatal(err)
				}
				if !byHand && !slices.ContainsFunc(on, func(o vm.Kernel) bool { return o.Name == k.Name }) {
					continue
				}
				t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
					if len(s.tiers) == 0 {
						runScript(t, k, s, "", bin)
					}
					for _, tier := range s.tiers {
						t.Run(tier, func(t *testing.T) { runScript(t, k, s, tier, bin) })
					}
				})
			}
		})
	}
}

// runScript boots k for s, in the tier if one is named, and evaluates its expectations. The serial line and the
// files of the guest stay in .cache/logs/KERNEL/SCRIPT if it fails.
func runScript(t *testing.T, k vm.Kernel, s script, tier string, bin map[string]string) {
	t.Parallel()
	keep := filepath.Join(logs, strings.TrimPrefix(t.Name(), "TestScripts/"))
	if err := os.RemoveAll(keep); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(keep, 0o755); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"/run/vm/lib.sh": "scripts/lib.sh", "/run/vm/work.sh": "scripts/work.sh", "/run/vm/scene.sh": "../demo/scene.sh"}
	for name, host := range bin {
		files["/usr/local/bin/"+name] = host
	}
	limit := 10 * time.Minute
	if l := os.Getenv("VM_TIME"); l != "" {
		var err error
		if limit, err = time.ParseDuration(l); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	for name, text := range s.sections {
		if name == "run.sh" || name == "expect" {
			continue
		}
		host := filepath.Join(dir, filepath.Base(name))
		if err := os.WriteFile(host, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		files["/run/vm/files/"+name] = host
	}
	env, params := os.Getenv("VM_ENV"), ""
	if tier != "" {
		env += " TIER=" + tier
	}
	if strings.Contains(env, "TIER=modify_return") {
		params = "lsm=lockdown,capability"
	}
	o := vm.Options{
		Cache: "../.cache", Kernel: k, Append: params, Files: files, Out: keep, Log: filepath.Join(keep, "serial.log"), Timeout: limit,
		Script: "#!/bin/bash\nset -euo pipefail\nexport " + env + "\n. /run/vm/lib.sh\n" + s.sections["run.sh"],
	}
	res, err := vm.Run(context.Background(), o)
	if err != nil && strayBreakpoint(o.Log) {
		t.Logf("the emulator delivered a breakpoint of the kernel's own code patching too late: once more (%v)", err)
		res, err = vm.Run(context.Background(), o)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("kernel %s, %s\n%s", res.Release, res.Took.Round(time.Second), res.Output)
	if res.Exit != 0 {
		t.Errorf("exit code %d", res.Exit)
	}
	for _, err := range check(keep, s.sections["expect"]) {
		t.Error(err)
	}
	if t.Failed() {
		t.Logf("kept: vmtests/%s", keep)
		return
	}
	if err := os.RemoveAll(keep); err != nil {
		t.Error(err)
	}
}

// strayBreakpoint reports whether a guest's kernel died of a breakpoint in its own code. While the kernel switches a static
// branch, as for each tracepoint that comes into use, it puts one there, waits until every processor has seen its end, and takes it away
// (text_poke_bp_batch in linux/arch/x86/kernel/alternative.c). An emulated processor has been seen to deliver one after that, once in some
// hundred guests, while the daemon attached its programs. BPF programs have no breakpoints.
func strayBreakpoint(log string) bool {
	b, err := os.ReadFile(log)
	return err == nil && bytes.Contains(b, []byte("] int3: 0000 [#1]")) && bytes.Contains(b, []byte("Kernel panic"))
}

// export makes variables (A=1 B=2) known to a script, "" if there are none.
func export(variables string) string {
	if variables == "" {
		return ""
	}
	return "export " + variables + "\n"
}
