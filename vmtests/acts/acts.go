package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// act is one way to change a file.
type act struct {
	name string
	op   string // the op that a record of it must have
	have kind   // what the fixture puts at the path
	from place  // where the path is
	to   place  // where the second path is
	over kind   // what the fixture puts at the second path
	// refused is the op of a record that it was refused, if that is another one:
	// what is refused is then the open before it.
	refused string
	root    bool // others are refused before any hook is asked
	do      func(path, to string, content []byte) (outcome, error)
}

type kind int

const (
	nothing kind = iota
	file
	dir
	attrFile // a file with a user attribute and an ACL
)

type place int

const (
	none place = iota
	inTree
	outside
)

// paths returns where the fixture has a's files.
func (a act) paths(tree, out string) (path, to string) {
	at := map[place]string{inTree: tree, outside: out}
	path = filepath.Join(at[a.from], a.name)
	if a.to != none {
		to = filepath.Join(at[a.to], a.name+".to")
	}
	return path, to
}

// names returns those of a's paths that are in the watched tree, the decisive one last.
func (a act) names(path, to string) []string {
	var names []string
	if a.from == inTree {
		names = append(names, path)
	}
	if a.to == inTree {
		names = append(names, to)
	}
	return names
}

const written = "written by an act\n"

// acts returns every act, in the order in which all runs them.
func acts() []act {
	return append(append(contentActs(), nameActs()...), metaActs()...)
}

// writer is an act that opens path with flags and hands the descriptor to f.
func writer(flags int, f func(fd int, content []byte) (outcome, error)) func(string, string, []byte) (outcome, error) {
	return func(path, _ string, content []byte) (outcome, error) {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o640)
		if err != nil {
			return outcome{}, err
		}
		o, err := f(fd, content)
		if cerr := unix.Close(fd); err == nil {
			err = cerr
		}
		return o, err
	}
}

func put(fd int) error {
	_, err := unix.Write(fd, []byte(written))
	return err
}

// overwritten is content after written was put at its start.
func overwritten(content []byte) []byte {
	b := append([]byte{}, content...)
	return append(b[:0], append([]byte(written), b[min(len(b), len(written)):]...)...)
}

func contentActs() []act {
	const cut = 5
	return []act{
		{name: "open_write", op: "write", have: file, from: inTree, do: writer(unix.O_WRONLY, func(fd int, c []byte) (outcome, error) {
			return holds(overwritten(c)), put(fd)
		})},
		{name: "open_rdwr_pwrite", op: "write", have: file, from: inTree, do: writer(unix.O_RDWR, func(fd int, c []byte) (outcome, error) {
			_, err := unix.Pwrite(fd, []byte(written), int64(len(c)))
			return holds(append(c, written...)), err
		})},
		{name: "append", op: "write", have: file, from: inTree, do: writer(unix.O_WRONLY|unix.O_APPEND, func(fd int, c []byte) (outcome, error) {
			return holds(append(c, written...)), put(fd)
		})},
		{name: "open_trunc", op: "write", have: file, from: inTree, do: writer(unix.O_WRONLY|unix.O_TRUNC, func(fd int, _ []byte) (outcome, error) {
			return holds([]byte(written)), put(fd)
		})},
		{name: "open_rdonly_trunc", op: "truncate", refused: "truncate,write", have: file, from: inTree, do: writer(unix.O_RDONLY|unix.O_TRUNC, func(int, []byte) (outcome, error) {
			return holds([]byte{}), nil
		})},
		{name: "truncate", op: "truncate", have: file, from: inTree, do: func(path, _ string, c []byte) (outcome, error) {
			return holds(c[:cut]), unix.Truncate(path, cut)
		}},
		{name: "ftruncate", op: "truncate", refused: "write", have: file, from: inTree, do: writer(unix.O_WRONLY, func(fd int, c []byte) (outcome, error) {
			return holds(c[:cut]), unix.Ftruncate(fd, cut)
		})},
		{name: "fallocate_punch", op: "write", have: file, from: inTree, do: writer(unix.O_WRONLY, func(fd int, c []byte) (outcome, error) {
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
		{name: "creat", op: "create", from: inTree, do: writer(unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, func(fd int, _ []byte) (outcome, error) {
			return holds([]byte(written)), put(fd)
		})},
		{name: "creat_over", op: "write", have: file, from: inTree, do: writer(unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, func(fd int, _ []byte) (outcome, error) {
			return holds([]byte(written)), put(fd)
		})},
	}
}

func nameActs() []act {
	gone := outcome{gone: true, mode: -1, uid: -1}
	rename := func(flags uint) func(string, string, []byte) (outcome, error) {
		return func(path, to string, c []byte) (outcome, error) {
			return holds(c), unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, to, flags)
		}
	}
	link := func(path, to string, c []byte) (outcome, error) { return holds(c), unix.Link(path, to) }
	out := func(path, to string, _ []byte) (outcome, error) { return gone, unix.Rename(path, to) }
	return []act{
		{name: "unlink", op: "unlink", have: file, from: inTree, do: func(path, _ string, _ []byte) (outcome, error) {
			return gone, unix.Unlink(path)
		}},
		{name: "rename_within", op: "rename", have: file, from: inTree, to: inTree, do: rename(0)},
		{name: "rename_over", op: "rename", have: file, from: inTree, to: inTree, over: file, do: rename(0)},
		{name: "rename_exchange", op: "rename", have: file, from: inTree, to: inTree, over: file, do: rename(unix.RENAME_EXCHANGE)},
		{name: "rename_out", op: "rename", have: file, from: inTree, to: outside, do: out},
		{name: "rename_in", op: "rename", have: file, from: outside, to: inTree, do: rename(0)},
		{name: "rename_in_over", op: "rename", have: file, from: outside, to: inTree, over: file, do: rename(0)},
		{name: "link", op: "link", have: file, from: inTree, to: inTree, do: link},
		{name: "link_out", op: "link", have: file, from: inTree, to: outside, do: link},
		{name: "link_in", op: "link", have: file, from: outside, to: inTree, do: link},
		{name: "symlink", op: "symlink", from: inTree, do: func(path, _ string, _ []byte) (outcome, error) {
			o := same()
			o.target = "/etc/hostname"
			return o, unix.Symlink(o.target, path)
		}},
		{name: "mkdir", op: "mkdir", from: inTree, do: func(path, _ string, _ []byte) (outcome, error) {
			return same(), unix.Mkdir(path, 0o755)
		}},
		{name: "rmdir", op: "rmdir", have: dir, from: inTree, do: func(path, _ string, _ []byte) (outcome, error) {
			return gone, unix.Rmdir(path)
		}},
		{name: "mknod_fifo", op: "mknod", from: inTree, do: func(path, _ string, _ []byte) (outcome, error) {
			return same(), unix.Mknod(path, unix.S_IFIFO|0o600, 0)
		}},
	}
}

func metaActs() []act {
	const owner = 12345
	mode := func(m int) outcome { o := same(); o.mode = m; return o }
	owned := func() outcome { o := same(); o.uid = owner; return o }
	return []act{
		{name: "chmod", op: "chmod", have: file, from: inTree, do: func(path, _ string, _ []byte) (outcome, error) {
			return mode(0o4777), unix.Chmod(path, 0o4777)
		}},
		{name: "fchmod", op: "chmod", have: file, from: inTree, do: writer(unix.O_RDONLY, func(fd int, _ []byte) (outcome, error) {
			return mode(0o600), unix.Fchmod(fd, 0o600)
		})},
		{name: "chmod_dir", op: "chmod", have: dir, from: inTree, do: func(path, _ string, _ []byte) (outcome, error) {
			return mode(0o777), unix.Chmod(path, 0o777)
		}},
		{name: "chown", op: "chown", have: file, from: inTree, do: func(path, _ string, _ []byte) (outcome, error) {
			return owned(), unix.Chown(path, owner, owner)
		}},
		{name: "fchown", op: "chown", have: file, from: inTree, do: writer(unix.O_RDONLY, func(fd int, _ []byte) (outcome, error) {
			return owned(), unix.Fchown(fd, owner, -1)
		})},
		{name: "utimes", op: "utimes", have: file, from: inTree, do: func(path, _ string, _ []byte) (outcome, error) {
			old := unix.Timespec{Sec: 1_000_000_000}
			return same(), unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{old, old}, 0)
		}},
		{name: "setxattr", op: "setxattr", have: file, from: inTree, do: func(path, _ string, _ []byte) (outcome, error) {
			return same(), unix.Setxattr(path, "user.act", []byte("set"), 0)
		}},
		{name: "setcaps", op: "setxattr", root: true, have: file, from: inTree, do: func(path, _ string, _ []byte) (outcome, error) {
			// VFS_CAP_REVISION_2, permitted cap_net_raw (linux/capability.h, struct vfs_cap_data)
			caps := make([]byte, 20)
			binary.LittleEndian.PutUint32(caps[0:], 0x02000000)
			binary.LittleEndian.PutUint32(caps[4:], 1<<unix.CAP_NET_RAW)
			return same(), unix.Setxattr(path, "security.capability", caps, 0)
		}},
		{name: "removexattr", op: "removexattr", have: attrFile, from: inTree, do: func(path, _ string, _ []byte) (outcome, error) {
			return same(), unix.Removexattr(path, "user.kept")
		}},
		{name: "setacl", op: "setacl", have: file, from: inTree, do: func(path, _ string, _ []byte) (outcome, error) {
			return same(), unix.Setxattr(path, "system.posix_acl_access", acl(), 0)
		}},
		{name: "removeacl", op: "setacl", have: attrFile, from: inTree, do: func(path, _ string, _ []byte) (outcome, error) {
			return same(), unix.Removexattr(path, "system.posix_acl_access")
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
	}{{0x01, 6, undefined}, {0x02, 6, 12345}, {0x04, 4, undefined}, {0x10, 6, undefined}, {0x20, 4, undefined}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// makeFixture creates what every act needs below tree and out.
func makeFixture(tree, out string) error {
	for _, d := range []string{tree, out} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	for _, a := range acts() {
		path, to := a.paths(tree, out)
		if err := makeThing(path, a.have); err != nil {
			return err
		}
		if err := makeThing(to, a.over); err != nil {
			return err
		}
	}
	return nil
}

func makeThing(path string, k kind) error {
	switch k {
	case nothing:
		return nil
	case dir:
		return os.Mkdir(path, 0o755)
	}
	text := strings.Repeat("original content of "+filepath.Base(path)+"\n", 40)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil || k == file {
		return err
	}
	if err := unix.Setxattr(path, "user.kept", []byte("kept"), 0); err != nil {
		return err
	}
	return unix.Setxattr(path, "system.posix_acl_access", acl(), 0)
}
