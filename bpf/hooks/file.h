/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Files: what every tier does about an operation. report() tells of one that is
 * over, refuse() (lsm.h) decides one that is not.
 */
#ifndef HOLDFAST_FILE_H
#define HOLDFAST_FILE_H

/* Which tier asks: only lsm is asked before the operation, and may refuse. */
#define TIER_TRACEPOINT 0
#define TIER_LSM 1

struct request {
	struct dentry *d;	/* the object, or with leaf the directory that holds it */
	struct inode *in;	/* of the object, 0 if there is none (any more) */
	const char *leaf;	/* user memory: name below d */
	u64 arg;
	u64 opener;
	u16 hook, op, flags;
	u16 fmode;	/* i_mode, or 0: this and the next four are not read yet. Hooks read them by loads, some ten times cheaper than probe reads */
	u32 dev, gen, nlink;
	s32 ret;
	u64 ino;
	struct place place;
};

static __always_inline void fill_file(struct slot *s, struct request *r)
{
	struct event_head *h = head_of(s);
	struct file_body *b = file_of(s);
	struct inode *in = r->in;	/* a local: BPF_CORE_READ would relocate r->in too */

	h->flags |= r->flags;
	h->ret = r->ret;
	if (r->place.appeared)
		h->flags |= EF_APPEARED;
	if (r->place.astray)
		h->flags |= EF_ASTRAY;
	if (r->place.anchor && is_allowed(r->place.rule))
		h->flags |= EF_ALLOWED;
	b->anchor = r->place.anchor;
	b->opener = r->opener;
	b->arg = r->arg;
	b->count = 1;
	b->first = h->time;
	if (r->fmode) {
		b->dev = r->dev;
		b->ino = r->ino;
		b->gen = r->gen;
		b->nlink = r->nlink;
		b->fmode = r->fmode;
	} else if (in) {
		b->dev = BPF_CORE_READ(in, i_sb, s_dev);
		b->ino = BPF_CORE_READ(in, i_ino);
		b->gen = BPF_CORE_READ(in, i_generation);
		b->nlink = BPF_CORE_READ(in, i_nlink);
		b->fmode = BPF_CORE_READ(in, i_mode);
	}
	if ((b->fmode & S_IFMT) == S_IFDIR)
		h->flags |= EF_DIR;
}

/* Appends the place of r below its anchor as string i. */
__noinline int put_place(struct slot *s, u32 i, struct request *r)
{
	u32 depth;
	u64 d = 0;

	if (!s || !r)
		return 0;
	depth = r->place.depth;
	if (r->leaf) {
		if (depth) {
			put_user_str(s, i, r->leaf);
			*tail(s) = 0;
			grew(s, i, 1);
			depth--;
		}
	}
	bpf_probe_read_kernel(&d, sizeof(d), &r->d);	/* without its type, which no number has */
	put_names(s->number, i, d, depth);
	return 0;
}

/* Sends an event about a watched object whose place is known. */
__noinline int report(struct request *r)
{
	struct slot *s;

	if (!r)
		return 0;
	if (r->place.below) {	/* by a path: on_device tells of what is opened */
		r->op = OP_RAW_WRITE;
		r->arg = 0;
	}
	s = event_by_current(EV_FILE, r->op, r->hook);
	if (!s)
		return 0;
	fill_file(s, r);
	put_place(s, 0, r);
	submit(s);
	return 0;
}

/* Tells of a request that is refused. Returns what the hook returns. */
static __always_inline int deny(struct request *r)
{
	r->flags |= EF_BLOCKED;
	r->ret = -EPERM;
	report(r);
	return -EPERM;
}

/* Is r about the content or the metadata of an object, whatever its name? */
static __always_inline bool of_object(struct request *r)
{
	return r->in && !r->leaf && ((r->op && r->op <= OP_TRUNCATE) || (r->op >= OP_CHMOD && r->op <= OP_CLOSE));
}

/*
 * Is r's file one that has a name in a watched tree too, or is a device below made of
 * it? What is done to a name outside (its removal, say) is not done to the watched one.
 */
static __always_inline bool find_link(struct request *r)
{
	struct inode *in = r->in;
	struct mark *m;

	if (!of_object(r))
		return false;
	m = mark_of(in);
	if (!m || !(m->flags & (MARK_LINK | MARK_BELOW)))
		return false;
	if (!(m->flags & MARK_LINK)) {
		/* the loop device's own writes are those of the file system on it */
		if ((r->op > OP_TRUNCATE && r->op != OP_MAP_WRITE && r->op != OP_CLOSE) || (TASK_READ(current_task(), flags) & PF_KTHREAD))
			return false;
		r->place.below = 1;
	}
	r->place.anchor = m->anchor;
	r->place.rule = m->rule;
	r->place.mode = m->mode;
	r->place.depth = 0;
	r->place.too_deep = 0;
	return true;
}

/* Finds the place of r; false if it is not watched. */
__noinline int locate(struct request *r)
{
	struct settings *c = settings();
	u64 leaf = 0;

	if (!r || !c || !c->armed)
		return 0;
	if (r->place.found)
		return 1;
	if (r->leaf)
		leaf = name_hash((u64)r->leaf, 1);
	if (!find_place(r->d, leaf, &r->place) && !(c->links && find_link(r)))
		return 0;
	if (r->place.anchor && r->place.rule == RULE_OWN && (is_self() || !in_force(RULE_OWN)))
		r->place.anchor = 0;
	return r->place.anchor || r->place.appeared;
}

#define ALIASES 16	/* names of one file that are looked at */

/*
 * Gives r another name of its file, one in a directory that is watched or of which
 * rules name entries: of the names that the kernel has in memory, among the latest. So
 * what is done by a name that was given a moment ago is known before user space has
 * marked the inode (MARK_LINK). 0: there is none.
 */
__noinline int other_name(struct request *r)
{
	struct inode *in;
	struct dentry *d;
	u64 dir, at;

	if (!r || !of_object(r))
		return 0;
	in = r->in;
	if (BPF_CORE_READ(in, i_nlink) < 2 || (BPF_CORE_READ(in, i_mode) & S_IFMT) == S_IFDIR || !on_watched_fs(BPF_CORE_READ(in, i_sb)))
		return 0;
	d = alias_of(in);
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < ALIASES; i++) {
		if (!d)
			return 0;
		dir = (u64)BPF_CORE_READ(d, d_parent);
		at = find_dir(dir);
		if ((u32)at || at & PLACE_NAMES) {
			r->d = d;
			return 1;
		}
		d = next_alias(d);
	}
	return 0;
}

/* locate(), by whichever name. */
static __always_inline bool locate_any(struct request *r)
{
	return locate(r) || (other_name(r) && locate(r));
}

/* The same, counted. */
static __always_inline bool place(struct request *r)
{
	if (locate_any(r)) {
		COUNT(r->hook, seen);
		return true;
	}
	if (r->place.too_deep)
		COUNT_SEEN(r->hook, deep);
	else
		COUNT_SEEN(r->hook, skipped);
	return false;
}

/* Reports an operation that is over, if it succeeded on something watched. */
static __always_inline void done(struct request *r)
{
	if (r->ret < 0)
		return;
	if (place(r))
		report(r);
}

__noinline int on_device(struct request *r, u32 tier);	/* device.h */

static __always_inline bool is_regular(struct request *r)
{
	struct inode *in = r->in;

	if (r->fmode)
		return (r->fmode & S_IFMT) == S_IFREG;
	return in && (BPF_CORE_READ(in, i_mode) & S_IFMT) == S_IFREG;
}

/* Begins a request about the object d with the inode in or none, whose types the verifier knows. */
static __always_inline void request_dentry(struct request *r, struct dentry *d, struct inode *in, u32 op, u32 hook, struct near near)
{
	__builtin_memset(r, 0, sizeof(*r));
	r->d = d;
	r->in = in;
	r->op = op;
	r->hook = hook;
	if (near.where == HERE) {
		r->place.anchor = near.anchor;
		r->place.rule = near.rule;
		r->place.depth = near.depth;
		r->place.mode = near.mode;
		r->place.found = 1;
	}
	if (in) {
		r->dev = in->i_sb->s_dev;
		r->ino = in->i_ino;
		r->gen = in->i_generation;
		r->nlink = in->i_nlink;
		r->fmode = in->i_mode;
	}
}

static __always_inline void request_file(struct request *r, struct file *f, u32 op, u32 hook)
{
	struct inode *in = BPF_CORE_READ(f, f_inode);
	struct dentry *d = BPF_CORE_READ(f, f_path.dentry);

	if (d && in && BPF_CORE_READ(d, d_sb) != BPF_CORE_READ(in, i_sb))
		d = alias_of(in);
	__builtin_memset(r, 0, sizeof(*r));
	r->d = d;
	r->in = in;
	r->opener = (u64)f;
	r->op = op;
	r->hook = hook;
}

/* The same about a file whose type the verifier knows. */
static __always_inline void request_open(struct request *r, struct file *f, u32 op, u32 hook, struct near near)
{
	struct inode *in = f->f_inode;
	struct dentry *d = f->f_path.dentry;

	if (in->i_sb != d->d_sb) {
		request_file(r, f, op, hook);
		return;
	}
	request_dentry(r, d, in, op, hook, near);
	r->opener = (u64)f;
}

/* Makes r's file an opener by this key: who came by it, as the event in s tells, and when. */
static __always_inline void remember_opener(struct slot *s, u64 key, struct request *r, u64 writes)
{
	struct opener *o = &s->opener;

	o->head = *head_of(s);
	o->count = o->bytes = o->first = 0;
	o->sent = head_of(s)->time;
	o->inode = (u64)r->in;
	o->writes = writes;
	bpf_map_update_elem(&openers, &key, o, BPF_ANY);
}

/*
 * Begins a request about the file of an overlay behind f, which overlayfs opened below:
 * what is done to the one is done to the other. False: f is no such file.
 */
static __always_inline bool request_over(struct request *r, struct file *f, u32 op, u32 hook)
{
	struct dentry *d = overlaid(f);

	if (!d)
		return false;
	__builtin_memset(r, 0, sizeof(*r));
	r->d = d;
	r->in = BPF_CORE_READ(d, d_inode);
	r->opener = (u64)f;
	r->op = op;
	r->hook = hook;
	return true;
}

/* Process tgid has a mapping of a watched file: its munmap is told of. */
static __always_inline void note_mapper(u32 tgid)
{
	u64 never = 0;

	bpf_map_update_elem(&mappers, &tgid, &never, BPF_ANY);
}

/* A mapping of the current process has ended; which file it was of is not known any more. */
static __always_inline void on_unmap(u32 hook)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;
	u64 *last = bpf_map_lookup_elem(&mappers, &tgid), now;
	struct slot *s;

	if (!last)
		return;
	now = bpf_ktime_get_boot_ns();
	if (now - *last < UNMAP_NS)
		return;
	*last = now;
	COUNT(hook, seen);
	s = event_by_current(EV_HELD, OP_CLOSE, hook);
	if (!s)
		return;
	head_of(s)->flags |= EF_MAPPED;
	submit(s);
}

/* The file of r is mapped shared. Returns -EPERM if that must not be. */
__noinline int mapped(struct request *r, u32 tier)
{
	if (!r || !place(r) || r->place.below)	/* on_map asks about what a device is made of: the stack is short */
		return 0;
	if (tier == TIER_LSM && refuses(&r->place))
		return deny(r);
	if (tier == TIER_TRACEPOINT)
		note_mapper(bpf_get_current_pid_tgid() >> 32);
	report(r);
	return 0;
}

/* A descriptor of f is mapped shared. Returns -EPERM if that must not be. */
static __noinline int on_map(struct file *f, u32 hook, u32 tier)
{
	struct request r;
	int err;

	if (!(BPF_CORE_READ(f, f_mode) & FMODE_WRITE))
		return 0;
	request_file(&r, f, OP_MAP_WRITE, hook);
	if (!is_regular(&r))
		return on_device(&r, tier);
	err = mapped(&r, tier);
	if (r.place.below)
		return on_device(&r, tier);
	/* overlayfs maps what is below on behalf of a mapping that mmap_file was asked about */
	if (!err && tier == TIER_LSM && hook != HOOK_MMAP_BACKING && request_over(&r, f, OP_MAP_WRITE, hook))
		err = mapped(&r, tier);
	return err;
}

/*
 * The operation behind an extended attribute: access control lists are attributes
 * by name (linux v6.1 include/uapi/linux/xattr.h).
 */
__noinline u32 op_of_xattr(u32 op, u64 name, u32 user)
{
	const char acl[] = "system.posix_acl_";
	char got[sizeof(acl)] = {};

	if (!name)
		return op;
	if (user)
		bpf_probe_read_user(got, sizeof(got) - 1, (void *)name);
	else
		bpf_probe_read_kernel(got, sizeof(got) - 1, (void *)name);
#pragma clang loop unroll(full)
	for (u32 i = 0; i < sizeof(acl) - 1; i++)
		if (got[i] != acl[i])
			return op;
	return OP_SETACL;
}

/* Which operation an attribute change is (linux v6.1 fs/attr.c:notify_change). */
static __always_inline u32 op_of_attr(u32 valid)
{
	if (valid & ATTR_SIZE)
		return OP_TRUNCATE;
	if (valid & (ATTR_UID | ATTR_GID))
		return OP_CHOWN;
	if (valid & ATTR_MODE)
		return OP_CHMOD;
	return OP_UTIMES;
}

#endif
