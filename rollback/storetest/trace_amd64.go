package storetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Call is a system call that a traced process is about to make on a file.
type Call struct {
	Name   string
	Object string // its path
	Reads  bool   // it changes nothing
}

// Act is what becomes of a call. The zero Act lets it pass.
type Act struct {
	Err   unix.Errno // it is not made, and this is its answer
	Short bool       // a read gives half of what was asked for, and one byte at least
	Kill  bool       // the process dies, as by kill -9, instead
}

// where tells which arguments of a call name its object.
type where int

const (
	byFD   where = iota // a descriptor, the first one
	byPath              // a path, the first one
	byAt                // a directory and a name, the first two
	byTo                // a directory and a name, the second and third
)

// calls are those on files, by their numbers (linux arch/x86/entry/syscalls/syscall_64.tbl).
var calls = map[uint64]struct {
	name  string
	where where
	reads bool
}{
	unix.SYS_READ: {"read", byFD, true}, unix.SYS_PREAD64: {"pread64", byFD, true}, unix.SYS_LSEEK: {"lseek", byFD, true}, unix.SYS_GETDENTS64: {"getdents64", byFD, true},
	unix.SYS_FSTAT: {"fstat", byFD, true}, unix.SYS_FSTATFS: {"fstatfs", byFD, true}, unix.SYS_FGETXATTR: {"fgetxattr", byFD, true}, unix.SYS_FLISTXATTR: {"flistxattr", byFD, true},
	unix.SYS_OPENAT: {"openat", byAt, true}, unix.SYS_OPENAT2: {"openat2", byAt, true}, unix.SYS_NEWFSTATAT: {"newfstatat", byAt, true}, unix.SYS_STATX: {"statx", byAt, true},
	unix.SYS_READLINKAT: {"readlinkat", byAt, true}, unix.SYS_STATFS: {"statfs", byPath, true}, unix.SYS_GETXATTR: {"getxattr", byPath, true}, unix.SYS_LISTXATTR: {"listxattr", byPath, true},
	unix.SYS_LGETXATTR: {"lgetxattr", byPath, true}, unix.SYS_LLISTXATTR: {"llistxattr", byPath, true}, unix.SYS_READLINK: {"readlink", byPath, true},

	unix.SYS_WRITE: {"write", byFD, false}, unix.SYS_PWRITE64: {"pwrite64", byFD, false}, unix.SYS_FSYNC: {"fsync", byFD, false}, unix.SYS_SYNCFS: {"syncfs", byFD, false},
	unix.SYS_FTRUNCATE: {"ftruncate", byFD, false}, unix.SYS_FALLOCATE: {"fallocate", byFD, false}, unix.SYS_IOCTL: {"ioctl", byFD, false},
	unix.SYS_FCHOWNAT: {"fchownat", byAt, false}, unix.SYS_UTIMENSAT: {"utimensat", byAt, false}, unix.SYS_UNLINKAT: {"unlinkat", byAt, false}, unix.SYS_MKDIRAT: {"mkdirat", byAt, false},
	unix.SYS_MKNODAT: {"mknodat", byAt, false}, unix.SYS_RENAMEAT2: {"renameat2", byAt, false}, unix.SYS_LINKAT: {"linkat", byAt, false}, unix.SYS_FCHMODAT: {"fchmodat", byAt, false},
	unix.SYS_SYMLINKAT: {"symlinkat", byTo, false}, unix.SYS_CHMOD: {"chmod", byPath, false}, unix.SYS_SETXATTR: {"setxattr", byPath, false}, unix.SYS_REMOVEXATTR: {"removexattr", byPath, false},
}

// Trace runs a command and asks at before each call on a file below a directory, in the
// order in which they are made. died tells that it was killed, exit what it ended with else.
func Trace(t testing.TB, c *exec.Cmd, below string, at func(Call) Act) (died bool, exit int, out string) {
	t.Helper()
	runtime.LockOSThread() // ptrace(2) is of one thread
	defer runtime.UnlockOSThread()
	said, err := os.CreateTemp(t.TempDir(), "said")
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	c.Stdout, c.Stderr = said, said
	c.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	tr := tracer{t: t, pid: c.Process.Pid, below: below, at: at, inside: map[int]*unix.Errno{}}
	ws := tr.run()
	if err := c.Process.Release(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(said.Name())
	if err != nil {
		t.Fatal(err)
	}
	return ws.Signaled() && ws.Signal() == unix.SIGKILL, ws.ExitStatus(), string(text)
}

type tracer struct {
	t      testing.TB
	pid    int
	below  string
	at     func(Call) Act
	inside map[int]*unix.Errno // the threads in a call, with the answer that is given in its place
}

func (tr *tracer) run() (ws unix.WaitStatus) {
	if _, err := unix.Wait4(tr.pid, &ws, 0, nil); err != nil || !ws.Stopped() {
		tr.t.Fatalf("traced process: %v, %#x", err, ws)
	}
	if err := unix.PtraceSetOptions(tr.pid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_EXITKILL); err != nil {
		tr.t.Fatal(err)
	}
	tid, signal, known := tr.pid, 0, map[int]bool{tr.pid: true}
	for {
		if err := unix.PtraceSyscall(tid, signal); err != nil && err != unix.ESRCH { // killed meanwhile
			tr.t.Fatal(err)
		}
		for {
			var err error
			if tid, err = unix.Wait4(-tr.pid, &ws, unix.WALL, nil); err == unix.EINTR {
				continue
			} else if err != nil {
				tr.t.Fatal(err)
			}
			if ws.Stopped() {
				break
			}
			if tid == tr.pid {
				return ws
			}
		}
		signal = 0
		switch sig := ws.StopSignal(); {
		case sig == unix.SIGTRAP|0x80:
			tr.call(tid)
		case sig == unix.SIGTRAP && ws.TrapCause() > 0: // a clone
		case sig == unix.SIGSTOP && !known[tid]: // a thread begins
		default:
			signal = int(sig)
		}
		known[tid] = true
	}
}

// call is at the begin or the end of a call of a thread.
func (tr *tracer) call(tid int) {
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &regs); err != nil {
		return // it is dying
	}
	if answer, ends := tr.inside[tid]; ends {
		delete(tr.inside, tid)
		if answer != nil {
			regs.Rax = -uint64(*answer)
			tr.set(tid, &regs)
		}
		return
	}
	tr.inside[tid] = nil
	c, ok := calls[regs.Orig_rax]
	if !ok {
		return
	}
	object := tr.object(tid, c.where, &regs)
	if object != tr.below && !strings.HasPrefix(object, tr.below+"/") {
		return
	}
	reads := c.reads
	switch regs.Orig_rax {
	case unix.SYS_IOCTL:
		reads = regs.Rsi>>30 == 2 // _IOR
	case unix.SYS_OPENAT:
		reads = regs.Rdx&(unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY) == 0
	}
	switch act := tr.at(Call{c.name, object, reads}); {
	case act.Kill:
		if err := unix.Kill(tr.pid, unix.SIGKILL); err != nil {
			tr.t.Fatal(err)
		}
	case act.Err != 0:
		regs.Orig_rax = ^uint64(0)
		tr.set(tid, &regs)
		tr.inside[tid] = &act.Err
	case act.Short && (c.name == "read" || c.name == "pread64") && regs.Rdx > 1:
		regs.Rdx /= 2
		tr.set(tid, &regs)
	}
}

func (tr *tracer) set(tid int, regs *unix.PtraceRegs) {
	if err := unix.PtraceSetRegs(tid, regs); err != nil && err != unix.ESRCH {
		tr.t.Fatal(err)
	}
}

// object is the path that a call is about.
func (tr *tracer) object(tid int, w where, regs *unix.PtraceRegs) string {
	switch w {
	case byFD:
		return tr.link(tid, int32(regs.Rdi))
	case byPath:
		return tr.path(tid, "", regs.Rdi)
	case byTo:
		return tr.path(tid, tr.link(tid, int32(regs.Rsi)), regs.Rdx)
	}
	return tr.path(tid, tr.link(tid, int32(regs.Rdi)), regs.Rsi)
}

func (tr *tracer) link(tid int, fd int32) string {
	to, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(tid), "fd", strconv.Itoa(int(fd))))
	if err != nil {
		return ""
	}
	return to
}

func (tr *tracer) path(tid int, dir string, addr uint64) string {
	if addr == 0 {
		return dir
	}
	b := make([]byte, 4096)
	n, _ := unix.PtracePeekData(tid, uintptr(addr), b) // as much as is mapped
	name, _, _ := strings.Cut(string(b[:n]), "\x00")
	if fd, ok := strings.CutPrefix(name, "/proc/self/fd/"); ok {
		to, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(tid), "fd", fd))
		if err != nil {
			return ""
		}
		return to
	}
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}
