/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Reserve, fill, submit. An event is put together in a slot and leaves through
 * submit(), which keeps the sums right:
 *
 *   seen = skipped + folded + blocked + sent + lost + failed + deep     (per hook)
 *
 * blocked are events that were sent and say so; lost found no room in the ring;
 * failed found no slot; deep lay deeper than the walk up goes (path.h).
 */
#ifndef HOLDFAST_EMIT_H
#define HOLDFAST_EMIT_H

static __always_inline struct slot *slot_get(u32 hook)
{
	for (u32 i = 0; i < SLOTS; i++) {
		u32 k = i;
		struct slot *s = bpf_map_lookup_elem(&slots, &k);

		if (s && take(&s->busy)) {
			s->number = i;
			return s;
		}
	}
	COUNT(hook, failed);
	return 0;
}

/*
 * The slot of a number that slot_get gave. What is heavy takes numbers: so it is
 * verified once also before linux v5.12, where a function that takes a pointer is
 * followed at each call (pkg/sense/compat.go).
 */
static __always_inline struct slot *slot_at(u32 number)
{
	return bpf_map_lookup_elem(&slots, &number);
}

static __always_inline void slot_put(struct slot *s)
{
	give(&s->busy);
}

static __always_inline struct event_head *head_of(struct slot *s)
{
	return (void *)s->data;
}

static __always_inline struct file_body *file_of(struct slot *s)
{
	return (void *)(s->data + sizeof(struct event_head));
}

static __always_inline struct peer_body *peer_of(struct slot *s)
{
	return (void *)(s->data + sizeof(struct event_head));
}

static __always_inline struct cred_body *cred_of(struct slot *s)
{
	return (void *)(s->data + sizeof(struct event_head));
}

/* Where the next string goes. The mask is for the verifier: size stays below it. */
static __always_inline u8 *tail(struct slot *s)
{
	return s->data + (s->size & 0x3fff);
}

/* Makes the n bytes at tail() string i. */
static __always_inline void grew(struct slot *s, u32 i, u32 n)
{
	struct event_head *h = head_of(s);

	h->len[i & (WIRE_STRINGS - 1)] += n;
	s->size += n;
}

/* Appends at most STRING_MAX bytes of user memory up to NUL as string i; the NUL stays out. */
static __always_inline void put_user_str(struct slot *s, u32 i, const char *str)
{
	long n = bpf_probe_read_user_str(tail(s), STRING_MAX, str);

	if (n <= 0) {
		head_of(s)->flags |= EF_TRUNCATED;
		return;
	}
	grew(s, i, n - 1);
}

/* Sends the event. Takes the slot back in any case. Returns 0 or the error of the ring. */
static __always_inline long submit(struct slot *s)
{
	struct event_head *h = head_of(s);
	u32 hook = h->hook, k = 0, n = s->size & 0x7fff;
	struct stream *st = bpf_map_lookup_elem(&streams, &k);
	long err = -1;

	if (n > SLOT_DATA)
		n = SLOT_DATA;
	h->size = n;
	if (st) {
		h->lost = st->lost;
		err = bpf_ringbuf_output(&events, s->data, n, 0);
	}
	if (err) {
		if (st)
			__sync_fetch_and_add(&st->lost, 1);
		COUNT(hook, lost);
	} else if (h->flags & EF_BLOCKED) {
		COUNT(hook, blocked);
	} else {
		COUNT(hook, sent);
	}
	slot_put(s);
	return err;
}

#endif
