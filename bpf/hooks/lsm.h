/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tiers lsm and modify_return: hooks decide, and what happened is told after it
 * happened. A decision is written once and attached two ways (DECIDE): NAME is a
 * program of the security module, m_NAME changes what security_NAME returns.
 *
 * decide                       file_open file_permission mmap_file file_mprotect
 *                              file_ioctl path_truncate inode_setattr
 *                              inode_setxattr inode_removexattr inode_set_acl
 *                              inode_remove_acl inode_file_setattr
 * tell (fexit/..., fentry/...) notify_change vfs_setxattr vfs_removexattr
 *                              vfs_set_acl vfs_remove_acl vfs_fileattr_set
 *                              locks_remove_file
 * remember (sock_graft)        a connection came out of accept
 * names                        names.h
 *
 * Every path that allows keeps the verdict of the programs before it; a program
 * that modifies a return runs only while that is 0 (linux v6.1
 * arch/x86/net/bpf_jit_comp.c:invoke_bpf_mod_ret). A hook that finds no slot or no
 * map entry allows and counts: it cannot know, and a host must not stop because we
 * are short of memory.
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
	if (!locate_any(r) || !refuses(&r->place))
		return 0;
	COUNT(r->hook, seen);
	return deny(r);
}

static __always_inline int deny_dentry(struct dentry *d, u32 op, u32 hook, u64 arg)
{
	struct settings *c = settings();
	struct request r;
	struct inode *in;
	struct near n;

	if (!c || !is_strict(c, (u64)d->d_sb))
		return 0;
	in = inode_of(d);
	n = nearby(d, in);
	if (n.where == AWAY || (n.where == HERE && n.mode != MODE_BLOCK))
		return 0;
	request_dentry(&r, d, in, op, hook, n);
	r.arg = arg;
	return refuse(&r);
}

static __always_inline int tell_flagged(struct dentry *d, u64 opener, u32 op, u32 hook, u64 arg, u32 flags)
{
	struct request r;
	struct inode *in;
	struct near n;

	in = inode_of(d);
	n = nearby(d, in);
	if (n.where == AWAY)
		return 0;
	request_dentry(&r, d, in, op, hook, n);
	r.arg = arg;
	r.opener = opener;
	r.flags = flags;
	done(&r);
	return 0;
}

static __always_inline int tell_through(struct dentry *d, u64 opener, u32 op, u32 hook, u64 arg, int ret)
{
	return ret ? 0 : tell_flagged(d, opener, op, hook, arg, 0);
}

/* Tells of what is about to be done, where nothing tells that it was. */
static __always_inline int tell_ahead(struct dentry *d, u32 op, u32 hook)
{
	return tell_flagged(d, 0, op, hook, 0, EF_AHEAD);
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
	n = nearby_file(f);
	if (n.where == AWAY)
		return 0;
	request_open(&r, f, OP_OPEN, HOOK_FILE_OPEN, n);
	return opened(&r, mode, flags, TIER_LSM);
}

DECIDE(file_open, decide_open(f), struct file *f)

/* May f be one that overlayfs opened below? */
static __always_inline bool is_below(struct file *f)
{
	return is_backing(f->f_mode) || f->f_inode->i_sb != f->f_path.dentry->d_sb;
}

#define NR_MADVISE 28
#define NR_PROCESS_MADVISE 440

/*
 * A hole is punched through a mapping of an overlay's file, which maps f below (linux
 * v6.1 mm/madvise.c:madvise_remove). Any other write below was asked about above.
 */
static __always_inline int punched_over(struct request *r, struct file *f)
{
	u64 nr;

	if (!request_over(r, f, OP_WRITE, HOOK_FILE_PERM))
		return 0;
	nr = current_call();
	return nr == NR_MADVISE || nr == NR_PROCESS_MADVISE ? written(r, 0, TIER_LSM) : 0;
}

static __always_inline int decide_permission(struct file *f, int mask)
{
	struct settings *c;
	struct request r;
	struct inode *in;
	struct near n;
	int err;

	if (!(mask & MAY_WRITE))
		return 0;
	c = settings();
	in = f->f_inode;
	if (c && holds_mark(c, (u64)in->i_sb) && folds((u64)f, (u64)in, 0, HOOK_FILE_PERM, TIER_LSM))
		return 0;
	n = nearby_file(f);
	if (n.where == AWAY && !is_backing(f->f_mode))
		return 0;
	request_open(&r, f, OP_WRITE, HOOK_FILE_PERM, n);
	err = written(&r, 0, TIER_LSM);
	return err || !is_below(f) ? err : punched_over(&r, f);
}

DECIDE(file_permission, decide_permission(f, mask), struct file *f, int mask)

/* The last mapping of an overlay's file through f is gone, if somebody was seen storing by it. */
static __always_inline int unmapped_over(struct request *r, struct file *f)
{
	u64 k = store_key((u64)f);
	struct opener *o;

	if (!request_over(r, f, OP_CLOSE, HOOK_FILE_CLOSE))
		return 0;
	o = bpf_map_lookup_elem(&openers, &k);
	if (!o || o->inode != (u64)r->in)
		return 0;
	bpf_map_delete_elem(&openers, &k);
	if (place(r))
		report(r);
	return 0;
}

SEC("fentry/locks_remove_file")
int BPF_PROG(locks_remove_file, struct file *f)
{
	struct request r;
	struct near n;

	if (!(f->f_mode & FMODE_WRITE))
		return 0;
	n = nearby_file(f);
	if (n.where == AWAY && !is_backing(f->f_mode))
		return 0;
	request_open(&r, f, OP_CLOSE, HOOK_FILE_CLOSE, n);
	closed(&r);
	return is_below(f) ? unmapped_over(&r, f) : 0;
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
