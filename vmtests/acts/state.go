package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// outcome is what an act knows about the state that it left.
type outcome struct {
	gone    bool   // nothing is at the path any more
	content []byte // what the file holds, nil if the act did not touch it
	mode    int    // permission bits that it set, -1 if it did not
	uid     int    // owner that it set, -1 if it did not
	target  string // where the symlink that it made points
	did     string // what it changed beyond its directory, "" if nothing
	why     string // why it changed nothing, where that is known
}

// same is the outcome of an act that leaves content, mode and owner alone.
func same() outcome { return outcome{mode: -1, uid: -1} }

func holds(b []byte) outcome {
	o := same()
	o.content = append([]byte{}, b...)
	return o
}

// did is the outcome of an act that changes something that no file shows.
func did(what string) outcome { o := same(); o.did = what; return o }

// but is the outcome of an act that succeeds and changes nothing.
func but(why string) outcome { o := same(); o.why = why; return o }

// fields are those of a record's state, with the hash of the content if that is wanted.
func (o outcome) fields(hash bool) (map[string]any, error) {
	if o.gone {
		return map[string]any{"exists": false}, nil
	}
	m := map[string]any{"exists": true}
	if o.content != nil {
		m["size"] = len(o.content)
	}
	if o.content != nil && hash {
		h, err := b3sum(o.content)
		if err != nil {
			return nil, err
		}
		m["hash"] = h
	}
	if o.mode >= 0 {
		m["mode"] = modeText(uint32(o.mode))
	}
	if o.uid >= 0 {
		m["uid"] = o.uid
	}
	if o.target != "" {
		m["target"] = o.target
	}
	return m, nil
}

// stateOf tells what is at path before an act, with its hash if that is wanted.
func stateOf(path string, hash bool) (map[string]any, error) {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]any{"exists": false}, nil
	}
	if err != nil || path == "" {
		return nil, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fmt.Errorf("stat %s: no owner in the answer", path)
	}
	m := map[string]any{"exists": true, "mode": modeText(st.Mode & 0o7777), "uid": st.Uid, "gid": st.Gid}
	if !fi.Mode().IsRegular() || !hash {
		return m, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	h, err := b3sum(b)
	m["hash"], m["size"] = h, len(b)
	return m, err
}

// contentOf returns what a regular file holds, nil for anything else.
func contentOf(path string) ([]byte, error) {
	if fi, err := os.Lstat(path); err != nil || !fi.Mode().IsRegular() {
		return nil, nil // what is not there or cannot be asked has no content
	}
	return os.ReadFile(path)
}

func modeText(m uint32) string { return fmt.Sprintf("%04o", m) }

// encode writes a path as records do: bytes that are not UTF-8, or that a terminal
// would act upon, as \xNN.
func encode(path string) string {
	var b strings.Builder
	for len(path) > 0 {
		r, n := utf8.DecodeRuneInString(path)
		if r == utf8.RuneError && n == 1 || r < ' ' {
			fmt.Fprintf(&b, `\x%02X`, path[0])
		} else {
			b.WriteString(path[:n])
		}
		path = path[n:]
	}
	return b.String()
}

// b3sum hashes b by the reference implementation.
func b3sum(b []byte) (string, error) {
	cmd := exec.Command("b3sum", "--no-names")
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("hash by b3sum: %w", err)
	}
	return "blake3:" + strings.TrimSpace(string(out)), nil
}

// view is the state of everything in one directory: name → what is there.
type view map[string]string

// lookAt describes dir and everything below it. Where it is mounted, and whether
// that may be written, belongs to the view only if mounts is set: a view that
// outlives a remount leaves it out.
func lookAt(dir string, mounts bool) view {
	v := view{}
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, path)
		if err != nil {
			v[encode(name)] = err.Error()
			return nil
		}
		v[encode(name)] = describe(path, mounts)
		return nil
	})
	return v
}

// describe tells everything about path that can change, but for the times of
// access and of the change of metadata.
func describe(path string, mounts bool) string {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err.Error()
	}
	var sfs unix.Statfs_t
	_ = unix.Statfs(path, &sfs)
	if st.Mode&unix.S_IFMT == unix.S_IFDIR && sfs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		st.Nlink = 1 // it depends on what has been copied up (linux v6.1 fs/overlayfs/inode.c:ovl_getattr)
	}
	d := fmt.Sprintf("ino %d mode %o owner %d:%d links %d size %d mtime %d.%d rdev %d", st.Ino, st.Mode, st.Uid, st.Gid, st.Nlink, st.Size, st.Mtim.Sec, st.Mtim.Nsec, st.Rdev)
	if mounts {
		var stx unix.Statx_t
		_ = unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &stx)
		d += fmt.Sprintf(" dev %d mount %d read-only %d", st.Dev, stx.Mnt_id, sfs.Flags&unix.ST_RDONLY)
	}
	d += " xattrs " + xattrs(path)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, _ := os.Readlink(path)
		return d + " -> " + target
	case unix.S_IFREG, unix.S_IFDIR:
		return d + inside(path)
	}
	return d
}

// inside tells flags, generation, project and content of a file or directory.
func inside(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	fd := int(f.Fd())
	flags, _ := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	version, _ := unix.IoctlGetInt(fd, fsIocGetversion)
	fsx, _ := getFsxattr(fd)
	d := fmt.Sprintf(" flags %x version %d xflags %x project %d", flags, version, fsx.xflags, fsx.projid)
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return d
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return d + " " + err.Error()
	}
	return d + fmt.Sprintf(" content %x", sha256.Sum256(b))
}

func xattrs(path string) string {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		return err.Error()
	}
	names := strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	var all []string
	for _, name := range names {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			n = 0
		}
		all = append(all, fmt.Sprintf("%s=%x", name, value[:n]))
	}
	return fmt.Sprint(all)
}

// differences names what is not the same in a and b.
func differences(a, b view) []string {
	var diff []string
	for name, was := range a {
		if is, ok := b[name]; !ok {
			diff = append(diff, name+" is gone")
		} else if is != was {
			diff = append(diff, name+" was "+was+", is "+is)
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			diff = append(diff, name+" is new")
		}
	}
	slices.Sort(diff)
	return diff
}

// printPictures prints the view of each act's directory: one line of JSON with
// the act's name and, under its path, what is there.
func printPictures(tree string) error {
	entries, err := os.ReadDir(tree)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(os.Stdout)
	for _, e := range entries {
		v := lookAt(filepath.Join(tree, e.Name()), false)
		line := map[string]any{"act": e.Name(), "names": slices.Sorted(maps.Keys(v)), "view": v}
		if err := enc.Encode(line); err != nil {
			return err
		}
	}
	return nil
}
