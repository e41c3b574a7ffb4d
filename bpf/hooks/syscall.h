/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tier tracepoint: the operations of event.h as system calls, for kernels that
 * refuse hooks. It sees what succeeded, after the fact; it cannot refuse.
 *
 * sys_enter   the last close, and dup2 over a descriptor: the file is still there
 * sys_exit    everything else: the result is known, and the strings that the
 *             kernel read are resident
 *
 * What has a descriptor is placed exactly. A name without '/' that is not
 * followed is placed exactly too: its directory is the base. Any other path is
 * sent as the process passed it (EF_NAMED), and user space resolves it.
 */
#ifndef HOLDFAST_SYSCALL_H
#define HOLDFAST_SYSCALL_H

static __noinline int on_fd(struct file *f, u32 op, u64 arg)
{
	struct request r;

	if (!f)
		return 0;
	request_file(&r, f, op, HOOK_SYS_EXIT);
	r.arg = arg;
	done(&r);
	return 0;
}

/* Argument i of a system call. */
static __always_inline u64 argument(struct pt_regs *regs, u32 i)
{
	switch (i) {
	case 0:
		return regs->di;
	case 1:
		return regs->si;
	case 2:
		return regs->dx;
	case 3:
		return regs->r10;
	case 4:
		return regs->r8;
	case 5:
		return regs->r9;
	}
	return 0;
}

static __always_inline void fill_paths(struct paths *p, struct task_struct *t, u64 *a, const volatile struct call *c)
{
	u64 fl = a[c->flags & 7];
	s32 dirfd = c->dir == CWD ? AT_FDCWD : (s32)a[c->dir & 7];

	p->op = c->op;
	if (c->name)
		p->op = op_of_xattr(c->op, a[c->name & 7], 1);
	if (p->op == OP_UNLINK && c->flags && (fl & AT_REMOVEDIR))
		p->op = OP_RMDIR;
	p->flags = 0;
	if (c->follow == FOLLOW || (c->follow == FOLLOW_UNLESS && !(fl & AT_SYMLINK_NOFOLLOW)) ||
	    (c->follow == FOLLOW_IF && (fl & AT_SYMLINK_FOLLOW)))
		p->flags = EF_FOLLOW;
	p->dirfd = dirfd;
	p->path = a[c->path & 7];
	p->path2 = 0;
	find_base(t, dirfd, p->path, &p->base);
	if (c->form != F_PATHS)
		return;
	dirfd = c->dir2 == CWD ? AT_FDCWD : (s32)a[c->dir2 & 7];
	p->path2 = a[c->path2 & 7];
	find_base(t, dirfd, p->path2, &p->base2);
}

/* Call nr has succeeded, whose arguments are in the slot of this number. Returns 1 if it was about the descriptor itself. */
__noinline int on_paths(u32 number, u32 nr)
{
	struct paths *p = paths_at(number);
	struct task_struct *t = current_task();
	bool exact;
	u32 kind;
	s32 fd;

	if (!p || nr >= CALLS)
		return 0;
	if (calls[nr].form == F_BIND)
		p->a[1] += sizeof(u16);	/* struct sockaddr_un (linux include/uapi/linux/un.h); an abstract name is empty here */
	fill_paths(p, t, p->a, &calls[nr]);
	p->arg = nr == NR_RENAMEAT2 ? p->a[4] : 0;
	kind = path_kind(p->path);
	exact = kind == SIMPLE && !(p->flags & EF_FOLLOW);
	if (p->path2) {
		COUNT(HOOK_SYS_EXIT, seen);
		if (exact && path_kind(p->path2) == SIMPLE)
			report_simple_pair(number);
		else
			report_named(number);
	} else if (kind == EMPTY) {
		return p->dirfd != AT_FDCWD;
	} else if (exact) {
		report_simple(number);
	} else {
		fd = p->flags & EF_FOLLOW ? own_fd(p->path) : -1;
		if (fd >= 0) {
			p->dirfd = fd;
			return 1;
		}
		COUNT(HOOK_SYS_EXIT, seen);
		report_named(number);
	}
	return 0;
}

static __noinline int on_path(struct task_struct *t, struct pt_regs *regs, u32 nr)
{
	struct slot *s = slot_get(HOOK_SYS_EXIT);

	if (!s)
		return 0;
	for (u32 i = 0; i < 6; i++)
		s->paths.a[i] = argument(regs, i);
	if (on_paths(s->number, nr))
		on_fd(file_at(t, s->paths.dirfd), s->paths.op, 0);
	slot_put(s);
	return 0;
}

/* Sends a call that changes mounts. */
__noinline int report_mounting(u32 number)
{
	struct paths *p = paths_at(number);
	struct slot *s;

	if (!p)
		return 0;
	s = event_by_current(EV_FILE, p->op, HOOK_MOUNT);
	if (!s)
		return 0;
	head_of(s)->flags |= EF_NAMED | EF_FOLLOW;
	if (p->path) {
		put_user_str(s, 0, (void *)p->path);
		put_path(s->number, 1, p->base.mnt, p->base.d);
	}
	submit(s);
	return 0;
}

/* A call with form F_MOUNT has succeeded. It is told with the path that was passed: what came of it, the table of mounts tells. */
static __noinline int on_mounting(struct pt_regs *regs, u32 nr)
{
	struct settings *c = settings();
	u64 a[8] = {};
	struct paths *p;
	struct slot *s;

	if (!c || !c->armed || nr >= CALLS)
		return 0;
	a[0] = BPF_CORE_READ(regs, di);
	a[1] = BPF_CORE_READ(regs, si);
	a[2] = BPF_CORE_READ(regs, dx);
	a[3] = BPF_CORE_READ(regs, r10);
	if (nr == NR_FSCONFIG && a[1] != FSCONFIG_CMD_RECONFIGURE)
		return 0;
	if (nr == NR_MOUNT && !(a[3] & MS_REMOUNT) && (a[3] & MS_PROPAGATION))
		return 0;
	COUNT(HOOK_MOUNT, seen);
	s = slot_get(HOOK_MOUNT);
	if (!s)
		return 0;
	p = &s->paths;
	__builtin_memset(p, 0, sizeof(*p));
	p->op = calls[nr].op;
	if (nr == NR_MOUNT && (a[3] & MS_REMOUNT))
		p->op = OP_REMOUNT;
	if (nr != NR_FSCONFIG) {
		p->dirfd = calls[nr].dir == CWD ? AT_FDCWD : (s32)a[calls[nr].dir & 7];
		p->path = a[calls[nr].path & 7];
		find_base(current_task(), p->dirfd, p->path, &p->base);
	}
	report_mounting(s->number);
	slot_put(s);
	return 0;
}

/* A control command made or took the name at str below the directory f. */
static __noinline int on_entry(struct file *f, u32 op, u64 str)
{
	struct slot *s = slot_get(HOOK_SYS_EXIT);

	if (!s)
		return 0;
	s->paths.op = op;
	s->paths.path = str;
	s->paths.base.d = (u64)BPF_CORE_READ(f, f_path.dentry);
	report_simple(s->number);
	slot_put(s);
	return 0;
}

/* A control command was obeyed: its arguments are the descriptor, the command and its own. */
static __noinline int on_ioctl(struct task_struct *t, struct pt_regs *regs)
{
	struct command c = command(regs->si);
	struct file *f;
	s32 fd = -1;

	if (c.op == OP_NONE || c.op == OP_RAW_WRITE)	/* of a device: its opening and its close are told of */
		return 0;
	f = file_at(t, (u32)regs->di);
	if (!f)
		return 0;
	if (c.name != NO_FIELD)
		return on_entry(f, c.op, regs->dx + c.name);
	on_fd(f, c.op, regs->si);
	if (c.fd == NO_FIELD)
		return 0;
	bpf_probe_read_user(&fd, sizeof(fd), (void *)(regs->dx + c.fd));
	return on_fd(file_at(t, (u32)fd), c.op, regs->si);
}

/* The flags that a file was opened with: the argument of the call that opens it. */
static __always_inline u32 open_flags(u64 nr, struct pt_regs *regs)
{
	u64 how = 0;

	switch (nr) {
	case NR_OPEN:
		return regs->si;
	case NR_CREAT:
		return O_TRUNC;
	case NR_OPENAT2:
		bpf_probe_read_user(&how, sizeof(how), (void *)regs->dx);	/* struct open_how begins with them */
		return how;
	}
	return regs->dx;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(sys_enter, struct pt_regs *regs, long nr)
{
	struct task_struct *t;
	struct file *f;

	if ((u64)nr >= CALLS || calls[nr & (CALLS - 1)].form != F_CLOSE)
		return 0;
	t = current_task();
	if (in_compat_syscall(t))
		return 0;
	if (calls[nr & (CALLS - 1)].dir && regs->di == regs->si)
		return 0;
	f = file_at(t, (u32)(calls[nr & (CALLS - 1)].dir ? regs->si : regs->di));
	if (f && is_last_reference(f))
		on_close(f, HOOK_SYS_ENTER);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(sys_exit, struct pt_regs *regs, long ret)
{
	u64 nr = regs->orig_ax;
	struct task_struct *t;
	struct file *f;
	u32 form, op;

	if (nr >= CALLS || ret < 0)
		return 0;
	form = calls[nr].form;
	if (form == F_NONE || form == F_CLOSE)
		return 0;
	t = current_task();
	if (in_compat_syscall(t)) {
		COUNT(HOOK_SYS_EXIT, seen);
		COUNT(HOOK_SYS_EXIT, failed);
		return 0;
	}
	switch (form) {
	case F_WRITE:
		f = file_at(t, (u32)argument(regs, calls[nr].dir));
		if (f && (ret || nr == NR_FALLOCATE))
			on_write(f, ret, HOOK_SYS_EXIT, TIER_TRACEPOINT);
		break;
	case F_OPEN:
		f = file_at(t, (u32)ret);
		if (f)
			on_open(f, open_flags(nr, regs), HOOK_SYS_EXIT, TIER_TRACEPOINT);
		break;
	case F_FD:
		op = calls[nr].op;
		if (calls[nr].name)
			op = op_of_xattr(op, argument(regs, calls[nr].name), 1);
		on_fd(file_at(t, (u32)argument(regs, calls[nr].dir)), op, 0);
		break;
	case F_PATH:
	case F_PATHS:
		on_path(t, regs, nr);
		break;
	case F_MMAP:
		/* without PROT_WRITE too: mprotect may give it later */
		if ((regs->r10 & MAP_TYPE) == MAP_SHARED || (regs->r10 & MAP_TYPE) == MAP_SHARED_VALIDATE) {
			f = file_at(t, (u32)regs->r8);
			if (f)
				on_map(f, HOOK_SYS_EXIT, TIER_TRACEPOINT);
		}
		break;
	case F_UNMAP:
		on_unmap(HOOK_SYS_EXIT);
		break;
	case F_CRED:
		tell_creds(0);
		break;
	case F_REACH:
		if (nr != NR_PTRACE || regs->di == PTRACE_ATTACH || regs->di == PTRACE_SEIZE)
			tell_reach(0, (u32)argument(regs, calls[nr].dir));
		break;
	case F_IOCTL:
		on_ioctl(t, regs);
		break;
	case F_MOUNT:
		on_mounting(regs, nr);
		break;
	case F_BIND:
		op = 0;
		bpf_probe_read_user(&op, sizeof(u16), (void *)regs->si);
		if (op != AF_UNIX)
			break;
		on_path(t, regs, nr);
		break;
	case F_ACCEPT:
		on_accept(stream_sock(file_at(t, (u32)ret)));
		break;
	}
	return 0;
}

#endif
