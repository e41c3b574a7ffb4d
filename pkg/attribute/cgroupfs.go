package attribute

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupFS turns ids of control groups into paths. The id is the inode number of
// the group's directory, and also its file handle: the kernel opens it without a
// search. Where handles are refused, one walk finds all groups.
type cgroupFS struct {
	mount string // of the v2 hierarchy; also beside the v1 ones. "" until it is found
	now   func() time.Time

	walk   bool // handles are refused
	byID   map[uint64]string
	walked time.Time
}

const (
	kernfsHandle = 0xfe // FILEID_KERNFS, linux include/linux/exportfs.h
	walkEvery    = time.Second
)

func newCgroupFS() *cgroupFS { return &cgroupFS{now: time.Now} }

// path returns the path of a group below the mount, "" if it is gone or the
// hierarchy is not mounted.
func (c *cgroupFS) path(id uint64) string {
	if c.mount == "" {
		if c.now().Sub(c.walked) < walkEvery {
			return ""
		}
		c.walked = c.now()
		m, err := cgroupMount("/proc/self/mountinfo")
		if err != nil || m == "" {
			return ""
		}
		c.mount, c.walked = m, time.Time{}
	}
	if !c.walk {
		p, err := c.byHandle(id)
		switch {
		case err == nil:
			return p
		case errors.Is(err, unix.ESTALE), errors.Is(err, unix.ENOENT):
			return ""
		}
		c.walk = true
	}
	if p, ok := c.byID[id]; ok {
		return p
	}
	if c.now().Sub(c.walked) < walkEvery {
		return ""
	}
	c.walked = c.now()
	c.byID = walkGroups(c.mount)
	return c.byID[id]
}

// byHandle lets the kernel find the group (linux fs/kernfs/mount.c:kernfs_fh_to_dentry).
func (c *cgroupFS) byHandle(id uint64) (string, error) {
	root, err := unix.Open(c.mount, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", c.mount, err)
	}
	defer unix.Close(root)
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], id)
	fd, err := unix.OpenByHandleAt(root, unix.NewFileHandle(kernfsHandle, b[:]), unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return "", fmt.Errorf("open control group %d: %w", id, err)
	}
	defer unix.Close(fd)
	p, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", fmt.Errorf("name control group %d: %w", id, err)
	}
	return c.below(p), nil
}

func (c *cgroupFS) below(p string) string {
	if p == c.mount {
		return "/"
	}
	if r, ok := strings.CutPrefix(p, c.mount+"/"); ok && !strings.HasSuffix(r, " (deleted)") {
		return "/" + r
	}
	return ""
}

// walkGroups lists all groups below mount. What goes away meanwhile is left out.
func walkGroups(mount string) map[uint64]string {
	m := map[uint64]string{}
	c := cgroupFS{mount: mount}
	visit := func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		fi, err := d.Info()
		if err != nil {
			return nil
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			m[st.Ino] = c.below(p)
		}
		return nil
	}
	if err := filepath.WalkDir(mount, visit); err != nil {
		return nil
	}
	return m
}

// cgroupMount finds where the v2 hierarchy is mounted, in the form of
// /proc/PID/mountinfo (proc(5)). Its root counts before a part of it.
func cgroupMount(mountinfo string) (string, error) {
	f, err := os.Open(mountinfo)
	if err != nil {
		return "", fmt.Errorf("read mounts: %w", err)
	}
	defer f.Close()
	found := ""
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		head, tail, ok := strings.Cut(s.Text(), " - ")
		h := strings.Fields(head)
		if !ok || len(h) < 5 || !strings.HasPrefix(tail, "cgroup2 ") {
			continue
		}
		if h[3] == "/" {
			return octal(h[4]), nil
		}
		if found == "" {
			found = octal(h[4])
		}
	}
	if err := s.Err(); err != nil {
		return "", fmt.Errorf("read mounts: %w", err)
	}
	return found, nil
}

// octal undoes the \NNN of mountinfo.
func octal(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
