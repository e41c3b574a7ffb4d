// Command fuzz does random file operations in a tree, by several processes that
// all use the same few names and so come into each other's way.
//
//	fuzz -seed N -procs 8 -ops 2000 TREE OUTSIDE
//
// OUTSIDE is a directory on the same file system: names are moved out to it and in
// from it. What each process does follows from the seed; what comes of it also
// depends on who is first, except with -procs 1. Operations that fail are part of
// the game. At the end it prints how often each one succeeded; one that never did
// is an error (exit code 1) unless it is one that this kernel or file system lacks.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/vmtests/uring"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

type options struct {
	seed          uint64
	procs, ops    int
	limit         time.Duration
	worker        int
	given         bool
	only          string
	trace         string
	tree, outside string
}

func run() error {
	var o options
	flag.Uint64Var(&o.seed, "seed", 1, "what the random choices follow from")
	flag.IntVar(&o.procs, "procs", 8, "processes")
	flag.IntVar(&o.ops, "ops", 2000, "operations of each process")
	flag.DurationVar(&o.limit, "for", 0, "end after this time if that is earlier (0: never)")
	flag.IntVar(&o.worker, "worker", -1, "be this one of the processes")
	flag.BoolVar(&o.given, "given", false, "take descriptor 3 as one of those to write to")
	flag.StringVar(&o.only, "only", "", "only these operations (names separated by commas)")
	flag.StringVar(&o.trace, "trace", "", "directory in which each process writes down what it does")
	flag.Parse()
	if flag.NArg() != 2 {
		return errors.New("usage: fuzz [flags] TREE OUTSIDE")
	}
	o.tree, o.outside = flag.Arg(0), flag.Arg(1)
	if o.worker >= 0 {
		return work(o)
	}
	return lead(o)
}

// lead starts the processes and adds up what they did.
func lead(o options) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	type outcome struct {
		out []byte
		err error
	}
	done := make(chan outcome)
	for i := range o.procs {
		args := append([]string{"-worker", strconv.Itoa(i)}, os.Args[1:]...)
		cmd := exec.Command(self, args...)
		cmd.Stderr = os.Stderr
		go func() {
			out, err := cmd.Output()
			done <- outcome{out, err}
		}()
	}
	good, tried := map[string]int{}, map[string]int{}
	var errs []error
	for range o.procs {
		d := <-done
		errs = append(errs, d.err)
		for l := range strings.Lines(string(d.out)) {
			var name string
			var g, t int
			if _, err := fmt.Sscan(l, &name, &g, &t); err != nil {
				errs = append(errs, fmt.Errorf("a process said %q: %w", l, err))
				continue
			}
			good[name] += g
			tried[name] += t
		}
	}
	for _, name := range slices.Sorted(maps.Keys(tried)) {
		fmt.Printf("%s %d/%d\n", name, good[name], tried[name])
		// Seldom ones may have had no luck in a short run.
		if good[name] == 0 && tried[name] > 200 && !optional(name) {
			errs = append(errs, fmt.Errorf("%s never succeeded in %d tries", name, tried[name]))
		}
	}
	return errors.Join(errs...)
}

// optional are operations that not every kernel and file system has.
func optional(name string) bool {
	return strings.HasPrefix(name, "ur_") || slices.Contains([]string{"whiteout", "tmpfile", "nodump", "sealed", "copyrange", "splice", "punch", "zero", "collapse", "insert", "reflink", "acl", "defacl", "fallocate"}, name)
}

// fuzzer is one process.
type fuzzer struct {
	options
	r     *rand.Rand
	held  []int     // descriptors open for a while
	maps  []mapping // files mapped for a while
	rings *uring.Ring
	log   *bufio.Writer
	note  string // what the present operation is about
}

func work(o options) error {
	f := &fuzzer{options: o, r: rand.New(rand.NewPCG(o.seed, uint64(o.worker)))}
	if o.given {
		f.held = append(f.held, 3)
	}
	if o.trace != "" {
		file, err := os.Create(fmt.Sprintf("%s/%d.trace", o.trace, o.worker))
		if err != nil {
			return err
		}
		defer file.Close()
		f.log = bufio.NewWriter(file)
		defer f.log.Flush()
	}
	var choice []op
	for _, x := range operations() {
		if o.only != "" && !slices.Contains(strings.Split(o.only, ","), x.name) {
			continue
		}
		for range x.weight {
			choice = append(choice, x)
		}
	}
	good, tried := map[string]int{}, map[string]int{}
	begin := time.Now()
	for range o.ops {
		if o.limit > 0 && time.Since(begin) > o.limit {
			break
		}
		x := choice[f.r.IntN(len(choice))]
		f.note = ""
		err := x.do(f)
		tried[x.name]++
		if err == nil {
			good[x.name]++
		}
		if f.log != nil {
			var ts unix.Timespec
			_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
			fmt.Fprintf(f.log, "%d.%09d %s %s %v\n", ts.Sec, ts.Nsec, x.name, f.note, err)
		}
	}
	// Half of the descriptors, all mappings and the ring are left to the exit.
	for _, fd := range f.held[:len(f.held)/2] {
		_ = unix.Close(fd)
	}
	for name := range tried {
		if _, err := io.WriteString(os.Stdout, fmt.Sprintln(name, good[name], tried[name])); err != nil {
			return err
		}
	}
	return nil
}
