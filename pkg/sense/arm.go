package sense

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/bpf"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/policy"
)

// Rule is what the kernel side needs of a rule. Paths are absolute and canonical
// but for their last component, which is taken as it is: a symlink is watched as
// a symlink. Except are paths that are not watched, themselves and below.
type Rule struct {
	ID     int
	Mode   string
	Paths  []string
	Except []string
	Allow  []string // executables
}

// Unarmed is a path that is not watched: it waits to appear, or could not be
// marked.
type Unarmed struct {
	Rule int
	Path string
	Err  error // nil: it does not exist yet
}

// want is one thing to mark, as a held descriptor says where.
type want struct {
	file  held
	name  string // in the directory; "": the object itself
	mark  bpf.TracerMark
	allow int // rule that allows this executable, if allowed
	exe   bool
	above bool // a directory above a root
}

type arming struct {
	s       *Sensor
	rules   []Rule
	wants   []want
	anchors map[uint32]Anchor
	unarmed []Unarmed
	mounts  []Mount
	root    uint64 // the mount of "/"
	// The mounts that watched paths lead through and those that hold watched
	// trees, with the strictest mark.
	way, trees map[uint64]bpf.TracerMark
	steps      []Step
	in         map[uint64][]string // watched paths in a mount
	on         map[uint64][]string // watched paths on a device
	loops      []Loop
	block      bool
}

// Arm marks what the rules watch, in place of what was marked before. Paths that
// do not exist are armed when they appear: an event with FlagAppeared asks for
// another call. Paths that could not be marked are in the list with their error;
// the error returned is one that left everything as it was.
func (s *Sensor) Arm(rules []Rule) ([]Unarmed, error) {
	s.armMu.Lock()
	defer s.armMu.Unlock()
	mounts, err := Mounts()
	if err != nil {
		return nil, err
	}
	a := &arming{
		s: s, rules: rules, anchors: make(map[uint32]Anchor), mounts: mounts,
		way: make(map[uint64]bpf.TracerMark), trees: make(map[uint64]bpf.TracerMark),
		in: make(map[uint64][]string), on: make(map[uint64][]string),
	}
	if f, err := os.OpenFile("/", unix.O_PATH, 0); err == nil {
		a.root = mountID(int(f.Fd()))
		f.Close() // O_PATH: nothing can be lost
	}
	for _, r := range rules {
		a.rule(r)
	}
	a.backing()
	held := a.files()
	k, err := a.resolve()
	if err == nil {
		was := s.armed
		s.armed = a.anchors
		s.publish()
		if err = s.write(k, a.block, a.movable()); err != nil {
			s.armed = was
			s.publish()
		}
	}
	if err != nil {
		closeAll(held)
		return nil, err
	}
	closeAll(s.held)
	s.held, s.tops, s.on, s.steps, s.loops = held, a.tops(), a.on, a.steps, a.loops
	return a.unarmed, nil
}

func (a *arming) rule(r Rule) {
	mode := modeNumber(r.Mode)
	a.block = a.block || r.Mode == event.ModeBlock
	for _, p := range r.Paths {
		err := a.path(r, p, mode)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.unarmed = append(a.unarmed, Unarmed{Rule: r.ID, Path: p, Err: err})
		}
	}
	for _, p := range r.Except {
		m := bpf.TracerMark{Rule: uint32(r.ID), Flags: markExcept, Mode: mode}
		if err := a.named(p, m); err != nil {
			a.unarmed = append(a.unarmed, Unarmed{Rule: r.ID, Path: p, Err: err})
		}
	}
	for _, p := range r.Allow {
		f, err := a.open(p, true)
		if err != nil {
			a.unarmed = append(a.unarmed, Unarmed{Rule: r.ID, Path: p, Err: err})
			continue
		}
		a.wants = append(a.wants, want{file: f, exe: true, allow: r.ID})
	}
}

// path marks one path of a rule.
func (a *arming) path(r Rule, p string, mode uint8) error {
	f, err := a.open(p, false)
	if errors.Is(err, fs.ErrNotExist) {
		if r.ID == RuleOwn { // what is read at the next start is not for others to make
			return a.named(p, bpf.TracerMark{Rule: RuleOwn, Mode: mode, Flags: markRoot, Anchor: a.id(r.ID, p)})
		}
		a.unarmed = append(a.unarmed, Unarmed{Rule: r.ID, Path: p})
		return a.pending(p, r, mode)
	}
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return fmt.Errorf("stat %s: %w", p, err)
	}
	mark := bpf.TracerMark{Rule: uint32(r.ID), Mode: mode, Flags: markRoot, Anchor: a.id(r.ID, p)}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		f.Close()
		if err := a.named(p, mark); err != nil {
			return err
		}
	} else {
		a.place(f, p, mark)
		a.anchors[mark.Anchor] = Anchor{ID: mark.Anchor, Rule: r.ID, Path: p, Dev: st.Dev, Ino: st.Ino}
		a.wants = append(a.wants, want{file: f, mark: mark})
		// a root that is replaced by another directory is armed again
		if p != "/" {
			if err := a.named(p, bpf.TracerMark{Rule: mark.Rule, Mode: mode, Flags: markPending}); err != nil {
				return err
			}
		}
	}
	a.ancestors(p, mark)
	for _, m := range a.mounts {
		if policy.Within(p, m.At) && m.At != "/" && a.holds(r, p, m.At) && m.Watchable() {
			a.mount(m, mark)
		}
	}
	return nil
}

// holds reports whether root is the watched path that holds for path: no other
// one is nearer, and nothing on the way is left out.
func (a *arming) holds(r Rule, root, path string) bool {
	for _, e := range r.Except {
		if policy.Within(root, e) && policy.Within(e, path) {
			return false
		}
	}
	for _, other := range a.rules {
		for _, p := range other.Paths {
			if p != root && policy.Within(root, p) && policy.Within(p, path) {
				return false
			}
		}
	}
	return true
}

// mount marks what is mounted at or below a root: a tree of its own, or a file.
func (a *arming) mount(m Mount, mark bpf.TracerMark) {
	f, err := a.open(m.At, false)
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(int(f.Fd()), &st)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) { // it may be gone, or covered by another mount
			a.unarmed = append(a.unarmed, Unarmed{Rule: int(mark.Rule), Path: m.At, Err: err})
		}
		return
	}
	mark.Anchor = a.id(int(mark.Rule), m.At)
	was, known := a.anchors[mark.Anchor]
	if f.mount != 0 && f.mount != m.ID || known && was.Name == "" {
		f.Close() // covered by another mount, or marked already
		return
	}
	a.place(f, m.At, mark)
	if !known {
		a.anchors[mark.Anchor] = Anchor{ID: mark.Anchor, Rule: int(mark.Rule), Path: m.At, Dev: st.Dev, Ino: st.Ino}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		mark.Flags = markLink // its other names are elsewhere
	}
	a.wants = append(a.wants, want{file: f, mark: mark})
}

// place notes which mount holds a watched tree.
func (a *arming) place(f held, path string, mark bpf.TracerMark) {
	if f.mount == 0 {
		return
	}
	a.way[f.mount] = strictest(a.way[f.mount], mark)
	if mark.Rule != RuleOwn {
		a.trees[f.mount] = strictest(a.trees[f.mount], mark)
		a.in[f.mount] = append(a.in[f.mount], path)
	}
}

// backing marks the files that loop devices below watched file systems are made of.
func (a *arming) backing() {
	for _, m := range a.mounts {
		mark, ok := a.trees[m.ID]
		if !ok {
			continue
		}
		mark.Flags = markBelow
		d := devices{sys: "/sys", mounts: a.mounts, files: make(map[string]bool)}
		d.below(m)
		for p := range d.files {
			f, err := a.open(p, true)
			if err != nil { // in another root or namespace, or deleted: who can name it is there
				continue
			}
			a.wants = append(a.wants, want{file: f, mark: mark})
		}
	}
}

// movable reports whether a tree in block mode lies in a mount that can be moved:
// any but the first one.
func (a *arming) movable() bool {
	for id, mark := range a.way {
		if id != a.root && mark.Mode == modeNumber(event.ModeBlock) {
			return true
		}
	}
	return false
}

// named marks the name of p in its directory. If the directory is missing, the
// nearest one there is waits for the next name.
func (a *arming) named(p string, mark bpf.TracerMark) error {
	dir, name := filepath.Split(p)
	f, err := a.open(dir, false)
	if errors.Is(err, fs.ErrNotExist) {
		return a.pending(p, Rule{ID: int(mark.Rule)}, mark.Mode)
	}
	if err != nil {
		return err
	}
	if mark.Flags&markRoot != 0 {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			f.Close()
			return fmt.Errorf("stat %s: %w", dir, err)
		}
		a.place(f, p, mark)
		a.anchors[mark.Anchor] = Anchor{ID: mark.Anchor, Rule: int(mark.Rule), Path: p, Dev: st.Dev, Ino: st.Ino, Name: name}
	}
	a.wants = append(a.wants, want{file: f, name: name, mark: mark})
	return nil
}

// pending marks the first name on the way to p that does not exist, and those before it.
func (a *arming) pending(p string, r Rule, mode uint8) error {
	dir, name := filepath.Split(p)
	dir = filepath.Clean(dir)
	f, err := a.open(dir, false)
	if errors.Is(err, fs.ErrNotExist) && dir != "/" {
		return a.pending(dir, r, mode)
	}
	if err != nil {
		return err
	}
	mark := bpf.TracerMark{Rule: uint32(r.ID), Mode: mode, Flags: markPending}
	a.step(f, name, p, 0)
	a.wants = append(a.wants, want{file: f, name: name, mark: mark})
	// and the names that lead there: another directory may be given one of them
	for dir != "/" {
		name, dir = filepath.Base(dir), filepath.Dir(dir)
		if f, err := a.open(dir, false); err == nil { // else it is gone meanwhile: the event about it arms again
			a.step(f, name, p, 0)
			a.wants = append(a.wants, want{file: f, name: name, mark: mark})
		}
	}
	return nil
}

// ancestors marks the directories above a root: what takes them away takes the
// root away, and in block mode they stay where they are.
func (a *arming) ancestors(p string, mark bpf.TracerMark) {
	mark.Flags = 0
	for dir := p; dir != "/"; {
		name := filepath.Base(dir)
		dir = filepath.Dir(dir)
		f, err := a.open(dir, false)
		if err != nil {
			continue // gone meanwhile: the event about it arms again
		}
		a.step(f, name, p, mark.Anchor)
		if dir != filepath.Dir(p) {
			if !CanBlock(a.s.tier) { // there a system call tells of names only
				a.wants = append(a.wants, want{file: f, name: name, mark: bpf.TracerMark{Rule: mark.Rule, Mode: mark.Mode, Flags: markPending}})
			}
		}
		if f.mount != 0 {
			a.way[f.mount] = strictest(a.way[f.mount], mark)
		}
		a.wants = append(a.wants, want{file: f, mark: mark, above: true})
	}
}

// step notes a name on the way to path.
func (a *arming) step(dir held, name, path string, anchor uint32) {
	var st unix.Stat_t
	if unix.Fstat(int(dir.Fd()), &st) == nil {
		a.steps = append(a.steps, Step{Dev: st.Dev, Ino: st.Ino, Name: name, Anchor: anchor, Path: path})
	}
}

func (a *arming) id(rule int, path string) uint32 { return a.s.number(rule, path) }

func (a *arming) files() []*os.File {
	var out []*os.File
	for _, w := range a.wants {
		out = append(out, w.file.File)
	}
	return out
}

// held is an inode held open, and the mount that it was reached by (0: unknown).
type held struct {
	*os.File
	mount uint64
}

// open holds an inode without opening the file behind it. Below the first mount
// it is held through a copy of its mount that is attached nowhere, so that the
// mount itself can be unmounted.
func (a *arming) open(path string, follow bool) (held, error) {
	flags := unix.O_PATH | unix.O_CLOEXEC
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		return held{}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	id := mountID(fd)
	if id != 0 && id != a.root {
		// where a mount may not be copied, it stays busy
		if c, err := unix.OpenTree(fd, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC); err == nil {
			_ = unix.Close(fd) // O_PATH: nothing can be lost
			fd = c
		}
	}
	return held{os.NewFile(uintptr(fd), path), id}, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close() // O_PATH descriptors: nothing can be lost
	}
}
