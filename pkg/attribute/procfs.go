package attribute

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"golang.org/x/sys/unix"
)

// ProcInfo is what /proc tells of a process at one moment.
type ProcInfo struct {
	Ticks          uint64 // start since boot in units of 10 ms (USER_HZ is 100 on every machine we run on)
	Exe            string // "" for kernel threads
	ExeDev, ExeIno uint64 // as kernel dev_t
	Argv           []byte // separated by NUL
	Cwd            string
}

const nsPerTick = 10_000_000

// argvMax bounds the arguments that are taken from /proc, like the wire does.
const argvMax = 64 << 10

// gone reports whether err says that there is no such process.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// readProc reads /proc/PID through one descriptor of the directory: it belongs to
// one process for good, so that all answers are about the same one
// (linux fs/proc/base.c:proc_pid_make_inode).
func readProc(pid uint32) (ProcInfo, error) {
	var p ProcInfo
	dir := "/proc/" + strconv.FormatUint(uint64(pid), 10)
	d, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return p, fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(d)
	stat, err := readAt(d, "stat", 4096)
	if err != nil {
		return p, fmt.Errorf("read %s/stat: %w", dir, err)
	}
	if p.Ticks, err = startTicks(stat); err != nil {
		return p, fmt.Errorf("read %s/stat: %w", dir, err)
	}
	before, err := exeInode(d)
	if errors.Is(err, unix.ENOENT) {
		return p, nil // a kernel thread or a zombie
	}
	if err != nil {
		return p, fmt.Errorf("stat %s/exe: %w", dir, err)
	}
	p.ExeDev, p.ExeIno = kernelDev(before.Dev), before.Ino
	if p.Exe, err = readlinkAt(d, "exe"); err != nil {
		return p, fmt.Errorf("readlink %s/exe: %w", dir, err)
	}
	if p.Cwd, err = readlinkAt(d, "cwd"); err != nil {
		return p, fmt.Errorf("readlink %s/cwd: %w", dir, err)
	}
	if p.Argv, err = readAt(d, "cmdline", argvMax); err != nil {
		return p, fmt.Errorf("read %s/cmdline: %w", dir, err)
	}
	after, err := exeInode(d)
	if err != nil || after.Dev != before.Dev || after.Ino != before.Ino {
		return ProcInfo{}, fmt.Errorf("read %s: it executed something else meanwhile", dir)
	}
	return p, nil
}

func exeInode(d int) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstatat(d, "exe", &st, 0)
	return st, err
}

func readAt(d int, name string, limit int) ([]byte, error) {
	fd, err := unix.Openat(d, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf := make([]byte, 0, 1024)
	for len(buf) < limit {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := unix.Read(fd, buf[len(buf):min(cap(buf), limit)])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		buf = buf[:len(buf)+n]
	}
	return buf, nil
}

func readlinkAt(d int, name string) (string, error) {
	buf := make([]byte, 256)
	for {
		n, err := unix.Readlinkat(d, name, buf)
		if err != nil {
			return "", err
		}
		if n < len(buf) {
			return string(buf[:n]), nil
		}
		buf = make([]byte, 2*len(buf))
	}
}

// startTicks reads field 22 of /proc/PID/stat. The command in field 2 may hold
// anything: fields are counted from its last parenthesis.
func startTicks(stat []byte) (uint64, error) {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, errors.New("no command in it")
	}
	f := bytes.Fields(stat[i+1:])
	if len(f) < 20 {
		return 0, fmt.Errorf("%d fields, want 22", len(f)+2)
	}
	return strconv.ParseUint(string(f[19]), 10, 64)
}

// kernelDev turns a st_dev into the kernel's dev_t
// (linux include/linux/kdev_t.h:new_encode_dev).
func kernelDev(st uint64) uint64 { return uint64(unix.Major(st))<<20 | uint64(unix.Minor(st)) }

// sameInode compares an inode as stat(2) shows it with one as the kernel side
// does. btrfs and overlayfs show another device than that of the superblock; all
// of theirs have major number 0.
func sameInode(statDev, statIno, dev, ino uint64) bool {
	if statIno != ino {
		return false
	}
	return statDev == dev || statDev>>20 == 0 && dev>>20 == 0
}
