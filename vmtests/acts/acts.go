package main

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// act is one way to change a file. Exactly one of do and hold is set.
type act struct {
	name string
	op   string // the op that a record of it must have; several are separated by commas
	file string // name of the path below the act's directory, "" for "it"
	have kind   // what the fixture puts at the path
	from place  // where the path is
	to   place  // where the second path is
	over kind   // what the fixture puts at the second path
	// refused is the op of a record that it was refused, if that is another one:
	// what is refused is then the open before it.
	refused string
	root    bool // others are refused before any hook is asked
	// also is what a record may name instead of the path: the tree, where the act
	// is upon all of it, or, with inTree, anything in the act's directory.
	also place
	// linger says that the act puts the machine back only when the daemon has looked.
	linger bool
	do     func(*scene) (outcome, error)
	// hold does what comes before the rule (open, map, mount) and returns the act.
	hold func(*scene) (func() (outcome, error), error)
}

type kind int

const (
	nothing     kind = iota
	file             // some lines of text
	dir              // a directory with one file
	emptyDir         //
	attrFile         // a file with a user attribute and an ACL
	blocks           // sixteen pages of text
	plainBlocks      // the same, of which the file system keeps no checksum
	suidFile         // a file of somebody else that runs as him
	swapFile         // blocks with the signature of a swap area
	soft             // a symbolic link to nowhere
	subvolume        // of btrfs
)

type place int

const (
	none place = iota
	inTree
	outside
	theTree     // the watched directory itself
	theAncestor // the directory above it
)

// scene is what one act has to do with.
type scene struct {
	path, to string
	content  []byte // what path holds
	dir      string // the act's directory in the watched tree
	aside    string // the act's directory outside
	tree     string // the watched tree

	// What an act says of itself, if it is not this process that acts.
	pids []int // processes that may be named; without one the kernel itself acts
	exe  string
	uid  int

	brief     bool // say nothing of the content before: matrix has no use for it
	contested bool // somebody may put back what the act does, before it looks

	undo []func() error // what puts the machine back, the last first
}

func (s *scene) later(f func() error) { s.undo = append(s.undo, f) }

func (s *scene) restore() error {
	var errs []error
	for _, f := range slices.Backward(s.undo) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// newScene returns a's scene in the fixture.
func newScene(a act, tree, out string) *scene {
	s := &scene{tree: tree, dir: filepath.Join(tree, a.name), aside: filepath.Join(out, a.name), uid: os.Getuid(), pids: []int{os.Getpid()}}
	s.path = a.at(a.from, tree, out, orDefault(a.file, "it"))
	s.to = a.at(a.to, tree, out, "to")
	return s
}

func orDefault(s, d string) string {
	if s == "" {
		return d
	}
	return s
}

func (a act) at(p place, tree, out, name string) string {
	switch p {
	case inTree:
		return filepath.Join(tree, a.name, name)
	case outside:
		return filepath.Join(out, a.name, name)
	case theTree:
		return tree
	case theAncestor:
		return filepath.Dir(tree)
	}
	return ""
}

// names returns those of a's paths that are in the watched tree, the decisive one last.
func (a act) names(s *scene) []string {
	var names []string
	if a.from != outside && a.from != none {
		names = append(names, s.path)
	}
	if a.to == inTree {
		names = append(names, s.to)
	}
	return names
}

const written = "written by an act\n"

// basicActs are those that do nothing to the machine but to the files they are
// given, and that every tier tells in full.
func basicActs() []act {
	return slices.Concat(contentActs(), nameActs(), metaActs())
}

// everyAct returns the vectors in the order in which matrix runs them: what
// disturbs others comes last.
func everyAct() []act {
	return slices.Concat(basicActs(), heldActs(), mappingActs(), ringActs(), aliasActs(), moreContentActs(), moreNameActs(), moreMetaActs(),
		abiActs(), overlayActs(), kernelActs(), injectActs(), deviceActs(), mountActs())
}

// writer is an act that opens its path with flags and hands the descriptor to f.
func writer(flags int, f func(fd int, content []byte) (outcome, error)) func(*scene) (outcome, error) {
	return func(s *scene) (outcome, error) {
		fd, err := unix.Open(s.path, flags|unix.O_CLOEXEC, 0o640)
		if err != nil {
			return outcome{}, err
		}
		o, err := f(fd, s.content)
		if cerr := unix.Close(fd); err == nil {
			err = cerr
		}
		return o, err
	}
}

// held is writer with an open before the rule.
func held(flags int, f func(fd int, content []byte) (outcome, error)) func(*scene) (func() (outcome, error), error) {
	return func(s *scene) (func() (outcome, error), error) {
		fd, err := unix.Open(s.path, flags|unix.O_CLOEXEC, 0o640)
		if err != nil {
			return nil, err
		}
		return func() (outcome, error) {
			o, err := f(fd, s.content)
			if cerr := unix.Close(fd); err == nil {
				err = cerr
			}
			return o, err
		}, nil
	}
}

func put(fd int) error {
	_, err := unix.Write(fd, []byte(written))
	return err
}

// write opens path, writes and closes.
func write(path string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(put(fd), unix.Close(fd))
}

// overwritten is content after written was put at its start.
func overwritten(content []byte) []byte {
	b := append([]byte{}, content...)
	return append(b[:0], append([]byte(written), b[min(len(b), len(written)):]...)...)
}

const cut = 5

func contentActs() []act {
	return []act{
		{name: "open_wr", op: "write", have: file, from: inTree, do: writer(unix.O_WRONLY, func(fd int, c []byte) (outcome, error) {
			return holds(overwritten(c)), put(fd)
		})},
		{name: "open_rdwr", op: "write", have: file, from: inTree, do: writer(unix.O_RDWR, func(fd int, c []byte) (outcome, error) {
			_, err := unix.Pwrite(fd, []byte(written), int64(len(c)))
			return holds(append(c, written...)), err
		})},
		{name: "open_append", op: "write", have: file, from: inTree, do: writer(unix.O_WRONLY|unix.O_APPEND, func(fd int, c []byte) (outcome, error) {
			return holds(append(c, written...)), put(fd)
		})},
		{name: "open_trunc", op: "write", have: file, from: inTree, do: writer(unix.O_WRONLY|unix.O_TRUNC, func(fd int, _ []byte) (outcome, error) {
			return holds([]byte(written)), put(fd)
		})},
		{name: "open_rdonly_trunc", op: "truncate", refused: "truncate,write", have: file, from: inTree, do: writer(unix.O_RDONLY|unix.O_TRUNC, func(int, []byte) (outcome, error) {
			return holds([]byte{}), nil
		})},
		{name: "truncate", op: "truncate", have: file, from: inTree, do: func(s *scene) (outcome, error) {
			return holds(s.content[:cut]), unix.Truncate(s.path, cut)
		}},
		{name: "ftruncate", op: "truncate", refused: "write", have: file, from: inTree, do: writer(unix.O_WRONLY, func(fd int, c []byte) (outcome, error) {
			return holds(c[:cut]), unix.Ftruncate(fd, cut)
		})},
		{name: "fallocate", op: "write", have: file, from: inTree, do: writer(unix.O_WRONLY, func(fd int, c []byte) (outcome, error) {
			clear(c[:cut])
			return holds(c), unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, cut)
		})},
		{name: "mmap_store", op: "map_write", refused: "write", have: file, from: inTree, do: writer(unix.O_RDWR, func(fd int, c []byte) (outcome, error) {
			m, err := unix.Mmap(fd, 0, len(c), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				return outcome{}, err
			}
			copy(m, written)
			return holds(append([]byte{}, m...)), unix.Munmap(m)
		})},
		{name: "creat_new", op: "create", from: inTree, do: writer(unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, func(fd int, _ []byte) (outcome, error) {
			return holds([]byte(written)), put(fd)
		})},
		{name: "creat_over", op: "write", have: file, from: inTree, do: writer(unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, func(fd int, _ []byte) (outcome, error) {
			return holds([]byte(written)), put(fd)
		})},
	}
}

// gone is the outcome of an act that takes its path away.
func gone() outcome { return outcome{gone: true, mode: -1, uid: -1} }

func rename(flags uint) func(*scene) (outcome, error) {
	return func(s *scene) (outcome, error) {
		return holds(s.content), unix.Renameat2(unix.AT_FDCWD, s.path, unix.AT_FDCWD, s.to, flags)
	}
}

func renameOut(s *scene) (outcome, error) { return gone(), unix.Rename(s.path, s.to) }

func nameActs() []act {
	link := func(s *scene) (outcome, error) { return holds(s.content), unix.Link(s.path, s.to) }
	return []act{
		{name: "unlink", op: "unlink", have: file, from: inTree, do: func(s *scene) (outcome, error) {
			return gone(), unix.Unlink(s.path)
		}},
		{name: "rename_within", op: "rename", have: file, from: inTree, to: inTree, do: rename(0)},
		{name: "rename_over", op: "rename", have: file, from: inTree, to: inTree, over: file, do: rename(0)},
		{name: "rename_exchange", op: "rename", have: file, from: inTree, to: inTree, over: file, do: rename(unix.RENAME_EXCHANGE)},
		{name: "rename_out", op: "rename", have: file, from: inTree, to: outside, do: renameOut},
		{name: "rename_in", op: "rename", have: file, from: outside, to: inTree, do: rename(0)},
		{name: "rename_in_over", op: "rename", have: file, from: outside, to: inTree, over: file, do: rename(0)},
		{name: "link", op: "link", have: file, from: inTree, to: inTree, do: link},
		{name: "link_out", op: "link", have: file, from: inTree, to: outside, do: link},
		{name: "link_in", op: "link", have: file, from: outside, to: inTree, do: link},
		{name: "symlink", op: "symlink", from: inTree, do: func(s *scene) (outcome, error) {
			o := same()
			o.target = "/etc/hostname"
			return o, unix.Symlink(o.target, s.path)
		}},
		{name: "mkdir", op: "mkdir", from: inTree, do: func(s *scene) (outcome, error) {
			return same(), unix.Mkdir(s.path, 0o755)
		}},
		{name: "rmdir", op: "rmdir", have: emptyDir, from: inTree, do: func(s *scene) (outcome, error) {
			return gone(), unix.Rmdir(s.path)
		}},
		{name: "mknod_fifo", op: "mknod", from: inTree, do: func(s *scene) (outcome, error) {
			return same(), unix.Mknod(s.path, unix.S_IFIFO|0o600, 0)
		}},
	}
}

const otherOwner = 12345

func mode(m int) outcome { o := same(); o.mode = m; return o }
func owned() outcome     { o := same(); o.uid = otherOwner; return o }

func metaActs() []act {
	return []act{
		{name: "chmod", op: "chmod", have: file, from: inTree, do: func(s *scene) (outcome, error) {
			return mode(0o4777), unix.Chmod(s.path, 0o4777)
		}},
		{name: "fchmod_rdfd", op: "chmod", have: file, from: inTree, do: writer(unix.O_RDONLY, func(fd int, _ []byte) (outcome, error) {
			return mode(0o600), unix.Fchmod(fd, 0o600)
		})},
		{name: "chmod_dir", op: "chmod", have: emptyDir, from: inTree, do: func(s *scene) (outcome, error) {
			return mode(0o777), unix.Chmod(s.path, 0o777)
		}},
		{name: "chown", op: "chown", have: file, from: inTree, do: func(s *scene) (outcome, error) {
			return owned(), unix.Chown(s.path, otherOwner, otherOwner)
		}},
		{name: "fchown", op: "chown", have: file, from: inTree, do: writer(unix.O_RDONLY, func(fd int, _ []byte) (outcome, error) {
			return owned(), unix.Fchown(fd, otherOwner, -1)
		})},
		{name: "utimensat", op: "utimes", have: file, from: inTree, do: func(s *scene) (outcome, error) {
			old := unix.Timespec{Sec: 1_000_000_000}
			return same(), unix.UtimesNanoAt(unix.AT_FDCWD, s.path, []unix.Timespec{old, old}, 0)
		}},
		{name: "setxattr_user", op: "setxattr", have: file, from: inTree, do: func(s *scene) (outcome, error) {
			return same(), unix.Setxattr(s.path, "user.act", []byte("set"), 0)
		}},
		{name: "filecaps", op: "setxattr", root: true, have: file, from: inTree, do: func(s *scene) (outcome, error) {
			// VFS_CAP_REVISION_2, permitted cap_net_raw (linux/capability.h, struct vfs_cap_data)
			caps := make([]byte, 20)
			binary.LittleEndian.PutUint32(caps[0:], 0x02000000)
			binary.LittleEndian.PutUint32(caps[4:], 1<<unix.CAP_NET_RAW)
			return same(), unix.Setxattr(s.path, "security.capability", caps, 0)
		}},
		{name: "removexattr", op: "removexattr", have: attrFile, from: inTree, do: func(s *scene) (outcome, error) {
			return same(), unix.Removexattr(s.path, "user.kept")
		}},
		{name: "posix_acl", op: "setacl", have: file, from: inTree, do: func(s *scene) (outcome, error) {
			return same(), unix.Setxattr(s.path, "system.posix_acl_access", acl(), 0)
		}},
		{name: "remove_acl", op: "setacl", have: attrFile, from: inTree, do: func(s *scene) (outcome, error) {
			return same(), unix.Removexattr(s.path, "system.posix_acl_access")
		}},
	}
}

// acl is user::rw- user:12345:rw- group::r-- mask::rw- other::r-- in the
// kernel's form (linux/posix_acl_xattr.h, version 2).
func acl() []byte {
	const undefined = ^uint32(0)
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{0x01, 6, undefined}, {0x02, 6, otherOwner}, {0x04, 4, undefined}, {0x10, 6, undefined}, {0x20, 4, undefined}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}
