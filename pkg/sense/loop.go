package sense

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/policy"
)

// loop is a loop device and what it is made of.
type loop struct {
	name     string
	files    []string        // the paths of its file
	dev, ino uint64          // of the file, as stat(2) gives them
	devices  map[string]bool // major:minor of itself, its partitions, and what is made of these
}

// loops lists the loop devices whose file has a path here. A file that is in another
// mount namespace or root has none, nor has one that was unlinked.
func (d devices) loops() []loop {
	all, err := filepath.Glob(filepath.Join(d.sys, "block/*/loop/backing_file"))
	if err != nil {
		return nil // the pattern is fixed
	}
	var out []loop
	for _, name := range all {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it is bound to nothing any more
		}
		file := strings.TrimSuffix(string(b), "\n")
		dir := filepath.Dir(filepath.Dir(name))
		var st unix.Stat_t
		if unix.Lstat(file, &st) != nil || !madeOf(filepath.Base(dir), &st) {
			continue
		}
		l := loop{name: filepath.Base(dir), files: d.aliases(file), dev: st.Dev, ino: st.Ino, devices: make(map[string]bool)}
		d.madeFrom(dir, l.devices, 0)
		out = append(out, l)
	}
	return out
}

// madeOf reports whether the loop device of this name is made of a file, as far as it
// says: the path that the kernel prints may be one of another namespace.
func madeOf(name string, file *unix.Stat_t) bool {
	f, err := os.OpenFile(filepath.Join("/dev", name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer f.Close()
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	return err != nil || info.Inode == file.Ino
}

// aliases lists the paths at which the file at path is to be seen: that one, and those
// by other mounts of its file system.
func (d devices) aliases(path string) []string {
	out := []string{path}
	var own Mount
	for _, m := range d.mounts {
		if policy.Within(m.At, path) && len(m.At) >= len(own.At) {
			own = m
		}
	}
	if own.ID == 0 {
		return out
	}
	inside := own.inside(path)
	for _, m := range d.mounts {
		if m.ID != own.ID && m.Dev == own.Dev && policy.Within(m.Root, inside) {
			out = append(out, filepath.Join(m.At, strings.TrimPrefix(inside, m.Root)))
		}
	}
	return out
}

// madeFrom adds the block device of a directory of /sys, and all that is made of it:
// partitions, device mapper, md.
func (d devices) madeFrom(dir string, found map[string]bool, depth int) {
	b, err := os.ReadFile(filepath.Join(dir, "dev"))
	dev := strings.TrimSpace(string(b))
	if err != nil || found[dev] || depth > maxStack {
		return
	}
	found[dev] = true
	for _, pattern := range []string{"*/partition", "holders/*/dev"} {
		parts, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return // the pattern is fixed
		}
		for _, p := range parts {
			if p, err := filepath.EvalSymlinks(filepath.Dir(p)); err == nil {
				d.madeFrom(p, found, depth+1)
			}
		}
	}
}

// Loop is a watched file of which a loop device is made: what is written to that is
// written to the file.
type Loop struct {
	Rule    int
	Path    string
	Device  string // its name
	Mounted string // where a file system on it is mounted; "": nowhere here
}

// Loops lists the watched files of loop devices, as of the last call of Arm.
func (s *Sensor) Loops() []Loop {
	s.armMu.Lock()
	defer s.armMu.Unlock()
	return s.loops
}

// mountedOn returns where a file system on one of these devices is mounted.
func mountedOn(mounts []Mount, devs map[string]bool) string {
	for _, m := range mounts {
		if devs[m.Dev] {
			return m.At
		}
	}
	return ""
}

// WatchLoops calls changed whenever a loop device was bound to a file or let go, until
// ctx ends: the kernel tells of changes of block devices (linux v6.1
// drivers/block/loop.c, KOBJ_CHANGE).
func WatchLoops(ctx context.Context, changed func()) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return fmt.Errorf("watch loop devices: %w", err)
	}
	f := os.NewFile(uintptr(fd), "uevent")
	defer f.Close()
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return fmt.Errorf("watch loop devices: %w", err)
	}
	was := bindings()
	buf := make([]byte, 8<<10) // a message has at most 2 KiB of variables (linux include/linux/kobject.h)
	err = awaitReady(ctx, int32(fd), unix.POLLIN, func() {
		about := false
		for {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				about = about || err != unix.EAGAIN // messages were lost
				break
			}
			about = about || bytes.Contains(buf[:n], []byte("/block/loop"))
		}
		if is := bindings(); about && is != was {
			was = is
			changed()
		}
	})
	if err != nil {
		return fmt.Errorf("watch loop devices: %w", err)
	}
	return nil
}

// bindings tells which loop devices are made of which files.
func bindings() string {
	all, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return "" // the pattern is fixed
	}
	var out strings.Builder
	for _, name := range all {
		b, err := os.ReadFile(name)
		if err == nil { // else it is bound to nothing any more
			fmt.Fprintf(&out, "%s\n%s", name, b)
		}
	}
	return out.String()
}
