package sense

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"

	"github.com/holdfast/holdfast/bpf"
)

// fitKernel changes spec where a kernel could not read it at all. What programs do
// differently they decide themselves, when they are loaded (bpf/compat.h).
func fitKernel(spec *ebpf.CollectionSpec) error {
	switch err := features.HaveMapType(ebpf.TaskStorage); {
	case err == nil:
		spec.Maps["threads"].MaxEntries = 1 // nothing is kept there
	case errors.Is(err, ebpf.ErrNotSupported):
		// Programs that name the map are not loaded without one; they never use it.
		spec.Maps["tasks"] = &ebpf.MapSpec{Name: "tasks", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	default:
		return fmt.Errorf("look for task storage: %w", err)
	}
	return inlineFunctions(spec)
}

// inlineFunctions lets the verifier follow every call where it cannot verify a
// function with pointers on its own (before linux v5.12, commit e5069b9c23b3).
func inlineFunctions(spec *ebpf.CollectionSpec) error {
	probe, err := bpf.LoadProbe()
	if err != nil {
		return fmt.Errorf("read bpf object: %w", err)
	}
	for name := range probe.Programs {
		if name != "probe_pointer" {
			delete(probe.Programs, name)
		}
	}
	delete(probe.Maps, "storage") // not for this question
	coll, err := ebpf.NewCollection(probe)
	if err == nil {
		coll.Close()
		return nil
	}
	if v := (*ebpf.VerifierError)(nil); !errors.As(err, &v) {
		return nil // it cannot be told; loading the programs will
	}
	for _, p := range spec.Programs {
		for i := range p.Instructions {
			if f := btf.FuncMetadata(&p.Instructions[i]); f != nil && f.Name != p.Name && takesPointer(f) {
				f.Linkage = btf.StaticFunc
			}
		}
	}
	return nil
}

func takesPointer(f *btf.Func) bool {
	proto, ok := f.Type.(*btf.FuncProto)
	return !ok || slices.ContainsFunc(proto.Params, func(p btf.FuncParam) bool {
		_, pointer := btf.UnderlyingType(p.Type).(*btf.Pointer)
		return pointer
	})
}
