/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tiers lsm and modify_return: hooks decide, and what happened is told after it
 * happened. A decision is written once and attached two ways (DECIDE): NAME is a
 * program of the security module, m_NAME changes what security_NAME returns.
 *
 * decide                      file_open file_permission mmap_file file_mprotect
 *                             file_ioctl path_truncate inode_setattr
 *                             inode_setxattr inode_removexattr inode_set_acl
 *                             inode_remove_acl inode_file_setattr inode_create
 *                             inode_link inode_unlink inode_symlink inode_mkdir
 *                             inode_rmdir inode_mknod inode_rename
 * tell (fexit/..., fentry/...) vfs_unlink vfs_rmdir vfs_mkdir vfs_symlink
 *                             vfs_mknod vfs_link vfs_rename notify_change
 *                             vfs_setxattr vfs_removexattr vfs_set_acl
 *                             vfs_remove_acl vfs_fileattr_set locks_remove_file
 * remember (sock_graft)       a connection came out of accept
 *
 * Every path that allows keeps the verdict of the programs before it; a program
 * that modifies a return runs only while that is 0 (linux v6.1
 * arch/x86/net/bpf_jit_comp.c:invoke_bpf_mod_ret). A hook that finds no slot or no map entry allows and counts: it cannot know, and a
 * host must not stop because we are short of memory.
 *
 * Argument positions are those since linux v5.12, which put a user_namespace (now
 * mnt_idmap) before the dentry in the vfs functions (compat.h, AFTER_IDMAP). Hooks
 * that decide and whose own arity changed exist twice, as name and name_i (with the
 * idmap) or name_o (without): user space loads the one that fits the running
 * kernel's BTF (pkg/sense, program.fits).
 */
#ifndef HOLDFAST_LSM_H
#define HOLDFAST_LSM_H

/* What a hook returns: the verifier wants to see the range since linux v6.12. */
static __always_inline int answer(int err)
{
	return err ? -EPERM : 0;
}

#define DECIDE_AS(prog, hook, verdict, args...) \
	SEC("lsm/" #hook) \
	int BPF_PROG(prog, args, int ret) \
	{ \
		return ret ? ret : answer(verdict); \
	} \
	SEC("fmod_ret/security_" #hook) \
	int BPF_PROG(m_##prog, args) \
	{ \
		return answer(verdict); \
	}
#define DECIDE(hook, verdict, args...) DECIDE_AS(hook, hook, verdict, args)

/* Refuses r if a rule in block mode says so; else the verdict so far. */
__noinline int refuse(struct request *r)
{
	struct settings *c = settings();

	if (!r || !c || !c->armed || !c->blocking)
		return 0;
	if (!locate(r) || !refuses(&r->place))
		return 0;
	COUNT(r->hook, seen);
	return deny(r);
}

/* The same for a directory on the way to a watched root: it must stay where it is. */
static __always_inline int refuse_ancestor(struct request *r)
{
	struct settings *c = settings();
	struct inode *in = r->in;
	struct mark *m;

	if (!c || !c->armed || !c->blocking || !in)
		return 0;
	m = ancestor_of(in);
	if (!m || m->mode != MODE_BLOCK || !in_force(m->rule) || is_self())
		return 0;
	COUNT(r->hook, seen);
	r->place.anchor = m->anchor;
	r->place.rule = m->rule;
	r->place.mode = m->mode;
	return deny(r);
}

/* Does nothing watched lose or get this name, surely? A directory may lead to a root. */
static __always_inline bool untouched(struct dentry *d, struct inode *in)
{
	return !is_dir(in) && elsewhere(d, in);
}

static __always_inline int deny_dentry(struct dentry *d, u32 op, u32 hook, u64 arg)
{
	struct settings *c = settings();
	struct request r;
	struct inode *in;
	struct near n;

	if (!c || !c->blocking)
		return 0;
	in = inode_of(d);
	n = nearby(d, in);
	if (n.where == AWAY || (n.where == HERE && n.mode != MODE_BLOCK))
		return 0;
	request_dentry(&r, d, in, op, hook, n);
	r.arg = arg;
	return refuse(&r);
}

/* An event about two names of one object; not submitted yet. 0: no slot. */
static __always_inline struct slot *pair(struct request *r, struct request *q, u32 op, u32 hook)
{
	struct slot *s = event_by_current(EV_FILE, op, hook);

	if (!s)
		return 0;
	r->place.appeared |= q->place.appeared;
	fill_file(s, r);
	file_of(s)->anchor2 = q->place.anchor;
	if (r->place.anchor)
		put_place(s, 0, r);
	if (q->place.anchor)
		put_place(s, 2, q);
	return s;
}

/* Refuses an operation on two names if it may not touch one of them. */
static __always_inline int refuse_pair(struct request *r, struct request *q, u32 op, u32 hook)
{
	struct settings *c = settings();
	struct slot *s;

	if (!c || !c->blocking || !(refuses(&r->place) || refuses(&q->place)))
		return 0;
	r->flags |= EF_BLOCKED;
	r->ret = -EPERM;
	s = pair(r, q, op, hook);
	if (s)
		submit(s);
	return -EPERM;
}

static __always_inline int tell_through(struct dentry *d, u64 opener, u32 op, u32 hook, u64 arg, int ret)
{
	struct request r;
	struct inode *in;
	struct near n;

	if (ret)
		return 0;
	in = inode_of(d);
	n = nearby(d, in);
	if (n.where == AWAY)
		return 0;
	request_dentry(&r, d, in, op, hook, n);
	r.arg = arg;
	r.opener = opener;
	done(&r);
	return 0;
}

static __always_inline int tell_dentry(struct dentry *d, u32 op, u32 hook, u64 arg, int ret)
{
	return tell_through(d, 0, op, hook, arg, ret);
}

/* ---- content ----------------------------------------------------------- */

static __always_inline int decide_open(struct file *f)
{
	u32 flags = f->f_flags, mode = f->f_mode;
	struct request r;
	struct near n;

	if (opens_harmless(mode, flags))
		return 0;
	n = nearby(f->f_path.dentry, f->f_inode);
	if (n.where == AWAY)
		return 0;
	request_open(&r, f, OP_OPEN, HOOK_FILE_OPEN, n);
	return opened(&r, mode, flags, TIER_LSM);
}

DECIDE(file_open, decide_open(f), struct file *f)

static __always_inline int decide_permission(struct file *f, int mask)
{
	struct request r;
	struct near n;

	if (!(mask & MAY_WRITE))
		return 0;
	n = nearby(f->f_path.dentry, f->f_inode);
	if (n.where == AWAY)
		return 0;
	request_open(&r, f, OP_WRITE, HOOK_FILE_PERM, n);
	return written(&r, 0, TIER_LSM);
}

DECIDE(file_permission, decide_permission(f, mask), struct file *f, int mask)

SEC("fentry/locks_remove_file")
int BPF_PROG(locks_remove_file, struct file *f)
{
	struct request r;
	struct near n;

	if (!(f->f_mode & FMODE_WRITE))
		return 0;
	n = nearby(f->f_path.dentry, f->f_inode);
	if (n.where == AWAY)
		return 0;
	request_open(&r, f, OP_CLOSE, HOOK_FILE_CLOSE, n);
	return closed(&r);
}

static __always_inline int decide_mmap(struct file *f, u64 flags)
{
	u32 type = flags & MAP_TYPE;

	if (!f || (type != MAP_SHARED && type != MAP_SHARED_VALIDATE))
		return 0;
	return on_map(f, HOOK_MMAP, TIER_LSM);
}

/* the two have different arguments: the module is told of the protection twice */
SEC("lsm/mmap_file")
int BPF_PROG(mmap_file, struct file *f, unsigned long reqprot, unsigned long prot, unsigned long flags, int ret)
{
	return ret ? ret : answer(decide_mmap(f, flags));
}

SEC("fmod_ret/security_mmap_file")
int BPF_PROG(m_mmap_file, struct file *f, unsigned long prot, unsigned long flags)
{
	return answer(decide_mmap(f, flags));
}

static __always_inline int decide_mprotect(struct vm_area_struct *vma, u64 prot)
{
	struct file *f;

	if (!(prot & PROT_WRITE) || !(BPF_CORE_READ(vma, vm_flags) & VM_SHARED))
		return 0;
	f = BPF_CORE_READ(vma, vm_file);
	return f ? on_map(f, HOOK_MPROTECT, TIER_LSM) : 0;
}

DECIDE(file_mprotect, decide_mprotect(vma, prot), struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot)

/* Refuses a command on one file, or tells of it ahead. */
__noinline int command_on(struct request *r, u32 told)
{
	int err;

	if (!r)
		return 0;
	err = refuse(r);
	if (err || told)
		return err;
	r->flags |= EF_AHEAD;
	done(r);
	return 0;
}

static __always_inline int decide_ioctl(struct file *f, u32 cmd, u64 arg)
{
	struct command c = command(cmd);
	struct request r = {};
	s32 fd = -1;
	int err;

	if (c.op == OP_NONE)
		return 0;
	if (c.op == OP_RAW_WRITE) {
		request_file(&r, f, OP_WRITE, HOOK_IOCTL);
		return on_device(&r, TIER_LSM);
	}
	r.op = c.op;
	r.hook = HOOK_IOCTL;
	r.arg = cmd;
	r.d = f->f_path.dentry;
	if (c.name != NO_FIELD)
		r.leaf = (void *)(arg + c.name);
	else
		r.in = f->f_inode;
	err = command_on(&r, c.told);
	if (err || c.fd == NO_FIELD)
		return err;
	bpf_probe_read_user(&fd, sizeof(fd), (void *)(arg + c.fd));
	f = file_at(current_task(), (u32)fd);
	if (!f)
		return 0;
	r.flags = 0;
	r.d = BPF_CORE_READ(f, f_path.dentry);
	r.in = BPF_CORE_READ(f, f_inode);
	return command_on(&r, 0);
}

DECIDE(file_ioctl, decide_ioctl(f, cmd, arg), struct file *f, unsigned int cmd, unsigned long arg)
/* the same from 32-bit programs, a hook of its own since linux v6.8 (commit f1bb47a31dff) */
DECIDE(file_ioctl_compat, decide_ioctl(f, cmd, arg), struct file *f, unsigned int cmd, unsigned long arg)

/* file_setattr(2) and the ioctls that do the same, since linux v6.17 */
DECIDE(inode_file_setattr, deny_dentry(d, OP_SETFLAGS, HOOK_FILEATTR, 0), struct dentry *d, void *fa)

SEC("fexit/vfs_fileattr_set")
int vfs_fileattr_set(u64 *ctx)
{
	return tell_dentry((struct dentry *)AFTER_IDMAP(ctx, 1), OP_SETFLAGS, HOOK_IOCTL, 0, RESULT(ctx, 3));
}

/* ---- attributes -------------------------------------------------------- */

DECIDE(path_truncate, deny_dentry(p->dentry, OP_TRUNCATE, HOOK_TRUNCATE, 0), const struct path *p)

static __always_inline int decide_setattr(struct dentry *d, struct iattr *a)
{
	u32 valid = a->ia_valid;

	return deny_dentry(d, op_of_attr(valid), HOOK_SETATTR, valid);
}

DECIDE(inode_setattr, decide_setattr(d, a), struct dentry *d, struct iattr *a)
DECIDE_AS(inode_setattr_i, inode_setattr, decide_setattr(d, a), void *idmap, struct dentry *d, struct iattr *a)

SEC("fexit/notify_change")
int notify_change(u64 *ctx)
{
	struct dentry *d = (void *)AFTER_IDMAP(ctx, 1);
	struct iattr *a = (void *)AFTER_IDMAP(ctx, 2);
	u32 valid = a->ia_valid;
	u64 opener = 0;

	/* who empties a file that he has open writes it next, and tells so by his close (linux v6.1 fs/open.c:do_truncate) */
	if ((valid & (ATTR_SIZE | ATTR_FILE)) == (ATTR_SIZE | ATTR_FILE) && !a->ia_size)
		opener = (u64)a->ia_file;
	return tell_through(d, opener, op_of_attr(valid), HOOK_SETATTR, valid, RESULT(ctx, 4));
}

DECIDE(inode_setxattr, deny_dentry(d, op_of_xattr(OP_SETXATTR, (u64)name, 0), HOOK_SETXATTR, 0),
       void *idmap, struct dentry *d, const char *name, const void *value, unsigned long size, int flags)

SEC("fexit/vfs_setxattr")
int vfs_setxattr(u64 *ctx)
{
	u32 op = op_of_xattr(OP_SETXATTR, AFTER_IDMAP(ctx, 2), 0);

	return tell_dentry((struct dentry *)AFTER_IDMAP(ctx, 1), op, HOOK_SETXATTR, 0, RESULT(ctx, 6));
}

DECIDE(inode_removexattr, deny_dentry(d, op_of_xattr(OP_REMOVEXATTR, (u64)name, 0), HOOK_RMXATTR, 0),
       void *idmap, struct dentry *d, const char *name)

DECIDE_AS(inode_setxattr_o, inode_setxattr, deny_dentry(d, op_of_xattr(OP_SETXATTR, (u64)name, 0), HOOK_SETXATTR, 0),
	  struct dentry *d, const char *name, const void *value, unsigned long size, int flags)
DECIDE_AS(inode_rmxattr_o, inode_removexattr, deny_dentry(d, op_of_xattr(OP_REMOVEXATTR, (u64)name, 0), HOOK_RMXATTR, 0),
	  struct dentry *d, const char *name)

SEC("fexit/vfs_removexattr")
int vfs_removexattr(u64 *ctx)
{
	u32 op = op_of_xattr(OP_REMOVEXATTR, AFTER_IDMAP(ctx, 2), 0);

	return tell_dentry((struct dentry *)AFTER_IDMAP(ctx, 1), op, HOOK_RMXATTR, 0, RESULT(ctx, 3));
}

DECIDE(inode_set_acl, deny_dentry(d, OP_SETACL, HOOK_SETACL, 0), void *idmap, struct dentry *d, const char *name, void *acl)

SEC("fexit/vfs_set_acl")
int vfs_set_acl(u64 *ctx)
{
	return tell_dentry((struct dentry *)AFTER_IDMAP(ctx, 1), OP_SETACL, HOOK_SETACL, 0, RESULT(ctx, 4));
}

DECIDE(inode_remove_acl, deny_dentry(d, OP_SETACL, HOOK_RMACL, 0), void *idmap, struct dentry *d, const char *name)

SEC("fexit/vfs_remove_acl")
int vfs_remove_acl(u64 *ctx)
{
	return tell_dentry((struct dentry *)AFTER_IDMAP(ctx, 1), OP_SETACL, HOOK_RMACL, 0, RESULT(ctx, 3));
}

/* ---- names ------------------------------------------------------------- */

DECIDE(inode_create, deny_dentry(d, OP_CREATE, HOOK_CREATE, mode), struct inode *dir, struct dentry *d, umode_t mode)

static __always_inline int decide_link(struct dentry *old, struct dentry *new)
{
	struct request r = {}, q = {};
	struct settings *c = settings();
	int err;

	if (!c || !c->blocking)
		return 0;
	r.d = old;
	r.in = BPF_CORE_READ(old, d_inode);
	q.d = new;
	COUNT(HOOK_LINK, seen);
	locate(&r);
	locate(&q);
	err = refuse_pair(&r, &q, OP_LINK, HOOK_LINK);
	if (!err)
		COUNT(HOOK_LINK, skipped);
	return err;
}

DECIDE(inode_link, decide_link(old, new), struct dentry *old, struct inode *dir, struct dentry *new)

SEC("fexit/vfs_link")
int vfs_link(u64 *ctx)
{
	struct dentry *old = (void *)ctx[0], *new = (void *)AFTER_IDMAP(ctx, 3);
	struct request r = {}, q = {};
	struct slot *s;

	if (RESULT(ctx, 5))
		return 0;
	COUNT(HOOK_LINK, seen);
	r.d = old;
	q.d = new;
	r.in = BPF_CORE_READ(new, d_inode);
	locate(&r);
	locate(&q);
	if (!r.place.anchor && !q.place.anchor && !q.place.appeared) {
		COUNT(HOOK_LINK, skipped);
		return 0;
	}
	s = pair(&r, &q, OP_LINK, HOOK_LINK);
	if (s)
		submit(s);
	return 0;
}

static __always_inline int deny_removal(struct dentry *d, u32 op, u32 hook)
{
	struct settings *c = settings();
	struct request r = {};
	struct inode *in;
	int err;

	if (!c || !c->blocking)
		return 0;
	in = inode_of(d);
	if (untouched(d, in))
		return 0;
	r.d = d;
	r.in = in;
	r.op = op;
	r.hook = hook;
	err = refuse_ancestor(&r);
	return err ? err : refuse(&r);
}

DECIDE(inode_unlink, deny_removal(d, OP_UNLINK, HOOK_UNLINK), struct inode *dir, struct dentry *d)

SEC("fexit/vfs_unlink")
int vfs_unlink(u64 *ctx)
{
	return tell_dentry((struct dentry *)AFTER_IDMAP(ctx, 2), OP_UNLINK, HOOK_UNLINK, 0, RESULT(ctx, 4));
}

DECIDE(inode_symlink, deny_dentry(d, OP_SYMLINK, HOOK_SYMLINK, 0), struct inode *dir, struct dentry *d, const char *target)

SEC("fexit/vfs_symlink")
int vfs_symlink(u64 *ctx)
{
	return tell_dentry((struct dentry *)AFTER_IDMAP(ctx, 2), OP_SYMLINK, HOOK_SYMLINK, 0, RESULT(ctx, 4));
}

DECIDE(inode_mkdir, deny_dentry(d, OP_MKDIR, HOOK_MKDIR, mode), struct inode *dir, struct dentry *d, umode_t mode)

SEC("fexit/vfs_mkdir")
int vfs_mkdir(u64 *ctx)
{
	return tell_dentry((struct dentry *)AFTER_IDMAP(ctx, 2), OP_MKDIR, HOOK_MKDIR, 0, mkdir_result(RESULT(ctx, 4)));
}

DECIDE(inode_rmdir, deny_removal(d, OP_RMDIR, HOOK_RMDIR), struct inode *dir, struct dentry *d)

SEC("fexit/vfs_rmdir")
int vfs_rmdir(u64 *ctx)
{
	return tell_dentry((struct dentry *)AFTER_IDMAP(ctx, 2), OP_RMDIR, HOOK_RMDIR, 0, RESULT(ctx, 3));
}

DECIDE(inode_mknod, deny_dentry(d, OP_MKNOD, HOOK_MKNOD, mode), struct inode *dir, struct dentry *d, umode_t mode, unsigned int dev)

SEC("fexit/vfs_mknod")
int vfs_mknod(u64 *ctx)
{
	return tell_dentry((struct dentry *)AFTER_IDMAP(ctx, 2), OP_MKNOD, HOOK_MKNOD, (umode_t)AFTER_IDMAP(ctx, 3), RESULT(ctx, 5));
}

/* With a directory above a root, the root goes or comes: what leads to it is to be looked at again. */
static __always_inline void above_root(struct request *r)
{
	struct inode *in = r->in;
	struct mark *m = in ? ancestor_of(in) : 0;

	if (!m)
		return;
	r->place.appeared = 1;
	if (r->place.anchor)
		return;
	r->place.anchor = m->anchor;
	r->place.rule = m->rule;
	r->place.mode = m->mode;
	r->place.depth = 0;
}

/* mknod(2) of a regular file; open(2) does not come here */
SEC("fexit/vfs_create")
int BPF_PROG(vfs_create, void *idmap, struct inode *dir, struct dentry *d)
{
	return tell_dentry(d, OP_CREATE, HOOK_CREATE, 0, RESULT(ctx, 5));
}

/* without an idmap (before linux v5.12) or without a directory: the dentry comes second */
SEC("fexit/vfs_create")
int BPF_PROG(vfs_create_d, void *first, struct dentry *d)
{
	return tell_dentry(d, OP_CREATE, HOOK_CREATE, 0, RESULT(ctx, 5));
}

/*
 * An overlay renames in itself, and within that below. The super block is read by
 * a probe: the verifier allows no arithmetic with a pointer whose type it knows.
 */
static __always_inline u64 rename_key(struct dentry *d)
{
	return bpf_get_current_pid_tgid() ^ (u64)BPF_CORE_READ(d, d_sb);
}

/*
 * A rename loses the old name (d_move), so the event is made before it and kept
 * until the result is known:
 *
 *   inode_rename   both places found, event put into renames[thread, file system]
 *   vfs_rename     result: sent, or thrown away
 *
 * An exchange asks the module twice, the second time with the names in the order
 * of the call (linux v6.1 security/security.c:security_inode_rename); what the
 * first time put there is replaced.
 */
static __always_inline int decide_rename(struct dentry *old, struct dentry *new)
{
	struct request r = {}, q = {};
	struct slot *s;
	struct inode *in = inode_of(old), *over = inode_of(new);
	u64 k = rename_key(old);
	int err;

	if (untouched(old, in) && untouched(new, over))
		return 0;
	r.d = old;
	r.in = in;
	q.d = new;
	q.in = over;
	r.op = q.op = OP_RENAME;
	r.hook = q.hook = HOOK_RENAME;
	err = refuse_ancestor(&r);
	if (!err)
		err = refuse_ancestor(&q);
	if (err)
		return err;
	COUNT(HOOK_RENAME, seen);
	locate(&r);
	locate(&q);
	above_root(&r);
	above_root(&q);
	err = refuse_pair(&r, &q, OP_RENAME, HOOK_RENAME);
	if (err)
		return err;
	if (!r.place.anchor && !q.place.anchor && !q.place.appeared) {
		COUNT(HOOK_RENAME, skipped);
		return 0;
	}
	s = pair(&r, &q, OP_RENAME, HOOK_RENAME);
	if (!s)
		return 0;
	if (bpf_map_update_elem(&renames, &k, s, BPF_ANY))
		submit(s);
	else
		slot_put(s);
	return 0;
}

DECIDE(inode_rename, decide_rename(old, new), struct inode *odir, struct dentry *old, struct inode *ndir, struct dentry *new)

SEC("fexit/vfs_rename")
int vfs_rename(u64 *ctx)
{
	u64 k = rename_key(rename_old(ctx));
	struct slot *s = bpf_map_lookup_elem(&renames, &k);

	if (is_dir(inode_of(rename_old(ctx))) || is_dir(inode_of(rename_new(ctx))))
		forget_places();
	if (!s)
		return 0;
	if (rename_result(ctx)) {
		COUNT(HOOK_RENAME, skipped);
	} else {
		head_of(s)->time = bpf_ktime_get_boot_ns();
		file_of(s)->arg = rename_flags(ctx);
		submit(s);
	}
	bpf_map_delete_elem(&renames, &k);
	return 0;
}

/* ---- where from -------------------------------------------------------- */

static __always_inline int remember_peer(struct sock *sk)
{
	COUNT(HOOK_ACCEPT, seen);
	COUNT(HOOK_ACCEPT, skipped);
	on_accept(sk);
	return 0;
}

/* returns nothing, so there is nothing to modify */
SEC("lsm/sock_graft")
int BPF_PROG(sock_graft, struct sock *sk, struct socket *parent)
{
	return remember_peer(sk);
}

SEC("fentry/security_sock_graft")
int BPF_PROG(m_sock_graft, struct sock *sk, struct socket *parent)
{
	return remember_peer(sk);
}

#endif
