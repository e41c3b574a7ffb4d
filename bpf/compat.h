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

/* The result of the function that an fexit program follows (helper since 5.17). */
static __always_inline long func_ret(void *ctx)
{
	u64 r = 0;

	bpf_get_func_ret(ctx, &r);
	return (long)r;
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

#endif
