package sense

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/policy"
)

// Mount is one mount of this process's mount namespace, as a line of
// /proc/self/mountinfo tells it (linux Documentation/filesystems/proc.rst 3.5).
type Mount struct {
	ID, Parent uint64
	Dev        string // major:minor of the file system
	Root       string // the directory of the file system that is mounted
	At         string // the mount point
	Options    string // of the mount
	Type       string // of the file system
	Source     string
	Super      string // options of the file system

	Shared, Master uint64 // the peer group that it shares its mounts with, and the one that it gets mounts from; 0: none
}

// Mounts reads the table of mounts, those that are covered by others included.
func Mounts() ([]Mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseMounts(f)
}

func parseMounts(r io.Reader) ([]Mount, error) {
	var out []Mount
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		left, right, ok := strings.Cut(sc.Text(), " - ")
		f, g := strings.Fields(left), strings.Fields(right)
		if !ok || len(f) < 6 || len(g) < 1 {
			continue
		}
		m := Mount{Dev: f[2], Root: unescape(f[3]), At: unescape(f[4]), Options: f[5], Type: g[0]}
		var err, perr error
		m.ID, err = strconv.ParseUint(f[0], 10, 64)
		m.Parent, perr = strconv.ParseUint(f[1], 10, 64)
		if err != nil || perr != nil {
			continue
		}
		if len(g) > 1 {
			m.Source = unescape(g[1])
		}
		if len(g) > 2 {
			m.Super = g[2]
		}
		for _, tag := range f[6:] {
			k, v, _ := strings.Cut(tag, ":")
			n, err := strconv.ParseUint(v, 10, 32)
			switch {
			case err != nil:
			case k == "shared":
				m.Shared = n
			case k == "master":
				m.Master = n
			}
		}
		out = append(out, m)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read mountinfo: %w", err)
	}
	return out, nil
}

// Spreads reports whether what is mounted at or taken from one path is so at the
// other one too, because of the groups of the mounts that hold them (linux
// Documentation/filesystems/sharedsubtree.rst): these show the same directory there,
// and the second gets what the first shares.
func Spreads(table []Mount, from, to string) bool {
	byID := make(map[uint64]Mount, len(table))
	for _, m := range table {
		byID[m.ID] = m
	}
	parents := func(at string) (out []Mount) {
		for _, m := range table {
			if p, ok := byID[m.Parent]; ok && m.At == at && policy.Within(p.At, at) {
				out = append(out, p)
			}
		}
		return out
	}
	for _, f := range parents(from) {
		for _, t := range parents(to) {
			if f.ID != t.ID && f.Dev == t.Dev && f.inside(from) == t.inside(to) && reaches(table, f.Shared, t) {
				return true
			}
		}
	}
	return false
}

// inside is the directory of the file system that the mount shows at a path.
func (m Mount) inside(at string) string {
	return filepath.Join(m.Root, strings.TrimPrefix(at, m.At))
}

// reaches reports whether a mount gets what is mounted in a peer group, be it by way
// of other groups.
func reaches(table []Mount, group uint64, to Mount) bool {
	if group == 0 {
		return false
	}
	got := []uint64{group}
	for i := 0; i < len(got); i++ {
		if to.Shared == got[i] || to.Master == got[i] {
			return true
		}
		for _, m := range table {
			if m.Master == got[i] && m.Shared != 0 && !slices.Contains(got, m.Shared) {
				got = append(got, m.Shared)
			}
		}
	}
	return false
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// kernelMade are file systems whose files the kernel makes up, and autofs, where
// to look is to mount.
var kernelMade = [...]string{
	"autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs", "fusectl",
	"hugetlbfs", "mqueue", "nsfs", "proc", "pstore", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tracefs",
}

// Watchable reports whether a rule for a path above the mount reaches into it.
func (m Mount) Watchable() bool {
	for _, no := range []string{"/proc", "/sys", "/dev"} {
		if policy.Within(no, m.At) {
			return false
		}
	}
	return !slices.Contains(kernelMade[:], m.Type)
}

// WatchMounts calls changed whenever the table of mounts has changed, until ctx
// ends: the kernel makes an open mountinfo ready with POLLPRI (linux
// fs/proc_namespace.c mounts_poll).
func WatchMounts(ctx context.Context, changed func()) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := awaitReady(ctx, int32(f.Fd()), unix.POLLPRI, changed); err != nil {
		return fmt.Errorf("watch mounts: %w", err)
	}
	return nil
}

// awaitReady calls ready whenever a descriptor is ready for an event, until ctx ends.
func awaitReady(ctx context.Context, fd int32, event int16, ready func()) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	stop := context.AfterFunc(ctx, func() { w.Close() })
	defer func() {
		if stop() {
			w.Close()
		}
	}()
	fds := []unix.PollFd{{Fd: fd, Events: event}, {Fd: int32(r.Fd()), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case fds[1].Revents != 0:
			return ctx.Err()
		case fds[0].Revents != 0:
			ready()
		}
	}
}

// mountID is the mount that an open file was reached by; 0 before linux v5.8.
func mountID(fd int) uint64 {
	var st unix.Statx_t
	if unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st) != nil || st.Mask&unix.STATX_MNT_ID == 0 {
		return 0
	}
	return st.Mnt_id
}
