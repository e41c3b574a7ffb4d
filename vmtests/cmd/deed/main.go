// Command deed does what programs of every day do not, and attackers may: the deeds of
// the cases of attribution (vmtests/who).
//
//	deed memfd PROGRAM ARGUMENT...   runs a copy of the program that has no name
//	deed send SOCKET FILE            opens the file for writing and gives it to who connects
//	deed receive SOCKET TEXT         takes it and writes the text
//	deed sqpoll FILE TEXT            has a thread of the kernel's write the text
//	deed victim FILE                 prints PID ADDRESS; when the four bytes there change, writes them
//	deed poke PID ADDRESS TEXT       changes them with process_vm_writev(2)
//	deed trace PID ADDRESS TEXT      changes them with ptrace(2)
//	deed storm FILE                  runs processes that end at once until the file exists; prints how many a second
package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/vmtests/uring"
)

func main() {
	deeds := map[string]func(args []string) error{
		"memfd": memfd, "send": send, "receive": receive, "sqpoll": sqpoll, "victim": victim, "poke": poke, "trace": trace, "storm": storm,
	}
	if len(os.Args) < 3 || deeds[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: deed DEED ARGUMENT...; see its source")
		os.Exit(2)
	}
	if err := deeds[os.Args[1]](append(os.Args[2:], "", "")); err != nil {
		fmt.Fprintf(os.Stderr, "deed %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

func memfd(args []string) error {
	b, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("nameless", 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "memfd")
	if _, err := f.Write(b); err != nil {
		return err
	}
	return unix.Exec(fmt.Sprintf("/proc/self/fd/%d", fd), args[:len(args)-2], os.Environ())
}

func send(args []string) error {
	f, err := os.OpenFile(args[1], os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: args[0], Net: "unix"})
	if err != nil {
		return err
	}
	if err := os.Chmod(args[0], 0o777); err != nil {
		return err
	}
	c, err := l.AcceptUnix()
	if err != nil {
		return err
	}
	_, _, err = c.WriteMsgUnix([]byte("x"), unix.UnixRights(int(f.Fd())), nil)
	return err
}

func receive(args []string) error {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: args[0], Net: "unix"})
	if err != nil {
		return err
	}
	oob := make([]byte, 64)
	_, n, _, _, err := c.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return err
	}
	ms, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return err
	}
	fds, err := unix.ParseUnixRights(&ms[0])
	if err != nil {
		return err
	}
	_, err = unix.Write(fds[0], []byte(args[1]+"\n"))
	return err
}

func sqpoll(args []string) error {
	runtime.LockOSThread()
	r, err := uring.New(uring.SQPoll)
	if err != nil {
		return err
	}
	fd, err := unix.Open(args[0], unix.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if err := r.RegisterFiles(int32(fd)); err != nil {
		return err
	}
	text := args[1] + "\n"
	_, err = r.Do(uring.SQE{Op: uring.OpWrite, Flags: uring.FixedFile, FD: 0, Addr: r.Text(text), Length: uint32(len(text))})
	return err
}

// word is what victim watches.
var word = [4]byte{'n', 'o', 'n', 'e'}

func victim(args []string) error {
	at := (*uint32)(unsafe.Pointer(&word))
	was := atomic.LoadUint32(at)
	fmt.Printf("%d %d\n", os.Getpid(), uintptr(unsafe.Pointer(at)))
	for atomic.LoadUint32(at) == was {
		time.Sleep(50 * time.Millisecond)
	}
	f, err := os.OpenFile(args[0], os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(word[:])
	return err
}

func target(args []string) (pid int, at uintptr, err error) {
	if pid, err = strconv.Atoi(args[0]); err != nil {
		return 0, 0, err
	}
	n, err := strconv.ParseUint(args[1], 10, 64)
	return pid, uintptr(n), err
}

func poke(args []string) error {
	pid, at, err := target(args)
	if err != nil {
		return err
	}
	b := []byte(args[2])[:4]
	_, err = unix.ProcessVMWritev(pid, []unix.Iovec{{Base: &b[0], Len: 4}}, []unix.RemoteIovec{{Base: at, Len: 4}}, 0)
	return err
}

func trace(args []string) error {
	runtime.LockOSThread()
	pid, at, err := target(args)
	if err != nil {
		return err
	}
	if err := unix.PtraceAttach(pid); err != nil {
		return err
	}
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, unix.WALL, nil); err != nil {
		return err
	}
	if _, err := unix.PtracePokeData(pid, at, []byte(args[2])[:4]); err != nil {
		return err
	}
	return unix.PtraceDetach(pid)
}

func storm(args []string) error {
	var n atomic.Int64
	var all sync.WaitGroup
	start := time.Now()
	for range 4 {
		all.Go(func() {
			for {
				if _, err := os.Stat(args[0]); err == nil {
					return
				}
				if exec.Command("/usr/bin/true").Run() == nil {
					n.Add(1)
				}
			}
		})
	}
	all.Wait()
	fmt.Printf("%d processes, %.0f a second\n", n.Load(), float64(n.Load())/time.Since(start).Seconds())
	return nil
}
