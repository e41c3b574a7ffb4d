/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tiers lsm and modify_return: the hooks of names, by the macros of lsm.h.
 *
 * decide   inode_create inode_link inode_unlink inode_symlink inode_mkdir
 *          inode_rmdir inode_mknod inode_rename
 * tell     vfs_create vfs_link vfs_unlink vfs_symlink vfs_mkdir vfs_rmdir
 *          vfs_mknod vfs_rename
 */
#ifndef HOLDFAST_NAMES_H
#define HOLDFAST_NAMES_H

/* Refuses r if it is about a directory on the way to a watched root: that must stay where it is. */
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
	return !is_dir(in) && nearby(d, in).where == AWAY;
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

/*
 * Compilers have taken vfs_rmdir into its only caller of note before linux v5.12 (there
 * it has a name, and nothing comes by it): where arguments are those of then, the
 * removal is told of ahead.
 */
static __always_inline int decide_rmdir(struct dentry *d)
{
	int err = deny_removal(d, OP_RMDIR, HOOK_RMDIR);

	if (err || has_idmap())
		return err;
	return tell_ahead(d, OP_RMDIR, HOOK_RMDIR);
}

DECIDE(inode_rmdir, decide_rmdir(d), struct inode *dir, struct dentry *d)

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
	u64 k;
	int err;

	if (untouched(old, in) && untouched(new, over))
		return 0;
	k = rename_key(old);
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

#endif
