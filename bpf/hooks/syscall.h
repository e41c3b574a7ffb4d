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

#define F_NONE 0
#define F_FD 1		/* a descriptor at dir */
#define F_OPEN 2	/* the result is a descriptor */
#define F_WRITE 3	/* a descriptor at dir, the result is a number of bytes */
#define F_PATH 4	/* a path at path, below the descriptor at dir */
#define F_PATHS 5	/* and a second one */
#define F_MMAP 6
#define F_ACCEPT 7
#define F_CLOSE 8
#define F_IOCTL 9
#define F_MOUNT 10	/* changes mounts; a path at path, below the descriptor at dir */
#define F_BIND 11	/* a path in a socket address */
#define F_UNMAP 12
#define F_CRED 13	/* changes credentials */
#define F_REACH 14	/* reaches into the process whose pid is at dir */

#define NOFOLLOW 0
#define FOLLOW 1
#define FOLLOW_UNLESS 2	/* AT_SYMLINK_NOFOLLOW in the argument at flags */
#define FOLLOW_IF 3	/* AT_SYMLINK_FOLLOW in it */

#define CWD 7		/* no argument: the working directory */

struct call {
	u8 form, op;
	u8 dir, path, dir2, path2;
	u8 follow, flags;
	u8 name;	/* of an extended attribute; 0: the call has none */
	u8 pad[3];
};

#define FD(o, d) { .form = F_FD, .op = o, .dir = d }
#define FDX(o, d, n) { .form = F_FD, .op = o, .dir = d, .name = n }
#define PATHX(o, d, p, f, fl, n) { .form = F_PATH, .op = o, .dir = d, .path = p, .follow = f, .flags = fl, .name = n }
#define WRITES(d) { .form = F_WRITE, .op = OP_WRITE, .dir = d }
#define PATH(o, d, p, f, fl) { .form = F_PATH, .op = o, .dir = d, .path = p, .follow = f, .flags = fl }
#define PATHS(o, d, p, d2, p2, f, fl) { .form = F_PATHS, .op = o, .dir = d, .path = p, .dir2 = d2, .path2 = p2, .follow = f, .flags = fl }

/* Numbers of x86-64 (linux v6.18 arch/x86/entry/syscalls/syscall_64.tbl). */
#define CALLS 512
#define NR_OPEN 2
#define NR_CREAT 85
#define NR_OPENAT2 437
#define NR_MOUNT 165
#define NR_FSCONFIG 431
#define NR_RENAMEAT2 316
#define NR_PTRACE 101
#define PTRACE_ATTACH 16
#define PTRACE_SEIZE 0x4206
#define NR_FALLOCATE 285	/* the one writer whose success is 0 */
const volatile struct call calls[CALLS] = {
	[1] = WRITES(0),	/* write */
	[18] = WRITES(0),	/* pwrite64 */
	[20] = WRITES(0),	/* writev */
	[296] = WRITES(0),	/* pwritev */
	[328] = WRITES(0),	/* pwritev2 */
	[40] = WRITES(0),	/* sendfile */
	[275] = WRITES(2),	/* splice */
	[326] = WRITES(2),	/* copy_file_range */
	[285] = WRITES(0),	/* fallocate */
	[77] = FD(OP_TRUNCATE, 0),	/* ftruncate */
	[2] = { .form = F_OPEN },	/* open */
	[85] = { .form = F_OPEN },	/* creat */
	[257] = { .form = F_OPEN },	/* openat */
	[304] = { .form = F_OPEN },	/* open_by_handle_at */
	[437] = { .form = F_OPEN },	/* openat2 */
	[3] = { .form = F_CLOSE, .dir = 0 },	/* close */
	[33] = { .form = F_CLOSE, .dir = 1 },	/* dup2 closes what it replaces: a shell's redirection ends so */
	[292] = { .form = F_CLOSE, .dir = 1 },	/* dup3 */
	[9] = { .form = F_MMAP },	/* mmap */
	[11] = { .form = F_UNMAP },	/* munmap */
	[25] = { .form = F_UNMAP },	/* mremap */
	[16] = { .form = F_IOCTL },	/* ioctl */
	[49] = { .form = F_BIND, .op = OP_MKNOD, .dir = CWD, .path = 1, .follow = NOFOLLOW },	/* bind */
	[43] = { .form = F_ACCEPT },	/* accept */
	[288] = { .form = F_ACCEPT },	/* accept4 */
	[76] = PATH(OP_TRUNCATE, CWD, 0, FOLLOW, 0),	/* truncate */
	[90] = PATH(OP_CHMOD, CWD, 0, FOLLOW, 0),	/* chmod */
	[268] = PATH(OP_CHMOD, 0, 1, FOLLOW, 0),	/* fchmodat */
	[452] = PATH(OP_CHMOD, 0, 1, FOLLOW_UNLESS, 3),	/* fchmodat2 */
	[91] = FD(OP_CHMOD, 0),	/* fchmod */
	[92] = PATH(OP_CHOWN, CWD, 0, FOLLOW, 0),	/* chown */
	[94] = PATH(OP_CHOWN, CWD, 0, NOFOLLOW, 0),	/* lchown */
	[260] = PATH(OP_CHOWN, 0, 1, FOLLOW_UNLESS, 4),	/* fchownat */
	[93] = FD(OP_CHOWN, 0),	/* fchown */
	[132] = PATH(OP_UTIMES, CWD, 0, FOLLOW, 0),	/* utime */
	[235] = PATH(OP_UTIMES, CWD, 0, FOLLOW, 0),	/* utimes */
	[261] = PATH(OP_UTIMES, 0, 1, FOLLOW, 0),	/* futimesat */
	[280] = PATH(OP_UTIMES, 0, 1, FOLLOW_UNLESS, 3),	/* utimensat */
	[188] = PATHX(OP_SETXATTR, CWD, 0, FOLLOW, 0, 1),	/* setxattr */
	[189] = PATHX(OP_SETXATTR, CWD, 0, NOFOLLOW, 0, 1),	/* lsetxattr */
	[190] = FDX(OP_SETXATTR, 0, 1),	/* fsetxattr */
	[463] = PATHX(OP_SETXATTR, 0, 1, FOLLOW_UNLESS, 2, 3),	/* setxattrat */
	[197] = PATHX(OP_REMOVEXATTR, CWD, 0, FOLLOW, 0, 1),	/* removexattr */
	[198] = PATHX(OP_REMOVEXATTR, CWD, 0, NOFOLLOW, 0, 1),	/* lremovexattr */
	[199] = FDX(OP_REMOVEXATTR, 0, 1),	/* fremovexattr */
	[466] = PATHX(OP_REMOVEXATTR, 0, 1, FOLLOW_UNLESS, 2, 3),	/* removexattrat */
	[82] = PATHS(OP_RENAME, CWD, 0, CWD, 1, NOFOLLOW, 0),	/* rename */
	[264] = PATHS(OP_RENAME, 0, 1, 2, 3, NOFOLLOW, 0),	/* renameat */
	[316] = PATHS(OP_RENAME, 0, 1, 2, 3, NOFOLLOW, 0),	/* renameat2 */
	[86] = PATHS(OP_LINK, CWD, 0, CWD, 1, NOFOLLOW, 0),	/* link */
	[265] = PATHS(OP_LINK, 0, 1, 2, 3, FOLLOW_IF, 4),	/* linkat */
	[88] = PATH(OP_SYMLINK, CWD, 1, NOFOLLOW, 0),	/* symlink */
	[266] = PATH(OP_SYMLINK, 1, 2, NOFOLLOW, 0),	/* symlinkat */
	[83] = PATH(OP_MKDIR, CWD, 0, NOFOLLOW, 0),	/* mkdir */
	[258] = PATH(OP_MKDIR, 0, 1, NOFOLLOW, 0),	/* mkdirat */
	[84] = PATH(OP_RMDIR, CWD, 0, NOFOLLOW, 0),	/* rmdir */
	[87] = PATH(OP_UNLINK, CWD, 0, NOFOLLOW, 0),	/* unlink */
	[263] = PATH(OP_UNLINK, 0, 1, NOFOLLOW, 2),	/* unlinkat */
	[133] = PATH(OP_MKNOD, CWD, 0, NOFOLLOW, 0),	/* mknod */
	[259] = PATH(OP_MKNOD, 0, 1, NOFOLLOW, 0),	/* mknodat */
	[469] = PATH(OP_SETFLAGS, 0, 1, FOLLOW_UNLESS, 4),	/* file_setattr */
	[165] = { .form = F_MOUNT, .op = OP_MOUNT, .dir = CWD, .path = 1 },	/* mount */
	[166] = { .form = F_MOUNT, .op = OP_UMOUNT, .dir = CWD, .path = 0 },	/* umount2 */
	[155] = { .form = F_MOUNT, .op = OP_MOUNT, .dir = CWD, .path = 0 },	/* pivot_root */
	[429] = { .form = F_MOUNT, .op = OP_MOUNT, .dir = 2, .path = 3 },	/* move_mount */
	[431] = { .form = F_MOUNT, .op = OP_REMOUNT },	/* fsconfig: names no path */
	[442] = { .form = F_MOUNT, .op = OP_REMOUNT, .dir = 0, .path = 1 },	/* mount_setattr */
	[105] = { .form = F_CRED },	/* setuid */
	[106] = { .form = F_CRED },	/* setgid */
	[113] = { .form = F_CRED },	/* setreuid */
	[114] = { .form = F_CRED },	/* setregid */
	[117] = { .form = F_CRED },	/* setresuid */
	[119] = { .form = F_CRED },	/* setresgid */
	[122] = { .form = F_CRED },	/* setfsuid */
	[123] = { .form = F_CRED },	/* setfsgid */
	[126] = { .form = F_CRED },	/* capset */
	[272] = { .form = F_CRED },	/* unshare */
	[308] = { .form = F_CRED },	/* setns */
	[101] = { .form = F_REACH, .dir = 1 },	/* ptrace */
	[310] = { .form = F_REACH, .dir = 0 },	/* process_vm_readv */
	[311] = { .form = F_REACH, .dir = 0 },	/* process_vm_writev */
	[467] = { .form = F_MOUNT, .op = OP_REMOUNT, .dir = 0, .path = 1 },	/* open_tree_attr */
};

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
