/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Block devices below watched file systems, in every tier. A descriptor of one is
 * a file like others, so the hooks of file.h come here with it; so they do with the
 * file that a loop device below is made of (MARK_BELOW). Opening one for
 * writing is told, or the first write through a descriptor from before the rule
 * where it is seen, and the close; what is written goes past the file system and its
 * page cache. A loop device that is made of a watched file is such a device, too: since
 * linux v6.12 what is written to it reaches the file past every hook.
 */
#ifndef HOLDFAST_DEVICE_H
#define HOLDFAST_DEVICE_H

/* Sends what is known of r, with the path of the device as base. */
__noinline int report_device(struct request *r, u64 write)
{
	struct file *f;
	struct slot *s;

	if (!r)
		return 0;
	s = event_by_current(EV_FILE, OP_RAW_WRITE, r->hook);
	if (!s)
		return 0;
	f = (void *)r->opener;
	fill_file(s, r);
	put_path(s->number, 1, (u64)BPF_CORE_READ(f, f_path.mnt), (u64)BPF_CORE_READ(f, f_path.dentry));
	if (write)
		remember_opener(s, r->opener, r, 1);
	submit(s);
	return 0;
}

/* Is r a block device below a watched file system, or placed as the file of one? Its place is then that of the tree. */
__noinline int find_device(struct request *r)
{
	struct inode *in;
	struct mark *m;
	u64 k;

	if (!r)
		return 0;
	if (r->place.below) {
		r->arg = 0;
		return 1;
	}
	in = r->in;
	if (!in || (BPF_CORE_READ(in, i_mode) & S_IFMT) != S_IFBLK)
		return 0;
	k = BPF_CORE_READ(in, i_rdev);
	m = bpf_map_lookup_elem(&devices, &k);
	if (!m)
		return 0;
	r->place.anchor = m->anchor;
	r->place.rule = m->rule;
	r->place.mode = m->mode;
	r->place.depth = 0;
	r->arg = k << 1;
	return 1;
}

/* Something is done to r, which is no regular file. Returns -EPERM if that must not be. */
__noinline int on_device(struct request *r, u32 tier)
{
	struct settings *c = settings();
	struct opener *o;
	struct inode *in;
	u64 k;

	if (!r || !c || !c->armed || !find_device(r))
		return 0;
	in = r->in;
	r->hook = HOOK_BLOCK_DEVICE;
	r->arg |= r->op == OP_CLOSE;
	COUNT(HOOK_BLOCK_DEVICE, seen);
	k = r->opener;
	o = bpf_map_lookup_elem(&openers, &k);
	if (o && o->inode != (u64)in)
		o = 0;
	if (tier != TIER_TRACEPOINT && !o && r->op != OP_CLOSE && bars(&r->place)) {
		r->op = OP_RAW_WRITE;
		r->flags |= EF_BLOCKED;
		r->ret = -EPERM;
		report_device(r, 0);
		return -EPERM;
	}
	if (r->op != OP_CLOSE && o) {
		COUNT(HOOK_BLOCK_DEVICE, skipped);
		return 0;
	}
	if (r->op == OP_CLOSE && !o)
		r->flags |= EF_FIRST;	/* nothing told of it before */
	if (r->op == OP_CLOSE)
		bpf_map_delete_elem(&openers, &k);
	report_device(r, r->op != OP_CLOSE);
	return 0;
}

#endif
