/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Every map: why this size, what happens when it is full, typed accessors.
 * User space writes marks, names, ancestors, mounts, filesystems, devices, allowed
 * and settings; the rest is ours.
 */
#ifndef HOLDFAST_MAPS_H
#define HOLDFAST_MAPS_H

/* ---- what is watched -------------------------------------------------- */

#define MARK_ROOT 1	/* everything below is watched under anchor */
#define MARK_NAMES 2	/* names below are in the map names */
#define MARK_EXCEPT 8	/* names only: not watched from here down */
#define MARK_PENDING 16	/* names only: a rule waits for this name */
#define MARK_LINK 32	/* a file that has names outside its tree: content and metadata only */
#define MARK_BELOW 64	/* a file that a loop device below a watched file system is made of: content only */

#define RULE_OWN 0xfffff	/* the highest number that a rule has (path.h, pack_place): the rule of our own places, in force while we are guarded: what we do there is nobody's business */

#define MODE_OBSERVE 1
#define MODE_RESTORE 2
#define MODE_BLOCK 3

struct mark {
	u32 anchor;
	u32 rule;
	u8 flags;	/* MARK_* */
	u8 mode;	/* MODE_* */
	u16 pad;
};

struct name_key {
	u64 dir;	/* address of the directory's inode */
	u64 hash;	/* name_hash() of the name */
};

struct exe_key {
	u64 inode;	/* address of the executable's inode; with PERSON in rule a loginuid (rules.h) */
	u64 rule;
};

/*
 * Key: address of an in-memory inode. User space holds each of them open, so an
 * address means one inode for as long as it is in the map. Full: arming fails,
 * loudly, in user space.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, struct mark);
} marks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct name_key);
	__type(value, struct mark);
} names SEC(".maps");

/*
 * Inodes of the directories above watched roots. Where several roots are below,
 * the strictest mode is here. Full: as marks.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, struct mark);
} ancestors SEC(".maps");

/*
 * Mounts that a watched path leads through in the daemon's mount namespace, by
 * mnt_id, and the groups (MOUNT_GROUP | mnt_group_id) from which mounts spread to
 * them. A mount that is not here belongs to somebody else's view of the files.
 */
#define MOUNT_GROUP (1ULL << 32)
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, struct mark);
} mounts SEC(".maps");

/* Block devices (dev_t) below watched file systems, and those made of a watched file. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct mark);
} devices SEC(".maps");

/* Addresses of super blocks that hold a mark. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct mark);
} filesystems SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct exe_key);
	__type(value, u32);
} allowed SEC(".maps");

#define SUPERS 6

struct settings {
	u32 self;	/* tgid of the daemon */
	u32 guard;	/* the daemon is guarded (hooks/guard.h) */
	u32 armed;	/* 0: nothing is looked at */
	u32 blocking;	/* a rule in block mode exists */
	u32 learn;	/* tgid whose descriptors the learning iterator prints */
	u32 remember;	/* places of directories may be remembered: every rename is seen */
	u32 rules;	/* grows with each change of the marks */
	u32 lone;	/* bit i: on super[i] a mark is on a file that has one name; as strict */
	u32 supers;	/* file systems in super; more than fit: ask the map */
	u64 super[SUPERS];	/* the keys of filesystems, at hand */
	u32 strict;	/* bit i: on super[i] something may be refused; all, if not all are at hand */
	u32 arming;	/* the scan asks what was there before the rules */
	u64 scan;	/* number of the scan for what is held (hooks/held.h) */
	u32 links;	/* files with MARK_LINK or MARK_BELOW */
	u32 moves;	/* a tree in block mode lies in a mount that can be moved */
	u32 everybody;	/* credentials are told of all tasks, not of those in logins alone */
	u32 learned;	/* what lived before us is known: a session that is not is a new one */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct settings);
} config SEC(".maps");

/* Our own programs, maps and links, as own_key() names them. Full: arming fails, loudly, in user space. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, u32);
} own SEC(".maps");

/* ---- what we remember -------------------------------------------------- */

/* Where the entries of a directory lie: the answer of a walk (path.h). */
struct nearby {
	u32 turn;	/* odd while it is being written, another number after each time */
	u32 writing;	/* take() */
	u32 generation;	/* generation() at the time of the walk */
	u64 inode, dentry, parent;	/* of the directory */
	u64 ino;
	u32 gen;	/* inode generation; a directory without one is not remembered */
	u32 anchor, rule;
	u16 depth;	/* names between the anchor and an entry */
	u8 mode;
	u8 names;	/* rules name entries of this directory: ask for each */
};

/*
 * By a hash of a directory's inode number and generation. An entry counts only if all
 * that identifies the directory is the same: an address may have been given to
 * another one. Two of one hash: the later one stays.
 */
#define DIRS_BITS 14
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << DIRS_BITS);
	__type(key, u32);
	__type(value, struct nearby);
} dirs SEC(".maps");

/* How many directories have moved. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} moved SEC(".maps");

struct task_state {
	u64 session;	/* own session id, 0: none */
	u32 audit;	/* audit session id when session was set */
	u8 how;		/* HOW_* of peer */
	u8 pad[3];
	u8 peer[16];	/* of the last connection accepted here or by an ancestor */
	u16 port;
	u16 lport;
	u32 pad2;
	u64 accepted;	/* when, 0: never */
};

/* Per task, inherited at fork, gone with the task. No room: the session is unknown. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_state);
} tasks SEC(".maps");

struct thread_key {
	u64 start;	/* start_boottime */
	u32 tid;
	u32 pad;
};

/*
 * The same for kernels before linux v5.11, which have no storage in tasks (user
 * space leaves this one empty on others). Full: the thread that was looked at
 * longest ago goes, and its session is unknown.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct thread_key);
	__type(value, struct task_state);
} threads SEC(".maps");

/* Sockets that came out of accept. Full: the oldest goes and its session says "inherited". */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, u64);
} accepted SEC(".maps");

struct opener {
	struct event_head head;	/* who writes */
	u64 count, bytes;	/* since the last event that was sent */
	u64 first;	/* of these */
	u64 sent;	/* when the last event was sent */
	u64 inode;
	u64 writes;	/* 0: opened, no write was sent yet */
};

/*
 * A write less than this after the last event about its opener is folded. User
 * space looks at a file no sooner than FOLD_NS after an event (it waits for
 * twice as long), so it sees every write that was folded even if no close tells
 * of it. After an opening it looks in the tiers that refuse alone (pkg/coalesce,
 * Options.Lasting): in tier tracepoint a first write is always sent.
 */
#define FOLD_NS 25000000ULL

/*
 * Open file descriptions that write to watched files: folds writes until the
 * close. Key: address of struct file. Full: the oldest goes, its later writes
 * are sent again as first ones.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, u64);
	__type(value, struct opener);
} openers SEC(".maps");

struct reach {
	u64 start;	/* who: start_boottime of the process */
	u32 tgid, execs;
	u64 arg, what;	/* for what */
	u32 op;
	u32 pad;
};

/*
 * The event that told of it at body.opener; body.count are the attempts since, the
 * last one at head.time: an event again when there are any.
 */
struct attempt {
	struct event_head head;
	struct file_body body;
};

/*
 * Attempts on ourselves, to tell of them once in REPEAT_NS. User space takes out
 * what was counted and not told of. Full: the oldest goes, and its count is in the
 * counters of the hook alone.
 */
#define REPEAT_NS 60000000000ULL
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct reach);
	__type(value, struct attempt);
} attempts SEC(".maps");

struct pair {
	u64 by, of;	/* start_boottime of two processes; of: a pid where that is not known */
	u64 pids;
};

/*
 * Who reached into whom, and when that was told: again after REPEAT_NS. Full: the
 * oldest goes, and is told again.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct pair);
	__type(value, u64);
} reaches SEC(".maps");

/*
 * Processes that map watched files, in tier tracepoint, with the time at which
 * their last munmap was told of. Full: the oldest goes, and its unmapping is found
 * by the next scan.
 */
#define UNMAP_NS 100000000ULL	/* two are told apart by at least this; user space waits longer before it looks */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, u64);
} mappers SEC(".maps");

/* ---- the way out ------------------------------------------------------- */

struct base {
	u64 mnt;	/* struct vfsmount */
	u64 d;	/* struct dentry */
};

/* Where an object lies (path.h). */
struct place {
	u32 anchor;	/* 0: not watched */
	u32 rule;
	u8 depth;	/* names between the anchor and the object, at most DEPTH */
	u8 below;	/* what it is made of, not it: MARK_BELOW */
	u8 mode;
	u8 appeared;	/* it is a name that a rule waits for */
	u8 too_deep;	/* the walk did not come to an end */
	u8 names;	/* rules name entries of the directory */
	u8 astray;	/* nobody knows where it lies */
	u8 found;	/* already: locate() has nothing to look for */
};

/* What a system call was asked to act on. */
struct paths {
	u64 path, path2;	/* user memory; path2 0 if there is one only */
	struct base base, base2;	/* where they start from */
	struct place first, second;	/* where they lead */
	u64 a[8];	/* the arguments of the call */
	u64 request[14];	/* room for a struct request (hooks/file.h): not typed, because Go has no kernel pointers */
	u32 op, flags;
	s32 dirfd;
	u32 arg;	/* of a rename: its flags */
};

#define STRING_MAX 4096
#define SLOT_DATA 24576	/* head, body and four strings of STRING_MAX, with slack for the verifier */

struct slot {
	u32 busy;
	u32 size;
	u32 number;	/* which of slots it is: how functions that take no pointer are told of it */
	u32 pad;
	struct opener opener;	/* these two are here because the stack is short: 512 bytes over all calls before linux v6.13 */
	struct paths paths;
	u8 data[SLOT_DATA];
};

/*
 * Where events are put together. A program can be preempted by another one on
 * the same CPU, hence four of them; all taken: counted as failed.
 */
#define SLOTS 4
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, u32);
	__type(value, struct slot);
} slots SEC(".maps");

/*
 * Renames between hook and result, by thread and file system. Full, or no memory: the
 * event is sent before the result is known, user space looks. Not an LRU: of so few entries it
 * throws out live ones (linux v6.1 kernel/bpf/bpf_lru_list.c moves free ones to a
 * CPU by the 128).
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64);
	__type(value, struct slot);
} renames SEC(".maps");

/* Size is set at load. Full: the event is lost, and counted. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 << 20);
} events SEC(".maps");

struct counters {
	u64 seen, skipped, folded, blocked, sent, lost, failed, deep;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HOOK_MAX);
	__type(key, u32);
	__type(value, struct counters);
} stats SEC(".maps");

struct stream {
	u64 lost;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct stream);
} streams SEC(".maps");

/* ---- accessors --------------------------------------------------------- */

static __always_inline struct settings *settings(void)
{
	u32 k = 0;

	return bpf_map_lookup_elem(&config, &k);
}

const volatile struct task_state no_state = {};

/* What we remember of t, 0 if nothing; with create it is made. */
static __always_inline struct task_state *state_of(struct task_struct *t, bool create)
{
	struct thread_key k = {};
	struct task_state *st;

	if (HAS_HELPER(task_storage_get))
		return bpf_task_storage_get(&tasks, t, 0, create ? BPF_LOCAL_STORAGE_GET_F_CREATE : 0);
	k.start = BPF_CORE_READ(t, start_boottime);
	k.tid = BPF_CORE_READ(t, pid);
	st = bpf_map_lookup_elem(&threads, &k);
	if (st || !create)
		return st;
	bpf_map_update_elem(&threads, &k, (void *)&no_state, BPF_NOEXIST);
	return bpf_map_lookup_elem(&threads, &k);
}

static __always_inline struct mark *mark_of(struct inode *in)
{
	u64 k = (u64)in;

	return bpf_map_lookup_elem(&marks, &k);
}

static __always_inline struct mark *ancestor_of(struct inode *in)
{
	u64 k = (u64)in;

	return bpf_map_lookup_elem(&ancestors, &k);
}

static __always_inline struct mark *name_of(struct inode *dir, u64 hash)
{
	struct name_key k = { .dir = (u64)dir, .hash = hash };

	return bpf_map_lookup_elem(&names, &k);
}

static __always_inline bool on_watched_fs(struct super_block *sb)
{
	u64 k = (u64)sb;

	return bpf_map_lookup_elem(&filesystems, &k) != 0;
}

/* Of marks and of the shape of trees: grows with each change of either. */
static __always_inline u32 generation(struct settings *c)
{
	u32 k = 0, *n = bpf_map_lookup_elem(&moved, &k);

	return n ? c->rules + *n : 0;
}

/* A directory has moved: what lies below it lies elsewhere now. */
static __always_inline void forget_places(void)
{
	u32 k = 0, *n = bpf_map_lookup_elem(&moved, &k);

	if (n)
		__sync_fetch_and_add(n, 1);
}

static __always_inline struct nearby *nearby_of(u64 ino, u32 gen)
{
	u32 k = (ino ^ gen) * 0x9e3779b97f4a7c15ULL >> (64 - DIRS_BITS);

	return bpf_map_lookup_elem(&dirs, &k);
}

/*
 * Is n about this directory, as it is now? Reads of it count if its turn is still
 * the same after them: another CPU may write at any moment. On x86 loads keep
 * their order, and so do stores (Intel SDM vol. 3A, 9.2), so that only the
 * compiler has to be held.
 */
static __always_inline bool is_about(struct nearby *n, u32 turn, u32 now, u64 inode, u64 dentry, u64 parent, u64 ino, u32 gen)
{
	return !(turn & 1) && n->generation == now && n->inode == inode && n->dentry == dentry && n->parent == parent &&
	       n->ino == ino && n->gen == gen;
}

#define HOLD_ORDER() asm volatile("" ::: "memory")

/* Makes n, of which all but the turn is set, what is remembered. Somebody else is writing there: it is not. */
static __always_inline void remember(struct nearby *v)
{
	struct nearby *n = nearby_of(v->ino, v->gen);
	u32 turn;

	if (!n)
		return;
	if (!take(&n->writing))
		return;
	turn = n->turn;
	*(volatile u32 *)&n->turn = turn + 1;
	HOLD_ORDER();
	n->generation = v->generation;
	n->inode = v->inode;
	n->dentry = v->dentry;
	n->parent = v->parent;
	n->ino = v->ino;
	n->gen = v->gen;
	n->anchor = v->anchor;
	n->rule = v->rule;
	n->depth = v->depth;
	n->mode = v->mode;
	n->names = v->names;
	HOLD_ORDER();
	*(volatile u32 *)&n->turn = turn + 2;
	give(&n->writing);
}

/* The first and cheapest question: does the super block hold a mark? */
static __always_inline bool holds_mark(struct settings *c, u64 super)
{
	if (c->supers > SUPERS)
		return bpf_map_lookup_elem(&filesystems, &super);
#pragma clang loop unroll(full)
	for (u32 i = 0; i < SUPERS; i++) {
		if (i >= c->supers)
			return false;
		if (c->super[i] == super)
			return true;
	}
	return false;
}

/* Is the bit of a super block set? */
static __always_inline bool has_bit(struct settings *c, u64 super, u32 bits)
{
	if (!bits || c->supers > SUPERS)
		return bits;
#pragma clang loop unroll(full)
	for (u32 i = 0; i < SUPERS; i++)
		if (c->super[i] == super && bits & 1 << i)
			return true;
	return false;
}

/* May something be refused on this super block? Asked of what names a file, before its place is. */
static __always_inline bool is_strict(struct settings *c, u64 super)
{
	return c->blocking && has_bit(c, super, c->strict);
}

static __always_inline struct counters *counters(u32 hook)
{
	return bpf_map_lookup_elem(&stats, &hook);
}

#define COUNT(hook, what) do { \
	struct counters *c_ = counters(hook); \
	if (c_) __sync_fetch_and_add(&c_->what, 1); \
} while (0)

/* What was seen and already has its end. */
#define COUNT_SEEN(hook, what) do { \
	struct counters *c_ = counters(hook); \
	if (c_) { \
		__sync_fetch_and_add(&c_->seen, 1); \
		__sync_fetch_and_add(&c_->what, 1); \
	} \
} while (0)

#endif
