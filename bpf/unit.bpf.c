//go:build ignore

// SPDX-License-Identifier: GPL-2.0
/*
 * Runs the pure inline functions from go test (BPF_PROG_TEST_RUN), so that they
 * are held against the same cases as their twins in Go.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#include "event.h"
#include "compat.h"
#include "maps.h"
#include "emit.h"
#include "path.h"
#include "actor.h"
#include "rules.h"
#include "hooks/file.h"
#include "hooks/fold.h"
#include "hooks/cred.h"
#include "hooks/process.h"
#include "hooks/device.h"
#include "hooks/ioctl.h"
#include "hooks/calls.h"
#include "hooks/passed.h"
#include "hooks/syscall.h"

char LICENSE[] SEC("license") = "GPL";

struct unit_args {
	__u64 result;
	__u64 user;	/* address in the caller's memory */
	__u32 anchor;
	__u32 rule;
	__u32 mode;
	__u32 pad;
};

const struct unit_args *unused_args __attribute__((unused));

/* name_hash() of the string at user */
SEC("syscall")
int unit_hash(struct unit_args *a)
{
	a->result = name_hash(a->user, 1);
	return 0;
}

/* path_kind() of the string at user */
SEC("syscall")
int unit_kind(struct unit_args *a)
{
	a->result = path_kind(a->user);
	return 0;
}

/* address of the caller's executable, the key of the allowed ones */
SEC("syscall")
int unit_exe(struct unit_args *a)
{
	a->result = (u64)exe_inode(bpf_get_current_task_btf());
	return 0;
}

/* refuses() of a place, for the caller as he is */
SEC("syscall")
int unit_refuses(struct unit_args *a)
{
	struct place p = {};

	p.anchor = a->anchor;
	p.rule = a->rule;
	p.mode = a->mode;
	a->result = refuses(&p);
	return 0;
}
