package pipelinetest

import (
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// Actor changes files of a Scene and tells of it like the kernel side.
type Actor struct {
	S   *Scene
	PID uint32
	// Flags are on each of its events.
	Flags uint16

	openers *atomic.Uint64
}

// Actor returns an actor with a pid.
func (s *Scene) Actor(pid uint32) *Actor {
	return &Actor{S: s, PID: pid, openers: new(atomic.Uint64)}
}

func (a *Actor) event(op event.Op, path string) event.Event {
	now := Clock{}.Boot()
	return event.Event{
		Kind: event.KindFile, Op: op, Flags: a.Flags, Time: now, First: now, Count: 1,
		Key: event.ProcKey{PID: a.PID, Start: 1}, Creds: event.Creds{UID: a.PID},
		Anchor: 1, Path: []byte(path),
	}
}

func inode(ev *event.Event, st *unix.Stat_t) {
	ev.Ino, ev.Nlink, ev.FMode = st.Ino, uint32(st.Nlink), uint16(st.Mode)
	ev.Dev = uint64(unix.Major(st.Dev))<<20 | uint64(unix.Minor(st.Dev))
}

// Write opens, writes and closes. It creates the file unless flags lack O_CREAT.
func (a *Actor) Write(path, content string, flags int) error {
	full := a.S.At(path)
	_, err := os.Lstat(full)
	made := err != nil
	f, err := os.OpenFile(full, os.O_WRONLY|flags, 0o644)
	if err != nil {
		return err
	}
	id := a.openers.Add(1) + uint64(a.PID)<<32
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	ev := a.event(event.OpOpen, path)
	inode(&ev, &st)
	ev.Opener, ev.Arg = id, uint64(flags)
	if made {
		ev.Flags |= event.FlagCreated
	}
	a.S.Feed(ev)
	if _, err := f.WriteString(content); err != nil {
		return err
	}
	first := a.event(event.OpWrite, path)
	inode(&first, &st)
	first.Opener, first.Bytes, first.Flags = id, uint64(len(content)), first.Flags|event.FlagFirst
	a.S.Feed(first)
	closed := a.event(event.OpClose, path)
	inode(&closed, &st)
	closed.Opener, closed.Bytes, closed.First = id, first.Bytes, first.First
	if err := f.Close(); err != nil {
		return err
	}
	a.S.Feed(closed)
	return nil
}

// Simple does an operation on one name and tells of it.
func (a *Actor) Simple(op event.Op, path string, do func(full string) error) error {
	if err := do(a.S.At(path)); err != nil {
		return err
	}
	a.S.Feed(a.event(op, path))
	return nil
}

// Chmod changes the mode.
func (a *Actor) Chmod(path string, mode os.FileMode) error {
	return a.Simple(event.OpChmod, path, func(p string) error { return os.Chmod(p, mode) })
}

// Remove unlinks a file or removes a directory.
func (a *Actor) Remove(path string) error {
	op := event.OpUnlink
	if st, err := os.Lstat(a.S.At(path)); err == nil && st.IsDir() {
		op = event.OpRmdir
	}
	return a.Simple(op, path, os.Remove)
}

// Mkdir makes a directory.
func (a *Actor) Mkdir(path string) error {
	return a.Simple(event.OpMkdir, path, func(p string) error { return os.Mkdir(p, 0o755) })
}

// Symlink makes a symlink.
func (a *Actor) Symlink(target, path string) error {
	return a.Simple(event.OpSymlink, path, func(p string) error { return os.Symlink(target, p) })
}

// Rename moves within the tree.
func (a *Actor) Rename(from, to string) error {
	if err := os.Rename(a.S.At(from), a.S.At(to)); err != nil {
		return err
	}
	ev := a.event(event.OpRename, from)
	ev.Anchor2, ev.Path2 = 1, []byte(to)
	a.S.Feed(ev)
	return nil
}

// Exchange swaps two names.
func (a *Actor) Exchange(one, other string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, a.S.At(one), unix.AT_FDCWD, a.S.At(other), unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	ev := a.event(event.OpRename, one)
	ev.Anchor2, ev.Path2, ev.Arg = 1, []byte(other), unix.RENAME_EXCHANGE
	a.S.Feed(ev)
	return nil
}

// MoveIn renames from outside, MoveOut to outside.
func (a *Actor) MoveIn(outside, to string) error {
	if err := os.Rename(a.S.Outside+"/"+outside, a.S.At(to)); err != nil {
		return err
	}
	ev := a.event(event.OpRename, "")
	ev.Anchor, ev.Anchor2, ev.Path2 = 0, 1, []byte(to)
	a.S.Feed(ev)
	return nil
}

// MoveOut renames to outside.
func (a *Actor) MoveOut(from, outside string) error {
	if err := os.Rename(a.S.At(from), a.S.Outside+"/"+outside); err != nil {
		return err
	}
	a.S.Feed(a.event(event.OpRename, from))
	return nil
}

// Link makes a hard link.
func (a *Actor) Link(from, to string) error {
	if err := os.Link(a.S.At(from), a.S.At(to)); err != nil {
		return err
	}
	ev := a.event(event.OpLink, from)
	ev.Anchor2, ev.Path2 = 1, []byte(to)
	a.S.Feed(ev)
	return nil
}
