package pipeline

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// inode returns where the file of an event is known to lie, of which the kernel side
// knew the inode alone.
func (p *Pipeline) inode(ev *event.Event) (path string, ok bool) {
	known := p.states.Known()
	dev := unix.Mkdev(uint32(ev.Dev>>20), uint32(ev.Dev&0xfffff)) // linux include/linux/kdev_t.h
	if path, ok = known.Inode(dev, ev.Ino); ok {
		return path, true
	}
	// A subvolume of btrfs has a device number of its own, which the inode's file system
	// does not tell (linux v6.1 fs/btrfs/inode.c:btrfs_getattr); it may be that of the tree.
	root, _, ok := p.o.Anchors.Path(ev.Anchor)
	if !ok {
		return "", false
	}
	s, ok := known.Get(root)
	if !ok || s.State.Dev == dev {
		return "", false
	}
	path, ok = known.Inode(s.State.Dev, ev.Ino)
	return path, ok && btrfsGeneration(path) == int64(ev.Gen)
}

// btrfsGeneration is the generation of a file of btrfs, by its handle (linux v6.1
// fs/btrfs/export.h:struct btrfs_fid); -1: it is none.
func btrfsGeneration(path string) int64 {
	const withoutParent, gen = 0x4d, 16 // FILEID_BTRFS_WITHOUT_PARENT; behind the numbers of inode and subvolume
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
	if err != nil || h.Type() != withoutParent || h.Size() < gen+4 {
		return -1
	}
	return int64(binary.LittleEndian.Uint32(h.Bytes()[gen:]))
}
