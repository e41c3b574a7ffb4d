/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Give a verdict. The same cases are judged by pkg/judge; one table of cases is
 * run against both.
 */
#ifndef HOLDFAST_RULES_H
#define HOLDFAST_RULES_H

/* Is the executable with this inode, 0 for none, on the list of the rule? */
static __always_inline bool lists(u32 rule, u64 exe)
{
	struct exe_key k = { .inode = exe, .rule = rule };

	return exe && bpf_map_lookup_elem(&allowed, &k);
}

/* Is the current program? */
static __always_inline bool is_allowed(u32 rule)
{
	struct task_struct *t = current_task();

	if (HAS_HELPER(get_current_task_btf))
		return lists(rule, (u64)t->mm->exe_file->f_inode);
	return lists(rule, (u64)exe_inode(t));
}

/* Bit of exe_key.rule: inode is a loginuid. User space sets it while a change window of this person is open. */
#define PERSON (1ULL << 32)

/* Is the person who logged in let through the rule for a time? */
static __always_inline bool is_let_in(u32 rule)
{
	struct task_struct *t = current_task();
	struct exe_key k = { .rule = PERSON | rule };

	k.inode = HAS_HELPER(get_current_task_btf) ? t->loginuid.val : BPF_CORE_READ(t, loginuid.val);
	return bpf_map_lookup_elem(&allowed, &k);
}

/*
 * Our own restores inside a protected tree are let through by pid, and seen and
 * recorded like everything else.
 */
static __always_inline bool is_self(void)
{
	struct settings *c = settings();

	return c && c->self == (u32)(bpf_get_current_pid_tgid() >> 32);
}

/* The rule of our own places holds while we are guarded. */
static __always_inline bool in_force(u32 rule)
{
	struct settings *c = settings();

	return rule != RULE_OWN || (c && c->guard);
}

/* Of mounts and devices, which no change window is for. */
static __always_inline bool bars(const struct place *p)
{
	return p->anchor && p->mode == MODE_BLOCK && in_force(p->rule) && !is_self() && !is_allowed(p->rule);
}

static __always_inline bool refuses(const struct place *p)
{
	return bars(p) && !is_let_in(p->rule);
}

#endif
