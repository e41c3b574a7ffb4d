// Package bpf holds the kernel side as compiled objects and the Go types that
// are generated from it: nothing else lives here. The C is under GPL-2.0
// (LICENSE in this folder), as the kernel requires of programs that call its
// GPL-only helpers. Only sense, decode and kernel import this package.
//
// The objects are committed, so that building Holdfast needs no compiler for
// BPF; make generate makes them anew and make check compares.
package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64 -type event_head -type file_body -type peer_body -type ids -type cred_body -type inode_row -type mark -type name_key -type exe_key -type settings -type counters -type reach -type attempt Tracer tracer.bpf.c -- -O2 -mcpu=v3 -Wall -Werror -I/usr/include/x86_64-linux-gnu
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64 Probe probe.bpf.c -- -O2 -mcpu=v3 -Wall -Werror -I/usr/include/x86_64-linux-gnu
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64 -type unit_args Unit unit.bpf.c -- -O2 -mcpu=v3 -Wall -Werror -I/usr/include/x86_64-linux-gnu
