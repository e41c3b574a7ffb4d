/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Openers: open file descriptions that can write, from on_open to on_close, and
 * their writes, which are folded: of many that follow each other one event tells.
 */
#ifndef HOLDFAST_FOLD_H
#define HOLDFAST_FOLD_H

/*
 * What folds stores has a key of its own beside that of the opener: who stores by a
 * mapping that was there before a rule has no leave to write by its descriptor
 * (on_write).
 */
static __always_inline u64 store_key(u64 opener)
{
	return opener + 1;
}

/*
 * Sends the event and makes the file an opener: what it writes from now on is
 * folded. With writes, the event tells of count operations and bytes.
 */
__noinline int report_opener(struct request *r, u64 writes, u64 count, u64 bytes)
{
	struct slot *s;

	if (!r)
		return 0;
	s = event_by_current(EV_FILE, r->op, r->hook);
	if (!s)
		return 0;
	fill_file(s, r);
	if (writes)
		file_of(s)->count = count;
	file_of(s)->bytes = bytes;
	put_place(s, 0, r);
	remember_opener(s, r->opener, r, writes);
	submit(s);
	return 0;
}

/*
 * r was opened with flags, which the kernel does not keep whole (linux v6.1
 * fs/open.c:do_dentry_open). Returns -EPERM if that must not be. In tier lsm a
 * hook of its own tells of truncation.
 */
static __always_inline int opened(struct request *r, u32 mode, u32 flags, u32 tier)
{
	bool truncates = (flags & O_TRUNC) && !(mode & FMODE_CREATED);

	if (!is_regular(r))
		return on_device(r, tier);
	if (!place(r))
		return 0;
	if (r->place.below)
		return on_device(r, tier);
	r->arg = flags;
	if (mode & FMODE_CREATED)
		r->flags |= EF_CREATED;
	if (tier == TIER_LSM && refuses(&r->place)) {
		r->op = mode & FMODE_WRITE ? OP_WRITE : OP_TRUNCATE;	/* what it was opened for */
		return deny(r);
	}
	if (mode & (FMODE_WRITE | FMODE_CREATED)) {
		report_opener(r, 0, 0, 0);
		if (tier == TIER_LSM || !truncates)
			return 0;
		COUNT(r->hook, seen);
	}
	r->op = OP_TRUNCATE;
	report(r);
	return 0;
}

/* Is opening with them nothing that we look at? What has no name gets one by a link, which is an operation of its own. */
static __always_inline bool opens_harmless(u32 mode, u32 flags)
{
	return (flags & O_TMPFILE_BIT) || (!(mode & (FMODE_WRITE | FMODE_CREATED)) && !(flags & O_TRUNC));
}

static __noinline int on_open(struct file *f, u32 flags, u32 hook, u32 tier)
{
	u32 mode = BPF_CORE_READ(f, f_mode);
	struct request r;

	if (opens_harmless(mode, flags))
		return 0;
	request_file(&r, f, OP_OPEN, hook);
	return opened(&r, mode, flags, tier);
}

/*
 * Sends what was folded of r's opener, in the name of who wrote last, or opened it
 * if nobody was seen writing. Nothing is known of it: r is the current process's.
 */
__noinline int report_folded(struct request *r)
{
	struct opener *o;
	struct slot *s;
	u64 k, now;
	u32 hook;

	if (!r)
		return 0;
	k = r->opener;
	hook = r->hook;
	o = bpf_map_lookup_elem(&openers, &k);
	if (!o || o->inode != (u64)r->in)
		return report(r);
	s = slot_get(hook);
	if (!s)
		return 0;
	begin(s, EV_FILE, r->op, hook);
	now = head_of(s)->time;
	*head_of(s) = o->head;
	head_of(s)->op = r->op;
	head_of(s)->flags = 0;
	head_of(s)->hook = hook;
	head_of(s)->cpu = bpf_get_smp_processor_id();
	head_of(s)->time = now;
	head_of(s)->len[0] = 0;
	fill_file(s, r);
	file_of(s)->count = o->count;
	file_of(s)->bytes = o->bytes;
	file_of(s)->first = o->count ? o->first : now;
	put_place(s, 0, r);
	submit(s);
	return 0;
}

/*
 * Folds a write through opener to inode into the event that will tell of it: asked
 * before anything else is, because most writes end here. False: it has to be sent.
 */
static __always_inline bool folds(u64 opener, u64 inode, u64 bytes, u32 hook, u32 tier)
{
	struct opener *o = bpf_map_lookup_elem(&openers, &opener);
	u64 now;

	if (!o || o->inode != inode || o->head.tgid != (u32)(bpf_get_current_pid_tgid() >> 32))
		return false;
	if (tier == TIER_TRACEPOINT && !o->writes)
		return false;
	now = bpf_ktime_get_boot_ns();
	if (now - o->sent >= FOLD_NS)
		return false;
	COUNT_SEEN(hook, folded);
	if (!o->count)
		o->first = now;
	__sync_fetch_and_add(&o->count, 1);
	if (bytes)	/* adding a constant 0 would become another atomic operation */
		__sync_fetch_and_add(&o->bytes, bytes);
	return true;
}

/* r, which does not fold, is being written (before: bytes 0) or was (after). Returns -EPERM if that must not be. */
static __always_inline int written(struct request *r, u64 bytes, u32 tier)
{
	u64 k = r->opener, count = 1;
	struct opener *o;

	if (!is_regular(r))
		return on_device(r, tier);
	if (!place(r))
		return 0;
	if (r->place.below)
		return on_device(r, tier);
	o = bpf_map_lookup_elem(&openers, &k);
	if (o && o->inode != (u64)r->in)
		o = 0;
	/* who opened it with leave may write it; who got the descriptor before the rule may not */
	if (tier == TIER_LSM && !o && refuses(&r->place)) {
		return deny(r);
	}
	if (!o || !o->writes)
		r->flags |= EF_FIRST;
	if (o && o->count) {
		if (o->head.tgid == (u32)(bpf_get_current_pid_tgid() >> 32)) {
			count += o->count;
			bytes += o->bytes;
		} else {	/* somebody else wrote before */
			COUNT(r->hook, seen);
			report_folded(r);
		}
	}
	report_opener(r, 1, count, bytes);
	return 0;
}

static __noinline int on_write(struct file *f, u64 bytes, u32 hook, u32 tier)
{
	struct request r;

	request_file(&r, f, OP_WRITE, hook);
	if (folds(r.opener, (u64)r.in, bytes, hook, tier))
		return 0;
	return written(&r, bytes, tier);
}

/* r is closed. */
static __always_inline int closed(struct request *r)
{
	u64 k = r->opener;

	if (!is_regular(r)) {
		on_device(r, TIER_TRACEPOINT);
		return 0;
	}
	if (!place(r))
		return 0;
	if (r->place.below)
		return on_device(r, TIER_TRACEPOINT);
	report_folded(r);
	bpf_map_delete_elem(&openers, &k);
	return 0;
}

static __noinline int on_close(struct file *f, u32 hook)
{
	struct request r;

	if (!(BPF_CORE_READ(f, f_mode) & FMODE_WRITE))
		return 0;
	request_file(&r, f, OP_CLOSE, hook);
	return closed(&r);
}

#endif
