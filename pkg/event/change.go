package event

// Change is what coalesce makes of one or more events on one file by one actor:
// an operation that is over, whose result the next stages verify. It owns its
// strings.
type Change struct {
	Anchor  uint32 // the marked inode below which it happened
	Path    string // absolute, raw bytes as the kernel has them; "" for a rename or link from outside every watched tree
	PathTo  string // rename and link: the other name; "" if outside every watched tree
	Seen    string // Path as the process saw it where its root or mount namespace differs, else ""
	Op      Op
	Ops     []Op
	Count   uint64
	Bytes   uint64
	First   uint64 // ns since boot of the first and last folded event
	Last    uint64
	Dev     uint64
	Ino     uint64
	Gen     uint32
	Nlink   uint32
	FMode   uint16
	Dir     bool
	Blocked bool // refused by a hook: an attempt
	Allowed bool // the kernel found the executable on the rule's list
	Partial bool // the writer still holds the file open
	Mapped  bool // stored through a mapping, or mapped still: the inode's times tell nothing of the content
	Ret     int32
	Hook    uint16
	Why     string // how the actor of a look is known, or why it is not; for people
	// Exchange: a rename that swapped two names (renameat2 RENAME_EXCHANGE).
	Exchange bool
	// Opened: a file was made or emptied by or through an open for writing, and what was written
	// through it is not told of: what the file holds afterwards tells.
	Opened bool
	// Turn is its place among the changes that stage 4 has handed on, from 1; 0: it is none of these.
	Turn uint64

	Actor   Actor
	Process Process
	Key     ProcKey
}
