package sense

import (
	"hash/fnv"
	"os"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/holdfast/holdfast/bpf"
	"github.com/holdfast/holdfast/pkg/judge/judgetest"
)

// unit loads bpf/unit.bpf.c: the kernel side's pure functions, to be run from here.
func unit(t *testing.T) *ebpf.Collection {
	t.Helper()
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	spec, err := bpf.LoadUnit()
	if err != nil {
		t.Fatal(err)
	}
	for name := range spec.Programs {
		if !strings.HasPrefix(name, "unit_") {
			delete(spec.Programs, name)
		}
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	return coll
}

func run(t *testing.T, coll *ebpf.Collection, name string, args bpf.UnitUnitArgs) uint64 {
	t.Helper()
	if _, err := coll.Programs[name].Run(&ebpf.RunOptions{Context: &args, ContextOut: &args}); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return args.Result
}

// user is a NUL ended copy of s that the kernel can read while the test runs.
func user(s string) (addr uint64, keep []byte) {
	keep = append([]byte(s), 0)
	return uint64(uintptr(unsafe.Pointer(&keep[0]))), keep
}

func TestNamesHashAlikeInTheKernelAndHere(t *testing.T) {
	coll := unit(t)
	for _, name := range []string{"a", "passwd", ".", "with space", "\xff\xfe", strings.Repeat("x", 255)} {
		addr, keep := user(name)
		got := run(t, coll, "unit_hash", bpf.UnitUnitArgs{User: addr})
		_ = keep[0]
		truth := fnv.New64a()
		truth.Write([]byte(name))
		if got != truth.Sum64() || nameHash(name) != truth.Sum64() {
			t.Errorf("%q: kernel %x, here %x, hash/fnv %x", name, got, nameHash(name), truth.Sum64())
		}
	}
}

func TestOnlyOneNameIsPlacedWithoutResolving(t *testing.T) {
	coll := unit(t)
	const simple, empty, complicated = 2, 3, 4 // bpf/hooks/syscall.h
	for path, want := range map[string]uint64{
		"": empty, "a": simple, "a.b": simple, "...": simple, ".a": simple, strings.Repeat("x", 255): simple,
		".": complicated, "..": complicated, "/": complicated, "/a": complicated, "a/b": complicated, "a/": complicated,
		"./a": complicated, strings.Repeat("x", 256): complicated,
	} {
		addr, keep := user(path)
		if got := run(t, coll, "unit_kind", bpf.UnitUnitArgs{User: addr}); got != want {
			t.Errorf("%q is %d, want %d", path, got, want)
		}
		_ = keep[0]
	}
}

// The same table of cases runs against pkg/judge.
func TestTheKernelRefusesWhatTheCasesSay(t *testing.T) {
	coll := unit(t)
	exe := run(t, coll, "unit_exe", bpf.UnitUnitArgs{})
	if exe == 0 {
		t.Fatal("this program has no executable")
	}
	const rule = 7
	for _, c := range judgetest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			key := bpf.TracerExeKey{Inode: exe, Rule: rule}
			settings := bpf.TracerSettings{Armed: 1, Blocking: 1}
			if c.In.Self {
				settings.Self = uint32(os.Getpid())
			}
			if err := coll.Maps["config"].Put(uint32(0), &settings); err != nil {
				t.Fatal(err)
			}
			if c.In.Allowed {
				if err := coll.Maps["allowed"].Put(&key, uint32(1)); err != nil {
					t.Fatal(err)
				}
				defer coll.Maps["allowed"].Delete(&key)
			}
			if c.In.Window != "" {
				person := bpf.TracerExeKey{Inode: uint64(loginuid(t)), Rule: personBit | rule}
				if err := coll.Maps["allowed"].Put(&person, uint32(1)); err != nil {
					t.Fatal(err)
				}
				defer coll.Maps["allowed"].Delete(&person)
			}
			args := bpf.UnitUnitArgs{Anchor: 1, Rule: rule, Mode: uint32(modeNumber(c.In.Mode))}
			if got := run(t, coll, "unit_refuses", args) != 0; got != c.Refuses {
				t.Errorf("refuses: %v, want %v", got, c.Refuses)
			}
		})
	}
}

// loginuid is that of this process, as the kernel has it.
func loginuid(t *testing.T) uint32 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/loginuid")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}
