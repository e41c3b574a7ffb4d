/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Name a file: pure functions over dentries, no side effects but the strings
 * they append. All pointers are read with probe reads, so that the same code
 * serves hooks with typed arguments and system calls with none.
 */
#ifndef HOLDFAST_PATH_H
#define HOLDFAST_PATH_H

#define DEPTH 64	/* directories walked up at most; what lies deeper is counted: nobody knows whether it is watched */
#define NAME_MAX_ 255

/* FNV-1a over the bytes of a name; user space computes the same (pkg/sense). */
#define FNV_BASIS 0xcbf29ce484222325ULL
#define FNV_PRIME 0x100000001b3ULL

/* Hash of the at most 255 bytes before NUL at str, in kernel or user memory. */
__noinline u64 name_hash(u64 str, u32 user)
{
	u64 h = FNV_BASIS;

#pragma clang loop unroll(disable)
	for (int i = 0; i < NAME_MAX_; i++) {
		u8 c = 0;

		if (user)
			bpf_probe_read_user(&c, 1, (void *)(str + i));
		else
			bpf_probe_read_kernel(&c, 1, (void *)(str + i));
		if (!c)
			break;
		h = (h ^ c) * FNV_PRIME;
	}
	return h;
}

static __always_inline bool is_dir(struct inode *in)
{
	return in && (in->i_mode & S_IFMT) == S_IFDIR;
}

/* What name rules say of the entry of dir with this hash: MARK_*. Sets the anchor in p, to 0 if the entry is excepted. */
static __always_inline u32 named(struct inode *dir, u64 hash, struct place *p)
{
	struct mark *n = name_of(dir, hash);

	if (!n)
		return 0;
	if (n->flags & (MARK_EXCEPT | MARK_ROOT)) {
		p->anchor = n->flags & MARK_EXCEPT ? 0 : n->anchor;
		p->rule = n->rule;
		p->mode = n->mode;
	}
	return n->flags;
}

/*
 * Is the topmost dentry d no root? A file that was opened by its handle while its
 * directory was not in memory has no place (linux v6.1 fs/dcache.c:
 * __d_obtain_alias). What nobody knows to lie elsewhere is taken for the strictest
 * tree of the file system.
 */
static __always_inline bool astray(struct dentry *d, struct place *p)
{
	u64 k = (u64)BPF_CORE_READ(d, d_sb);
	struct mark *m = bpf_map_lookup_elem(&filesystems, &k);

	if (!m || !(BPF_CORE_READ(d, d_flags) & DCACHE_DISCONNECTED))
		return false;
	p->anchor = m->anchor;
	p->rule = m->rule;
	p->mode = m->mode;
	p->depth = 0;
	p->astray = 1;
	return p->anchor;
}

/*
 * A place as a number, which is what a function that takes no pointer can return
 * (slot_at). From the lowest bit: anchor, rule (RULE_OWN is the highest), depth
 * (at most DEPTH), mode, three flags.
 */
#define PLACE_NAMES (1ULL << 62)

static __always_inline u64 pack_place(const struct place *p)
{
	return p->anchor | (u64)(p->rule & RULE_OWN) << 32 | (u64)(p->depth & 127) << 52 | (u64)(p->mode & 3) << 59 |
	       (u64)!!p->too_deep << 61 | (p->names ? PLACE_NAMES : 0) | (u64)!!p->astray << 63;
}

static __always_inline void unpack_place(u64 v, struct place *p)
{
	p->anchor = v;
	p->rule = v >> 32 & RULE_OWN;
	p->depth = v >> 52 & 127;
	p->mode = v >> 59 & 3;
	p->too_deep = v >> 61 & 1;
	p->names = !!(v & PLACE_NAMES);
	p->astray = v >> 63;
}

/*
 * Finds where the entries of a directory lie: the nearest mark from its dentry
 * upwards. Nearest wins, so excepts and nested rules need no order. Says names if
 * the directory itself has entries that rules name.
 *
 * The walk is paid once for a directory, if each of its moves is seen: it is not
 * where another host may move it (a file system that revalidates names).
 */
__noinline u64 find_dir(u64 dentry)
{
	struct dentry *d = (void *)dentry;
	struct place found = {}, *p = &found;
	struct settings *c = settings();
	const unsigned char *prev = 0;
	struct nearby n = {}, *known;
	volatile u16 depth = 0;	/* these two in memory, where the verifier forgets them: else it follows each value to the end */
	volatile u8 names = 0;
	bool may;
	u32 turn;

	if (!d || !c)
		return 0;
	n.inode = (u64)BPF_CORE_READ(d, d_inode);
	n.dentry = dentry;
	n.parent = (u64)BPF_CORE_READ(d, d_parent);
	n.ino = BPF_CORE_READ(d, d_inode, i_ino);
	n.gen = BPF_CORE_READ(d, d_inode, i_generation);
	n.generation = generation(c);
	may = c->remember && n.gen && !(BPF_CORE_READ(d, d_flags) & DCACHE_OP_REVALIDATE);
	known = may ? nearby_of(n.ino, n.gen) : 0;
	if (known) {
		turn = *(volatile u32 *)&known->turn;
		HOLD_ORDER();
		if (is_about(known, turn, n.generation, n.inode, n.dentry, n.parent, n.ino, n.gen)) {
			p->anchor = known->anchor;
			p->rule = known->rule;
			p->mode = known->mode;
			p->depth = known->depth;
			p->names = known->names;
			HOLD_ORDER();
			if (*(volatile u32 *)&known->turn == turn)
				return pack_place(p);
			p->anchor = 0;
		}
	}
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < DEPTH; i++) {
		struct inode *at = BPF_CORE_READ(d, d_inode);
		struct mark *m = at ? mark_of(at) : 0;
		struct dentry *up;

		if (m) {
			if (m->flags & MARK_NAMES) {
				if (!prev) {
					names = 1;
				} else if (named(at, name_hash((u64)prev, 0), p) & (MARK_EXCEPT | MARK_ROOT)) {
					depth = i;
					goto found;
				}
			}
			if (m->flags & MARK_ROOT) {
				p->anchor = m->anchor;
				p->rule = m->rule;
				p->mode = m->mode;
				depth = i + 1;
				goto found;
			}
		}
		up = BPF_CORE_READ(d, d_parent);
		if (up == d) {
			if (astray(d, p))
				may = false;
			goto found;
		}
		prev = BPF_CORE_READ(d, d_name.name);
		d = up;
	}
	p->too_deep = 1;
	p->names = names;
	return pack_place(p);
found:
	p->depth = depth;
	p->names = names;
	if (may) {
		n.anchor = p->anchor;
		n.rule = p->rule;
		n.mode = p->mode;
		n.depth = p->depth;
		n.names = p->names;
		remember(&n);
	}
	return pack_place(p);
}

/*
 * Finds the nearest mark on the way up from d. leaf is the hash of a name below
 * d that has no dentry of its own here (0: d is the object itself).
 */
static __always_inline bool find_place(struct dentry *d, u64 leaf, struct place *p)
{
	struct dentry *dir = 0;
	struct inode *in;
	struct mark *m;
	u32 flags;

	p->anchor = 0;
	p->appeared = 0;
	p->too_deep = 0;
	p->names = 0;
	p->astray = 0;
	if (!d || !on_watched_fs(BPF_CORE_READ(d, d_sb)))
		return false;
	if (!leaf) {
		in = BPF_CORE_READ(d, d_inode);
		m = in ? mark_of(in) : 0;
		if (m && (m->flags & MARK_ROOT)) {
			p->anchor = m->anchor;
			p->rule = m->rule;
			p->mode = m->mode;
			p->depth = 0;
			return true;
		}
		dir = BPF_CORE_READ(d, d_parent);
		if (dir == d)
			return astray(d, p);
	} else {
		bpf_probe_read_kernel(&dir, sizeof(dir), &d);	/* without its type, which no number has */
	}
	unpack_place(find_dir((u64)dir), p);
	if (p->names) {
		if (!leaf)
			leaf = name_hash((u64)BPF_CORE_READ(d, d_name.name), 0);
		flags = named(BPF_CORE_READ(dir, d_inode), leaf, p);
		if (flags & MARK_PENDING)
			p->appeared = 1;
		if (flags & (MARK_EXCEPT | MARK_ROOT))
			p->depth = 0;
	}
	return p->anchor || p->appeared;
}

#define ASK 0	/* the walk tells */
#define AWAY 1	/* surely not watched */
#define HERE 2	/* watched, and this is the place */

/* What is remembered about where an object is. */
struct near {
	u32 anchor, rule;
	u16 depth;
	u8 mode;
	u8 where;	/* ASK, AWAY or HERE */
};

/*
 * The cheap question, for hooks, whose arguments have types: where is the object d,
 * with the inode in or none? What is surely away is not counted as seen. Each load
 * costs some eight instructions, for a net: none is made twice.
 */
static __always_inline struct near nearby(struct dentry *d, struct inode *in)
{
	struct settings *c = settings();
	struct near p = { .where = AWAY };
	struct dentry *up;
	struct inode *dir;
	struct nearby *n;
	u32 turn, gen;
	u64 ino;

	if (!c || !c->armed || !holds_mark(c, (u64)d->d_sb))
		return p;
	p.where = ASK;
	if (!c->remember)
		return p;
	up = d->d_parent;
	dir = up->d_inode;
	ino = dir->i_ino;
	gen = dir->i_generation;
	n = nearby_of(ino, gen);
	if (!n)
		return p;
	turn = *(volatile u32 *)&n->turn;
	HOLD_ORDER();
	if (!is_about(n, turn, generation(c), (u64)dir, (u64)up, (u64)up->d_parent, ino, gen) || n->names)
		return p;
	p.anchor = n->anchor;
	p.rule = n->rule;
	p.depth = n->depth;
	p.mode = n->mode;
	HOLD_ORDER();
	if (*(volatile u32 *)&n->turn != turn)
		return p;
	/* a mark on the object itself: on a directory, or a file with another name elsewhere */
	if (in && (in->i_nlink != 1 || is_dir(in) || has_bit(c, (u64)d->d_sb, c->lone)) && mark_of(in))
		return p;
	if (!p.anchor)
		p.where = in && in->i_nlink > 1 && !is_dir(in) ? ASK : AWAY;	/* another name may be watched: other_name */
	else if (p.rule != RULE_OWN)	/* which does not hold for everybody */
		p.where = HERE;
	return p;
}

/*
 * The same of an open file. Not sure: the inode of a file that overlayfs opened lies
 * elsewhere than its path, and a block device may lie below a file system.
 */
static __always_inline struct near nearby_file(struct file *f)
{
	struct near p = { .where = ASK };
	struct dentry *d = f->f_path.dentry;
	struct inode *in = f->f_inode;

	if (in->i_sb != d->d_sb || (in->i_mode & S_IFMT) == S_IFBLK)
		return p;
	return nearby(d, in);
}

/* Appends depth names from the dentry upwards to string i of a slot. */
__noinline int put_names(u32 number, u32 i, u64 dentry, u32 depth)
{
	struct dentry *d = (void *)dentry;
	struct slot *s = slot_at(number);

	if (!s)
		return 0;
#pragma clang loop unroll(disable)
	for (u32 k = 0; k < DEPTH; k++) {
		long n;

		if (k >= depth)
			return 0;
		if (s->size > SLOT_DATA - STRING_MAX - 512) {
			head_of(s)->flags |= EF_TRUNCATED;
			return 0;
		}
		n = bpf_probe_read_kernel_str(tail(s), NAME_MAX_ + 1, BPF_CORE_READ(d, d_name.name));
		if (n > 0)
			grew(s, i, n);
		if (k + 1 < depth)
			d = BPF_CORE_READ(d, d_parent);
	}
	return 0;
}

/* Appends what the kernel calls a file that lies in no directory, of memfd_create(2) (linux v6.1 mm/shmem.c, fs/d_path.c:simple_dname). */
static __always_inline void put_nowhere(struct slot *s, u32 i, struct dentry *d)
{
	const char gone[] = " (deleted)";
	long n;

	if (s->size > SLOT_DATA - STRING_MAX - 512)
		return;
	n = bpf_probe_read_kernel_str(tail(s), NAME_MAX_ + 1, BPF_CORE_READ(d, d_name.name));
	if (n <= 0)
		return;
	grew(s, i, n - 1);
	__builtin_memcpy(tail(s), gone, sizeof(gone));
	grew(s, i, sizeof(gone));
}

/* Appends the absolute path of (mnt, d) in its mount namespace to string i of a slot. */
__noinline int put_path(u32 number, u32 i, u64 vfsmnt, u64 dentry)
{
	struct dentry *d = (void *)dentry;
	struct slot *s = slot_at(number);
	struct mount *m;
	u32 from;

	if (!s || !vfsmnt || !d)
		return 0;
	from = s->size;
	m = (void *)vfsmnt - bpf_core_field_offset(struct mount, mnt);
#pragma clang loop unroll(disable)
	for (u32 k = 0; k < DEPTH; k++) {
		struct dentry *up = BPF_CORE_READ(d, d_parent);
		long n;

		if (d == up && !k && d != BPF_CORE_READ(m, mnt.mnt_root)) {
			put_nowhere(s, i, d);
			return 0;
		}
		if (d == BPF_CORE_READ(m, mnt.mnt_root) || d == up) {
			struct mount *parent = BPF_CORE_READ(m, mnt_parent);

			if (parent == m)
				return 0;
			d = BPF_CORE_READ(m, mnt_mountpoint);
			m = parent;
			continue;
		}
		if (s->size > from + STRING_MAX - NAME_MAX_ - 1 || s->size > SLOT_DATA - STRING_MAX - 512) {
			head_of(s)->flags |= EF_TRUNCATED;
			return 0;
		}
		n = bpf_probe_read_kernel_str(tail(s), NAME_MAX_ + 1, BPF_CORE_READ(d, d_name.name));
		if (n > 0)
			grew(s, i, n);
		d = up;
	}
	head_of(s)->flags |= EF_TRUNCATED;
	return 0;
}

#endif
