/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tier tracepoint: which system calls change files, mounts, credentials or other
 * processes, and where their arguments say which. hooks/syscall.h reads it.
 */
#ifndef HOLDFAST_CALLS_H
#define HOLDFAST_CALLS_H

#define F_NONE 0
#define F_FD 1		/* a descriptor at dir */
#define F_OPEN 2	/* the result is a descriptor */
#define F_WRITE 3	/* a descriptor at dir, the result is a number of bytes */
#define F_PATH 4	/* a path at path, below the descriptor at dir */
#define F_PATHS 5	/* and a second one */
#define F_MMAP 6
#define F_ACCEPT 7
#define F_CLOSE 8
#define F_IOCTL 9
#define F_MOUNT 10	/* changes mounts; a path at path, below the descriptor at dir */
#define F_BIND 11	/* a path in a socket address */
#define F_UNMAP 12
#define F_CRED 13	/* changes credentials */
#define F_REACH 14	/* reaches into the process whose pid is at dir */

#define NOFOLLOW 0
#define FOLLOW 1
#define FOLLOW_UNLESS 2	/* AT_SYMLINK_NOFOLLOW in the argument at flags */
#define FOLLOW_IF 3	/* AT_SYMLINK_FOLLOW in it */

#define CWD 7		/* no argument: the working directory */

struct call {
	u8 form, op;
	u8 dir, path, dir2, path2;
	u8 follow, flags;
	u8 name;	/* of an extended attribute; 0: the call has none */
	u8 pad[3];
};

#define FD(o, d) { .form = F_FD, .op = o, .dir = d }
#define FDX(o, d, n) { .form = F_FD, .op = o, .dir = d, .name = n }
#define PATHX(o, d, p, f, fl, n) { .form = F_PATH, .op = o, .dir = d, .path = p, .follow = f, .flags = fl, .name = n }
#define WRITES(d) { .form = F_WRITE, .op = OP_WRITE, .dir = d }
#define PATH(o, d, p, f, fl) { .form = F_PATH, .op = o, .dir = d, .path = p, .follow = f, .flags = fl }
#define PATHS(o, d, p, d2, p2, f, fl) { .form = F_PATHS, .op = o, .dir = d, .path = p, .dir2 = d2, .path2 = p2, .follow = f, .flags = fl }

/* Numbers of x86-64 (linux v6.18 arch/x86/entry/syscalls/syscall_64.tbl). */
#define CALLS 512
#define NR_OPEN 2
#define NR_CREAT 85
#define NR_OPENAT2 437
#define NR_MOUNT 165
#define NR_FSCONFIG 431
#define NR_RENAMEAT2 316
#define NR_PTRACE 101
#define PTRACE_ATTACH 16
#define PTRACE_SEIZE 0x4206
#define NR_FALLOCATE 285	/* the one writer whose success is 0 */
const volatile struct call calls[CALLS] = {
	[1] = WRITES(0),	/* write */
	[18] = WRITES(0),	/* pwrite64 */
	[20] = WRITES(0),	/* writev */
	[296] = WRITES(0),	/* pwritev */
	[328] = WRITES(0),	/* pwritev2 */
	[40] = WRITES(0),	/* sendfile */
	[275] = WRITES(2),	/* splice */
	[326] = WRITES(2),	/* copy_file_range */
	[285] = WRITES(0),	/* fallocate */
	[77] = FD(OP_TRUNCATE, 0),	/* ftruncate */
	[2] = { .form = F_OPEN },	/* open */
	[85] = { .form = F_OPEN },	/* creat */
	[257] = { .form = F_OPEN },	/* openat */
	[304] = { .form = F_OPEN },	/* open_by_handle_at */
	[437] = { .form = F_OPEN },	/* openat2 */
	[3] = { .form = F_CLOSE, .dir = 0 },	/* close */
	[33] = { .form = F_CLOSE, .dir = 1 },	/* dup2 closes what it replaces: a shell's redirection ends so */
	[292] = { .form = F_CLOSE, .dir = 1 },	/* dup3 */
	[9] = { .form = F_MMAP },	/* mmap */
	[11] = { .form = F_UNMAP },	/* munmap */
	[25] = { .form = F_UNMAP },	/* mremap */
	[16] = { .form = F_IOCTL },	/* ioctl */
	[49] = { .form = F_BIND, .op = OP_MKNOD, .dir = CWD, .path = 1, .follow = NOFOLLOW },	/* bind */
	[43] = { .form = F_ACCEPT },	/* accept */
	[288] = { .form = F_ACCEPT },	/* accept4 */
	[76] = PATH(OP_TRUNCATE, CWD, 0, FOLLOW, 0),	/* truncate */
	[90] = PATH(OP_CHMOD, CWD, 0, FOLLOW, 0),	/* chmod */
	[268] = PATH(OP_CHMOD, 0, 1, FOLLOW, 0),	/* fchmodat */
	[452] = PATH(OP_CHMOD, 0, 1, FOLLOW_UNLESS, 3),	/* fchmodat2 */
	[91] = FD(OP_CHMOD, 0),	/* fchmod */
	[92] = PATH(OP_CHOWN, CWD, 0, FOLLOW, 0),	/* chown */
	[94] = PATH(OP_CHOWN, CWD, 0, NOFOLLOW, 0),	/* lchown */
	[260] = PATH(OP_CHOWN, 0, 1, FOLLOW_UNLESS, 4),	/* fchownat */
	[93] = FD(OP_CHOWN, 0),	/* fchown */
	[132] = PATH(OP_UTIMES, CWD, 0, FOLLOW, 0),	/* utime */
	[235] = PATH(OP_UTIMES, CWD, 0, FOLLOW, 0),	/* utimes */
	[261] = PATH(OP_UTIMES, 0, 1, FOLLOW, 0),	/* futimesat */
	[280] = PATH(OP_UTIMES, 0, 1, FOLLOW_UNLESS, 3),	/* utimensat */
	[188] = PATHX(OP_SETXATTR, CWD, 0, FOLLOW, 0, 1),	/* setxattr */
	[189] = PATHX(OP_SETXATTR, CWD, 0, NOFOLLOW, 0, 1),	/* lsetxattr */
	[190] = FDX(OP_SETXATTR, 0, 1),	/* fsetxattr */
	[463] = PATHX(OP_SETXATTR, 0, 1, FOLLOW_UNLESS, 2, 3),	/* setxattrat */
	[197] = PATHX(OP_REMOVEXATTR, CWD, 0, FOLLOW, 0, 1),	/* removexattr */
	[198] = PATHX(OP_REMOVEXATTR, CWD, 0, NOFOLLOW, 0, 1),	/* lremovexattr */
	[199] = FDX(OP_REMOVEXATTR, 0, 1),	/* fremovexattr */
	[466] = PATHX(OP_REMOVEXATTR, 0, 1, FOLLOW_UNLESS, 2, 3),	/* removexattrat */
	[82] = PATHS(OP_RENAME, CWD, 0, CWD, 1, NOFOLLOW, 0),	/* rename */
	[264] = PATHS(OP_RENAME, 0, 1, 2, 3, NOFOLLOW, 0),	/* renameat */
	[316] = PATHS(OP_RENAME, 0, 1, 2, 3, NOFOLLOW, 0),	/* renameat2 */
	[86] = PATHS(OP_LINK, CWD, 0, CWD, 1, NOFOLLOW, 0),	/* link */
	[265] = PATHS(OP_LINK, 0, 1, 2, 3, FOLLOW_IF, 4),	/* linkat */
	[88] = PATH(OP_SYMLINK, CWD, 1, NOFOLLOW, 0),	/* symlink */
	[266] = PATH(OP_SYMLINK, 1, 2, NOFOLLOW, 0),	/* symlinkat */
	[83] = PATH(OP_MKDIR, CWD, 0, NOFOLLOW, 0),	/* mkdir */
	[258] = PATH(OP_MKDIR, 0, 1, NOFOLLOW, 0),	/* mkdirat */
	[84] = PATH(OP_RMDIR, CWD, 0, NOFOLLOW, 0),	/* rmdir */
	[87] = PATH(OP_UNLINK, CWD, 0, NOFOLLOW, 0),	/* unlink */
	[263] = PATH(OP_UNLINK, 0, 1, NOFOLLOW, 2),	/* unlinkat */
	[133] = PATH(OP_MKNOD, CWD, 0, NOFOLLOW, 0),	/* mknod */
	[259] = PATH(OP_MKNOD, 0, 1, NOFOLLOW, 0),	/* mknodat */
	[469] = PATH(OP_SETFLAGS, 0, 1, FOLLOW_UNLESS, 4),	/* file_setattr */
	[165] = { .form = F_MOUNT, .op = OP_MOUNT, .dir = CWD, .path = 1 },	/* mount */
	[166] = { .form = F_MOUNT, .op = OP_UMOUNT, .dir = CWD, .path = 0 },	/* umount2 */
	[155] = { .form = F_MOUNT, .op = OP_MOUNT, .dir = CWD, .path = 0 },	/* pivot_root */
	[429] = { .form = F_MOUNT, .op = OP_MOUNT, .dir = 2, .path = 3 },	/* move_mount */
	[431] = { .form = F_MOUNT, .op = OP_REMOUNT },	/* fsconfig: names no path */
	[442] = { .form = F_MOUNT, .op = OP_REMOUNT, .dir = 0, .path = 1 },	/* mount_setattr */
	[105] = { .form = F_CRED },	/* setuid */
	[106] = { .form = F_CRED },	/* setgid */
	[113] = { .form = F_CRED },	/* setreuid */
	[114] = { .form = F_CRED },	/* setregid */
	[117] = { .form = F_CRED },	/* setresuid */
	[119] = { .form = F_CRED },	/* setresgid */
	[122] = { .form = F_CRED },	/* setfsuid */
	[123] = { .form = F_CRED },	/* setfsgid */
	[126] = { .form = F_CRED },	/* capset */
	[272] = { .form = F_CRED },	/* unshare */
	[308] = { .form = F_CRED },	/* setns */
	[101] = { .form = F_REACH, .dir = 1 },	/* ptrace */
	[310] = { .form = F_REACH, .dir = 0 },	/* process_vm_readv */
	[311] = { .form = F_REACH, .dir = 0 },	/* process_vm_writev */
	[467] = { .form = F_MOUNT, .op = OP_REMOUNT, .dir = 0, .path = 1 },	/* open_tree_attr */
};

#endif
