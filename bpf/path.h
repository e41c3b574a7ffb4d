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

struct place {
	u32 anchor;	/* 0: not watched */
	u32 rule;
	u16 depth;	/* names between the anchor and the object */
	u8 mode;
	u8 appeared;	/* a name that a rule waits for lies on the way */
	u8 too_deep;	/* the walk did not come to an end */
	u8 pad[3];
};

/*
 * Finds the nearest mark on the way up from d. leaf is the hash of a name below
 * d that has no dentry of its own here (0: d is the object itself). Nearest
 * wins, so excepts and nested rules need no order.
 */
static __always_inline bool find_place(struct dentry *d, u64 leaf, struct place *p)
{
	const unsigned char *prev = 0;
	u32 extra = leaf ? 1 : 0;

	p->anchor = 0;
	p->appeared = 0;
	p->too_deep = 0;
	if (!d || !on_watched_fs(BPF_CORE_READ(d, d_sb)))
		return false;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < DEPTH; i++) {
		struct inode *in = BPF_CORE_READ(d, d_inode);
		struct mark *m = in ? mark_of(in) : 0;
		struct dentry *up;

		if (m) {
			if ((m->flags & MARK_NAMES) && (prev || leaf)) {
				u64 h = prev ? name_hash((u64)prev, 0) : leaf;
				struct mark *n = name_of(in, h);

				if (n) {
					if (n->flags & MARK_PENDING)
						p->appeared = 1;
					if (n->flags & MARK_EXCEPT)
						return false;
					if (n->flags & MARK_ROOT) {
						p->anchor = n->anchor;
						p->rule = n->rule;
						p->mode = n->mode;
						p->depth = i + extra - 1;
						return true;
					}
				}
			}
			if (m->flags & MARK_ROOT) {
				p->anchor = m->anchor;
				p->rule = m->rule;
				p->mode = m->mode;
				p->depth = i + extra;
				return true;
			}
		}
		up = BPF_CORE_READ(d, d_parent);
		if (up == d)
			return p->appeared;
		prev = BPF_CORE_READ(d, d_name.name);
		d = up;
	}
	p->too_deep = 1;
	return p->appeared;
}

/* Appends depth names from d upwards to string i. */
static __always_inline void put_names(struct slot *s, u32 i, struct dentry *d, u32 depth)
{
#pragma clang loop unroll(disable)
	for (u32 k = 0; k < DEPTH; k++) {
		long n;

		if (k >= depth)
			return;
		if (s->size > SLOT_DATA - STRING_MAX - 512) {
			head_of(s)->flags |= EF_TRUNCATED;
			return;
		}
		n = bpf_probe_read_kernel_str(tail(s), NAME_MAX_ + 1, BPF_CORE_READ(d, d_name.name));
		if (n > 0)
			grew(s, i, n);
		d = BPF_CORE_READ(d, d_parent);
	}
}

/* Appends the absolute path of (mnt, d) in its mount namespace to string i. */
__noinline int put_path(struct slot *s, u32 i, u64 vfsmnt, u64 dentry)
{
	struct dentry *d = (void *)dentry;
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
