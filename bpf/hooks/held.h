/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What was there before us: descriptors and mappings through which a watched
 * file can be changed without being opened again.
 *
 * iter/task_file   descriptors that are open for writing
 * iter/task_vma    shared mappings that are writable or may be made so
 * iter/task        the same on kernels without that iterator
 *
 * Each one is an event (EV_HELD) about its owner. Behind the last one comes an
 * event without an operation: the scan is complete, and what it did not tell of
 * is not there any more. arg of all of them is settings.scan.
 */
#ifndef HOLDFAST_HELD_H
#define HOLDFAST_HELD_H

/*
 * Sends what process leader holds. r is placed by place(); bytes is the length of
 * a mapping. session is that of the owner, 0 if it has none.
 */
__noinline int report_held(struct request *r, u64 leader, u64 session, u64 bytes)
{
	struct settings *c = settings();
	struct task_struct *t = (void *)leader;
	struct slot *s;

	if (!r || !t || !c)
		return 0;
	s = slot_get(HOOK_HELD);
	if (!s)
		return 0;
	fill_head(s, leader, EV_HELD, r->op, HOOK_HELD);
	head_of(s)->session = session;
	r->arg = c->scan;
	fill_file(s, r);
	file_of(s)->bytes = bytes;
	/* allowed is the owner's program, not the one that runs the iterator */
	head_of(s)->flags &= ~EF_ALLOWED;
	if (lists(r->place.rule, (u64)exe_inode(t)))
		head_of(s)->flags |= EF_ALLOWED;
	if (c->arming)
		head_of(s)->flags |= EF_FIRST;
	put_place(s, 0, r);
	submit(s);
	return 0;
}

/* The scan is complete. op is OP_OPEN for descriptors, OP_MAP_WRITE for mappings. */
static __always_inline int held_end(u32 op)
{
	struct settings *c = settings();
	struct slot *s;

	COUNT(HOOK_HELD, seen);
	if (!c) {
		COUNT(HOOK_HELD, failed);
		return 0;
	}
	s = slot_get(HOOK_HELD);
	if (!s)
		return 0;
	fill_head(s, bpf_get_current_task(), EV_HELD, OP_NONE, HOOK_HELD);
	if (op == OP_MAP_WRITE)
		head_of(s)->flags |= EF_MAPPED;
	if (c->arming)
		head_of(s)->flags |= EF_FIRST;
	file_of(s)->arg = c->scan;
	submit(s);
	return 0;
}

/* Our own are restores under way, which have records of their own. */
static __always_inline bool held_skips(struct task_struct *t)
{
	struct settings *c = settings();

	return !c || c->self == (u32)BPF_CORE_READ(t, tgid);
}

/* The place of r; false for a name that a rule only waits for. */
static __always_inline bool held_place(struct request *r)
{
	if (!place(r))
		return false;
	if (!r->place.anchor)
		COUNT(r->hook, skipped);
	return r->place.anchor;
}

/* The same for a block device below a tree: what is written to it goes past the tree. */
static __always_inline bool held_device(struct request *r)
{
	if (!find_device(r))
		return false;
	COUNT(r->hook, seen);
	return true;
}

/* The session of t, 0 if it is in none. */
static __always_inline u64 session_of(struct task_struct *t)
{
	struct task_state *st = state_of(t, false);

	return st ? st->session : 0;
}

SEC("iter/task_file")
int held_files(struct bpf_iter__task_file *ctx)
{
	struct task_struct *t = ctx->task;
	struct settings *c = settings();
	struct file *f = ctx->file;
	struct request r;
	struct opener *o;
	u64 k = (u64)f;

	if (!t || !f)
		return held_end(OP_OPEN);
	if (!c || !(BPF_CORE_READ(f, f_mode) & FMODE_WRITE) || held_skips(t))
		return 0;
	request_file(&r, f, OP_OPEN, HOOK_HELD);
	if (is_regular(&r) ? !held_place(&r) : !held_device(&r))
		return 0;
	o = bpf_map_lookup_elem(&openers, &k);
	if (o && o->inode == (u64)r.in && c->arming) {
		COUNT(HOOK_HELD, skipped);	/* its opening, or a write through it, was told */
		return 0;
	}
	report_held(&r, leader_addr(t), session_of(t), 0);
	return 0;
}

/* Tells of a mapping of r's file, if that is watched. */
__noinline int held_mapped(struct request *r, u64 leader, u64 session, u64 bytes)
{
	struct task_struct *t = (void *)leader;

	if (!r || !t || !held_place(r))
		return 0;
	if (r->place.below)	/* the end of the mapping tells nothing of the tree */
		return 0;
	note_mapper(BPF_CORE_READ(t, tgid));
	return report_held(r, leader, session, bytes);
}

/* Tells of a mapping, if it can change a watched file. vma and leader are addresses. */
__noinline int held_map(u64 vma, u64 leader, u64 session)
{
	struct vm_area_struct *v = (void *)vma;
	struct task_struct *t = (void *)leader;
	u64 flags, bytes;
	struct request r;
	struct file *f;

	if (!v || !t)
		return 0;
	flags = BPF_CORE_READ(v, vm_flags);
	/* VM_SHARED is set only on a file that is open for writing (linux v6.1 mm/mmap.c:do_mmap) */
	if (!(flags & VM_SHARED) || !(flags & VM_MAYWRITE))
		return 0;
	f = BPF_CORE_READ(v, vm_file);
	if (!f)
		return 0;
	request_file(&r, f, OP_MAP_WRITE, HOOK_HELD);
	if (!is_regular(&r))
		return 0;
	r.flags = EF_MAPPED;
	r.ret = !!(flags & VM_WRITE);
	bytes = BPF_CORE_READ(v, vm_end) - BPF_CORE_READ(v, vm_start);
	held_mapped(&r, leader, session, bytes);
	if (request_over(&r, f, OP_MAP_WRITE, HOOK_HELD)) {
		r.flags = EF_MAPPED;
		r.ret = !!(flags & VM_WRITE);
		held_mapped(&r, leader, session, bytes);
	}
	return 0;
}

SEC("iter/task_vma")
int held_maps(struct bpf_iter__task_vma *ctx)
{
	struct task_struct *t = ctx->task;
	struct vm_area_struct *vma = ctx->vma;
	u64 addr = 0;

	if (!t || !vma)
		return held_end(OP_MAP_WRITE);
	if (held_skips(t))
		return 0;
	bpf_probe_read_kernel(&addr, sizeof(addr), &vma);	/* as a number: see held_map */
	return held_map(addr, leader_addr(t), session_of(t));
}

/* The same where mappings are a list and have no iterator: compat.h. */
SEC("iter/task")
int held_maps_list(struct bpf_iter__task *ctx)
{
	struct task_struct *t = ctx->task;
	u64 vma, leader, session;

	if (!t)
		return held_end(OP_MAP_WRITE);
	if (!has_vma_list() || BPF_CORE_READ(t, pid) != BPF_CORE_READ(t, tgid) || held_skips(t))
		return 0;
	leader = leader_addr(t);
	session = session_of(t);
	vma = first_vma(t);
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < VMA_LIST; i++) {
		if (!vma)
			return 0;
		held_map(vma, leader, session);
		vma = next_vma(vma);
	}
	COUNT(HOOK_HELD, seen);
	COUNT(HOOK_HELD, deep);
	return 0;
}

#endif
