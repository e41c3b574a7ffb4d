/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tier tracepoint: paths as a process passed them: what they start from, whether
 * they can be placed exactly, and how they are sent.
 */
#ifndef HOLDFAST_PASSED_H
#define HOLDFAST_PASSED_H

#define SIMPLE 2	/* one name, not "." or ".." */
#define EMPTY 3
#define COMPLEX 4

/* What kind of path is at str in user memory? */
__noinline u32 path_kind(u64 str)
{
	u32 named = 0;	/* not 0: a byte that is not a dot was seen; without a branch, each of which the verifier would follow to the end */

	if (!str)
		return EMPTY;
#pragma clang loop unroll(disable)
	for (int i = 0; i <= NAME_MAX_; i++) {
		u8 c = 0;

		if (bpf_probe_read_user(&c, 1, (void *)(str + i)))
			return COMPLEX;
		if (!c)
			return !i ? EMPTY : named || i > 2 ? SIMPLE : COMPLEX;
		if (c == '/')
			return COMPLEX;
		named |= c ^ '.';
	}
	return COMPLEX;
}

/* The descriptor that "/proc/self/fd/N" names, which leads nowhere when the process has ended; -1 for any other path. */
__noinline s32 own_fd(u64 str)
{
	const char dir[] = "/proc/self/fd/";
	char got[sizeof(dir) + 7] = {};
	s32 fd = 0;

	if (bpf_probe_read_user_str(got, sizeof(got), (void *)str) <= (long)sizeof(dir))
		return -1;
#pragma clang loop unroll(full)
	for (u32 i = 0; i < sizeof(dir) - 1; i++)
		if (got[i] != dir[i])
			return -1;
#pragma clang loop unroll(full)
	for (u32 i = sizeof(dir) - 1; i < sizeof(got); i++) {
		if (!got[i])
			return fd;
		if (got[i] < '0' || got[i] > '9')
			return -1;
		fd = fd * 10 + (got[i] - '0');
	}
	return -1;
}

/* Where a path starts from: the root if it begins with '/', else a descriptor or the working directory. */
static __always_inline void find_base(struct task_struct *t, s32 dirfd, u64 path, struct base *b)
{
	struct fs_struct *fs = BPF_CORE_READ(t, fs);
	u8 c = 0;

	b->mnt = 0;
	b->d = 0;
	if (path)
		bpf_probe_read_user(&c, 1, (void *)path);
	if (c == '/') {
		b->mnt = (u64)BPF_CORE_READ(fs, root.mnt);
		b->d = (u64)BPF_CORE_READ(fs, root.dentry);
	} else if (dirfd == AT_FDCWD) {
		b->mnt = (u64)BPF_CORE_READ(fs, pwd.mnt);
		b->d = (u64)BPF_CORE_READ(fs, pwd.dentry);
	} else {
		struct file *f = file_at(t, dirfd);

		if (!f)
			return;
		b->mnt = (u64)BPF_CORE_READ(f, f_path.mnt);
		b->d = (u64)BPF_CORE_READ(f, f_path.dentry);
	}
}

/* What the system call was asked to act on whose paths are in the slot of this number. */
static __always_inline struct paths *paths_at(u32 number)
{
	struct slot *s = slot_at(number);

	return s ? &s->paths : 0;
}

/* Sends a path, or two, as the process passed them. */
__noinline int report_named(u32 number)
{
	struct paths *p = paths_at(number);
	struct slot *s;

	if (!p)
		return 0;
	s = event_by_current(EV_FILE, p->op, HOOK_SYS_EXIT);
	if (!s)
		return 0;
	head_of(s)->flags |= EF_NAMED | p->flags;
	file_of(s)->arg = p->arg;
	file_of(s)->count = 1;
	file_of(s)->first = head_of(s)->time;
	put_user_str(s, 0, (void *)p->path);
	put_path(s->number, 1, p->base.mnt, p->base.d);
	if (p->path2) {
		put_user_str(s, 2, (void *)p->path2);
		put_path(s->number, 3, p->base2.mnt, p->base2.d);
	}
	submit(s);
	return 0;
}

/*
 * Both names are simple: each is placed exactly, and nothing is sent if neither
 * is watched. What is large is in the slot: the stack is short (512 bytes over all
 * calls before linux v6.13).
 */
__noinline int report_simple_pair(u32 number)
{
	struct paths *p = paths_at(number);
	struct request *r;
	struct slot *s;

	if (!p)
		return 0;
	_Static_assert(sizeof(*r) <= sizeof(p->request), "room for a request");
	r = (void *)p->request;
	__builtin_memset(r, 0, sizeof(*r));
	r->op = p->op;
	r->hook = HOOK_SYS_EXIT;
	r->flags = p->flags;
	r->arg = p->arg;
	r->d = (void *)p->base.d;
	r->leaf = (void *)p->path;
	locate(r);
	p->first = r->place;
	r->d = (void *)p->base2.d;
	r->leaf = (void *)p->path2;
	locate(r);
	p->second = r->place;
	if (!p->first.anchor && !p->second.anchor && !p->first.appeared && !p->second.appeared) {
		COUNT(HOOK_SYS_EXIT, skipped);
		return 0;
	}
	s = event_by_current(EV_FILE, p->op, HOOK_SYS_EXIT);
	if (!s)
		return 0;
	r->d = (void *)p->base.d;
	r->leaf = (void *)p->path;
	r->place = p->first;
	r->place.appeared |= p->second.appeared;
	fill_file(s, r);
	if (p->first.anchor)
		put_place(s, 0, r);
	r->d = (void *)p->base2.d;
	r->leaf = (void *)p->path2;
	r->place = p->second;
	file_of(s)->anchor2 = p->second.anchor;
	if (p->second.anchor)
		put_place(s, 2, r);
	submit(s);
	return 0;
}

/* The name is simple: it is placed exactly. */
__noinline int report_simple(u32 number)
{
	struct paths *p = paths_at(number);
	struct request *r;

	if (!p)
		return 0;
	r = (void *)p->request;
	__builtin_memset(r, 0, sizeof(*r));
	r->d = (void *)p->base.d;
	r->leaf = (void *)p->path;
	r->op = p->op;
	r->hook = HOOK_SYS_EXIT;
	done(r);
	return 0;
}

#endif
