package bpf_test

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/holdfast/holdfast/bpf"
)

// stackMax is what all frames of a chain of calls may take together before linux
// v6.13, each rounded up to 32 (linux v6.1 kernel/bpf/verifier.c:check_max_stack_depth).
const stackMax = 512

// The kernel that builds this may be newer and would load it.
func TestEveryChainOfCallsFitsTheStackOfOlderKernels(t *testing.T) {
	spec, err := bpf.LoadTracer()
	if err != nil {
		t.Fatal(err)
	}
	if len(spec.Programs) == 0 {
		t.Fatal("the object has no programs")
	}
	for name, p := range spec.Programs {
		frames := readFrames(p)
		if len(frames) == 0 {
			t.Errorf("%s: no functions", name)
		}
		depth, chain := deepest(frames, p.Name)
		if depth > stackMax {
			t.Errorf("%s takes %d bytes of stack, want at most %d: %s", name, depth, stackMax, strings.Join(chain, " > "))
		}
	}
}

// frame is what one function takes of the stack, and what it calls.
type frame struct {
	bytes int
	calls []string
}

func readFrames(p *ebpf.ProgramSpec) map[string]*frame {
	frames := map[string]*frame{}
	var f *frame
	for i := range p.Instructions {
		ins := &p.Instructions[i]
		if s := ins.Symbol(); s != "" && (f == nil || ins.Reference() == "" && isFunction(p, s)) {
			f = &frame{}
			frames[s] = f
		}
		if ins.IsFunctionReference() || ins.OpCode.JumpOp() == asm.Call && ins.Src == asm.PseudoCall {
			f.calls = append(f.calls, ins.Reference())
		}
		f.bytes = max(f.bytes, -reaches(p.Instructions, i))
	}
	return frames
}

// isFunction tells functions from labels of loops and branches.
func isFunction(p *ebpf.ProgramSpec, symbol string) bool {
	if symbol == p.Name {
		return true
	}
	for i := range p.Instructions {
		ins := &p.Instructions[i]
		if ins.Reference() == symbol && ins.OpCode.JumpOp() == asm.Call {
			return true
		}
	}
	return false
}

// reaches is the lowest offset from the frame pointer that instruction i uses: by
// a load or store, or by taking an address (r = r10; r += offset).
func reaches(ins asm.Instructions, i int) int {
	in := &ins[i]
	if class := in.OpCode.Class(); class.IsLoad() && in.Src == asm.R10 || class.IsStore() && in.Dst == asm.R10 {
		return min(0, int(in.Offset))
	}
	if in.OpCode.ALUOp() == asm.Add && in.OpCode.Source() == asm.ImmSource && in.Constant < 0 && in.Constant >= -stackMax && i > 0 && copies(ins[:i], in.Dst) {
		return int(in.Constant)
	}
	return 0
}

// copies tells whether dst was last set to the frame pointer, in the run of
// instructions before.
func copies(before asm.Instructions, dst asm.Register) bool {
	for i := len(before) - 1; i >= 0; i-- {
		if in := &before[i]; in.Dst == dst && (in.OpCode.Class().IsALU() || in.OpCode.Class().IsLoad()) {
			return in.OpCode.ALUOp() == asm.Mov && in.OpCode.Source() == asm.RegSource && in.Src == asm.R10
		}
	}
	return false
}

func deepest(frames map[string]*frame, name string) (int, []string) {
	f := frames[name]
	if f == nil {
		return 0, nil
	}
	var below int
	var chain []string
	for _, c := range f.calls {
		if d, ch := deepest(frames, c); d > below {
			below, chain = d, ch
		}
	}
	return (max(f.bytes, 1)+31)/32*32 + below, append([]string{name}, chain...)
}

// linux v5.12 (commit 5ffa25502b5a) brought atomic operations that have a result;
// kernels before it refuse a program that has one anywhere.
func TestNoAtomicOperationIsAskedForItsResult(t *testing.T) {
	spec, err := bpf.LoadTracer()
	if err != nil {
		t.Fatal(err)
	}
	additions := 0
	for name, p := range spec.Programs {
		for i := range p.Instructions {
			ins := &p.Instructions[i]
			if ins.OpCode.Class() != asm.StXClass || ins.OpCode.Mode() != asm.AtomicMode {
				continue
			}
			additions++
			if op := ins.OpCode.AtomicOp(); op != asm.AddAtomic {
				t.Errorf("%s, instruction %d: %v", name, i, op)
			}
		}
	}
	if additions == 0 {
		t.Error("the object has no atomic operation at all: they are not recognised")
	}
}
