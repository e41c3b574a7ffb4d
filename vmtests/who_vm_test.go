//go:build vm

package vmtests

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/vmtests/vm"
)

const (
	whoResults   = "../.cache/attribution"
	whoDocuments = "../docs/attribution.md"
)

// TestWho runs cases of attribution in a guest with systemd and OpenSSH and compares
// what the records say with the actors written beforehand: the lean ones, in the tier
// lsm with the OpenSSH of bookworm.
//
// With WHO=write it runs all of them in every tier and with every OpenSSH, two columns
// side by side (VM_TIER, VM_SUITE and VM_KERNEL select), keeps the results in
// .cache/attribution and writes docs/attribution.md from all that are there. WHO=try runs
// what is selected, of the cases, too (VM_RUN is patterns of path.Match), and writes
// nothing. WHO=again boots nothing and reads what the last runs of whole columns left.
func TestWho(t *testing.T) {
	t.Parallel()
	cases, err := readCases("who/cases.txt")
	if err != nil {
		t.Fatal(err)
	}
	kernels, err := readKernels()
	if err != nil {
		t.Fatal(err)
	}
	how := os.Getenv("WHO")
	bin := map[string]string{}
	if how != "again" {
		bin = programs(t)
		bin["deed"] = build(t, "./cmd/deed", filepath.Join(t.TempDir(), "deed"))
	}
	pattern := os.Getenv("VM_RUN")
	if pattern != "" && how != "try" {
		t.Fatalf("VM_RUN=%q: only WHO=try runs some cases: a column is one run", pattern)
	}
	some := slices.DeleteFunc(slices.Clone(cases), func(c whoCase) bool {
		if pattern != "" {
			return !slices.ContainsFunc(strings.Fields(pattern), func(p string) bool { ok, err := path.Match(p, c.file); return ok && err == nil })
		}
		return how == "" && !c.lean
	})
	wanted := func(env, name string) bool { v := os.Getenv(env); return v == "" || v == name }
	k := kernels[0]
	if n := os.Getenv("VM_KERNEL"); n != "" {
		if k, err = vm.Find(kernels, n); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("columns", func(t *testing.T) {
		for _, tier := range []string{"lsm", "tracepoint"} {
			for _, suite := range []string{"bookworm", "trixie"} {
				if !wanted("VM_SUITE", suite) || !wanted("VM_TIER", tier) || how == "" && suite+tier != "bookwormlsm" {
					continue
				}
				t.Run(suite+"-"+tier, func(t *testing.T) {
					t.Parallel()
					keep := filepath.Join(logs, k.Name, "who-"+suite+"-"+tier)
					if how != "again" {
						runWho(t, k, suite, tier, keep, some, bin)
					}
					cells := judgeAll(t, some, whoCell{Kernel: k.Name, Tier: tier}, keep)
					if how == "write" || how == "again" && cells != nil {
						if err := writeWho(filepath.Join(whoResults, suite+"-"+tier+".ndjson"), cells); err != nil {
							t.Fatal(err)
						}
					}
				})
			}
		}
	})
	if how != "write" && how != "again" {
		return
	}
	cells, err := readResults[whoCell](filepath.Join(whoResults, "*.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(whoDocuments, []byte(whoDocument(cases, cells)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// runWho boots k with the user land of suite and runs the cases in it.
func runWho(t *testing.T, k vm.Kernel, suite, tier, keep string, cases []whoCase, bin map[string]string) {
	t.Helper()
	if err := os.RemoveAll(keep); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(keep, 0o755); err != nil {
		t.Fatal(err)
	}
	sum, err := sumOf(bin["holdfast"])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(keep, "build"), []byte(sum), 0o644); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"/run/vm/lib.sh": "scripts/lib.sh", "/run/vm/who.sh": "who/lib.sh"}
	for name, host := range bin {
		files["/usr/local/bin/"+name] = host
	}
	dir := t.TempDir()
	var names []string
	for _, c := range cases {
		host := filepath.Join(dir, c.file)
		if err := os.WriteFile(host, []byte(c.script), 0o644); err != nil {
			t.Fatal(err)
		}
		files["/run/vm/who/"+c.file+".sh"] = host
		names = append(names, c.file)
	}
	res, err := vm.Run(context.Background(), vm.Options{
		Cache: "../.cache", Kernel: k, Root: vm.Root{People: suite}, Files: files, Out: keep, Log: filepath.Join(keep, "serial.log"), Timeout: time.Hour, MiB: 2048,
		Script: "#!/bin/bash\nset -euo pipefail\n. /run/vm/lib.sh\n. /run/vm/who.sh\nTIER=" + tier + "\nrun_cases " + strings.Join(names, " ") + "\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s %s: kernel %s, %s\n%s", suite, tier, res.Release, res.Took.Round(time.Second), res.Output)
	if res.Exit != 0 {
		t.Errorf("exit code %d; kept: vmtests/%s", res.Exit, keep)
	}
}

// sumOf is what tells builds apart: the beginning of the file's SHA-256.
func sumOf(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))[:12], nil
}

var sshVersion = regexp.MustCompile(`OpenSSH_([0-9.]+)`)

// judgeAll compares what a guest left with the cases. With WHO=again it gives nothing if
// that was not a run of all of them.
func judgeAll(t *testing.T, cases []whoCase, at whoCell, keep string) []whoCell {
	t.Helper()
	said, err := os.ReadFile(filepath.Join(keep, "sshd"))
	if err != nil {
		t.Fatal(err)
	}
	m := sshVersion.FindSubmatch(said)
	if m == nil {
		t.Fatalf("no version of OpenSSH in %q", said)
	}
	at.SSH = string(m[1])
	built, err := os.ReadFile(filepath.Join(keep, "build"))
	if err != nil {
		t.Fatal(err)
	}
	at.Build = string(built)
	records, err := readObjects(filepath.Join(keep, "log.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	var cells []whoCell
	for _, c := range cases {
		truth, err := readTruth(filepath.Join(keep, "truth", c.file))
		if os.Getenv("WHO") == "again" && errors.Is(err, os.ErrNotExist) {
			t.Logf("%s: the last run was of some cases", at.place())
			return nil
		}
		if err != nil {
			t.Error(err)
			continue
		}
		cell := judgeCase(c, at, records, truth)
		cells = append(cells, cell)
		t.Logf("%-8s %s: %s (%s)", cell.Is, c.name, cell.Got, cell.Evidence)
		if cell.Is == "wrong" {
			t.Errorf("%s, %s:\n\t%s", cell.place(), c.name, strings.Join(cell.Why, "\n\t"))
		}
	}
	return cells
}
