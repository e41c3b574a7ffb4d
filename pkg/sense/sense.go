// Package sense is stage 1: it loads and attaches the kernel side, tells it what
// to watch, and reads its ring.
//
// A Sensor owns the BPF programs, maps and links, and a descriptor of every
// inode that it marked: a mark is the inode's address in the kernel, which means
// that inode only while it is held open. Closing the Sensor takes everything
// away; nothing is pinned.
//
// Run hands out the bytes of each record. What it calls may wait for a moment: the
// ring holds what comes meanwhile, and what finds it full is counted, not waited
// for, on the kernel side. Arm is called at start and whenever an event says that a
// name that a rule waits for has appeared. The daemon is the only caller.
//
// What this package does not promise: that an event was not lost (Counters tell),
// or that a program that could not be loaded is made up for (Programs tells, with
// what it costs).
package sense

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/holdfast/holdfast/bpf"
)

// Options say what to load.
type Options struct {
	Tier string // TierLSM, TierModifyReturn or TierTracepoint
	Ring uint32 // bytes of the ring, a power of two and a multiple of the page size
	Self uint32 // pid of the daemon: its own changes are let through and seen
	// Everybody has credentials told of all processes, not of those in logins alone.
	Everybody bool
}

// Program is what this kernel made of one program of a tier.
type Program struct {
	Name  string
	Hook  string // the kernel's function that it is attached to; "" for tracepoints and iterators
	Steps int    // instructions that the verifier followed; 0 if it is not loaded
	Err   error  // why it is not loaded, nil if it is
	Cost  string // what is not seen or not refused because it is not loaded; "" if nothing
}

// Sensor is the loaded kernel side.
type Sensor struct {
	tier   string
	self   uint32
	spec   *ebpf.CollectionSpec // while Open loads it
	maps   map[string]*ebpf.Map
	progs  map[string]*ebpf.Program
	links  []link.Link
	table  []Program
	reader *ringbuf.Reader

	demands demands

	setMu sync.Mutex // settings
	armMu sync.Mutex // Arm and LetIn; before setMu
	held  []*os.File
	tops  []top
	steps []Step
	loops []Loop
	on    map[uint64][]string
	keys  keys
	// persons are keys of the map allowed that LetIn put there.
	persons map[bpf.TracerExeKey]uint32
	armed   map[uint32]Anchor
	next    uint32
	ids     map[identity]uint32

	linked    map[uint32]Anchor // Link
	linkHeld  []*os.File
	linkMarks map[uint64]bpf.TracerMark
	mounted   uint32 // files with markLink or markBelow that Arm marked

	anchors atomic.Pointer[map[uint32]Anchor] // armed and linked
	inHand  atomic.Bool                       // Run has taken a record from the ring and is not done with it
}

// Open loads the programs of a tier and attaches them. Nothing is looked at
// until Arm. An error means that the tier does not work here; a single program
// that is not required only costs what Programs says.
func Open(o Options) (*Sensor, error) {
	// kernels before 5.11 charge maps to RLIMIT_MEMLOCK
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("raise memory lock limit: %w", err)
	}
	spec, err := bpf.LoadTracer()
	if err != nil {
		return nil, fmt.Errorf("read bpf object: %w", err)
	}
	if err := fitKernel(spec); err != nil {
		return nil, err
	}
	if o.Ring != 0 {
		spec.Maps["events"].MaxEntries = o.Ring
	}
	s := &Sensor{
		tier: o.Tier, self: o.Self, spec: spec, next: 1,
		progs: make(map[string]*ebpf.Program), ids: make(map[identity]uint32), keys: newKeys(),
	}
	if err := s.load(o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.spec = nil // all instructions of all programs: nobody needs them any more
	return s, nil
}

func (s *Sensor) load(o Options) error {
	maps := s.spec.Copy()
	maps.Programs = nil
	coll, err := ebpf.NewCollection(maps)
	if err != nil {
		return fmt.Errorf("create bpf maps: %w", err)
	}
	s.maps = coll.Maps
	if err := s.settings(func(c *bpf.TracerSettings) {
		if c.Self = s.self; o.Everybody {
			c.Everybody = 1
		}
	}); err != nil {
		return err
	}
	if s.reader, err = ringbuf.NewReader(s.maps["events"]); err != nil {
		return fmt.Errorf("open ring: %w", err)
	}
	types := btf.NewCache() // else each program would read the kernel's anew
	kernel, err := types.Kernel()
	if err != nil {
		return fmt.Errorf("read kernel type information: %w", err)
	}
	options := ebpf.CollectionOptions{
		MapReplacements: s.maps,
		Programs:        ebpf.ProgramOptions{KernelTypes: kernel, LogLevel: ebpf.LogLevelStats},
		Cache:           types,
	}
	rows := programs(s.tier)
	for _, p := range rows {
		spec := s.spec.Programs[p.name]
		if spec == nil {
			return fmt.Errorf("load %s: the object does not have it", p.name)
		}
		done := Program{Name: p.name, Hook: p.hook(spec)}
		if done.Err = p.fits(spec, kernel); done.Err == nil {
			done.Steps, done.Err = s.attach(p, options)
		}
		if done.Err != nil && p.required {
			return fmt.Errorf("load %s: %w", p.name, done.Err)
		}
		if done.Err != nil && !(p.free && errors.Is(done.Err, errNoHook)) {
			done.Cost = p.cost
		}
		s.table = append(s.table, done)
	}
	// A hook whose arguments another program knows is taken care of.
	for i := range s.table {
		p := &s.table[i]
		if errors.Is(p.Err, errOtherHook) && slices.ContainsFunc(s.table, func(o Program) bool { return o.Hook == p.Hook && o.Err == nil }) {
			p.Cost = ""
		}
	}
	return s.claim()
}

// attach loads one program on its own, so that one that a kernel refuses costs
// that one alone. It returns how many instructions the verifier followed.
func (s *Sensor) attach(p program, options ebpf.CollectionOptions) (steps int, err error) {
	only := *s.spec
	only.Programs = map[string]*ebpf.ProgramSpec{p.name: s.spec.Programs[p.name]}
	one := only.Copy() // loading changes what it loads
	coll, err := ebpf.NewCollectionWithOptions(one, options)
	if err != nil {
		options.Programs.LogLevel = 0 // which makes the reason part of the error
		coll, err = ebpf.NewCollectionWithOptions(one, options)
	}
	if err != nil {
		return 0, fmt.Errorf("verify: %w", err)
	}
	prog := coll.DetachProgram(p.name)
	coll.Close()
	s.progs[p.name] = prog
	steps = verified(prog)
	if p.how == byIterator {
		return steps, nil
	}
	l, err := attachProgram(prog, p.how)
	if err != nil {
		return 0, fmt.Errorf("attach: %w", err)
	}
	if p.onDemand && attachesAgain() { // it can be attached: that is all that is wanted for now
		s.demand(p, prog)
		return steps, l.Close()
	}
	s.links = append(s.links, l)
	return steps, nil
}

// attachesAgain reports whether a program that was detached can be attached anew:
// since linux v5.13 (commit f3a95075549e). Before, what others attach on demand stays.
func attachesAgain() bool {
	v, err := features.LinuxVersionCode()
	return err != nil || v >= 5<<16|13<<8
}

// verified is how many instructions the verifier followed, 0 if that is not known:
// from the program's own information, which has it since linux v5.16, or read out of
// the verifier's statistics (linux v5.10 kernel/bpf/verifier.c:print_verification_stats).
func verified(prog *ebpf.Program) int {
	if info, err := prog.Info(); err == nil {
		if n, ok := info.VerifiedInstructions(); ok && n != 0 {
			return int(n)
		}
	}
	_, rest, _ := strings.Cut(prog.VerifierLog, "processed ")
	digits, _, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return n
}

// Tier is the tier that was loaded.
func (s *Sensor) Tier() string { return s.tier }

// Programs lists every program of the tier, loaded or not.
func (s *Sensor) Programs() []Program { return s.table }

// Close detaches and frees everything, and ends Run.
func (s *Sensor) Close() error {
	errs := []error{s.demands.close()}
	for _, l := range s.links {
		errs = append(errs, l.Close())
	}
	if s.reader != nil {
		errs = append(errs, s.reader.Close())
	}
	for _, p := range s.progs {
		errs = append(errs, p.Close())
	}
	for _, m := range s.maps {
		errs = append(errs, m.Close())
	}
	closeAll(s.held)
	closeAll(s.linkHeld)
	s.links, s.held, s.linkHeld = nil, nil, nil
	return errors.Join(errs...)
}

// Run reads the ring until ctx ends, and what is in it then, and calls handle for
// each record, in the kernel's order. The bytes are reused for the next record.
func (s *Sensor) Run(ctx context.Context, handle func(raw []byte)) error {
	stop := context.AfterFunc(ctx, func() {
		if s.reader.Flush() != nil {
			s.reader.Close() // ends the reading all the same
		}
	})
	defer stop()
	var rec ringbuf.Record
	for left := s.reader.BufferSize(); left > 0; {
		err := s.reader.ReadInto(&rec)
		switch {
		case err == nil:
			s.inHand.Store(true)
			handle(rec.RawSample)
			s.inHand.Store(false)
			if ctx.Err() != nil {
				left -= len(rec.RawSample) // the ring is being filled on
			}
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ringbuf.ErrClosed):
			return nil
		default:
			return fmt.Errorf("read ring: %w", err)
		}
	}
	return ctx.Err()
}

// Learn sends an event for every process that lives now, and for every
// connection that a process inside a login holds. It is called once, when Run
// is reading.
func (s *Sensor) Learn() error {
	for _, name := range []string{"learn_tasks", "learn_sockets"} {
		if _, err := s.iterate(name); err != nil {
			return err
		}
	}
	return s.settings(func(c *bpf.TracerSettings) { c.Learned = 1 })
}

// iterate runs an iterator over all tasks and returns what it printed.
func (s *Sensor) iterate(name string) ([]byte, error) {
	prog := s.progs[name]
	if prog == nil {
		return nil, fmt.Errorf("run iterator %s: not loaded", name)
	}
	it, err := link.AttachIter(link.IterOptions{Program: prog})
	if err != nil {
		return nil, fmt.Errorf("attach iterator %s: %w", name, err)
	}
	defer it.Close()
	r, err := it.Open()
	if err != nil {
		return nil, fmt.Errorf("open iterator %s: %w", name, err)
	}
	defer r.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read iterator %s: %w", name, err)
	}
	return out, nil
}

// settings changes the settings that the kernel side reads.
func (s *Sensor) settings(change func(*bpf.TracerSettings)) error {
	s.setMu.Lock()
	defer s.setMu.Unlock()
	var c bpf.TracerSettings
	k := uint32(0)
	if err := s.maps["config"].Lookup(&k, &c); err != nil {
		return fmt.Errorf("read kernel settings: %w", err)
	}
	change(&c)
	if err := s.maps["config"].Put(&k, &c); err != nil {
		return fmt.Errorf("write kernel settings: %w", err)
	}
	return nil
}

// learnInodes returns the kernel's names of the inodes behind descriptors of
// this process, by descriptor.
func (s *Sensor) learnInodes() (map[int]bpf.TracerInodeRow, error) {
	if err := s.settings(func(c *bpf.TracerSettings) { c.Learn = s.self }); err != nil {
		return nil, err
	}
	out, err := s.iterate("learn_inodes")
	if err != nil {
		return nil, err
	}
	rows := make(map[int]bpf.TracerInodeRow)
	for r := bytes.NewReader(out); r.Len() > 0; {
		var row bpf.TracerInodeRow
		if err := binary.Read(r, binary.NativeEndian, &row); err != nil {
			return nil, fmt.Errorf("read iterator learn_inodes: %w", err)
		}
		rows[int(row.Fd)] = row
	}
	return rows, nil
}
