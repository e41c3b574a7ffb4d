/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Name an actor: fill a head from a task, and keep the session of a task.
 */
#ifndef HOLDFAST_ACTOR_H
#define HOLDFAST_ACTOR_H

static __always_inline struct inode *exe_inode(struct task_struct *t)
{
	struct mm_struct *mm = BPF_CORE_READ(t, mm);
	struct file *f = mm ? BPF_CORE_READ(mm, exe_file) : 0;

	return f ? BPF_CORE_READ(f, f_inode) : 0;
}

/*
 * Two ways to read what a pointer leads to: loads where the verifier knows the
 * type of the pointer, some ten times cheaper, and probe reads where it does not.
 * Both give 0 behind a NULL.
 */
#define PROBED(p, args...) BPF_CORE_READ(p, args)
#define TYPED(p, args...) ___bpf_apply(TYPED, ___bpf_narg(args))(p, args)
#define TYPED1(p, a) ((p)->a)
#define TYPED2(p, a, b) ((p)->a->b)
#define TYPED3(p, a, b, c) ((p)->a->b->c)
#define TYPED4(p, a, b, c, d) ((p)->a->b->c->d)

/* Defines fill, which fills h from the task t by one of them. */
#define DEFINE_FILL(fill, READ) \
static __always_inline void fill(struct event_head *h, struct task_struct *t) \
{ \
	struct inode *exe = READ(t, mm, exe_file, f_inode); \
	struct task_struct *p = READ(t, real_parent); \
	const struct cred *c = READ(t, cred); \
	struct tty_struct *tty = READ(t, signal, tty); \
	h->tid = READ(t, pid); \
	h->tgid = READ(t, tgid); \
	h->start = READ(t, group_leader, start_boottime); \
	h->execs = READ(t, self_exec_id); \
	h->ptgid = READ(p, tgid); \
	h->pstart = READ(p, group_leader, start_boottime); \
	h->pexecs = READ(p, self_exec_id); \
	h->uid = READ(c, uid.val); \
	h->euid = READ(c, euid.val); \
	h->suid = READ(c, suid.val); \
	h->fsuid = READ(c, fsuid.val); \
	h->gid = READ(c, gid.val); \
	h->egid = READ(c, egid.val); \
	h->sgid = READ(c, sgid.val); \
	h->fsgid = READ(c, fsgid.val); \
	h->loginuid = READ(t, loginuid.val); \
	h->audit = READ(t, sessionid); \
	h->cgroup = READ(t, cgroups, dfl_cgrp, kn, id); \
	h->mntns = READ(t, nsproxy, mnt_ns, ns.inum); \
	h->kthread = !!(READ(t, flags) & PF_KTHREAD); \
	h->exe_dev = READ(exe, i_sb, s_dev); \
	h->exe_ino = READ(exe, i_ino); \
	bpf_probe_read_kernel_str(h->comm, COMM_LEN, &t->comm); \
	if (tty) \
		bpf_probe_read_kernel_str(h->tty, TTY_LEN, &tty->name); \
}
DEFINE_FILL(fill_probed, PROBED)
DEFINE_FILL(fill_typed, TYPED)

static __always_inline void fill_parent(struct event_head *h, struct task_struct *p)
{
	h->ptgid = BPF_CORE_READ(p, tgid);
	h->pstart = BPF_CORE_READ(p, group_leader, start_boottime);
	h->pexecs = BPF_CORE_READ(p, self_exec_id);
}

/* Empties the body and the strings of a new event, and what its task does not tell. */
static __always_inline void begin(struct slot *s, u32 kind, u32 op, u32 hook)
{
	struct event_head *h = head_of(s);

	h->version = WIRE_VERSION;
	h->kind = kind;
	h->op = op;
	h->flags = 0;
	h->hook = hook;
	h->cpu = bpf_get_smp_processor_id();
	h->time = bpf_ktime_get_boot_ns();
	h->ret = 0;
	h->session = 0;
	__builtin_memset(h->comm, 0, COMM_LEN);
	__builtin_memset(h->tty, 0, TTY_LEN);
	h->len[0] = h->len[1] = h->len[2] = h->len[3] = 0;
	s->size = sizeof(*h);
	if (kind == EV_FILE || kind == EV_HELD || kind == EV_GUARD) {
		__builtin_memset(file_of(s), 0, sizeof(struct file_body));
		s->size += sizeof(struct file_body);
	} else if (kind == EV_SESSION || kind == EV_SOCKET) {
		__builtin_memset(peer_of(s), 0, sizeof(struct peer_body));
		s->size += sizeof(struct peer_body);
	} else if (kind == EV_CRED) {
		__builtin_memset(cred_of(s), 0, sizeof(struct cred_body));
		s->size += sizeof(struct cred_body);
	}
}

/* Fills the head of a new event about a task, whose type the verifier does not know here. */
__noinline int fill_head(struct slot *s, u64 task, u32 kind, u32 op, u32 hook)
{
	if (!s || !task)
		return 0;
	begin(s, kind, op, hook);
	fill_probed(head_of(s), (void *)task);
	return 0;
}

/* The same for the current task. */
__noinline int fill_current(struct slot *s, u32 kind, u32 op, u32 hook)
{
	if (!s)
		return 0;
	begin(s, kind, op, hook);
	if (HAS_HELPER(get_current_task_btf))
		fill_typed(head_of(s), current_task());
	else
		fill_probed(head_of(s), current_task());
	return 0;
}

/*
 * The group leader of t as a number: functions that are verified on their own
 * take no typed pointer. For a leader that is t itself.
 */
static __always_inline u64 leader_addr(struct task_struct *t)
{
	return (u64)BPF_CORE_READ(t, group_leader);
}

/* The peer of an internet socket; false if it has none. */
static __always_inline bool read_peer(struct sock *sk, u8 *addr, u16 *port, u16 *lport)
{
	u16 fam = BPF_CORE_READ(sk, __sk_common.skc_family);

	__builtin_memset(addr, 0, 16);
	if (fam == AF_INET) {
		u32 ip = BPF_CORE_READ(sk, __sk_common.skc_daddr);

		addr[10] = addr[11] = 0xff;
		__builtin_memcpy(addr + 12, &ip, 4);
	} else if (fam == AF_INET6) {
		struct in6_addr a;

		BPF_CORE_READ_INTO(&a, sk, __sk_common.skc_v6_daddr);
		__builtin_memcpy(addr, &a, 16);
	} else {
		return false;
	}
	*port = __builtin_bswap16(BPF_CORE_READ(sk, __sk_common.skc_dport));
	*lport = BPF_CORE_READ(sk, __sk_common.skc_num);
	return *port != 0;
}

/* The sock behind a descriptor, if it is a stream socket. */
static __always_inline struct sock *stream_sock(struct file *f)
{
	struct socket *so;

	if (!f || (BPF_CORE_READ(f, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	so = BPF_CORE_READ(f, private_data);
	if (!so || BPF_CORE_READ(so, type) != SOCK_STREAM)
		return 0;
	return BPF_CORE_READ(so, sk);
}

static __always_inline struct file *file_at(struct task_struct *t, u32 fd)
{
	struct fdtable *fdt = BPF_CORE_READ(t, files, fdt);
	struct file **fds, *f = 0;

	if (!fdt || fd >= BPF_CORE_READ(fdt, max_fds))
		return 0;
	fds = BPF_CORE_READ(fdt, fd);
	bpf_probe_read_kernel(&f, sizeof(f), fds + fd);
	return f;
}

/*
 * Did this connection come out of accept? A socket that does is a copy of the one that
 * listens, its backlog included (linux v6.1 net/core/sock.c:sk_clone_lock), and one
 * that connects has none, unless its program asked it to listen first.
 */
static __always_inline bool is_inbound(struct sock *sk)
{
	return BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_ESTABLISHED && BPF_CORE_READ(sk, sk_max_ack_backlog);
}

#define FD_SCAN 64	/* descriptors looked at when a login begins; a login process holds a handful */

/*
 * The socket at a descriptor of the current task, as a number, if it came out of accept
 * and has a peer; else 0. A function of its own: the verifier follows it once, not for
 * each descriptor, in every program.
 */
__noinline u64 accepted_at(u32 fd)
{
	struct sock *sk = stream_sock(file_at(current_task(), fd));
	u64 k = (u64)sk;
	u8 addr[16];
	u16 port, lport;

	if (!sk || (!bpf_map_lookup_elem(&accepted, &k) && !is_inbound(sk)))	/* is_inbound: accepted before us */
		return 0;
	return read_peer(sk, addr, &port, &lport) ? k : 0;
}

/* Does the current task hold a socket that came out of accept? Fills st if so. Returns how that is known, or HOW_NONE. */
static __always_inline u8 held_peer(struct task_state *st)
{
	u64 k = 0;
	u8 addr[16];
	u16 port, lport;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < FD_SCAN && !k; i++)
		k = accepted_at(i);
	if (!k || !read_peer((void *)k, addr, &port, &lport))
		return HOW_NONE;
	__builtin_memcpy(st->peer, addr, 16);
	st->port = port;
	st->lport = lport;
	return bpf_map_lookup_elem(&accepted, &k) ? HOW_HELD : HOW_FOUND;
}

/*
 * Binds the current task to a session when the kernel gave it a new audit
 * session id since we last looked. Called wherever the task does something that
 * we report, and before it forks, so that no event of a login misses it.
 *
 * A task that is in a session keeps it when loginuid is written again outside a
 * login: only a process that holds or inherited a connection accepted after its
 * session began is a new login.
 */
static __always_inline struct task_state *session_check(struct task_struct *t)
{
	u32 audit = TASK_READ(t, sessionid);
	struct task_state *st = state_of(t, false);
	struct slot *s;
	struct settings *c = settings();
	struct peer_body *b;
	u8 held;

	if (audit == UNSET || (st && st->audit == audit))
		return st;
	st = state_of(t, true);
	if (!st)
		return 0;
	if (c && !c->learned) {	/* it may have begun long ago: found, as by the iterator */
		st->session = st->audit = audit;
		st->how = HOW_FOUND;
		return st;
	}
	held = held_peer(st);
	st->audit = audit;
	if (!st->session || held || st->accepted) {
		st->how = held ? held : st->accepted ? HOW_INHERITED : HOW_NONE;
		st->session = audit;
	}
	/* else loginuid was rewritten: the session stays, and the event tells of it */
	st->accepted = 0;	/* used up: what comes after belongs to this session */
	COUNT(HOOK_SESSION, seen);
	s = slot_get(HOOK_SESSION);
	if (!s)
		return st;
	fill_current(s, EV_SESSION, OP_NONE, HOOK_SESSION);
	head_of(s)->session = st->session;
	b = peer_of(s);
	b->how = st->how;
	if (st->how != HOW_NONE) {
		__builtin_memcpy(b->addr, st->peer, 16);
		b->port = st->port;
		b->lport = st->lport;
	}
	submit(s);
	return st;
}

/* The session of the current task, after session_check; verified once for all its callers. */
__noinline u64 session_current(void)
{
	struct task_state *st = session_check(current_task());

	return st ? st->session : 0;
}

/* A connection came out of accept in the current task. */
static __always_inline void on_accept(struct sock *sk)
{
	struct task_struct *t = current_task();
	struct task_state *st;
	u64 k = (u64)sk, now = bpf_ktime_get_boot_ns();
	u8 addr[16];
	u16 port, lport;

	if (!sk || !read_peer(sk, addr, &port, &lport))
		return;
	bpf_map_update_elem(&accepted, &k, &now, BPF_ANY);
	st = state_of(t, true);
	if (!st)
		return;
	__builtin_memcpy(st->peer, addr, 16);
	st->port = port;
	st->lport = lport;
	st->accepted = now;
}

/* An event by the current task, its session included. */
static __always_inline struct slot *event_by_current(u32 kind, u32 op, u32 hook)
{
	u64 session = session_current();
	struct slot *s = slot_get(hook);

	if (!s)
		return 0;
	fill_current(s, kind, op, hook);
	head_of(s)->session = session;
	return s;
}

#endif
