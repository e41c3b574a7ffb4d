/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Credentials: who becomes whom, and who reaches into whom.
 *
 * fentry/commit_creds   tiers lsm and modify_return: every way to other credentials
 *                       ends here (linux v6.1 kernel/cred.c), executions and exploits too
 * sys_exit              tier tracepoint: the calls that change them (syscall.h)
 * sched_process_exec    files that give privileges (process.h)
 * ptrace_access_check   attaching to another process (guard.h)
 *
 * Told of the tasks in logins, and of all if settings.everybody.
 */
#ifndef HOLDFAST_CRED_H
#define HOLDFAST_CRED_H

static __always_inline void fill_ids(struct ids *i, u64 cred)
{
	const struct cred *c = (void *)cred;

	i->uid = BPF_CORE_READ(c, uid.val);
	i->euid = BPF_CORE_READ(c, euid.val);
	i->suid = BPF_CORE_READ(c, suid.val);
	i->fsuid = BPF_CORE_READ(c, fsuid.val);
	i->gid = BPF_CORE_READ(c, gid.val);
	i->egid = BPF_CORE_READ(c, egid.val);
	i->sgid = BPF_CORE_READ(c, sgid.val);
	i->fsgid = BPF_CORE_READ(c, fsgid.val);
	i->userns = BPF_CORE_READ(c, user_ns, ns.inum);
	bpf_probe_read_kernel(&i->caps, sizeof(i->caps), &c->cap_effective);
}

static __always_inline bool same_ids(struct ids *a, struct ids *b)
{
	return a->uid == b->uid && a->euid == b->euid && a->suid == b->suid && a->fsuid == b->fsuid &&
	       a->gid == b->gid && a->egid == b->egid && a->sgid == b->sgid && a->fsgid == b->fsgid &&
	       a->caps == b->caps && a->userns == b->userns;
}

/* Tells that the credentials of the current task become new, or, if that is 0, that they may have changed. */
__noinline int tell_creds(u64 new)
{
	u64 session = session_current();
	struct settings *c = settings();
	struct task_struct *t = current_task();
	struct cred_body *b;
	struct slot *s;

	if (!c || !(session || c->everybody))
		return 0;
	COUNT(HOOK_CRED, seen);
	s = slot_get(HOOK_CRED);
	if (!s)
		return 0;
	fill_current(s, EV_CRED, OP_NONE, HOOK_CRED);
	head_of(s)->session = session;
	b = cred_of(s);
	fill_ids(&b->before, (u64)BPF_CORE_READ(t, cred));
	if (new) {
		b->how = CRED_COMMIT;
		fill_ids(&b->after, new);
		if (same_ids(&b->before, &b->after)) {
			COUNT(HOOK_CRED, skipped);
			slot_put(s);
			return 0;
		}
	} else {
		b->how = CRED_DONE;
		b->after = b->before;
	}
	submit(s);
	return 0;
}

SEC("fentry/commit_creds")
int BPF_PROG(commit_creds, struct cred *new)
{
	u64 to = 0;

	bpf_probe_read_kernel(&to, sizeof(to), &new);	/* as a number: functions that are verified on their own take no typed pointer */
	tell_creds(to);
	return 0;
}

/* Tells that the current task reaches into another process: that of task, or, if that is 0, the one with this pid. */
__noinline int tell_reach(u64 task, u32 pid)
{
	struct task_struct *by = current_task(), *of = (void *)task;
	u64 session = session_current(), now = bpf_ktime_get_boot_ns(), *told;
	struct settings *c = settings();
	struct pair k = {};
	struct cred_body *b;
	struct slot *s;

	if (!c || !(session || c->everybody) || (u32)BPF_CORE_READ(by, tgid) == c->self)
		return 0;
	if (of)
		pid = BPF_CORE_READ(of, tgid);
	else if (BPF_CORE_READ(by, thread_pid, level))
		pid = 0;	/* a number of another namespace */
	if (pid == (u32)BPF_CORE_READ(by, tgid))
		return 0;
	COUNT(HOOK_PTRACE, seen);
	k.by = BPF_CORE_READ(by, group_leader, start_boottime);
	k.of = of ? BPF_CORE_READ(of, group_leader, start_boottime) : 0;
	k.pids = (u64)(u32)BPF_CORE_READ(by, tgid) << 32 | pid;
	told = bpf_map_lookup_elem(&reaches, &k);
	if (told && now - *told < REPEAT_NS) {
		COUNT(HOOK_PTRACE, folded);
		return 0;
	}
	bpf_map_update_elem(&reaches, &k, &now, BPF_ANY);
	s = slot_get(HOOK_PTRACE);
	if (!s)
		return 0;
	fill_current(s, EV_CRED, OP_PTRACE, HOOK_PTRACE);
	head_of(s)->session = session;
	b = cred_of(s);
	b->how = CRED_REACH;
	fill_ids(&b->before, (u64)BPF_CORE_READ(by, cred));
	b->tgid = pid;
	if (of) {
		b->execs = BPF_CORE_READ(of, self_exec_id);
		b->start = k.of;
		fill_ids(&b->after, (u64)BPF_CORE_READ(of, cred));
	}
	submit(s);
	return 0;
}

#endif
