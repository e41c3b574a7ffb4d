package sense

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/bpf"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/policy"
)

// The flags of a mark (bpf/maps.h, MARK_*).
const (
	markRoot    = 1
	markNames   = 2
	markExcept  = 8
	markPending = 16
	markLink    = 32
	markBelow   = 64
)

// keys is what is written to the kernel's maps.
type keys struct {
	marks     map[uint64]bpf.TracerMark
	names     map[bpf.TracerNameKey]bpf.TracerMark
	ancestors map[uint64]bpf.TracerMark
	mounts    map[uint64]bpf.TracerMark
	fs        map[uint64]bpf.TracerMark
	devices   map[uint64]bpf.TracerMark
	allowed   map[bpf.TracerExeKey]uint32
	lone      map[uint64]bool // of fs: with a mark on a file that has one name
	strict    map[uint64]bool // of fs: with marks of mode block
}

func newKeys() keys {
	return keys{
		marks: make(map[uint64]bpf.TracerMark), names: make(map[bpf.TracerNameKey]bpf.TracerMark),
		ancestors: make(map[uint64]bpf.TracerMark), mounts: make(map[uint64]bpf.TracerMark),
		fs: make(map[uint64]bpf.TracerMark), devices: make(map[uint64]bpf.TracerMark),
		allowed: make(map[bpf.TracerExeKey]uint32), lone: make(map[uint64]bool), strict: make(map[uint64]bool),
	}
}

// strictest returns the mark with the stricter mode, old if both are alike.
func strictest(old, add bpf.TracerMark) bpf.TracerMark {
	if add.Mode > old.Mode {
		return add
	}
	return old
}

// resolve asks the kernel for the addresses behind the descriptors. Where two
// rules mark one inode, root wins over ancestor and a name keeps its first root.
func (a *arming) resolve() (keys, error) {
	rows, err := a.s.learnInodes()
	if err != nil {
		return keys{}, err
	}
	k := newKeys()
	for _, w := range a.wants {
		row, ok := rows[int(w.file.Fd())]
		if !ok {
			return keys{}, fmt.Errorf("mark %s: the kernel does not show its inode", w.file.Name())
		}
		switch {
		case w.exe:
			k.allowed[bpf.TracerExeKey{Inode: row.Inode, Rule: uint64(w.allow)}] = 1
			continue
		case w.above:
			k.ancestors[row.Inode] = strictest(k.ancestors[row.Inode], w.mark)
			continue // what only leads to a watched file system need not be on it
		case w.name != "":
			key := bpf.TracerNameKey{Dir: row.Inode, Hash: nameHash(w.name)}
			k.names[key] = merge(k.names[key], w.mark)
			k.marks[row.Inode] = merge(k.marks[row.Inode], bpf.TracerMark{Flags: markNames})
		default:
			k.marks[row.Inode] = merge(k.marks[row.Inode], w.mark)
			if anchor, ok := a.anchors[w.mark.Anchor]; ok && w.mark.Flags&markBelow == 0 { // what the device below is made of is not the place
				anchor.Inode = row.Inode
				a.anchors[anchor.ID] = anchor
			}
			alone, err := oneName(w.file.File)
			if err != nil {
				return keys{}, err
			}
			if alone {
				k.lone[row.Sb] = true
			}
		}
		mark := w.mark
		if mark.Mode == modeNumber(event.ModeBlock) {
			k.strict[row.Sb] = true
		}
		if mark.Anchor == 0 || mark.Rule == RuleOwn || mark.Flags == markBelow {
			mark.Mode = 0 // a name that is left out or waited for; where we live or a device does, the host may be looked after
		}
		k.fs[row.Sb] = strictest(k.fs[row.Sb], mark)
	}
	a.around(&k)
	return k, nil
}

// around fills in what is not an inode: mounts, and the devices below them.
func (a *arming) around(k *keys) {
	maps.Copy(k.mounts, a.way)
	d := devices{sys: "/sys", mounts: a.mounts}
	for _, m := range a.mounts {
		if mark, ok := a.way[m.ID]; ok {
			for _, g := range []uint64{m.Shared, m.Master} {
				if g != 0 {
					k.mounts[mountGroup|g] = strictest(k.mounts[mountGroup|g], mark)
				}
			}
		}
		mark, ok := a.trees[m.ID]
		if !ok {
			continue
		}
		for dev := range d.below(m) {
			if n, ok := kernelNumber(dev); ok {
				k.devices[n] = strictest(k.devices[n], mark)
				a.on[n] = append(a.on[n], a.in[m.ID]...)
			}
		}
	}
	for _, l := range d.loops() {
		a.loop(k, l)
	}
}

// loop watches what a loop device is that is made of a watched file: what is written
// to it is written to the file.
func (a *arming) loop(k *keys, l loop) {
	for _, r := range a.rules {
		for _, root := range r.Paths {
			for _, file := range l.files {
				if r.ID == RuleOwn || !policy.Within(root, file) || !a.holds(r, root, file) {
					continue
				}
				mark := bpf.TracerMark{Anchor: a.id(r.ID, file), Rule: uint32(r.ID), Mode: modeNumber(r.Mode)}
				a.anchors[mark.Anchor] = Anchor{ID: mark.Anchor, Rule: r.ID, Path: file, Dev: l.dev, Ino: l.ino, Link: true}
				a.loops = append(a.loops, Loop{Rule: r.ID, Path: file, Device: l.name, Mounted: mountedOn(a.mounts, l.devices)})
				for dev := range l.devices {
					if n, ok := kernelNumber(dev); ok {
						k.devices[n] = strictest(k.devices[n], mark)
						a.on[n] = append(a.on[n], file)
					}
				}
			}
		}
	}
}

// mountGroup is set in the key of a peer group (bpf/maps.h, MOUNT_GROUP).
const mountGroup = 1 << 32

// oneName tells whether a mark is on a file that has one name: the kernel side looks
// for a mark at every object of such a file system, not only at directories and files
// of several names.
func oneName(f *os.File) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false, fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	return st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink == 1, nil
}

// bits sets the bit of each of the file systems at hand that is in of; if not all are
// at hand (TracerSettings.Super), every bit.
func bits(c *bpf.TracerSettings, of map[uint64]bool) (b uint32) {
	if int(c.Supers) > len(c.Super) && len(of) > 0 {
		return ^uint32(0)
	}
	for i, sb := range c.Super {
		if of[sb] {
			b |= 1 << i
		}
	}
	return b
}

func merge(old, add bpf.TracerMark) bpf.TracerMark {
	flags := old.Flags | add.Flags
	if add.Flags&markRoot != 0 && old.Flags&markRoot == 0 || old.Mode == 0 {
		old = add
	}
	old.Flags = flags
	return old
}

// write makes the kernel's maps equal to k: first what is new, then away with
// what is stale, so that nothing goes unwatched in between.
func (s *Sensor) write(k keys, blocking, movable bool) error {
	err := errors.Join(
		put(s.maps["filesystems"], k.fs), put(s.maps["allowed"], k.allowed),
		put(s.maps["ancestors"], k.ancestors), put(s.maps["mounts"], k.mounts), put(s.maps["devices"], k.devices),
		put(s.maps["names"], k.names), put(s.maps["marks"], k.marks))
	if err != nil {
		return fmt.Errorf("write rules to the kernel: %w", err)
	}
	err = s.settings(func(c *bpf.TracerSettings) {
		c.Armed, c.Blocking, c.Remember, c.Moves = 1, 0, 0, 0
		c.Rules++
		c.Supers = uint32(len(k.fs))
		copy(c.Super[:], slices.Sorted(maps.Keys(k.fs)))
		c.Strict, c.Lone = bits(c, k.strict), bits(c, k.lone)
		if blocking {
			c.Blocking = 1
		}
		if CanBlock(s.tier) && s.progs["vfs_rename"] != nil { // it tells when directories move
			c.Remember = 1
		}
		if movable {
			c.Moves = 1
		}
		s.mounted = 0
		for _, m := range k.marks {
			if m.Flags&(markLink|markBelow) != 0 {
				s.mounted++
			}
		}
		c.Links = uint32(len(s.linkMarks)) + s.mounted
	})
	if err != nil {
		return err
	}
	err = errors.Join(
		drop(s.maps["marks"], s.keys.marks, k.marks), drop(s.maps["names"], s.keys.names, k.names),
		drop(s.maps["ancestors"], s.keys.ancestors, k.ancestors), drop(s.maps["mounts"], s.keys.mounts, k.mounts),
		drop(s.maps["devices"], s.keys.devices, k.devices),
		drop(s.maps["allowed"], s.keys.allowed, k.allowed), drop(s.maps["filesystems"], s.keys.fs, k.fs),
		s.settings(func(c *bpf.TracerSettings) { c.Rules++ }))
	s.keys = k
	return err
}

func put[K comparable, V any](m *ebpf.Map, entries map[K]V) error {
	for k, v := range entries {
		if err := m.Put(&k, &v); err != nil {
			return fmt.Errorf("map %s (at most %d entries): %w", m, m.MaxEntries(), err)
		}
	}
	return nil
}

func drop[K comparable, V any](m *ebpf.Map, old, now map[K]V) error {
	for k := range old {
		if _, ok := now[k]; ok {
			continue
		}
		if err := m.Delete(&k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("map %s: %w", m, err)
		}
	}
	return nil
}

func modeNumber(mode string) uint8 {
	switch mode {
	case event.ModeBlock:
		return 3
	case event.ModeRestore:
		return 2
	}
	return 1
}

// nameHash is FNV-1a over a name (bpf/path.h, name_hash).
func nameHash(name string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := 0; i < len(name); i++ {
		h = (h ^ uint64(name[i])) * 0x100000001b3
	}
	return h
}
