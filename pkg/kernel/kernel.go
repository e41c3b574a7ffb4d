// Package kernel answers what this kernel can do, by trying it: a program is
// loaded, attached, made to fire, and looked at. Versions decide nothing.
//
// A probe returns nil (it works), an error that wraps ErrNotSupported (it does
// not), or another error (it cannot be told, for example without root). Probes
// touch only the process that asks and leave nothing behind. The doctor verb and
// the daemon's choice of a tier call this package.
//
// It does not promise that every hook of a tier exists: those that a kernel
// lacks show when the tier is loaded (pkg/sense).
package kernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/bpf"
)

// ErrNotSupported says that the kernel cannot do what was asked of it.
var ErrNotSupported = errors.New("not supported by this kernel")

// Capability is one thing that a kernel can do or not.
type Capability struct {
	Name  string
	Found bool
	Err   error  // why it was not found; wraps ErrNotSupported, or it could not be told
	Cost  string // what it costs to lack it
	For   string // the tiers that need it, separated by ", "; "all"; "" if none does
}

// Report is what this kernel can do.
type Report struct {
	Release      string
	Capabilities []Capability
	Tier         string // the best tier that works, "" if none does
}

type probe struct {
	name, cost, tier string
	run              func() error
}

// Probe tries everything. It needs root; without it each probe fails with a
// permission error and Tier is "".
func Probe(ctx context.Context) Report {
	r := Report{Release: release()}
	works := map[string]bool{"lsm": true, "modify_return": true, "tracepoint": true}
	for _, p := range probes() {
		err := ctx.Err()
		if err == nil {
			err = p.run()
		}
		r.Capabilities = append(r.Capabilities, Capability{Name: p.name, Found: err == nil, Err: err, Cost: p.cost, For: p.tier})
		if err == nil {
			continue
		}
		for tier := range works {
			if p.tier == "all" || slices.Contains(strings.Split(p.tier, ", "), tier) {
				works[tier] = false
			}
		}
	}
	for _, tier := range []string{"tracepoint", "modify_return", "lsm"} { // the best one last
		if works[tier] {
			r.Tier = tier
		}
	}
	return r
}

func probes() []probe {
	types := btf.NewCache() // else each program would read the kernel's anew
	fires := func(name string) func() error { return func() error { return fires(name, types) } }
	return []probe{
		{"btf", "nothing works: the kernel does not describe its types (CONFIG_DEBUG_INFO_BTF)", "all", func() error { return haveBTF(types) }},
		{"ring_buffer", "nothing works: events have no way to user space", "all", fires("probe_ring")},
		{"raw_tracepoints", "nothing works: processes and system calls are not seen", "all", fires("probe_tp")},
		{"iterators", "nothing works: inodes cannot be marked", "all", fires("probe_iter")},
		{"task_storage", "of more than 65536 threads the sessions of some are unknown", "", fires("probe_storage")},
		{"lsm_listed", "tier lsm does not work; add bpf to the lsm= boot parameter", "lsm", lsmListed},
		{"lsm_programs", "tier lsm does not work", "lsm", fires("probe_lsm")},
		{"modify_return", "tier modify_return does not work", "modify_return", fires("probe_modify")},
		{"trampolines", "tiers lsm and modify_return do not work, block is not possible: results of operations are not seen", "lsm, modify_return", fires("probe_fexit")},
		{"loginuid", "actor.user is unknown: the kernel keeps no login identity (CONFIG_AUDIT)", "", haveLoginuid},
		{"cgroup2", "process.cgroup and process.unit are unknown", "", haveCgroup2},
	}
}

func haveBTF(types *btf.Cache) error {
	if _, err := types.Kernel(); err != nil {
		return unsupported(err)
	}
	return nil
}

func lsmListed() error {
	b, err := os.ReadFile("/sys/kernel/security/lsm")
	if err != nil {
		return unsupported(err)
	}
	for _, name := range strings.Split(strings.TrimSpace(string(b)), ",") {
		if name == "bpf" {
			return nil
		}
	}
	return fmt.Errorf("%w: active security modules are %s", ErrNotSupported, strings.TrimSpace(string(b)))
}

func haveLoginuid() error {
	if _, err := os.Stat("/proc/self/loginuid"); err != nil {
		return unsupported(err)
	}
	return nil
}

func haveCgroup2() error {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return nil
		}
	}
	return fmt.Errorf("%w: no version 2 hierarchy is mounted", ErrNotSupported)
}

// fires loads, attaches and fires one program of bpf/probe.bpf.c.
func fires(name string, types *btf.Cache) error {
	if err := rlimit.RemoveMemlock(); err != nil {
		return fmt.Errorf("raise memory lock limit: %w", err)
	}
	spec, err := bpf.LoadProbe()
	if err != nil {
		return fmt.Errorf("read bpf object: %w", err)
	}
	for n := range spec.Programs {
		if n != name {
			delete(spec.Programs, n)
		}
	}
	if name != "probe_storage" {
		delete(spec.Maps, "storage") // kernels before linux v5.11 cannot make it
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Cache: types})
	if err != nil {
		return unsupported(err)
	}
	defer coll.Close()
	fired := coll.Maps["fired"]
	if err := fired.Put(uint32(0), uint64(os.Getpid())); err != nil {
		return fmt.Errorf("write probe map: %w", err)
	}
	if err := trigger(name, coll.Programs[name]); err != nil {
		return err
	}
	var n uint64
	if err := fired.Lookup(uint32(1), &n); err != nil {
		return fmt.Errorf("read probe map: %w", err)
	}
	if n == 0 {
		return fmt.Errorf("%w: it loads and attaches but does not fire", ErrNotSupported)
	}
	return nil
}

// trigger attaches prog, does what fires any of the probes, and detaches it.
func trigger(name string, prog *ebpf.Program) error {
	switch name {
	case "probe_iter":
		return iterate(prog)
	case "probe_lsm":
		return attached(link.AttachLSM(link.LSMOptions{Program: prog}))
	}
	return attached(link.AttachTracing(link.TracingOptions{Program: prog}))
}

// attached opens a file while l is attached.
func attached(l link.Link, err error) error {
	if err != nil {
		return unsupported(err)
	}
	defer l.Close()
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return err
	}
	return f.Close()
}

func iterate(prog *ebpf.Program) error {
	it, err := link.AttachIter(link.IterOptions{Program: prog})
	if err != nil {
		return unsupported(err)
	}
	defer it.Close()
	r, err := it.Open()
	if err != nil {
		return unsupported(err)
	}
	defer r.Close()
	if _, err = io.Copy(io.Discard, r); err != nil {
		return unsupported(err)
	}
	return nil
}

// unsupported marks err as "the kernel cannot", except where it only says that
// we may not.
func unsupported(err error) error {
	if os.Geteuid() != 0 && errors.Is(err, unix.EPERM) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrNotSupported, err)
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
