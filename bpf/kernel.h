/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Kernel structs, only the fields that we read. Offsets are relocated at load
 * time against the running kernel's BTF (CO-RE), so order and size here mean
 * nothing. Field names are those of linux v6.1; where they differ: compat.h.
 */
#ifndef HOLDFAST_KERNEL_H
#define HOLDFAST_KERNEL_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <stdbool.h>

#define u8 __u8
#define u16 __u16
#define u32 __u32
#define u64 __u64
#define s32 __s32
#define s64 __s64

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct { u32 val; } kuid_t;
typedef struct { u32 val; } kgid_t;
typedef struct { int counter; } atomic_t;
typedef unsigned short umode_t;

struct pt_regs {
	unsigned long r10, r9, r8, ax, cx, dx, si, di, orig_ax;
};

struct qstr {
	union {
		struct { u32 hash; u32 len; };
		u64 hash_len;
	};
	const unsigned char *name;
};

struct super_block {
	u32 s_dev;
};

struct address_space {
	atomic_t i_mmap_writable;
};

struct inode {
	umode_t i_mode;
	unsigned long i_ino;
	u32 i_nlink;
	u32 i_rdev;
	u32 i_generation;
	struct super_block *i_sb;
	struct address_space *i_mapping;
};

struct dentry {
	unsigned int d_flags;
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct super_block *d_sb;
};

struct vfsmount {
	struct dentry *mnt_root;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	int mnt_id;
	int mnt_group_id;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	unsigned int f_mode;
	unsigned int f_flags;
	struct path f_path;
	struct inode *f_inode;
	void *private_data;
};

struct io_kiocb {
	struct file *file;
	u8 opcode;
	unsigned int flags;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct fs_struct {
	struct path root;
	struct path pwd;
};

struct mm_struct {
	unsigned long arg_start, arg_end;
	struct file *exe_file;
};

struct ns_common {
	unsigned int inum;
};

struct user_namespace {
	struct ns_common ns;
};

typedef struct { u64 val; } kernel_cap_t;	/* two halves before linux v6.3, in the same order */

struct cred {
	kuid_t uid, suid, euid, fsuid;
	kgid_t gid, sgid, egid, fsgid;
	kernel_cap_t cap_effective;
	struct user_namespace *user_ns;
};

struct pid {
	unsigned int level;
};

struct tty_struct {
	char name[64];
};

struct signal_struct {
	atomic_t live;
	unsigned int flags;
	int group_exit_code;
	struct tty_struct *tty;
};

struct mnt_namespace {
	struct ns_common ns;
};

struct nsproxy {
	struct mnt_namespace *mnt_ns;
};

struct kernfs_node {
	u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct thread_info {
	u32 status;
};

struct task_struct {
	struct thread_info thread_info;
	void *stack;
	unsigned int flags;
	int pid, tgid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	u64 start_boottime;
	u64 self_exec_id;
	int exit_code;
	struct pid *thread_pid;
	const struct cred *cred;
	char comm[16];
	struct mm_struct *mm;
	struct fs_struct *fs;
	struct files_struct *files;
	struct nsproxy *nsproxy;
	struct signal_struct *signal;
	struct css_set *cgroups;
	kuid_t loginuid;
	unsigned int sessionid;
};

struct in6_addr {
	union {
		u8 u6_addr8[16];
		u32 u6_addr32[4];
	} in6_u;
};

struct sock_common {
	u32 skc_daddr;
	u16 skc_dport;
	u16 skc_num;
	u16 skc_family;
	unsigned char skc_state;
	struct in6_addr skc_v6_daddr;
};

struct sock {
	struct sock_common __sk_common;
	u32 sk_max_ack_backlog;
};

struct socket {
	short type;
	struct sock *sk;
};

struct renamedata {
	struct dentry *old_dentry, *new_dentry;
	unsigned int flags;
};

struct iattr {
	unsigned int ia_valid;
	umode_t ia_mode;
	s64 ia_size;
	struct file *ia_file;
};

struct fown_struct {
	int signum;
};

struct vm_area_struct {
	unsigned long vm_start, vm_end;
	unsigned long vm_flags;
	struct file *vm_file;
};

struct linux_binprm {
	struct file *file;
	const char *filename, *interp;
	unsigned int secureexec : 1;
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
	u64 session_id;
	u64 seq_num;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	u32 fd;
	struct file *file;
};

struct bpf_iter__task_vma {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	struct vm_area_struct *vma;
};

#pragma clang attribute pop

/* include/linux/fs.h, include/uapi/asm-generic/fcntl.h, v6.1 */
#define DCACHE_OP_REVALIDATE 0x4	/* include/linux/dcache.h */
#define DCACHE_DISCONNECTED 0x20
#define FMODE_WRITE 0x2
#define FMODE_CREATED 0x100000
#define FMODE_BACKING 0x2000000	/* since linux v6.5, commit 62d53c4a1dfe */
#define O_TRUNC 01000
#define O_TMPFILE_BIT 020000000
#define MAY_WRITE 2
#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define S_IFREG 0100000
#define S_IFDIR 0040000
#define S_IFBLK 0060000
#define ATTR_MODE (1 << 0)
#define ATTR_UID (1 << 1)
#define ATTR_GID (1 << 2)
#define ATTR_SIZE (1 << 3)
#define ATTR_FILE (1 << 13)
#define AT_FDCWD -100
#define AT_SYMLINK_NOFOLLOW 0x100
#define AT_SYMLINK_FOLLOW 0x400
#define AT_REMOVEDIR 0x200
#define PROT_WRITE 2
#define MAP_TYPE 0xf
#define MAP_SHARED 1
#define MAP_SHARED_VALIDATE 3
#define VM_WRITE 2
#define VM_SHARED 8
#define VM_MAYWRITE 0x20
#define PF_IO_WORKER 0x10
#define PF_KTHREAD 0x00200000
#define SIGNAL_GROUP_EXIT 4	/* include/linux/sched/signal.h */
#define PTRACE_MODE_ATTACH 2	/* include/linux/ptrace.h, v6.1 */
#define SIGCONT 18
#define SIGIO 29
#define TS_COMPAT 2		/* arch/x86/include/asm/thread_info.h */
#define SOCK_STREAM 1
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define TCP_ESTABLISHED 1
#define UNSET ((u32)-1)
#define EPERM 1
#define MS_REMOUNT 32
#define MS_BIND 4096
#define MS_MOVE 8192
#define MS_PROPAGATION (1 << 17 | 1 << 18 | 1 << 19 | 1 << 20)	/* unbindable, private, slave, shared */
#define FSCONFIG_CMD_RECONFIGURE 7

#endif
