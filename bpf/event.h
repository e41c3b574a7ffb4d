/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The wire: everything that crosses the ring, written once. Go types are
 * generated from these structs (bpf2go); pkg/decode reads them in place.
 *
 *   0                                         head.size
 *   +------+----------------------+----+----+----+----+
 *   | head | body of head.kind    | s0 | s1 | s2 | s3 |
 *   +------+----------------------+----+----+----+----+
 *
 * head.len[i] is the length of string i in bytes; strings follow each other
 * without padding. Little endian, naturally aligned, explicit padding.
 *
 *   kind          body       s0          s1        s2           s3
 *   EV_FILE       file_body  path        base      second path  second base
 *   EV_EXEC       none       executable  argv      working dir  script
 *   EV_PROC       none       executable  argv      working dir  -
 *   EV_SESSION    peer_body  -           -         -            -
 *   EV_SOCKET     peer_body  -           -         -            -
 *   EV_FORK,EXIT  none       -           -         -            -
 *   EV_HELD       file_body  path        -         -            -
 *   EV_GUARD      file_body  -           -         -            -
 *   EV_CRED       cred_body  -           -         -            -
 *
 * EV_HELD: a descriptor (OP_OPEN) or a mapping (OP_MAP_WRITE, of bytes; ret: it is
 * writable now) that a scan found; the head tells of its owner, arg is the scan's
 * number, EF_FIRST says that the scan asks what was there before the rules. OP_NONE:
 * the scan of descriptors, or with EF_MAPPED of mappings, is complete. OP_CLOSE: a
 * process that maps watched files has unmapped something.
 *
 * EV_GUARD: somebody reached for the daemon itself; arg is the signal (GUARD_SIGIO:
 * delivered for somebody else than the head tells of), the ptrace mode, the command
 * of bpf(2) with the object's id in ino, or the resource limit (GUARD_SCHED,
 * GUARD_NICE: not a limit). first is the time of the first of count attempts.
 *
 * EV_EXIT: ret is the status that wait(2) gives. The script of EV_EXEC are the bytes
 * that the process passed, if what runs is the interpreter of that file.
 *
 * EV_CRED, by how: credentials are about to change from before, which the head has,
 * to after (CRED_COMMIT: an execution comes here before its EV_EXEC); they have
 * changed, from what is not told (CRED_DONE); the current task reaches into the
 * process tgid (execs and start as in a head; 0 if they are not told), whose
 * credentials are after (CRED_REACH).
 *
 * OP_MOUNT, OP_UMOUNT, OP_REMOUNT and OP_RAW_WRITE have the mount point or the device
 * as base, and as path the watched place that it concerns. With EF_NAMED they tell
 * of a call, whatever it concerns. arg of OP_RAW_WRITE is the device's number, times
 * two, plus one at the close.
 *
 * A place (path of EV_FILE without EF_NAMED, base, executable, working dir) is a
 * list of names, the last one first, each ended by NUL: the way the kernel walks.
 * With EF_NAMED, path and second path are the bytes that the process passed.
 */
#ifndef HOLDFAST_EVENT_H
#define HOLDFAST_EVENT_H

#define WIRE_VERSION 1

/* head.kind, pkg/event Kind */
#define EV_FILE 1
#define EV_FORK 2
#define EV_EXEC 3
#define EV_EXIT 4
#define EV_SESSION 5
#define EV_PROC 6
#define EV_SOCKET 7
#define EV_HELD 8
#define EV_GUARD 9
#define EV_CRED 10

/* head.op, pkg/event Op */
#define OP_NONE 0
#define OP_OPEN 1
#define OP_WRITE 2
#define OP_TRUNCATE 3
#define OP_CREATE 4
#define OP_UNLINK 5
#define OP_RENAME 6
#define OP_LINK 7
#define OP_SYMLINK 8
#define OP_MKDIR 9
#define OP_RMDIR 10
#define OP_MKNOD 11
#define OP_CHMOD 12
#define OP_CHOWN 13
#define OP_UTIMES 14
#define OP_SETXATTR 15
#define OP_REMOVEXATTR 16
#define OP_SETACL 17
#define OP_SETFLAGS 18
#define OP_MAP_WRITE 19
#define OP_CLOSE 20
#define OP_MOUNT 21
#define OP_UMOUNT 22
#define OP_REMOUNT 23
#define OP_RAW_WRITE 24
#define OP_RECEIVE 25
#define OP_KILL 26
#define OP_PTRACE 27
#define OP_BPF 28
#define OP_LIMIT 29

/* head.flags, pkg/event Flag* */
#define EF_BLOCKED 0x001
#define EF_ALLOWED 0x002
#define EF_NAMED 0x004
#define EF_FOLLOW 0x008
#define EF_CREATED 0x010
#define EF_FIRST 0x020
#define EF_APPEARED 0x040
#define EF_DIR 0x080
#define EF_TRUNCATED 0x100
#define EF_MAPPED 0x200
#define EF_AHEAD 0x400
#define EF_ASTRAY 0x800

/* head.hook: which program saw it, and the index of its counters */
#define HOOK_NONE 0
#define HOOK_SYS_ENTER 1
#define HOOK_SYS_EXIT 2
#define HOOK_FORK 3
#define HOOK_EXEC 4
#define HOOK_EXIT 5
#define HOOK_SESSION 6
#define HOOK_ITER 7
#define HOOK_FILE_OPEN 8
#define HOOK_FILE_PERM 9
#define HOOK_FILE_CLOSE 10
#define HOOK_MMAP 11
#define HOOK_MPROTECT 12
#define HOOK_TRUNCATE 13
#define HOOK_SETATTR 14
#define HOOK_SETXATTR 15
#define HOOK_RMXATTR 16
#define HOOK_SETACL 17
#define HOOK_RMACL 18
#define HOOK_CREATE 19
#define HOOK_LINK 20
#define HOOK_UNLINK 21
#define HOOK_SYMLINK 22
#define HOOK_MKDIR 23
#define HOOK_RMDIR 24
#define HOOK_MKNOD 25
#define HOOK_RENAME 26
#define HOOK_IOCTL 27
#define HOOK_ACCEPT 28
#define HOOK_UPDATE_TIME 29
#define HOOK_MMAP_BACKING 30
#define HOOK_FILE_TRUNCATE 31
#define HOOK_MOUNT 32
#define HOOK_MOVE_MOUNT 33
#define HOOK_UMOUNT 34
#define HOOK_REMOUNT 35
#define HOOK_PIVOT_ROOT 36
#define HOOK_BLOCK_DEVICE 37
#define HOOK_RECEIVE 38
#define HOOK_KILL 39
#define HOOK_PTRACE 40
#define HOOK_BPF 41
#define HOOK_HELD 42
#define HOOK_FILEATTR 43
#define HOOK_COPY_UP 44
#define HOOK_LIMIT 45
#define HOOK_IO_URING 46
#define HOOK_CRED 47
#define HOOK_MAX 64

/* peer_body.how, pkg/event How* */
#define HOW_NONE 0
#define HOW_HELD 1
#define HOW_INHERITED 2
#define HOW_FOUND 3

/* cred_body.how, pkg/event Cred* */
#define CRED_COMMIT 1
#define CRED_DONE 2
#define CRED_REACH 3

/* file_body.arg of EV_GUARD, above the numbers of the kernel's own */
#define GUARD_SIGIO 0x100000000
#define GUARD_SCHED 0x100000000
#define GUARD_NICE 0x200000000

#define WIRE_STRINGS 4
#define COMM_LEN 16
#define TTY_LEN 16

struct event_head {
	__u32 size;	/* of the whole event, bytes */
	__u16 version;	/* WIRE_VERSION */
	__u8 kind;	/* EV_* */
	__u8 op;	/* OP_* */
	__u16 flags;	/* EF_* */
	__u16 hook;	/* HOOK_* */
	__u32 cpu;
	__u64 lost;	/* events of this CPU that found none, since attach */
	__u64 time;	/* CLOCK_BOOTTIME, ns */
	__s32 ret;	/* result of the operation */
	__u32 tid;
	__u32 tgid;
	__u32 execs;	/* self_exec_id */
	__u64 start;	/* start_boottime of the group leader, ns */
	__u32 ptgid;	/* the real parent */
	__u32 pexecs;
	__u64 pstart;
	__u32 uid, euid, suid, fsuid;
	__u32 gid, egid, sgid, fsgid;
	__u32 loginuid;
	__u32 audit;	/* audit session id */
	__u64 session;	/* own session id, 0 outside logins */
	__u64 cgroup;	/* id in the default hierarchy */
	__u32 mntns;
	__u32 kthread;
	__u64 exe_dev;	/* kernel dev_t */
	__u64 exe_ino;
	__u8 comm[COMM_LEN];
	__u8 tty[TTY_LEN];
	__u16 len[WIRE_STRINGS];
};

struct file_body {
	__u64 dev;	/* kernel dev_t of the file system */
	__u64 ino;
	__u32 gen;
	__u32 nlink;
	__u32 anchor;	/* the marked inode on the way up; 0 outside, and with EF_NAMED */
	__u32 anchor2;	/* the same for the second path of rename and link */
	__u16 fmode;	/* i_mode */
	__u16 pad[3];
	__u64 opener;	/* identity of the open file description */
	__u64 count;	/* operations since the last event about this opener */
	__u64 bytes;
	__u64 first;	/* time of the first one */
	__u64 arg;	/* op specific */
};

struct peer_body {
	__u8 addr[16];	/* IPv4 as ::ffff:a.b.c.d */
	__u16 port;
	__u16 lport;
	__u8 how;	/* HOW_* */
	__u8 pad[3];
};

struct ids {
	__u32 uid, euid, suid, fsuid;
	__u32 gid, egid, sgid, fsgid;
	__u64 caps;	/* effective capabilities */
	__u32 userns;	/* inode number of the user namespace */
	__u32 pad;
};

struct cred_body {
	struct ids before;
	struct ids after;
	__u32 how;	/* CRED_* */
	__u32 tgid;
	__u32 execs;
	__u32 pad;
	__u64 start;
};

/* one row of the table that the learning iterator prints */
struct inode_row {
	__u32 fd;
	__u32 gen;
	__u64 inode;	/* address: the key of the marks */
	__u64 sb;	/* address: the key of the file systems */
	__u64 dev;
	__u64 ino;
};

#endif
