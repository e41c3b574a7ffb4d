/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Mounts: what stands at a watched path, and on the way to it.
 *
 * decide (tiers that can)   sb_mount move_mount sb_umount sb_remount sb_pivotroot
 * tell (fexit of the call)  mount umount move_mount mount_setattr fsconfig
 *                           open_tree_attr pivot_root
 *
 * A mount matters if a watched path leads through it in the daemon's mount
 * namespace, or if it spreads to such a one (map mounts). What somebody does to a
 * view of his own is told, where it covers a watched path, and never refused.
 *
 * The calls are told as in tier tracepoint (syscall.h, on_mounting), once they have
 * succeeded: user space compares the table of mounts and knows what came of it.
 */
#ifndef HOLDFAST_MOUNT_H
#define HOLDFAST_MOUNT_H

/* ---- tell --------------------------------------------------------------- */

#define TELL_CALL(prog, call, nr) \
	SEC("fexit/__x64_sys_" #call) \
	int BPF_PROG(prog, struct pt_regs *regs, long ret) \
	{ \
		if (ret >= 0) \
			on_mounting(regs, nr); \
		return 0; \
	}

TELL_CALL(x_mount, mount, NR_MOUNT)
TELL_CALL(x_umount, umount, 166)
TELL_CALL(x_pivot_root, pivot_root, 155)
TELL_CALL(x_move_mount, move_mount, 429)
TELL_CALL(x_fsconfig, fsconfig, NR_FSCONFIG)
TELL_CALL(x_mount_setattr, mount_setattr, 442)
TELL_CALL(x_tree_attr, open_tree_attr, 467)

/* ---- decide ------------------------------------------------------------- */

/* m without its type: functions that are verified on their own take no typed pointer, not even as a number. */
static __always_inline struct vfsmount *untyped(struct vfsmount *m)
{
	struct vfsmount *out = 0;

	bpf_probe_read_kernel(&out, sizeof(out), &m);
	return out;
}

static __always_inline struct mount *mount_of(struct vfsmount *m)
{
	return (void *)m - bpf_core_field_offset(struct mount, mnt);
}

/* The watched path that leads through m, or to which m's mounts spread; 0: none. */
static __always_inline struct mark *mount_mark(struct mount *m)
{
	u64 k = (u32)BPF_CORE_READ(m, mnt_id);
	struct mark *r = bpf_map_lookup_elem(&mounts, &k);

	if (r)
		return r;
	k = (u32)BPF_CORE_READ(m, mnt_group_id);
	if (!k)
		return 0;
	k |= MOUNT_GROUP;
	return bpf_map_lookup_elem(&mounts, &k);
}

/* Is r's object watched, or on the way to something watched? Fills r's place. */
__noinline int concerns(struct request *r)
{
	struct dentry *d;
	struct mark *m;

	if (!r)
		return 0;
	d = r->d;
	r->in = BPF_CORE_READ(d, d_inode);
	m = ancestor_of(r->in);
	if (!locate(r) || !r->place.anchor || (m && m->mode > r->place.mode)) {
		if (!m)
			return 0;
		r->place.anchor = m->anchor;
		r->place.rule = m->rule;
		r->place.mode = m->mode;
		r->place.depth = 0;
	}
	return 1;
}

/* Sends r, with the path of (mnt, d) in its namespace as base. */
__noinline int report_mount(struct request *r, u64 mnt, u64 d)
{
	struct slot *s;

	if (!r)
		return 0;
	s = event_by_current(EV_FILE, r->op, r->hook);
	if (!s)
		return 0;
	fill_file(s, r);
	put_place(s, 0, r);
	if (mnt)
		put_path(s->number, 1, mnt, d);
	submit(s);
	return 0;
}

/* Refuses r at (mnt, d), if a rule in block mode says so. ours: it changes what the daemon sees. */
static __always_inline int decide_at(struct request *r, u64 mnt, u64 d, bool ours)
{
	COUNT(r->hook, seen);
	if (ours && bars(&r->place)) {
		r->flags |= EF_BLOCKED;
		r->ret = -EPERM;
		report_mount(r, mnt, d);
		return -EPERM;
	}
	if (ours || r->place.rule == RULE_OWN)
		COUNT(r->hook, skipped);	/* told when it is done; what others see where we live is nothing to us */
	else
		report_mount(r, mnt, d);
	return 0;
}

/* Something is to be mounted at p. */
static __noinline int decide_cover(const struct path *p, u32 hook)
{
	struct request r = {};
	struct vfsmount *mnt;
	struct settings *c = settings();

	if (!c || !c->armed)
		return 0;
	mnt = BPF_CORE_READ(p, mnt);
	r.d = BPF_CORE_READ(p, dentry);
	r.op = OP_MOUNT;
	r.hook = hook;
	if (!concerns(&r))
		return 0;
	return decide_at(&r, (u64)mnt, (u64)r.d, mount_mark(mount_of(mnt)) != 0);
}

/* Mount mnt is to go, to move, or to have its flags changed. */
static __noinline int decide_loss(struct vfsmount *mnt, u32 op, u32 hook)
{
	struct mount *m = mount_of(mnt);
	u64 id = (u32)BPF_CORE_READ(m, mnt_id);
	struct settings *c = settings();
	struct request r = {};
	struct mark *on;

	if (!c || !c->armed)
		return 0;
	r.op = op;
	r.hook = hook;
	r.d = BPF_CORE_READ(mnt, mnt_root);
	on = bpf_map_lookup_elem(&mounts, &id);
	if (on) {
		r.place.anchor = on->anchor;
		r.place.rule = on->rule;
		r.place.mode = on->mode;
		return decide_at(&r, (u64)mnt, (u64)r.d, true);
	}
	if (op == OP_REMOUNT)
		return 0;
	/* it may cover a part of a tree, here or where its parent's mounts spread to */
	r.d = BPF_CORE_READ(m, mnt_mountpoint);
	if (mount_mark((void *)BPF_CORE_READ(m, mnt_parent)) && concerns(&r))
		return decide_at(&r, (u64)mnt, (u64)BPF_CORE_READ(mnt, mnt_root), true);
	r.d = BPF_CORE_READ(mnt, mnt_root);
	r.in = BPF_CORE_READ(mnt, mnt_root, d_inode);
	if (!locate(&r) || !r.place.anchor)
		return 0;
	return decide_at(&r, (u64)mnt, (u64)r.d, false);
}

static __always_inline int decide_mount(const struct path *p, u64 flags)
{
	struct settings *c = settings();

	if (flags & MS_REMOUNT)	/* of the file system: sb_remount decides */
		return flags & MS_BIND ? decide_loss(BPF_CORE_READ(p, mnt), OP_REMOUNT, HOOK_MOUNT) : 0;
	if (flags & MS_PROPAGATION)
		return 0;
	if ((flags & MS_MOVE) && c && c->armed && c->moves && !is_self()) {
		struct request r = {};
		struct mark *m;

		/* what moves is a path that cannot be followed here: where a tree could be moved away, nothing is moved */
		m = mount_mark(mount_of(BPF_CORE_READ(p, mnt)));
		if (m) {
			r.op = OP_MOUNT;
			r.hook = HOOK_MOUNT;
			r.place.anchor = m->anchor;
			r.place.rule = m->rule;
			r.place.mode = MODE_BLOCK;
			return decide_at(&r, (u64)BPF_CORE_READ(p, mnt), (u64)BPF_CORE_READ(p, dentry), true);
		}
	}
	return decide_cover(p, HOOK_MOUNT);
}

static __always_inline int decide_move(const struct path *from, const struct path *to)
{
	int err = decide_loss(BPF_CORE_READ(from, mnt), OP_MOUNT, HOOK_MOVE_MOUNT);

	return err ? err : decide_cover(to, HOOK_MOVE_MOUNT);
}

/* The whole file system gets other options, for everybody who sees it. */
static __noinline int decide_remount(struct super_block *sb)
{
	struct settings *c = settings();
	struct request r = {};
	struct mark *m;
	u64 k = (u64)sb;

	if (!c || !c->armed || !c->blocking)
		return 0;
	m = bpf_map_lookup_elem(&filesystems, &k);
	if (!m || m->mode != MODE_BLOCK)
		return 0;
	r.op = OP_REMOUNT;
	r.hook = HOOK_REMOUNT;
	r.place.anchor = m->anchor;
	r.place.rule = m->rule;
	r.place.mode = m->mode;
	return decide_at(&r, 0, 0, true);
}

/* The root of this mount namespace is to be another one. */
static __noinline int decide_pivot(const struct path *to)
{
	struct task_struct *t = current_task();
	struct settings *c = settings();
	struct request r = {};
	struct mount *now;
	struct mark *m;
	u64 k;

	if (!c || !c->armed || !c->blocking)
		return 0;
	now = mount_of(BPF_CORE_READ(t, fs, root.mnt));
	k = (u32)BPF_CORE_READ(now, mnt_id);
	m = bpf_map_lookup_elem(&mounts, &k);
	if (!m)
		return 0;
	r.op = OP_MOUNT;
	r.hook = HOOK_PIVOT_ROOT;
	r.place.anchor = m->anchor;
	r.place.rule = m->rule;
	r.place.mode = m->mode;
	return decide_at(&r, (u64)BPF_CORE_READ(to, mnt), (u64)BPF_CORE_READ(to, dentry), true);
}

DECIDE(sb_mount, decide_mount(path, flags), const char *dev, const struct path *path, const char *type, unsigned long flags, void *data)

DECIDE(move_mount, decide_move(from, to), const struct path *from, const struct path *to)

DECIDE(sb_umount, decide_loss(untyped(mnt), OP_UMOUNT, HOOK_UMOUNT), struct vfsmount *mnt, int flags)

DECIDE(sb_remount, decide_remount(sb), struct super_block *sb, void *opts)

DECIDE(sb_pivotroot, decide_pivot(to), const struct path *old, const struct path *to)

#endif
