/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Kernel differences, each behind one function named after its question, with
 * the commit that made the difference and when the function may go.
 */
#ifndef HOLDFAST_COMPAT_H
#define HOLDFAST_COMPAT_H

/*
 * Is this task in a 32-bit system call? Its numbers are another table's. On x86
 * the answer is a bit of thread_info (linux v6.1 arch/x86/include/asm/syscall.h
 * syscall_get_arch). May go when we read the i386 table too.
 */
static __always_inline bool in_compat_syscall(struct task_struct *t)
{
	return BPF_CORE_READ(t, thread_info.status) & TS_COMPAT;
}

/* Does this kernel have the helper? Answered at load: the verifier never enters the other branch. */
#define HAS_HELPER(name) bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_##name)

/*
 * The current task. Its type is known to the verifier since linux v5.11 (commit
 * 3ca1032ab7ab); before, only probe reads follow it: TASK_READ. A typed load from NULL
 * reads 0, but not on linux 5.10, which does not find the exception table of a program
 * with functions and panics: no typed pointer that may be NULL is followed there.
 */
static __always_inline struct task_struct *current_task(void)
{
	if (HAS_HELPER(get_current_task_btf))
		return bpf_get_current_task_btf();
	return (void *)bpf_get_current_task();
}

#define TASK_READ(t, field) (HAS_HELPER(get_current_task_btf) ? (t)->field : BPF_CORE_READ(t, field))

/*
 * Which system call is the current task in? The registers of the task lie at the
 * end of its stack; the helper that knows where exists since linux v5.15 (commit
 * dd6e10fbd9fb), before which the stack is 16 KiB and nothing lies behind them
 * (linux v5.10 arch/x86/include/asm/processor.h:task_pt_regs). May go with 5.10.
 */
#define STACK_SIZE 16384
#define REGS_SIZE 168
#define REGS_ORIG_AX 120

static __always_inline u64 current_call(void)
{
	struct task_struct *t = current_task();
	u64 nr = 0;

	if (HAS_HELPER(task_pt_regs)) {
		struct pt_regs *regs = (void *)bpf_task_pt_regs(t);

		return BPF_CORE_READ(regs, orig_ax);
	}
	bpf_probe_read_kernel(&nr, sizeof(nr), BPF_CORE_READ(t, stack) + STACK_SIZE - REGS_SIZE + REGS_ORIG_AX);
	return nr;
}

/*
 * The inode of a hook's dentry, 0 if it is a name without one. Never load d_inode of
 * an argument in any other way: since linux v6.3 the verifier believes that it is
 * there (kernel/bpf/verifier.c, BTF_TYPE_SAFE_TRUSTED(struct dentry)), takes checks
 * for NULL out of the program and lets it load without a net. It keeps a comparison
 * with a number that it does not know, as this 0. May go when no kernel since v6.3
 * believes so.
 */
volatile u64 nothing;

static __always_inline struct inode *inode_of(struct dentry *d)
{
	struct inode *in = d->d_inode;

	return (u64)in == nothing ? 0 : in;
}

/*
 * Where are the mappings of a process? In a list until linux v6.1 (commit
 * 763ecb035029), and iterators over them exist since v5.12 (commit 3d9ad5b3a5b1).
 * May go with 5.10. More than VMA_LIST mappings of one process are counted.
 */
#define VMA_LIST 4096

struct vm_area_struct___list {
	struct vm_area_struct___list *vm_next;
} __attribute__((preserve_access_index));

struct mm_struct___list {
	struct vm_area_struct___list *mmap;
} __attribute__((preserve_access_index));

static __always_inline bool has_vma_list(void)
{
	struct mm_struct___list *mm = 0;

	return bpf_core_field_exists(mm->mmap);
}

static __always_inline u64 first_vma(struct task_struct *t)
{
	struct mm_struct___list *mm = (void *)BPF_CORE_READ(t, mm);

	return mm ? (u64)BPF_CORE_READ(mm, mmap) : 0;
}

static __always_inline u64 next_vma(u64 vma)
{
	struct vm_area_struct___list *v = (void *)vma;

	return (u64)BPF_CORE_READ(v, vm_next);
}

/*
 * Is this the only reference to an open file? linux v6.12 (commit 90ee6ed776c0)
 * replaced f_count, which counts from 1, by f_ref, which counts from 0.
 */
typedef struct { s64 counter; } atomic64_t;
typedef struct { atomic64_t refcnt; } file_ref_t;

struct file___count {
	atomic64_t f_count;
} __attribute__((preserve_access_index));

struct file___ref {
	file_ref_t f_ref;
} __attribute__((preserve_access_index));

static __always_inline bool is_last_reference(struct file *f)
{
	struct file___ref *r = (void *)f;
	struct file___count *c = (void *)f;

	if (bpf_core_field_exists(r->f_ref))
		return BPF_CORE_READ(r, f_ref.refcnt.counter) == 0;
	return BPF_CORE_READ(c, f_count.counter) == 1;
}

/*
 * A name of an inode on its own file system: the file that an overlay opens has
 * the overlay's path before linux v6.12 (commit 2902369c2f92). linux v7.0 made
 * dentry.d_u anonymous.
 */
struct hlist_node {
	struct hlist_node *next;
} __attribute__((preserve_access_index));

struct hlist_head {
	struct hlist_node *first;
} __attribute__((preserve_access_index));

struct inode___named {
	union {
		struct hlist_head i_dentry;
	};
} __attribute__((preserve_access_index));

struct dentry___union {
	union {
		struct hlist_node d_alias;
	} d_u;
} __attribute__((preserve_access_index));

struct dentry___anonymous {
	union {
		struct hlist_node d_alias;
	};
} __attribute__((preserve_access_index));

static __always_inline u64 alias_offset(void)
{
	struct dentry___union *u = 0;

	if (bpf_core_field_exists(u->d_u.d_alias))
		return bpf_core_field_offset(struct dentry___union, d_u.d_alias);
	return bpf_core_field_offset(struct dentry___anonymous, d_alias);
}

static __always_inline struct dentry *alias_of(struct inode *in)
{
	struct inode___named *i = (void *)in;
	void *node = BPF_CORE_READ(i, i_dentry.first);

	return node ? node - alias_offset() : 0;
}

/* The next one, 0 behind the last. */
static __always_inline struct dentry *next_alias(struct dentry *d)
{
	struct hlist_node *node = (void *)d + alias_offset();
	void *next = BPF_CORE_READ(node, next);

	return next ? next - alias_offset() : 0;
}

/*
 * The file of an overlay that f, which overlayfs opened below, stands for; 0: f stands
 * for itself. Until linux v6.8 (commit def3ae83da02) f has the path above and the inode
 * below, since then both are below and a struct backing_file around f (since v6.5,
 * commit 62d53c4a1dfe) keeps the path above.
 */
struct backing_file {
	struct path user_path;
} __attribute__((preserve_access_index));

static __always_inline bool is_backing(u32 mode)
{
	struct backing_file *b = 0;

	return bpf_core_field_exists(b->user_path) && (mode & FMODE_BACKING);
}

static __always_inline struct dentry *overlaid(struct file *f)
{
	struct dentry *d = BPF_CORE_READ(f, f_path.dentry);
	struct backing_file *b = (void *)f;
	struct super_block *above, *below;
	struct inode *in;

	if (is_backing(BPF_CORE_READ(f, f_mode)))
		return BPF_CORE_READ(b, user_path.dentry);
	in = BPF_CORE_READ(f, f_inode);
	above = BPF_CORE_READ(d, d_sb);
	below = BPF_CORE_READ(in, i_sb);
	return above == below ? 0 : d;
}

/*
 * Locks that are never waited for: 0 is free. Only additions whose result is not
 * asked for: linux v5.12 (commit 5ffa25502b5a) brought the other atomic
 * operations, and kernels before it refuse every program that has one. Who reads
 * exactly his own addition has the lock; two that come at once may both fail.
 */
static __always_inline bool take(u32 *lock)
{
	__sync_fetch_and_add(lock, 1);
	if (*(volatile u32 *)lock == 1)
		return true;
	__sync_fetch_and_add(lock, -1);
	return false;
}

static __always_inline void give(u32 *lock)
{
	__sync_fetch_and_add(lock, -1);
}

/*
 * Argument n of a vfs function that has an idmap (until v6.2 a user_namespace)
 * somewhere before it: linux v5.12 put it there, in the series that gave mounts
 * one (commits a6435940b62f, 6521f8917082). n counts it. The load is spelled out
 * because a context must be read at a constant offset.
 */
struct vfsmount___userns {
	void *mnt_userns;
} __attribute__((preserve_access_index));

struct vfsmount___idmap {
	void *mnt_idmap;
} __attribute__((preserve_access_index));

static __always_inline bool has_idmap(void)
{
	struct vfsmount___userns *u = 0;
	struct vfsmount___idmap *i = 0;

	return bpf_core_field_exists(u->mnt_userns) || bpf_core_field_exists(i->mnt_idmap);
}

#define CTX(ctx, n) ({ \
	u64 v_; \
	asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(v_) : "r"(ctx), "i"((n) * 8)); \
	v_; \
})
#define AFTER_IDMAP(ctx, n) (has_idmap() ? CTX(ctx, n) : CTX(ctx, (n) - 1))

/*
 * The result of the function that an fexit program follows: by a helper since
 * linux v5.17 (commit f92c1e183604), before that it lies behind the n arguments
 * that the function has, the idmap included.
 */
#define RESULT(ctx, n) ({ \
	u64 r_ = 0; \
	if (HAS_HELPER(get_func_ret)) \
		bpf_get_func_ret(ctx, &r_); \
	else \
		r_ = AFTER_IDMAP(ctx, n); \
	(long)r_; \
})

/*
 * Do file systems change the flags of a file by one function, vfs_fileattr_set?
 * Since linux v5.13 (commit 4c5b47997521). The struct was renamed in v6.17 (commit
 * ca115d7e7546). May go with 5.10.
 */
struct fileattr {
	u32 flags;
} __attribute__((preserve_access_index));

struct file_kattr {
	u32 flags;
} __attribute__((preserve_access_index));

static __always_inline bool has_fileattr(void)
{
	return bpf_core_type_exists(struct fileattr) || bpf_core_type_exists(struct file_kattr);
}

/*
 * vfs_mkdir returns the dentry or an ERR_PTR since linux v6.15 (commit
 * c54b386969a5); an int before. Both read as "negative errno or not" once
 * truncated the right way: an ERR_PTR is in the last page.
 */
static __always_inline int mkdir_result(long r)
{
	if ((u64)r >= (u64)-4095)
		return (int)r;
	return (u64)r >> 32 ? 0 : (int)r;
}

/*
 * vfs_rename has one argument, struct renamedata, since linux v5.12 (commit
 * 9fe61450972d); before, (dir, dentry, dir, dentry, delegated, flags).
 * Stable kernels have it without an idmap (v5.10.220).
 */
#define HAS_RENAMEDATA() bpf_core_type_exists(struct renamedata)

static __always_inline struct dentry *rename_old(u64 *ctx)
{
	return HAS_RENAMEDATA() ? ((struct renamedata *)CTX(ctx, 0))->old_dentry : (void *)CTX(ctx, 1);
}

static __always_inline struct dentry *rename_new(u64 *ctx)
{
	return HAS_RENAMEDATA() ? ((struct renamedata *)CTX(ctx, 0))->new_dentry : (void *)CTX(ctx, 3);
}

static __always_inline u32 rename_flags(u64 *ctx)
{
	return HAS_RENAMEDATA() ? ((struct renamedata *)CTX(ctx, 0))->flags : CTX(ctx, 5);
}

static __always_inline int rename_result(u64 *ctx)
{
	if (HAS_HELPER(get_func_ret))
		return RESULT(ctx, 1);
	return HAS_RENAMEDATA() ? CTX(ctx, 1) : CTX(ctx, 6);
}

/*
 * Do the tracepoints of io_uring tell of the request itself? Since linux v5.19 (commit
 * cef216fc32d7, which brought the field cqe); before, the one of its end tells nothing
 * but a number of the program's. May go with 5.10.
 */
struct io_kiocb___cqe {
	int cqe;
} __attribute__((preserve_access_index));

static __always_inline bool requests_are_told(void)
{
	struct io_kiocb___cqe *req = 0;

	return bpf_core_field_exists(req->cqe);
}

#endif
