package sense

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/bpf"
	"github.com/holdfast/holdfast/pkg/event"
)

// The flags of a mark (bpf/maps.h, MARK_*).
const (
	markRoot     = 1
	markNames    = 2
	markAncestor = 4
	markExcept   = 8
	markPending  = 16
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

// Anchor is a marked place: an event below it names the way from it.
type Anchor struct {
	ID   uint32
	Rule int
	Path string
	// The directory that is marked: the place itself for a tree, else its parent,
	// in which Name is watched. As stat(2) gives them.
	Dev, Ino uint64
	Name     string
}

// Unarmed is a path that is not watched: it waits to appear, or could not be
// marked.
type Unarmed struct {
	Rule int
	Path string
	Err  error // nil: it does not exist yet
}

// identity keeps the number of an anchor over calls of Arm.
type identity struct {
	rule int
	path string
}

// keys is what is written to the kernel's maps.
type keys struct {
	marks   map[uint64]bpf.TracerMark
	names   map[bpf.TracerNameKey]bpf.TracerMark
	fs      map[uint64]uint32
	allowed map[bpf.TracerExeKey]uint32
}

func newKeys() keys {
	return keys{
		marks: make(map[uint64]bpf.TracerMark), names: make(map[bpf.TracerNameKey]bpf.TracerMark),
		fs: make(map[uint64]uint32), allowed: make(map[bpf.TracerExeKey]uint32),
	}
}

// want is one thing to mark, as a held descriptor says where.
type want struct {
	file  *os.File
	name  string // in the directory; "": the object itself
	mark  bpf.TracerMark
	allow int // rule that allows this executable, if allowed
	exe   bool
}

type arming struct {
	s       *Sensor
	wants   []want
	anchors map[uint32]Anchor
	unarmed []Unarmed
	mounts  []string
	block   bool
}

// Arm marks what the rules watch, in place of what was marked before. Paths that
// do not exist are armed when they appear: an event with FlagAppeared asks for
// another call. Paths that could not be marked are in the list with their error;
// the error returned is one that left everything as it was.
func (s *Sensor) Arm(rules []Rule) ([]Unarmed, error) {
	s.armMu.Lock()
	defer s.armMu.Unlock()
	mounts, err := mountPoints()
	if err != nil {
		return nil, err
	}
	a := &arming{s: s, anchors: make(map[uint32]Anchor), mounts: mounts}
	for _, r := range rules {
		a.rule(r)
	}
	held := a.files()
	k, err := a.resolve()
	if err == nil {
		s.anchors.Store(&a.anchors)
		err = s.write(k, a.block)
	}
	if err != nil {
		closeAll(held)
		return nil, err
	}
	closeAll(s.held)
	s.held = held
	return a.unarmed, nil
}

// Path returns the absolute path of an anchor and its rule.
func (s *Sensor) Path(id uint32) (path string, rule int, ok bool) {
	m := s.anchors.Load()
	if m == nil {
		return "", 0, false
	}
	a, ok := (*m)[id]
	return a.Path, a.Rule, ok
}

// Anchors lists the anchors in force.
func (s *Sensor) Anchors() []Anchor {
	m := s.anchors.Load()
	if m == nil {
		return nil
	}
	return slices.SortedFunc(maps.Values(*m), func(x, y Anchor) int { return int(x.ID) - int(y.ID) })
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
		f, err := open(p, true)
		if err != nil {
			a.unarmed = append(a.unarmed, Unarmed{Rule: r.ID, Path: p, Err: err})
			continue
		}
		a.wants = append(a.wants, want{file: f, exe: true, allow: r.ID})
	}
}

// path marks one path of a rule.
func (a *arming) path(r Rule, p string, mode uint8) error {
	f, err := open(p, false)
	if errors.Is(err, fs.ErrNotExist) {
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
		return a.named(p, mark)
	}
	a.tree(f, p, mark, st)
	// a root that is replaced by another directory is armed again
	if p != "/" {
		if err := a.named(p, bpf.TracerMark{Rule: mark.Rule, Mode: mode, Flags: markPending}); err != nil {
			return err
		}
		if r.Mode == event.ModeBlock {
			a.ancestors(p, mark)
		}
	}
	return nil
}

// tree marks a directory, and what is mounted below it.
func (a *arming) tree(f *os.File, p string, mark bpf.TracerMark, st unix.Stat_t) {
	a.anchors[mark.Anchor] = Anchor{ID: mark.Anchor, Rule: int(mark.Rule), Path: p, Dev: st.Dev, Ino: st.Ino}
	a.wants = append(a.wants, want{file: f, mark: mark})
	for _, m := range a.mounts {
		if !strings.HasPrefix(m, strings.TrimSuffix(p, "/")+"/") {
			continue
		}
		sub, err := open(m, false)
		if err == nil {
			err = unix.Fstat(int(sub.Fd()), &st)
		}
		if err != nil {
			a.unarmed = append(a.unarmed, Unarmed{Rule: int(mark.Rule), Path: m, Err: err})
			continue
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR || ownMount(m) {
			sub.Close()
			continue
		}
		below := mark
		below.Anchor = a.id(int(mark.Rule), m)
		a.anchors[below.Anchor] = Anchor{ID: below.Anchor, Rule: int(mark.Rule), Path: m, Dev: st.Dev, Ino: st.Ino}
		a.wants = append(a.wants, want{file: sub, mark: below})
	}
}

// ownMount reports whether a mount point is one that no rule may reach into.
func ownMount(p string) bool {
	for _, no := range []string{"/proc", "/sys", "/dev"} {
		if p == no || strings.HasPrefix(p, no+"/") {
			return true
		}
	}
	return false
}

// named marks the name of p in its directory. If the directory is missing, the
// nearest one there is waits for the next name.
func (a *arming) named(p string, mark bpf.TracerMark) error {
	dir, name := filepath.Split(p)
	f, err := open(dir, false)
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
		a.anchors[mark.Anchor] = Anchor{ID: mark.Anchor, Rule: int(mark.Rule), Path: p, Dev: st.Dev, Ino: st.Ino, Name: name}
	}
	a.wants = append(a.wants, want{file: f, name: name, mark: mark})
	return nil
}

// pending marks the first name on the way to p that does not exist.
func (a *arming) pending(p string, r Rule, mode uint8) error {
	dir, name := filepath.Split(p)
	dir = filepath.Clean(dir)
	f, err := open(dir, false)
	if errors.Is(err, fs.ErrNotExist) && dir != "/" {
		return a.pending(dir, r, mode)
	}
	if err != nil {
		return err
	}
	a.wants = append(a.wants, want{file: f, name: name, mark: bpf.TracerMark{Rule: uint32(r.ID), Mode: mode, Flags: markPending}})
	return nil
}

// ancestors marks the directories above a root: in block mode they stay where
// they are.
func (a *arming) ancestors(p string, mark bpf.TracerMark) {
	mark.Flags = markAncestor
	for dir := filepath.Dir(p); ; dir = filepath.Dir(dir) {
		if f, err := open(dir, false); err == nil {
			a.wants = append(a.wants, want{file: f, mark: mark})
		}
		if dir == "/" {
			return
		}
	}
}

func (a *arming) id(rule int, path string) uint32 {
	k := identity{rule, path}
	if a.s.ids[k] == 0 {
		a.s.ids[k] = a.s.next
		a.s.next++
	}
	return a.s.ids[k]
}

func (a *arming) files() []*os.File {
	var out []*os.File
	for _, w := range a.wants {
		out = append(out, w.file)
	}
	return out
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
		case w.name != "":
			key := bpf.TracerNameKey{Dir: row.Inode, Hash: nameHash(w.name)}
			k.names[key] = merge(k.names[key], w.mark)
			k.marks[row.Inode] = merge(k.marks[row.Inode], bpf.TracerMark{Flags: markNames})
		default:
			k.marks[row.Inode] = merge(k.marks[row.Inode], w.mark)
		}
		k.fs[row.Sb] = 1
	}
	return k, nil
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
func (s *Sensor) write(k keys, blocking bool) error {
	err := errors.Join(
		put(s.maps["filesystems"], k.fs), put(s.maps["allowed"], k.allowed),
		put(s.maps["names"], k.names), put(s.maps["marks"], k.marks))
	if err != nil {
		return fmt.Errorf("write rules to the kernel: %w", err)
	}
	err = s.settings(func(c *bpf.TracerSettings) {
		c.Armed, c.Blocking, c.Remember = 1, 0, 0
		c.Rules++
		if blocking {
			c.Blocking = 1
		}
		if CanBlock(s.tier) && s.progs["vfs_rename"] != nil { // it tells when directories move
			c.Remember = 1
		}
	})
	if err != nil {
		return err
	}
	err = errors.Join(
		drop(s.maps["marks"], s.keys.marks, k.marks), drop(s.maps["names"], s.keys.names, k.names),
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

// open holds an inode without opening the file behind it.
func open(path string, follow bool) (*os.File, error) {
	flags := unix.O_PATH | unix.O_CLOEXEC
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close() // O_PATH descriptors: nothing can be lost
	}
}

// mountPoints lists the mount points of this mount namespace (proc(5),
// /proc/PID/mountinfo, field 5).
func mountPoints() ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []string
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		fields := strings.Fields(sc.Text())
		if len(fields) > 4 {
			out = append(out, unescape(fields[4]))
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read mountinfo: %w", err)
	}
	return out, nil
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
