/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tiers lsm and modify_return: we guard ourselves. Our files are a rule like any
 * other (RULE_OWN); what reaches for the process and its programs is refused here.
 *
 * decide  task_kill            signals to the daemon; from pid 1 they are told only
 *         file_send_sigiotask  the same by way of F_SETOWN
 *         ptrace_access_check  attaching: ptrace, process_vm_*, /proc/PID/mem, pidfd_getfd
 *         task_setrlimit task_setscheduler task_setnice
 *                              starving it: prlimit, sched_set*, setpriority
 *         bpf                  a descriptor of one of our programs, maps and links by its id
 *
 * There is no other way to a descriptor of these: nothing is pinned, and passing one
 * on takes the daemon itself or an attach (linux v6.1 kernel/bpf/syscall.c,
 * kernel/pid.c:pidfd_getfd). The kernel's own signals never come here (linux v6.1
 * kernel/signal.c:check_kill_permission): out of memory, a terminal, cgroup.kill.
 */
#ifndef HOLDFAST_GUARD_H
#define HOLDFAST_GUARD_H

/* Is t the daemon, guarded, and the current task neither itself nor the kernel's? */
static __always_inline bool is_reached(struct task_struct *t)
{
	struct settings *c = settings();
	struct task_struct *by = current_task();

	if (!c || !c->guard || !t || (u32)BPF_CORE_READ(t, tgid) != c->self)
		return false;
	return !is_self() && !(BPF_CORE_READ(by, flags) & PF_KTHREAD);
}

/* The service manager: it may stop the unit and shut the host down. */
static __always_inline bool is_init(void)
{
	return bpf_get_current_pid_tgid() >> 32 == 1;
}

/*
 * Tells of an attempt, at most once in REPEAT_NS for each process and what it
 * reaches for. what is an object's id. Returns whether it is refused.
 */
__noinline int reached(u32 op, u32 hook, u64 arg, u64 what, u32 refused)
{
	struct task_struct *t = current_task();
	struct reach k = { .arg = arg, .what = what, .op = op };
	u64 now = bpf_ktime_get_boot_ns();
	struct file_body *b;
	struct attempt *a;
	u64 count = 1;
	struct slot *s;

	COUNT(hook, seen);
	k.start = BPF_CORE_READ(t, group_leader, start_boottime);
	k.tgid = BPF_CORE_READ(t, tgid);
	k.execs = BPF_CORE_READ(t, self_exec_id);
	a = bpf_map_lookup_elem(&attempts, &k);
	if (a && now - a->body.opener < REPEAT_NS) {
		COUNT(hook, folded);
		if (!a->body.count)
			a->body.first = now;
		a->head.time = now;
		__sync_fetch_and_add(&a->body.count, 1);
		return refused;
	}
	if (a)
		count += a->body.count;
	s = event_by_current(EV_GUARD, op, hook);
	if (!s)
		return refused;
	if (refused) {
		head_of(s)->flags |= EF_BLOCKED;
		head_of(s)->ret = -EPERM;
	}
	b = file_of(s);
	b->arg = arg;
	b->ino = what;
	b->first = b->opener = head_of(s)->time;
	head_of(s)->size = sizeof(struct attempt);
	bpf_map_update_elem(&attempts, &k, s->data, BPF_ANY);
	if (a && count > 1)
		b->first = a->body.first;
	b->count = count;
	submit(s);
	return refused;
}

static __always_inline int on_kill(struct task_struct *t, int sig)
{
	if (!sig || sig == SIGCONT || !is_reached(t))
		return 0;
	return reached(OP_KILL, HOOK_KILL, sig, 0, !is_init());
}

DECIDE(task_kill, on_kill(t, sig), struct task_struct *t, void *info, int sig, const struct cred *cred)

static __always_inline int on_sigio(struct task_struct *t, int sig)
{
	if (!is_reached(t))
		return 0;
	return reached(OP_KILL, HOOK_KILL, GUARD_SIGIO | (sig ? sig : SIGIO), 0, 1);
}

DECIDE(file_send_sigiotask, on_sigio(t, sig), struct task_struct *t, struct fown_struct *own, int sig)

static __always_inline int on_ptrace(struct task_struct *t, u32 mode)
{
	if (!(mode & PTRACE_MODE_ATTACH) || !t)
		return 0;
	if (!is_reached(t)) {
		u64 of = 0;

		bpf_probe_read_kernel(&of, sizeof(of), &t);	/* as a number */
		tell_reach(of, 0);
		return 0;
	}
	return reached(OP_PTRACE, HOOK_PTRACE, mode, 0, 1);
}

DECIDE(ptrace_access_check, on_ptrace(t, mode), struct task_struct *t, unsigned int mode)

static __always_inline int on_limit(struct task_struct *t, u64 what)
{
	if (!is_reached(t) || is_init())
		return 0;
	return reached(OP_LIMIT, HOOK_LIMIT, what, 0, 1);
}

DECIDE(task_setrlimit, on_limit(t, resource), struct task_struct *t, unsigned int resource, void *limit)
DECIDE(task_setscheduler, on_limit(t, GUARD_SCHED), struct task_struct *t)
DECIDE(task_setnice, on_limit(t, GUARD_NICE), struct task_struct *t, int nice)

/* Names one of our objects: the command that gives a descriptor of it, and its id. */
static __always_inline u64 own_key(u32 cmd, u32 id)
{
	return (u64)cmd << 32 | id;
}

static __always_inline int on_bpf(u32 cmd, union bpf_attr *attr)
{
	struct settings *c = settings();
	u32 id = 0;	/* prog_id, map_id and link_id lie at the start of the union */
	u64 k;

	if (cmd != BPF_PROG_GET_FD_BY_ID && cmd != BPF_MAP_GET_FD_BY_ID && cmd != BPF_LINK_GET_FD_BY_ID)
		return 0;
	if (!c || !c->guard || is_self())
		return 0;
	bpf_probe_read_kernel(&id, sizeof(id), attr);
	k = own_key(cmd, id);
	if (!bpf_map_lookup_elem(&own, &k))
		return 0;
	return reached(OP_BPF, HOOK_BPF, cmd, id, 1);
}

/* linux v6.15 added an argument */
DECIDE(bpf, on_bpf(cmd, attr), int cmd, union bpf_attr *attr, unsigned int size)
DECIDE_AS(bpf_k, bpf, on_bpf(cmd, attr), int cmd, union bpf_attr *attr, unsigned int size, int from_kernel)

#endif
