package event

// Op is a file operation as the kernel side names it. The numbers are the wire
// numbers (bpf/event.h, OP_*); a test keeps both lists the same.
type Op uint8

// The operations. OpOpen is an open for writing, OpClose the last close of an
// opener that wrote: both carry observation and are never the op of a record.
const (
	OpNone Op = iota
	OpOpen
	OpWrite
	OpTruncate
	OpCreate
	OpUnlink
	OpRename
	OpLink
	OpSymlink
	OpMkdir
	OpRmdir
	OpMknod
	OpChmod
	OpChown
	OpUtimes
	OpSetxattr
	OpRemovexattr
	OpSetacl
	OpSetflags
	OpMapWrite
	OpClose
	OpMount
	OpUmount
	OpRemount
	OpRawWrite // a write to the block device below a watched file system
	OpReceive  // a descriptor was received from another process
	OpKill
	OpPtrace
	OpBPF
	OpLimit // resource limits or scheduling of another process
	opEnd
)

var opNames = [...]string{
	OpNone: "none", OpOpen: "open", OpWrite: "write", OpTruncate: "truncate", OpCreate: "create",
	OpUnlink: "unlink", OpRename: "rename", OpLink: "link", OpSymlink: "symlink", OpMkdir: "mkdir",
	OpRmdir: "rmdir", OpMknod: "mknod", OpChmod: "chmod", OpChown: "chown", OpUtimes: "utimes",
	OpSetxattr: "setxattr", OpRemovexattr: "removexattr", OpSetacl: "setacl", OpSetflags: "setflags",
	OpMapWrite: "map_write", OpClose: "close", OpMount: "mount", OpUmount: "umount",
	OpRemount: "remount", OpRawWrite: "raw_write", OpReceive: "receive", OpKill: "kill", OpPtrace: "ptrace", OpBPF: "bpf", OpLimit: "limit",
}

// String returns the name used in records, or "unknown" for a
// number this build does not know.
func (o Op) String() string {
	if o < opEnd {
		return opNames[o]
	}
	return "unknown"
}

// ParseOp returns the operation called name.
func ParseOp(name string) (Op, bool) {
	for i, n := range opNames {
		if n == name {
			return Op(i), true
		}
	}
	return OpNone, false
}

// OpNames lists the names an op of a record can have, in wire order.
func OpNames() []string { return opNames[OpOpen:opEnd] }

// Namespace reports whether o adds, removes or moves a name (as opposed to
// changing the content or metadata behind one).
func (o Op) Namespace() bool {
	switch o {
	case OpCreate, OpUnlink, OpRename, OpLink, OpSymlink, OpMkdir, OpRmdir, OpMknod:
		return true
	}
	return false
}

// Beneath reports whether o changes what lies below paths, a mount or a device,
// and not a file.
func (o Op) Beneath() bool {
	switch o {
	case OpMount, OpUmount, OpRemount, OpRawWrite:
		return true
	}
	return false
}

// Metadata reports whether o changes only metadata of an inode.
func (o Op) Metadata() bool {
	switch o {
	case OpChmod, OpChown, OpUtimes, OpSetxattr, OpRemovexattr, OpSetacl, OpSetflags:
		return true
	}
	return false
}
