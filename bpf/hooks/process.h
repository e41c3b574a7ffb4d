/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Processes and sessions, the same in every tier.
 *
 * sched_process_fork  a process began: it inherits its parent's session
 * sched_process_exec  a process replaced its program
 * sched_process_exit  the last thread of a process ended
 * iter/task           the processes that lived before us
 * iter/task_file      their inbound connections; and the inodes that we hold open
 */
#ifndef HOLDFAST_PROCESS_H
#define HOLDFAST_PROCESS_H

#define ARGV_MAX 2048	/* bytes of the arguments that an event carries; longer ones are cut and say so */

static __always_inline void put_exe(struct slot *s, struct task_struct *t)
{
	struct mm_struct *mm = BPF_CORE_READ(t, mm);
	struct file *f = mm ? BPF_CORE_READ(mm, exe_file) : 0;

	if (f)
		put_path(s->number, 0, (u64)BPF_CORE_READ(f, f_path.mnt), (u64)BPF_CORE_READ(f, f_path.dentry));
}

static __always_inline void put_argv(struct slot *s, struct task_struct *t)
{
	struct mm_struct *mm = BPF_CORE_READ(t, mm);
	u64 from, n;

	if (!mm)
		return;
	from = BPF_CORE_READ(mm, arg_start);
	n = BPF_CORE_READ(mm, arg_end) - from;
	if (n >= ARGV_MAX) {
		head_of(s)->flags |= EF_TRUNCATED;
		n = ARGV_MAX - 1;
	}
	n &= ARGV_MAX - 1;
	if (n && !bpf_probe_read_user(tail(s), n, (void *)from))
		grew(s, 1, n);
}

static __always_inline void put_cwd(struct slot *s, struct task_struct *t)
{
	struct fs_struct *fs = BPF_CORE_READ(t, fs);

	if (fs)
		put_path(s->number, 2, (u64)BPF_CORE_READ(fs, pwd.mnt), (u64)BPF_CORE_READ(fs, pwd.dentry));
}

/* The file that was executed, if what runs is its interpreter. */
static __always_inline void put_script(struct slot *s, struct linux_binprm *bprm)
{
	const char *name = BPF_CORE_READ(bprm, filename);
	long n;

	/* linux v6.1 fs/exec.c: interp is filename until a format changes it (bprm_change_interp) */
	if (name == BPF_CORE_READ(bprm, interp))
		return;
	n = bpf_probe_read_kernel_str(tail(s), STRING_MAX, name);
	if (n > 1)
		grew(s, 3, n - 1);
}

/* The status that wait(2) gives of the process of its last thread (linux v6.1 kernel/exit.c:wait_task_zombie). */
static __always_inline s32 exit_status(struct task_struct *t)
{
	if (BPF_CORE_READ(t, signal, flags) & SIGNAL_GROUP_EXIT)
		return BPF_CORE_READ(t, signal, group_exit_code);
	return BPF_CORE_READ(t, group_leader, exit_code);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_fork, struct task_struct *parent, struct task_struct *child)
{
	struct task_state *ps = session_check(current_task()), *cs;
	struct slot *s;

	if (ps) {
		cs = state_of(child, true);
		if (cs)
			*cs = *ps;
	}
	if (child->pid != child->tgid)
		return 0;
	COUNT(HOOK_FORK, seen);
	s = slot_get(HOOK_FORK);
	if (!s)
		return 0;
	begin(s, EV_FORK, OP_NONE, HOOK_FORK);
	/* A kernel thread has no mm, and linux 5.10 ends on a typed load from it: see compat.h. */
	if (HAS_HELPER(get_current_task_btf))
		fill_typed(head_of(s), child);
	else
		fill_probed(head_of(s), child);
	if (ps)
		head_of(s)->session = ps->session;
	fill_parent(head_of(s), parent);
	submit(s);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_exec, struct task_struct *t, int old_pid, struct linux_binprm *bprm)
{
	struct slot *s;

	if (BPF_CORE_READ_BITFIELD_PROBED(bprm, secureexec))
		tell_creds(0);	/* by a file that gives privileges; before the program that has them */
	COUNT(HOOK_EXEC, seen);
	s = event_by_current(EV_EXEC, OP_NONE, HOOK_EXEC);
	if (!s)
		return 0;
	put_exe(s, t);
	put_argv(s, t);
	put_cwd(s, t);
	put_script(s, bprm);
	submit(s);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit, struct task_struct *t)
{
	struct slot *s;

	/* do_exit counts the thread out before it comes here (linux v6.1 kernel/exit.c) */
	if (BPF_CORE_READ(t, signal, live.counter) != 0)
		return 0;
	COUNT(HOOK_EXIT, seen);
	s = event_by_current(EV_EXIT, OP_NONE, HOOK_EXIT);
	if (!s)
		return 0;
	head_of(s)->ret = exit_status(t);
	submit(s);
	return 0;
}

SEC("iter/task")
int learn_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *t = ctx->task;
	struct task_state *st;
	struct slot *s;
	u32 audit;

	if (!t)
		return 0;
	audit = BPF_CORE_READ(t, sessionid);
	if (audit != UNSET) {
		st = state_of(t, true);
		if (st && !st->session) {
			st->session = audit;
			st->audit = audit;
			st->how = HOW_FOUND;
		}
	}
	if (BPF_CORE_READ(t, pid) != BPF_CORE_READ(t, tgid))
		return 0;
	COUNT(HOOK_ITER, seen);
	s = slot_get(HOOK_ITER);
	if (!s)
		return 0;
	fill_head(s, leader_addr(t), EV_PROC, OP_NONE, HOOK_ITER);
	if (audit != UNSET)
		head_of(s)->session = audit;
	put_exe(s, t);
	put_cwd(s, t);
	submit(s);
	return 0;
}

SEC("iter/task_file")
int learn_sockets(struct bpf_iter__task_file *ctx)
{
	struct task_struct *t = ctx->task;
	struct file *f = ctx->file;
	struct peer_body *b;
	struct slot *s;
	struct sock *sk;
	u32 audit;

	if (!t || !f || BPF_CORE_READ(t, pid) != BPF_CORE_READ(t, tgid))
		return 0;
	audit = BPF_CORE_READ(t, sessionid);
	if (audit == UNSET)
		return 0;
	sk = stream_sock(f);
	if (!sk || !is_inbound(sk))
		return 0;
	COUNT(HOOK_ITER, seen);
	s = slot_get(HOOK_ITER);
	if (!s)
		return 0;
	fill_head(s, leader_addr(t), EV_SOCKET, OP_NONE, HOOK_ITER);
	head_of(s)->session = audit;
	b = peer_of(s);
	b->how = HOW_FOUND;
	if (!read_peer(sk, b->addr, &b->port, &b->lport)) {
		COUNT(HOOK_ITER, skipped);
		slot_put(s);
		return 0;
	}
	submit(s);
	return 0;
}

/* Prints the kernel's own names of the inodes that settings.learn holds open. */
SEC("iter/task_file")
int learn_inodes(struct bpf_iter__task_file *ctx)
{
	struct settings *c = settings();
	struct inode_row row = {};
	struct inode *in;

	struct task_struct *t = ctx->task;
	struct file *f = ctx->file;

	if (!t || !f || !c || (u32)BPF_CORE_READ(t, tgid) != c->learn)
		return 0;
	in = BPF_CORE_READ(f, f_inode);
	row.fd = ctx->fd;
	row.gen = BPF_CORE_READ(in, i_generation);
	row.inode = (u64)in;
	row.sb = (u64)BPF_CORE_READ(in, i_sb);
	row.dev = BPF_CORE_READ(in, i_sb, s_dev);
	row.ino = BPF_CORE_READ(in, i_ino);
	bpf_seq_write(ctx->meta->seq, &row, sizeof(row));
	return 0;
}

#endif
