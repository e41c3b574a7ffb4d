package sense

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// devices finds the block devices below file systems.
type devices struct {
	sys    string // /sys
	mounts []Mount
	files  map[string]bool // of loop devices, noted on the way; nil: not asked for
}

// below returns the device numbers (major:minor) of all block devices that hold
// the bytes of a mount's file system: its own, what that is made of (device
// mapper, md, the file of a loop device), and the disks of partitions.
func (d devices) below(m Mount) map[string]bool {
	found := make(map[string]bool)
	d.mount(m, found, 0)
	return found
}

// maxStack bounds file systems in files of file systems, and overlays of overlays.
const maxStack = 8

func (d devices) mount(m Mount, found map[string]bool, depth int) {
	if depth > maxStack {
		return
	}
	d.device(m.Dev, found, depth)
	switch {
	case m.Type == "overlay":
		for _, o := range strings.Split(m.Super, ",") {
			k, v, _ := strings.Cut(o, "=")
			if k != "upperdir" && k != "workdir" && !strings.HasPrefix(k, "lowerdir") && !strings.HasPrefix(k, "datadir") {
				continue
			}
			for _, p := range strings.Split(v, ":") {
				d.path(unescape(p), found, depth+1)
			}
		}
	case strings.HasPrefix(m.Source, "/"): // the numbers of btrfs and its like are not a device's
		for _, s := range strings.Split(m.Source, ":") {
			var st unix.Stat_t
			if unix.Stat(s, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK {
				d.device(number(st.Rdev), found, depth)
			}
		}
	}
	if m.Type == "btrfs" {
		d.btrfs(found, depth)
	}
}

// path adds what is below the file system that holds a path.
func (d devices) path(p string, found map[string]bool, depth int) {
	fd, err := unix.Open(p, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	id := mountID(fd)
	_ = unix.Close(fd) // O_PATH: nothing can be lost
	for _, m := range d.mounts {
		if m.ID == id {
			d.mount(m, found, depth)
		}
	}
}

// device adds one device and what it is made of.
func (d devices) device(dev string, found map[string]bool, depth int) {
	dir, err := filepath.EvalSymlinks(filepath.Join(d.sys, "dev/block", dev))
	if err != nil || found[dev] || depth > maxStack {
		return
	}
	found[dev] = true
	add := func(dir string) {
		if b, err := os.ReadFile(filepath.Join(dir, "dev")); err == nil {
			d.device(strings.TrimSpace(string(b)), found, depth)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		add(filepath.Dir(dir))
	}
	slaves, err := filepath.Glob(filepath.Join(dir, "slaves/*"))
	if err != nil {
		return // the pattern is fixed
	}
	for _, s := range slaves {
		if s, err := filepath.EvalSymlinks(s); err == nil {
			add(s)
		}
	}
	if file, err := os.ReadFile(filepath.Join(dir, "loop/backing_file")); err == nil {
		p := strings.TrimSuffix(string(file), "\n")
		if d.files != nil {
			d.files[p] = true
		}
		d.path(p, found, depth+1)
	}
}

// btrfs adds the other devices of a file system of which found has one (linux
// fs/btrfs/sysfs.c).
func (d devices) btrfs(found map[string]bool, depth int) {
	all, err := filepath.Glob(filepath.Join(d.sys, "fs/btrfs/*/devices/*"))
	if err != nil {
		return // the pattern is fixed
	}
	sets := make(map[string][]string)
	for _, link := range all {
		dir, err := filepath.EvalSymlinks(link)
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, "dev"))
		if err != nil {
			continue
		}
		fs := filepath.Dir(filepath.Dir(link))
		sets[fs] = append(sets[fs], strings.TrimSpace(string(b)))
	}
	for _, set := range sets {
		has := false
		for _, dev := range set {
			has = has || found[dev]
		}
		if !has {
			continue
		}
		for _, dev := range set {
			d.device(dev, found, depth)
		}
	}
}

func number(rdev uint64) string {
	return strconv.FormatUint(uint64(unix.Major(rdev)), 10) + ":" + strconv.FormatUint(uint64(unix.Minor(rdev)), 10)
}

// kernelNumber is a device number as the kernel has it (linux include/linux/kdev_t.h).
func kernelNumber(dev string) (uint64, bool) {
	major, minor, _ := strings.Cut(dev, ":")
	a, err := strconv.ParseUint(major, 10, 12)
	b, merr := strconv.ParseUint(minor, 10, 20)
	return a<<20 | b, err == nil && merr == nil
}
