// Command cost counts the instructions that file operations cost: bare, with
// Holdfast, and with auditd, in one kernel.
//
//	cost -kernel 6.1                            every column, as a table
//	cost -columns bare,idle -operations stat    some of it
//	cost -profile                               what each BPF program takes, too
//	cost -source DIR                            the Holdfast of another tree
//	HOLDFAST=FILE cost                          a finished binary
//
// The clock of the guest counts instructions (vm.Options.Count), so figures are
// the same on any machine, however busy. A figure is the smallest mean of several
// rounds of vmtests/cost. While it is taken the reader of the events is frozen:
// it is the kernel's part alone, for Holdfast and auditd alike.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast/holdfast/vmtests/vm"
)

//go:embed guest.sh
var guest string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cost:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("cost", flag.ContinueOnError)
	list := fs.String("kernels", "vmtests/kernels.txt", "the list of kernels")
	cache := fs.String("cache", ".cache", "directory for downloads and images")
	kernel := fs.String("kernel", "6.1", "which kernel")
	columns := fs.String("columns", strings.Join(columnNames(), ","), "which, comma separated")
	operations := fs.String("operations", "", "only these, comma separated (vmtests/cost/cost.c names them)")
	rounds := fs.Int("rounds", 3, "how often each is measured")
	tier := fs.String("tier", "lsm", "tier of Holdfast")
	source := fs.String("source", ".", "tree to build Holdfast from")
	profile := fs.Bool("profile", false, "print what each BPF program takes; makes the programs a little dearer")
	limit := fs.Duration("timeout", 20*time.Minute, "time limit")
	if err := fs.Parse(args); err != nil {
		return err
	}
	text, err := os.ReadFile(*list)
	if err != nil {
		return err
	}
	ks, err := vm.ParseKernels(text)
	if err != nil {
		return err
	}
	k, err := vm.Find(ks, *kernel)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "holdfast-cost-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	files, err := build(ctx, *source, tmp)
	if err != nil {
		return err
	}
	if done := os.Getenv("HOLDFAST"); done != "" {
		files["/usr/local/bin/holdfast"] = done
	}
	flags := ""
	if *profile {
		flags = "1"
	}
	var out strings.Builder
	var release string
	for _, boot := range boots(strings.Split(*columns, ",")) {
		res, err := vm.Run(ctx, vm.Options{
			Cache: *cache, Kernel: k, Files: files, Timeout: *limit, Count: true, MiB: 2048,
			Script: fmt.Sprintf("#!/bin/bash\nset -euo pipefail\nCOLUMNS='%s' OPERATIONS='%s' ROUNDS=%d TIER=%s PROFILE=%s\n%s",
				strings.Join(boot, " "), strings.ReplaceAll(*operations, ",", " "), *rounds, *tier, flags, guest),
		})
		if err != nil {
			return err
		}
		if res.Exit != 0 {
			return fmt.Errorf("measure: exit code %d\n%s", res.Exit, res.Output)
		}
		out.WriteString(res.Output + "\n")
		release = res.Release
	}
	f, err := parse(out.String())
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out.String())
	}
	fmt.Printf("Kernel %s, tier %s:\n\n%s", release, *tier, f.tables())
	if *profile {
		fmt.Printf("\n%s", f.programs())
	}
	return nil
}

// boots shares the columns out: those with auditd, and each that leaves much work
// behind for the daemon, start in a kernel of their own.
func boots(names []string) [][]string {
	var first, audit []string
	var out [][]string
	for _, n := range names {
		switch {
		case strings.HasPrefix(n, "audit"):
			audit = append(audit, n)
		case strings.HasPrefix(n, "here"):
			out = append(out, []string{n})
		default:
			first = append(first, n)
		}
	}
	out = append([][]string{first}, append(out, audit)...)
	return slices.DeleteFunc(out, func(b []string) bool { return len(b) == 0 })
}

// build makes the two programs that the guest runs.
func build(ctx context.Context, source, dir string) (map[string]string, error) {
	files := make(map[string]string)
	for name, argv := range map[string][]string{
		"holdfast": {"go", "build", "-C", source, "-trimpath", "-o", filepath.Join(dir, "holdfast"), "./cmd/holdfast"},
		"cost":     {"clang-19", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", filepath.Join(dir, "cost"), "vmtests/cost/cost.c"},
	} {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("run %s: %w\n%s", strings.Join(argv, " "), err, out)
		}
		files["/usr/local/bin/"+name] = filepath.Join(dir, name)
	}
	return files, nil
}
