/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tier lsm: hooks decide, and what happened is told after it happened.
 *
 * decide (lsm/...)            file_open file_permission mmap_file file_mprotect
 *                             file_ioctl path_truncate inode_setattr
 *                             inode_setxattr inode_removexattr inode_set_acl
 *                             inode_remove_acl inode_create inode_link
 *                             inode_unlink inode_symlink inode_mkdir inode_rmdir
 *                             inode_mknod inode_rename
 * tell (fexit/..., fentry/...) vfs_unlink vfs_rmdir vfs_mkdir vfs_symlink
 *                             vfs_mknod vfs_link vfs_rename notify_change
 *                             vfs_setxattr vfs_removexattr vfs_set_acl
 *                             vfs_remove_acl vfs_fileattr_set locks_remove_file
 * remember (lsm/sock_graft)   a connection came out of accept
 *
 * Every path that allows returns the verdict of the programs before it. A hook
 * that finds no slot or no map entry allows and counts: it cannot know, and a
 * host must not stop because we are short of memory.
 *
 * Argument positions are those since linux v5.12, which put a user_namespace (now
 * mnt_idmap) before the dentry in the vfs functions. Hooks whose own arity
 * changed exist twice, as name and name_i (with the idmap): user space loads the
 * one that fits the running kernel's BTF.
 */
#ifndef HOLDFAST_LSM_H
#define HOLDFAST_LSM_H

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
	m = mark_of(in);
	if (!m || !(m->flags & MARK_ANCESTOR) || m->mode != MODE_BLOCK || is_self())
		return 0;
	COUNT(r->hook, seen);
	r->place.anchor = m->anchor;
	r->place.rule = m->rule;
	r->place.mode = m->mode;
	return deny(r);
}

static __always_inline int deny_dentry(struct dentry *d, u32 op, u32 hook, u64 arg)
{
	struct request r = {};

	r.d = d;
	r.in = BPF_CORE_READ(d, d_inode);
	r.op = op;
	r.hook = hook;
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

static __always_inline int tell_dentry(struct dentry *d, u32 op, u32 hook, u64 arg, int ret)
{
	struct request r = {};

	if (ret)
		return 0;
	r.d = d;
	r.in = BPF_CORE_READ(d, d_inode);
	r.op = op;
	r.hook = hook;
	r.arg = arg;
	done(&r);
	return 0;
}

/* ---- content ----------------------------------------------------------- */

SEC("lsm/file_open")
int BPF_PROG(file_open, struct file *f, int ret)
{
	return ret ? ret : on_open(f, BPF_CORE_READ(f, f_flags), HOOK_FILE_OPEN, TIER_LSM);
}

SEC("lsm/file_permission")
int BPF_PROG(file_permission, struct file *f, int mask, int ret)
{
	if (ret || !(mask & MAY_WRITE))
		return ret;
	return on_write(f, 0, HOOK_FILE_PERM, TIER_LSM);
}

SEC("fentry/locks_remove_file")
int BPF_PROG(locks_remove_file, struct file *f)
{
	return on_close(f, HOOK_FILE_CLOSE);
}

SEC("lsm/mmap_file")
int BPF_PROG(mmap_file, struct file *f, unsigned long reqprot, unsigned long prot, unsigned long flags, int ret)
{
	u32 type = flags & MAP_TYPE;

	if (ret || !f || (type != MAP_SHARED && type != MAP_SHARED_VALIDATE))
		return ret;
	return on_map(f, HOOK_MMAP, TIER_LSM);
}

SEC("lsm/file_mprotect")
int BPF_PROG(file_mprotect, struct vm_area_struct *vma, unsigned long reqprot, unsigned long prot, int ret)
{
	struct file *f;

	if (ret || !(prot & PROT_WRITE) || !(BPF_CORE_READ(vma, vm_flags) & VM_SHARED))
		return ret;
	f = BPF_CORE_READ(vma, vm_file);
	return f ? on_map(f, HOOK_MPROTECT, TIER_LSM) : ret;
}

SEC("lsm/file_ioctl")
int BPF_PROG(file_ioctl, struct file *f, unsigned int cmd, unsigned long arg, int ret)
{
	if (ret || (cmd != FS_IOC_SETFLAGS && cmd != FS_IOC_FSSETXATTR))
		return ret;
	return deny_dentry(BPF_CORE_READ(f, f_path.dentry), OP_SETFLAGS, HOOK_IOCTL, cmd);
}

SEC("fexit/vfs_fileattr_set")
int BPF_PROG(vfs_fileattr_set, void *idmap, struct dentry *d)
{
	return tell_dentry(d, OP_SETFLAGS, HOOK_IOCTL, 0, func_ret(ctx));
}

/* ---- attributes -------------------------------------------------------- */

SEC("lsm/path_truncate")
int BPF_PROG(path_truncate, const struct path *p, int ret)
{
	return ret ? ret : deny_dentry(BPF_CORE_READ(p, dentry), OP_TRUNCATE, HOOK_TRUNCATE, 0);
}

SEC("lsm/inode_setattr")
int BPF_PROG(inode_setattr, struct dentry *d, struct iattr *a, int ret)
{
	u32 valid = BPF_CORE_READ(a, ia_valid);

	return ret ? ret : deny_dentry(d, op_of_attr(valid), HOOK_SETATTR, valid);
}

SEC("lsm/inode_setattr")
int BPF_PROG(inode_setattr_i, void *idmap, struct dentry *d, struct iattr *a, int ret)
{
	u32 valid = BPF_CORE_READ(a, ia_valid);

	return ret ? ret : deny_dentry(d, op_of_attr(valid), HOOK_SETATTR, valid);
}

SEC("fexit/notify_change")
int BPF_PROG(notify_change, void *idmap, struct dentry *d, struct iattr *a)
{
	u32 valid = BPF_CORE_READ(a, ia_valid);

	return tell_dentry(d, op_of_attr(valid), HOOK_SETATTR, valid, func_ret(ctx));
}

SEC("lsm/inode_setxattr")
int BPF_PROG(inode_setxattr, void *idmap, struct dentry *d, const char *name, const void *value, unsigned long size, int flags, int ret)
{
	return ret ? ret : deny_dentry(d, op_of_xattr(OP_SETXATTR, (u64)name, 0), HOOK_SETXATTR, 0);
}

SEC("fexit/vfs_setxattr")
int BPF_PROG(vfs_setxattr, void *idmap, struct dentry *d, const char *name)
{
	return tell_dentry(d, op_of_xattr(OP_SETXATTR, (u64)name, 0), HOOK_SETXATTR, 0, func_ret(ctx));
}

SEC("lsm/inode_removexattr")
int BPF_PROG(inode_removexattr, void *idmap, struct dentry *d, const char *name, int ret)
{
	return ret ? ret : deny_dentry(d, op_of_xattr(OP_REMOVEXATTR, (u64)name, 0), HOOK_RMXATTR, 0);
}

SEC("fexit/vfs_removexattr")
int BPF_PROG(vfs_removexattr, void *idmap, struct dentry *d, const char *name)
{
	return tell_dentry(d, op_of_xattr(OP_REMOVEXATTR, (u64)name, 0), HOOK_RMXATTR, 0, func_ret(ctx));
}

SEC("lsm/inode_set_acl")
int BPF_PROG(inode_set_acl, void *idmap, struct dentry *d, const char *name, void *acl, int ret)
{
	return ret ? ret : deny_dentry(d, OP_SETACL, HOOK_SETACL, 0);
}

SEC("fexit/vfs_set_acl")
int BPF_PROG(vfs_set_acl, void *idmap, struct dentry *d)
{
	return tell_dentry(d, OP_SETACL, HOOK_SETACL, 0, func_ret(ctx));
}

SEC("lsm/inode_remove_acl")
int BPF_PROG(inode_remove_acl, void *idmap, struct dentry *d, const char *name, int ret)
{
	return ret ? ret : deny_dentry(d, OP_SETACL, HOOK_RMACL, 0);
}

SEC("fexit/vfs_remove_acl")
int BPF_PROG(vfs_remove_acl, void *idmap, struct dentry *d)
{
	return tell_dentry(d, OP_SETACL, HOOK_RMACL, 0, func_ret(ctx));
}

/* ---- names ------------------------------------------------------------- */

SEC("lsm/inode_create")
int BPF_PROG(inode_create, struct inode *dir, struct dentry *d, umode_t mode, int ret)
{
	return ret ? ret : deny_dentry(d, OP_CREATE, HOOK_CREATE, mode);
}

SEC("lsm/inode_link")
int BPF_PROG(inode_link, struct dentry *old, struct inode *dir, struct dentry *new, int ret)
{
	struct request r = {}, q = {};
	struct settings *c = settings();

	if (ret || !c || !c->blocking)
		return ret;
	r.d = old;
	r.in = BPF_CORE_READ(old, d_inode);
	q.d = new;
	COUNT(HOOK_LINK, seen);
	locate(&r);
	locate(&q);
	ret = refuse_pair(&r, &q, OP_LINK, HOOK_LINK);
	if (!ret)
		COUNT(HOOK_LINK, skipped);
	return ret;
}

SEC("fexit/vfs_link")
int BPF_PROG(vfs_link, struct dentry *old, void *idmap, struct inode *dir, struct dentry *new)
{
	struct request r = {}, q = {};
	struct slot *s;

	if (func_ret(ctx))
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
	struct request r = {};
	int err;

	r.d = d;
	r.in = BPF_CORE_READ(d, d_inode);
	r.op = op;
	r.hook = hook;
	err = refuse_ancestor(&r);
	return err ? err : refuse(&r);
}

SEC("lsm/inode_unlink")
int BPF_PROG(inode_unlink, struct inode *dir, struct dentry *d, int ret)
{
	return ret ? ret : deny_removal(d, OP_UNLINK, HOOK_UNLINK);
}

SEC("fexit/vfs_unlink")
int BPF_PROG(vfs_unlink, void *idmap, struct inode *dir, struct dentry *d)
{
	return tell_dentry(d, OP_UNLINK, HOOK_UNLINK, 0, func_ret(ctx));
}

SEC("lsm/inode_symlink")
int BPF_PROG(inode_symlink, struct inode *dir, struct dentry *d, const char *target, int ret)
{
	return ret ? ret : deny_dentry(d, OP_SYMLINK, HOOK_SYMLINK, 0);
}

SEC("fexit/vfs_symlink")
int BPF_PROG(vfs_symlink, void *idmap, struct inode *dir, struct dentry *d)
{
	return tell_dentry(d, OP_SYMLINK, HOOK_SYMLINK, 0, func_ret(ctx));
}

SEC("lsm/inode_mkdir")
int BPF_PROG(inode_mkdir, struct inode *dir, struct dentry *d, umode_t mode, int ret)
{
	return ret ? ret : deny_dentry(d, OP_MKDIR, HOOK_MKDIR, mode);
}

SEC("fexit/vfs_mkdir")
int BPF_PROG(vfs_mkdir, void *idmap, struct inode *dir, struct dentry *d)
{
	return tell_dentry(d, OP_MKDIR, HOOK_MKDIR, 0, mkdir_result(func_ret(ctx)));
}

SEC("lsm/inode_rmdir")
int BPF_PROG(inode_rmdir, struct inode *dir, struct dentry *d, int ret)
{
	return ret ? ret : deny_removal(d, OP_RMDIR, HOOK_RMDIR);
}

SEC("fexit/vfs_rmdir")
int BPF_PROG(vfs_rmdir, void *idmap, struct inode *dir, struct dentry *d)
{
	return tell_dentry(d, OP_RMDIR, HOOK_RMDIR, 0, func_ret(ctx));
}

SEC("lsm/inode_mknod")
int BPF_PROG(inode_mknod, struct inode *dir, struct dentry *d, umode_t mode, unsigned int dev, int ret)
{
	return ret ? ret : deny_dentry(d, OP_MKNOD, HOOK_MKNOD, mode);
}

SEC("fexit/vfs_mknod")
int BPF_PROG(vfs_mknod, void *idmap, struct inode *dir, struct dentry *d, umode_t mode)
{
	return tell_dentry(d, OP_MKNOD, HOOK_MKNOD, mode, func_ret(ctx));
}

/*
 * A rename loses the old name (d_move), so the event is made before it and kept
 * until the result is known:
 *
 *   inode_rename   both places found, event put into renames[thread]
 *   vfs_rename     result: sent, or thrown away
 */
SEC("lsm/inode_rename")
int BPF_PROG(inode_rename, struct inode *odir, struct dentry *old, struct inode *ndir, struct dentry *new, int ret)
{
	struct request r = {}, q = {};
	struct slot *s;
	u64 k = bpf_get_current_pid_tgid();
	int err;

	if (ret)
		return ret;
	r.d = old;
	r.in = BPF_CORE_READ(old, d_inode);
	q.d = new;
	q.in = BPF_CORE_READ(new, d_inode);
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

SEC("fexit/vfs_rename")
int BPF_PROG(vfs_rename)
{
	u64 k = bpf_get_current_pid_tgid();
	struct slot *s = bpf_map_lookup_elem(&renames, &k);

	if (!s)
		return 0;
	if (func_ret(ctx)) {
		COUNT(HOOK_RENAME, skipped);
	} else {
		head_of(s)->time = bpf_ktime_get_boot_ns();
		submit(s);
	}
	bpf_map_delete_elem(&renames, &k);
	return 0;
}

/* ---- where from -------------------------------------------------------- */

SEC("lsm/sock_graft")
int BPF_PROG(sock_graft, struct sock *sk, struct socket *parent)
{
	COUNT(HOOK_ACCEPT, seen);
	COUNT(HOOK_ACCEPT, skipped);
	on_accept(sk);
	return 0;
}

#endif
