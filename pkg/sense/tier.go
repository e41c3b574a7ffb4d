package sense

import "github.com/cilium/ebpf/btf"

// The tiers that can be loaded.
const (
	TierLSM        = "lsm"
	TierTracepoint = "tracepoint"
)

// CanBlock reports whether a tier refuses operations.
func CanBlock(tier string) bool { return tier == TierLSM }

type how uint8

const (
	byTracepoint how = iota
	byTrampoline
	byLSM
	byIterator
)

// program is one row of the table of capabilities: what is loaded in which tier,
// and what a kernel that refuses it costs.
type program struct {
	name     string
	how      how
	tier     string // "": every tier
	required bool
	cost     string
	// If set, the program is for kernels on which function fn has params
	// parameters.
	fn     string
	params int
}

func (p program) in(tier string) bool { return p.tier == "" || p.tier == tier }

// fits reports whether the program's idea of a hook's arguments is the kernel's.
func (p program) fits(kernel *btf.Spec) bool {
	if p.fn == "" {
		return true
	}
	var f *btf.Func
	if err := kernel.TypeByName(p.fn, &f); err != nil {
		return false
	}
	proto, ok := f.Type.(*btf.FuncProto)
	return ok && len(proto.Params) == p.params
}

// programs is the table. The hooks of a tier are described in bpf/README.md.
func programs() []program {
	return []program{
		{name: "process_fork", how: byTracepoint, required: true},
		{name: "process_exec", how: byTracepoint, required: true},
		{name: "process_exit", how: byTracepoint, required: true},
		{name: "learn_inodes", how: byIterator, required: true},
		{name: "learn_tasks", how: byIterator, cost: "processes older than the daemon are read from /proc"},
		{name: "learn_sockets", how: byIterator, cost: "logins older than the daemon have no source address"},

		{name: "sys_enter", how: byTracepoint, tier: TierTracepoint, required: true},
		{name: "sys_exit", how: byTracepoint, tier: TierTracepoint, required: true},

		{name: "file_open", how: byLSM, tier: TierLSM, required: true},
		{name: "file_permission", how: byLSM, tier: TierLSM, required: true},
		{name: "locks_remove_file", how: byTrampoline, tier: TierLSM, required: true},
		{name: "notify_change", how: byTrampoline, tier: TierLSM, required: true},
		{name: "inode_setattr", how: byLSM, tier: TierLSM, cost: "chmod, chown, utimes and truncate are not refused", fn: "bpf_lsm_inode_setattr", params: 2},
		{name: "inode_setattr_i", how: byLSM, tier: TierLSM, cost: "chmod, chown, utimes and truncate are not refused", fn: "bpf_lsm_inode_setattr", params: 3},
		{name: "path_truncate", how: byLSM, tier: TierLSM, cost: "truncate is refused by inode_setattr alone"},
		{name: "mmap_file", how: byLSM, tier: TierLSM, cost: "shared writable mappings are neither seen nor refused"},
		{name: "file_mprotect", how: byLSM, tier: TierLSM, cost: "mappings made writable later are neither seen nor refused"},
		{name: "file_ioctl", how: byLSM, tier: TierLSM, cost: "chattr is not refused"},
		{name: "vfs_fileattr_set", how: byTrampoline, tier: TierLSM, cost: "chattr is not seen"},
		{name: "inode_setxattr", how: byLSM, tier: TierLSM, cost: "setxattr is not refused"},
		{name: "vfs_setxattr", how: byTrampoline, tier: TierLSM, cost: "setxattr is not seen"},
		{name: "inode_removexattr", how: byLSM, tier: TierLSM, cost: "removexattr is not refused"},
		{name: "vfs_removexattr", how: byTrampoline, tier: TierLSM, cost: "removexattr is not seen"},
		// before 6.2 access control lists go through the xattr hooks
		{name: "inode_set_acl", how: byLSM, tier: TierLSM, cost: "setfacl is not refused", fn: "bpf_lsm_inode_set_acl", params: 4},
		{name: "vfs_set_acl", how: byTrampoline, tier: TierLSM, cost: "setfacl is not seen", fn: "bpf_lsm_inode_set_acl", params: 4},
		{name: "inode_remove_acl", how: byLSM, tier: TierLSM, cost: "removal of an access control list is not refused", fn: "bpf_lsm_inode_remove_acl", params: 3},
		{name: "vfs_remove_acl", how: byTrampoline, tier: TierLSM, cost: "removal of an access control list is not seen", fn: "bpf_lsm_inode_remove_acl", params: 3},
		{name: "inode_create", how: byLSM, tier: TierLSM, cost: "new files are not refused"},
		{name: "inode_link", how: byLSM, tier: TierLSM, cost: "link is not refused"},
		{name: "vfs_link", how: byTrampoline, tier: TierLSM, cost: "link is not seen"},
		{name: "inode_unlink", how: byLSM, tier: TierLSM, cost: "unlink is not refused"},
		{name: "vfs_unlink", how: byTrampoline, tier: TierLSM, cost: "unlink is not seen"},
		{name: "inode_symlink", how: byLSM, tier: TierLSM, cost: "symlink is not refused"},
		{name: "vfs_symlink", how: byTrampoline, tier: TierLSM, cost: "symlink is not seen"},
		{name: "inode_mkdir", how: byLSM, tier: TierLSM, cost: "mkdir is not refused"},
		{name: "vfs_mkdir", how: byTrampoline, tier: TierLSM, cost: "mkdir is not seen"},
		{name: "inode_rmdir", how: byLSM, tier: TierLSM, cost: "rmdir is not refused"},
		{name: "vfs_rmdir", how: byTrampoline, tier: TierLSM, cost: "rmdir is not seen"},
		{name: "inode_mknod", how: byLSM, tier: TierLSM, cost: "mknod is not refused"},
		{name: "vfs_mknod", how: byTrampoline, tier: TierLSM, cost: "mknod is not seen"},
		{name: "inode_rename", how: byLSM, tier: TierLSM, cost: "rename is neither seen nor refused"},
		{name: "vfs_rename", how: byTrampoline, tier: TierLSM, cost: "rename is not seen"},
		{name: "sock_graft", how: byLSM, tier: TierLSM, cost: "sessions have no source address"},
	}
}

// HookName is the name of a hook number of the wire, as sensor.hook has it.
func HookName(n uint16) string {
	names := hookNames()
	if int(n) < len(names) && names[n] != "" {
		return names[n]
	}
	return "unknown"
}

// hookNames follows HOOK_* of bpf/event.h.
func hookNames() []string {
	return []string{
		"", "sys_enter", "sys_exit", "sched_process_fork", "sched_process_exec", "sched_process_exit", "session", "iterator",
		"file_open", "file_permission", "locks_remove_file", "mmap_file", "file_mprotect", "path_truncate",
		"inode_setattr", "inode_setxattr", "inode_removexattr", "inode_set_acl", "inode_remove_acl", "inode_create",
		"inode_link", "inode_unlink", "inode_symlink", "inode_mkdir", "inode_rmdir", "inode_mknod", "inode_rename",
		"file_ioctl", "sock_graft", "file_update_time", "mmap_backing_file", "file_truncate",
		"sb_mount", "move_mount", "sb_umount", "sb_remount", "sb_pivotroot", "block_device", "file_receive",
		"task_kill", "ptrace_access_check", "bpf", "held", "inode_file_setattr", "inode_copy_up",
	}
}
