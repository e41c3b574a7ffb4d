package sense

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// The tiers that can be loaded.
const (
	TierLSM          = "lsm"
	TierModifyReturn = "modify_return"
	TierTracepoint   = "tracepoint"
)

// tierHooks stands for the two tiers that share their hooks' results.
const tierHooks = "lsm, modify_return"

// CanBlock reports whether a tier refuses operations.
func CanBlock(tier string) bool { return tier == TierLSM || tier == TierModifyReturn }

type how uint8

const (
	byTracepoint how = iota
	byTrampoline
	byLSM // in tier modify_return: by changing what security_NAME returns
	byIterator
)

// program is one row of the table of capabilities: what is loaded in which tier,
// and what a kernel that refuses it costs.
type program struct {
	name     string
	how      how
	tier     string // "": every tier
	required bool
	onDemand bool // attached only while there is a reason to (Need)
	cost     string
	free     bool // a kernel without this hook has nothing that would pass it: its absence costs nothing
	params   int  // if set: for kernels on which the hook has this many parameters; others have a row of their own
}

func (p program) in(tier string) bool {
	return p.tier == "" || p.tier == tier || p.tier == tierHooks && CanBlock(tier)
}

// hook returns the kernel's function that spec is attached to, "" if it is a
// tracepoint.
func (p program) hook(spec *ebpf.ProgramSpec) string {
	switch p.how {
	case byLSM:
		return "bpf_lsm_" + spec.AttachTo
	case byTrampoline:
		return spec.AttachTo
	case byIterator:
		return "bpf_iter_" + spec.AttachTo
	}
	return ""
}

// fits returns nil if kernel has the hook of p, with the arguments that p reads.
func (p program) fits(spec *ebpf.ProgramSpec, kernel *btf.Spec) error {
	hook := p.hook(spec)
	if hook == "" {
		var t *btf.Typedef // linux v6.1 include/trace/bpf_probe.h:__BPF_DECLARE_TRACE
		if err := kernel.TypeByName("btf_trace_"+spec.AttachTo, &t); err != nil {
			return fmt.Errorf("find tracepoint %s: %w", spec.AttachTo, errNoHook)
		}
		return nil
	}
	var f *btf.Func
	if err := kernel.TypeByName(hook, &f); err != nil {
		return fmt.Errorf("find %s: %w", hook, errNoHook)
	}
	if proto, ok := f.Type.(*btf.FuncProto); ok && p.params != 0 && len(proto.Params) != p.params {
		return fmt.Errorf("%s has %d parameters, want %d: %w", hook, len(proto.Params), p.params, errOtherHook)
	}
	return nil
}

var (
	errNoHook    = errors.New("this kernel does not have the hook")
	errOtherHook = errors.New("this kernel's hook has other arguments")
)

// programs is the table for a tier. The hooks are described in bpf/README.md.
func programs(tier string) []program {
	var out []program
	for _, p := range table() {
		if !p.in(tier) {
			continue
		}
		if tier == TierModifyReturn && p.how == byLSM {
			p.name, p.how = "m_"+p.name, byTrampoline
		}
		out = append(out, p)
	}
	return out
}

func table() []program {
	return []program{
		{name: "process_fork", how: byTracepoint, required: true},
		{name: "process_exec", how: byTracepoint, required: true},
		{name: "process_exit", how: byTracepoint, required: true},
		{name: "learn_inodes", how: byIterator, required: true},
		{name: "learn_tasks", how: byIterator, cost: "processes older than the daemon are read from /proc"},
		{name: "learn_sockets", how: byIterator, cost: "logins older than the daemon have no source address"},
		{name: "held_files", how: byIterator, cost: "descriptors that were open for writing before the daemon or a rule are not told of"},
		{name: "held_maps", how: byIterator, cost: "writable mappings older than the daemon or a rule are not told of, and files mapped later are looked at without knowing who maps them still", free: true},
		{name: "held_maps_list", how: byIterator, cost: "the same, on kernels without an iterator over mappings"},

		{name: "sys_enter", how: byTracepoint, tier: TierTracepoint, required: true},
		{name: "sys_exit", how: byTracepoint, tier: TierTracepoint, required: true},

		{name: "ring_req", how: byTracepoint, tier: TierTracepoint, free: true, cost: "ring_sqe is there instead (before linux 6.4)"},
		{name: "ring_sqe", how: byTracepoint, tier: TierTracepoint, free: true, cost: "ring_req is there instead (since linux 6.4)"},
		{name: "ring_done", how: byTracepoint, tier: TierTracepoint, cost: "what io_uring changes is found at a close, a rescan or the next start"},

		{name: "file_open", how: byLSM, tier: tierHooks, required: true},
		{name: "file_permission", how: byLSM, tier: tierHooks, required: true, onDemand: true},
		{name: "locks_remove_file", how: byTrampoline, tier: tierHooks, required: true},
		{name: "notify_change", how: byTrampoline, tier: tierHooks, required: true},
		{name: "inode_setattr", how: byLSM, tier: tierHooks, cost: "chmod, chown, utimes and truncate are not refused", params: 2},
		{name: "inode_setattr_i", how: byLSM, tier: tierHooks, cost: "chmod, chown, utimes and truncate are not refused", params: 3},
		{name: "path_truncate", how: byLSM, tier: tierHooks, cost: "truncate is refused by inode_setattr alone"},
		{name: "mmap_file", how: byLSM, tier: tierHooks, cost: "shared writable mappings are neither seen nor refused"},
		{name: "file_mprotect", how: byLSM, tier: tierHooks, cost: "mappings made writable later are neither seen nor refused"},
		{name: "file_update_time", how: byTrampoline, tier: tierHooks, onDemand: true, cost: "stores through shared mappings are found at intervals and when the mapping ends, not when they begin"},
		{name: "mmap_backing_file", how: byLSM, tier: tierHooks, cost: "files below overlayfs are mapped unseen", free: true},
		{name: "file_receive", how: byLSM, tier: tierHooks, cost: "descriptors of watched files that are passed on are not told of, nor refused"},
		{name: "file_ioctl", how: byLSM, tier: tierHooks, cost: "chattr is not refused"},
		{name: "file_ioctl_compat", how: byLSM, tier: tierHooks, cost: "chattr by 32-bit programs is not refused", free: true},
		{name: "vfs_fileattr_set", how: byTrampoline, tier: tierHooks, cost: "chattr is told of before its result is known, if at all"},
		{name: "inode_file_setattr", how: byLSM, tier: tierHooks, cost: "file_setattr(2) is not refused", free: true},
		{name: "inode_setxattr", how: byLSM, tier: tierHooks, cost: "setxattr is not refused", params: 6},
		{name: "inode_setxattr_o", how: byLSM, tier: tierHooks, cost: "setxattr is not refused", params: 5},
		{name: "vfs_setxattr", how: byTrampoline, tier: tierHooks, cost: "setxattr is not seen"},
		{name: "inode_removexattr", how: byLSM, tier: tierHooks, cost: "removexattr is not refused", params: 3},
		{name: "inode_rmxattr_o", how: byLSM, tier: tierHooks, cost: "removexattr is not refused", params: 2},
		{name: "vfs_removexattr", how: byTrampoline, tier: tierHooks, cost: "removexattr is not seen"},
		// before 6.2 access control lists go through the xattr hooks
		{name: "inode_set_acl", how: byLSM, tier: tierHooks, cost: "setfacl is not refused", free: true},
		{name: "vfs_set_acl", how: byTrampoline, tier: tierHooks, cost: "setfacl is not seen", free: true},
		{name: "inode_remove_acl", how: byLSM, tier: tierHooks, cost: "removal of an access control list is not refused", free: true},
		{name: "vfs_remove_acl", how: byTrampoline, tier: tierHooks, cost: "removal of an access control list is not seen", free: true},
		{name: "inode_create", how: byLSM, tier: tierHooks, cost: "new files are not refused"},
		{name: "inode_link", how: byLSM, tier: tierHooks, cost: "link is not refused"},
		{name: "vfs_link", how: byTrampoline, tier: tierHooks, cost: "link is not seen"},
		{name: "inode_unlink", how: byLSM, tier: tierHooks, cost: "unlink is not refused"},
		{name: "vfs_unlink", how: byTrampoline, tier: tierHooks, cost: "unlink is not seen"},
		{name: "inode_symlink", how: byLSM, tier: tierHooks, cost: "symlink is not refused"},
		{name: "vfs_symlink", how: byTrampoline, tier: tierHooks, cost: "symlink is not seen"},
		{name: "inode_mkdir", how: byLSM, tier: tierHooks, cost: "mkdir is not refused"},
		{name: "vfs_mkdir", how: byTrampoline, tier: tierHooks, cost: "mkdir is not seen"},
		{name: "inode_rmdir", how: byLSM, tier: tierHooks, cost: "rmdir is not refused"},
		{name: "vfs_rmdir", how: byTrampoline, tier: tierHooks, cost: "rmdir is not seen"},
		{name: "inode_mknod", how: byLSM, tier: tierHooks, cost: "mknod is not refused"},
		{name: "vfs_mknod", how: byTrampoline, tier: tierHooks, cost: "mknod is not seen"},
		{name: "inode_rename", how: byLSM, tier: tierHooks, cost: "rename is neither seen nor refused"},
		{name: "vfs_create", how: byTrampoline, tier: tierHooks, cost: "mknod of regular files is not seen", params: 5},
		{name: "vfs_create_d", how: byTrampoline, tier: tierHooks, cost: "mknod of regular files is not seen", params: 4},
		{name: "vfs_rename", how: byTrampoline, tier: tierHooks, cost: "rename is not seen"},
		{name: "sb_mount", how: byLSM, tier: tierHooks, cost: "mounts over watched paths are not refused, and those in other mount namespaces not seen"},
		{name: "move_mount", how: byLSM, tier: tierHooks, cost: "mounts over watched paths by move_mount(2) are not refused"},
		{name: "sb_umount", how: byLSM, tier: tierHooks, cost: "unmounting of watched trees is not refused"},
		{name: "sb_remount", how: byLSM, tier: tierHooks, cost: "other options for a watched file system are not refused"},
		{name: "sb_pivotroot", how: byLSM, tier: tierHooks, cost: "pivot_root is not refused"},
		{name: "x_mount", how: byTrampoline, tier: tierHooks, cost: "mounts over watched paths are recorded without who made them"},
		{name: "x_umount", how: byTrampoline, tier: tierHooks, cost: "unmounting of watched trees is recorded without who did it"},
		{name: "x_pivot_root", how: byTrampoline, tier: tierHooks, cost: "pivot_root is recorded without who did it"},
		{name: "x_move_mount", how: byTrampoline, tier: tierHooks, cost: "mounts by move_mount(2) are recorded without who made them"},
		{name: "x_fsconfig", how: byTrampoline, tier: tierHooks, cost: "other options for a file system by fsconfig(2) are seen at the next change of a mount"},
		{name: "x_mount_setattr", how: byTrampoline, tier: tierHooks, cost: "other options for a mount are recorded without who set them", free: true},
		{name: "x_tree_attr", how: byTrampoline, tier: tierHooks, cost: "other options for a mount are recorded without who set them", free: true},
		{name: "commit_creds", how: byTrampoline, tier: tierHooks, cost: "changes of credentials by a call are not recorded"},
		{name: "sock_graft", how: byLSM, tier: tierHooks, cost: "sessions have no source address"},

		{name: "task_kill", how: byLSM, tier: tierHooks, cost: "signals to the daemon are not refused"},
		{name: "file_send_sigiotask", how: byLSM, tier: tierHooks, cost: "signals to the daemon by way of F_SETOWN are not refused"},
		{name: "ptrace_access_check", how: byLSM, tier: tierHooks, cost: "attaching to the daemon is not refused"},
		{name: "task_setrlimit", how: byLSM, tier: tierHooks, cost: "resource limits of the daemon can be changed"},
		{name: "task_setscheduler", how: byLSM, tier: tierHooks, cost: "the daemon's scheduling can be changed"},
		{name: "task_setnice", how: byLSM, tier: tierHooks, cost: "the daemon's priority can be changed"},
		{name: "bpf", how: byLSM, tier: tierHooks, cost: "programs, maps and links of ours can be changed by others", params: 3},
		{name: "bpf_k", how: byLSM, tier: tierHooks, cost: "programs, maps and links of ours can be changed by others", params: 4},
	}
}

// HookRing is the hook whose requests are counted and not told.
const HookRing = "io_uring"

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
		"task_kill", "ptrace_access_check", "bpf", "held", "inode_file_setattr", "inode_copy_up", "limit", "io_uring", "commit_creds",
	}
}
