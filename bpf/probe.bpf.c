//go:build ignore

// SPDX-License-Identifier: GPL-2.0
/*
 * Answers "does this kernel ..." by firing: each program notes that it ran in
 * the process that asked. User space loads and attaches one, does what should
 * fire it, and looks.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "GPL";

/* Key 0: pid that asks, written by user space; key 1: how often the program ran in it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, u32);
	__type(value, u64);
} fired SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, u64);
} storage SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

static __always_inline int note(void)
{
	u32 who = 0, count = 1;
	u64 *pid = bpf_map_lookup_elem(&fired, &who), *n = bpf_map_lookup_elem(&fired, &count);

	if (pid && n && *pid == bpf_get_current_pid_tgid() >> 32)
		__sync_fetch_and_add(n, 1);
	return 0;
}

SEC("lsm/file_open")
int BPF_PROG(probe_lsm, struct file *f, int ret)
{
	note();
	return ret;
}

SEC("fmod_ret/security_file_open")
int BPF_PROG(probe_modify, struct file *f)
{
	note();
	return 0;
}

SEC("fexit/security_file_open")
int BPF_PROG(probe_fexit, struct file *f)
{
	return note();
}

SEC("tp_btf/sys_exit")
int BPF_PROG(probe_tp, struct pt_regs *regs, long ret)
{
	return note();
}

SEC("iter/task")
int probe_iter(struct bpf_iter__task *ctx)
{
	return note();
}

SEC("tp_btf/sys_exit")
int BPF_PROG(probe_storage, struct pt_regs *regs, long ret)
{
	u64 *v = bpf_task_storage_get(&storage, bpf_get_current_task_btf(), 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	return v ? note() : 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(probe_ring, struct pt_regs *regs, long ret)
{
	u64 v = 0;

	return bpf_ringbuf_output(&ring, &v, 0, 0) ? 0 : note();
}

__noinline u64 behind(u64 *p)
{
	return p ? *p : 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(probe_pointer, struct pt_regs *regs, long ret)
{
	u64 v = ret;

	return behind(&v) ? 0 : note();
}
