package main

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/vmtests/uring"
)

// newRing is a ring; a kernel without has no effect.
func newRing(flags uint32) (*uring.Ring, error) {
	r, err := uring.New(flags)
	var e unix.Errno
	if errors.As(err, &e) {
		return nil, noEffect("io_uring_setup: " + unix.ErrnoName(e))
	}
	return r, err
}

// do makes requests of which only failing tells something.
func do(r *uring.Ring, list ...uring.SQE) error {
	_, err := r.Do(list...)
	return err
}

// ringActs do what the others do, by io_uring.
func ringActs() []act {
	over := func(setup uint32, f func(r *uring.Ring, fd int) error) func(*scene) (func() (outcome, error), error) {
		return held(unix.O_RDWR, func(fd int, c []byte) (outcome, error) {
			r, err := newRing(setup)
			if err != nil {
				return outcome{}, err
			}
			return holds(overwritten(c)), f(r, fd)
		})
	}
	now := func(after func(s *scene) outcome, f func(r *uring.Ring, s *scene) error) func(*scene) (outcome, error) {
		return func(s *scene) (outcome, error) {
			r, err := newRing(0)
			if err != nil {
				return outcome{}, err
			}
			return after(s), f(r, s)
		}
	}
	as := func(o outcome) func(*scene) outcome { return func(*scene) outcome { return o } }
	put := func(r *uring.Ring, fd int32, flags uint8) uring.SQE {
		return uring.SQE{Op: uring.OpWrite, Flags: flags, FD: fd, Addr: r.Text(written), Length: uint32(len(written))}
	}
	list := []act{
		{name: "ur_write", op: "write", have: file, hold: over(0, func(r *uring.Ring, fd int) error { return do(r, put(r, int32(fd), 0)) })},
		{name: "ur_write_async", op: "write", have: file, hold: over(0, func(r *uring.Ring, fd int) error { return do(r, put(r, int32(fd), uring.Async)) })},
		{name: "ur_write_registered", op: "write", have: file, hold: over(0, func(r *uring.Ring, fd int) error {
			return errors.Join(r.RegisterFiles(int32(fd)), do(r, put(r, 0, uring.FixedFile)))
		})},
		{name: "ur_write_fixed", op: "write", have: file, hold: over(0, func(r *uring.Ring, fd int) error {
			m, err := anonymous(4096)
			copy(m, written)
			return errors.Join(err, r.RegisterBuffer(m), do(r, uring.SQE{Op: uring.OpWriteFixed, FD: int32(fd), Addr: address(m), Length: uint32(len(written))}))
		})},
		{name: "ur_splice", op: "write", have: file, hold: over(0, func(r *uring.Ring, fd int) error {
			p, err := pipe()
			if err != nil {
				return err
			}
			return do(r, uring.SQE{Op: uring.OpSplice, FD: int32(fd), Off: ^uint64(0), Addr: ^uint64(0), Length: uint32(len(written)), File: uint32(p)})
		})},
		{name: "ur_sqpoll_write", op: "write", have: file, hold: over(uring.SQPoll, func(r *uring.Ring, fd int) error {
			return errors.Join(r.RegisterFiles(int32(fd)), do(r, put(r, 0, uring.FixedFile)))
		})},
		{name: "ur_fallocate", op: "write,truncate", have: blocks, hold: held(unix.O_RDWR, func(fd int, c []byte) (outcome, error) {
			r, err := newRing(0)
			if err != nil {
				return outcome{}, err
			}
			clear(c[:4096])
			return holds(c), do(r, uring.SQE{Op: uring.OpFallocate, Flags: uring.Async, FD: int32(fd), Length: unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, Addr: 4096})
		})},
		{name: "ur_ftruncate", op: "truncate", have: file, hold: held(unix.O_RDWR, func(fd int, c []byte) (outcome, error) {
			r, err := newRing(0)
			if err != nil {
				return outcome{}, err
			}
			return holds(c[:cut]), do(r, uring.SQE{Op: uring.OpFtruncate, FD: int32(fd), Off: cut})
		})},
		{name: "ur_fsetxattr", op: "setxattr", have: file, hold: held(unix.O_RDONLY, func(fd int, _ []byte) (outcome, error) {
			r, err := newRing(0)
			if err != nil {
				return outcome{}, err
			}
			return same(), do(r, uring.SQE{Op: uring.OpFsetxattr, Flags: uring.Async, FD: int32(fd), Addr: r.Text("user.act"), Off: r.Text("set"), Length: 3})
		})},
		{name: "ur_setxattr", op: "setxattr", have: file, do: now(as(same()), func(r *uring.Ring, s *scene) error {
			return do(r, uring.SQE{Op: uring.OpSetxattr, Flags: uring.Async, Addr: r.Text("user.act"), Off: r.Text("set"), Length: 3, Addr3: r.Text(s.path)})
		})},
		{name: "ur_open_write", op: "write", have: file, do: now(overwrites, func(r *uring.Ring, s *scene) error {
			fd, err := r.Open(s.path, unix.O_WRONLY, 0, 0)
			if err != nil {
				return err
			}
			return errors.Join(do(r, put(r, int32(fd), 0)), unix.Close(fd))
		})},
		{name: "ur_open_async", op: "truncate,write", have: file, do: now(as(holds([]byte{})), func(r *uring.Ring, s *scene) error {
			fd, err := r.Open(s.path, unix.O_WRONLY|unix.O_TRUNC, 0, uring.Async)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		})},
		{name: "ur_open_direct_linked", op: "write", have: file, do: now(overwrites, func(r *uring.Ring, s *scene) error {
			// opened into the ring's own table, where no descriptor ever shows, and written in one go
			if err := r.RegisterFiles(-1); err != nil {
				return err
			}
			open := uring.SQE{Op: uring.OpOpenat, Flags: uring.Linked, FD: unix.AT_FDCWD, Addr: r.Text(s.path), OpFlags: unix.O_WRONLY, File: 1}
			return do(r, open, put(r, 0, uring.FixedFile))
		})},
		{name: "ur_unlink", op: "unlink", have: file, do: now(as(gone()), func(r *uring.Ring, s *scene) error {
			return do(r, uring.Named(uring.OpUnlinkat, r.Text(s.path)))
		})},
		{name: "ur_rename", op: "rename", have: file, to: inTree, do: now(unchanged, func(r *uring.Ring, s *scene) error {
			return do(r, uring.Two(uring.OpRenameat, r.Text(s.path), r.Text(s.to)))
		})},
		{name: "ur_link", op: "link", have: file, to: inTree, do: now(unchanged, func(r *uring.Ring, s *scene) error {
			return do(r, uring.Two(uring.OpLinkat, r.Text(s.path), r.Text(s.to)))
		})},
		{name: "ur_mkdir", op: "mkdir", do: now(as(same()), func(r *uring.Ring, s *scene) error {
			q := uring.Named(uring.OpMkdirat, r.Text(s.path))
			q.Length = 0o755
			return do(r, q)
		})},
		{name: "ur_symlink", op: "symlink", do: now(as(outcome{mode: -1, uid: -1, target: "/etc/hostname"}), func(r *uring.Ring, s *scene) error {
			q := uring.Named(uring.OpSymlinkat, r.Text("/etc/hostname"))
			q.Off = r.Text(s.path)
			return do(r, q)
		})},
	}
	for i := range list {
		list[i].from = inTree
	}
	return list
}

func overwrites(s *scene) outcome { return holds(overwritten(s.content)) }
func unchanged(s *scene) outcome  { return holds(s.content) }
