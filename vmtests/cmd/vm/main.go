// Command vm boots one of the kernels of kernels.txt by hand.
//
//	vm -prepare                        fetch and build everything that the tests boot
//	vm -kernel 6.1 -- 'uname -a'       run a shell command in a guest and print what it says
//	vm -file /usr/local/bin/x=./bin/x  bring a file along (repeatable)
//
// Its exit code is the command's, or 125 if the guest told none.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/holdfast/holdfast/vmtests/vm"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code, err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
	}
	os.Exit(code)
}

func run(ctx context.Context, args []string) (int, error) {
	files := map[string]string{}
	fs := flag.NewFlagSet("vm", flag.ContinueOnError)
	list := fs.String("kernels", "vmtests/kernels.txt", "the list of kernels")
	cache := fs.String("cache", ".cache", "directory for downloads and images")
	name := fs.String("kernel", "", "which kernel (default: the first of the list)")
	prepare := fs.Bool("prepare", false, "only fetch and build, for every kernel or the one named")
	params := fs.String("append", "", "kernel parameters")
	out := fs.String("out", "", "directory that receives the guest's /out")
	people := fs.String("people", "", "suite of a root file system with systemd and what people log in with")
	count := fs.Bool("count", false, "one processor whose clock counts instructions")
	limit := fs.Duration("timeout", 5*time.Minute, "time limit")
	fs.Func("file", "GUEST=HOST: bring a file or directory along", func(s string) error {
		guest, host, ok := strings.Cut(s, "=")
		if !ok {
			return errors.New("want GUEST=HOST")
		}
		files[guest] = host
		return nil
	})
	if err := fs.Parse(args); err != nil {
		return 2, nil
	}
	text, err := os.ReadFile(*list)
	if err != nil {
		return 125, err
	}
	ks, err := vm.ParseKernels(text)
	if err != nil {
		return 125, err
	}
	if *name != "" {
		k, err := vm.Find(ks, *name)
		if err != nil {
			return 125, err
		}
		ks = []vm.Kernel{k}
	}
	if *prepare {
		for _, k := range ks {
			if err := vm.Prepare(ctx, *cache, k, vm.Root{People: *people}); err != nil {
				return 125, err
			}
			fmt.Printf("kernel %s is ready\n", k.Name)
		}
		return 0, nil
	}
	if fs.NArg() == 0 {
		return 2, errors.New("no command; write it after --")
	}
	res, err := vm.Run(ctx, vm.Options{Cache: *cache, Kernel: ks[0], Root: vm.Root{People: *people}, Script: "#!/bin/sh\n" + strings.Join(fs.Args(), " ") + "\n",
		Files: files, Append: *params, Out: *out, Timeout: *limit, Count: *count})
	fmt.Print(res.Output)
	if err != nil {
		return 125, err
	}
	return res.Exit, nil
}
