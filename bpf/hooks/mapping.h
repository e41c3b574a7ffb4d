/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Content that changes without a write: stores through shared mappings, and
 * descriptors that come from another process.
 *
 * tell   fentry/file_update_time   a store, the first one into a page since it was
 *                                  written back: the file system's page_mkwrite, and
 *                                  fault_dirty_shared_page where it has none (linux
 *                                  v6.1 mm/memory.c); nothing can refuse it
 * decide mmap_backing_file         overlayfs maps the file below (linux v6.12)
 *        file_receive              a descriptor was received
 *
 * What happens to a page between that first store and its write-back is seen by
 * nobody: user space reads mapped files every so often, and when the last mapping
 * goes (pkg/coalesce, held).
 */
#ifndef HOLDFAST_MAPPING_H
#define HOLDFAST_MAPPING_H

/* Numbers of x86-64, as in calls[] (hooks/calls.h). */
#define NR_FAULT ((u64)-1)	/* no system call: the processor trapped (linux v6.1 arch/x86/entry/entry_64.S:idtentry_body) */
#define NR_IOCTL 16
#define NR_PTRACE 101
#define NR_IO_SUBMIT 209
#define NR_PROCESS_VM_WRITEV 311
#define NR_IO_URING_ENTER 426

/*
 * file_update_time is called by stores and, on some kernels and file systems, by
 * writes, which have an event of their own. A write system call is a write; so is
 * what a thread of the kernel or an asynchronous ring does, as far as can be told
 * here. Everything else that comes here copies into a mapping.
 */
static __always_inline bool is_store(u64 nr)
{
	struct task_struct *t = current_task();

	if (TASK_READ(t, flags) & (PF_KTHREAD | PF_IO_WORKER))
		return false;
	if (nr == NR_FAULT)
		return true;
	if (nr == NR_IOCTL || nr == NR_IO_SUBMIT || nr == NR_IO_URING_ENTER)
		return false;
	return nr >= CALLS || calls[nr].form != F_WRITE;
}

/* Sends a store; further ones by the same process are folded for a while. */
__noinline int report_store(struct request *r, u64 count)
{
	struct slot *s;

	if (!r)
		return 0;
	s = event_by_current(EV_FILE, OP_MAP_WRITE, HOOK_UPDATE_TIME);
	if (!s)
		return 0;
	fill_file(s, r);
	file_of(s)->count = count;
	put_place(s, 0, r);
	remember_opener(s, store_key(r->opener), r, 1);
	submit(s);
	return 0;
}

/* Somebody stored into the file of r. */
__noinline int stored(struct request *r, u64 nr)
{
	u64 k, now, count = 1, pt = bpf_get_current_pid_tgid();
	struct opener *o;

	if (!r)
		return 0;
	r->flags = EF_MAPPED;
	r->ret = nr != NR_PROCESS_VM_WRITEV && nr != NR_PTRACE;	/* into a mapping of its own */
	k = store_key(r->opener);
	o = bpf_map_lookup_elem(&openers, &k);
	if (o && o->inode == (u64)r->in && o->head.tgid == (u32)(pt >> 32)) {
		now = bpf_ktime_get_boot_ns();
		if (now - o->sent < FOLD_NS) {
			COUNT(HOOK_UPDATE_TIME, seen);
			COUNT(HOOK_UPDATE_TIME, folded);
			__sync_fetch_and_add(&o->count, 1);
			return 0;
		}
		count += o->count;
	}
	if (place(r))
		report_store(r, count);
	return 0;
}

static __noinline int on_store(struct file *f, u64 nr)
{
	struct request r;

	request_file(&r, f, OP_MAP_WRITE, HOOK_UPDATE_TIME);
	stored(&r, nr);
	if (request_over(&r, f, OP_MAP_WRITE, HOOK_UPDATE_TIME))
		stored(&r, nr);
	return 0;
}

SEC("fentry/file_update_time")
int BPF_PROG(file_update_time, struct file *f)
{
	u64 nr;

	/* not mapped shared for writing: a write, which is not our business */
	if (f->f_inode->i_mapping->i_mmap_writable.counter <= 0 || (nearby_file(f).where == AWAY && !is_backing(f->f_mode)))
		return 0;
	nr = current_call();
	return is_store(nr) ? on_store(f, nr) : 0;
}

/* user is the file that was mapped, of overlayfs; backing is the one below it. */
static __always_inline int decide_backing(struct vm_area_struct *vma, struct file *backing)
{
	if (!(BPF_CORE_READ(vma, vm_flags) & VM_SHARED))
		return 0;
	return on_map(backing, HOOK_MMAP_BACKING, TIER_LSM);
}

DECIDE(mmap_backing_file, decide_backing(vma, backing), struct vm_area_struct *vma, struct file *backing, struct file *user)

/* Who received a descriptor may write only what its sender opened with leave. */
static __noinline int on_receive(struct file *f)
{
	u64 k = (u64)f;
	struct request r;
	struct opener *o;

	request_file(&r, f, OP_RECEIVE, HOOK_RECEIVE);
	if (!is_regular(&r) || !place(&r))
		return 0;
	o = bpf_map_lookup_elem(&openers, &k);
	if (o && o->inode != (u64)r.in)
		o = 0;
	if (!o && refuses(&r.place))
		return deny(&r);
	report(&r);
	return 0;
}

static __always_inline int decide_receive(struct file *f)
{
	if (!(f->f_mode & FMODE_WRITE) || nearby_file(f).where == AWAY)
		return 0;
	return on_receive(f);
}

DECIDE(file_receive, decide_receive(f), struct file *f)

#endif
