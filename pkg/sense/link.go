package sense

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/bpf"
	"github.com/holdfast/holdfast/pkg/policy"
)

// Link is a file in a watched tree that has names outside of it.
type Link struct {
	Rule int
	Mode string
	Path string // in the tree
}

// MaxLinks is how many files with names outside their trees are marked: each of
// them is held open.
const MaxLinks = 4096

// top is a held directory below which links are opened.
type top struct {
	path string
	file *os.File
}

func (a *arming) tops() []top {
	var out []top
	for _, w := range a.wants {
		if w.mark.Flags&markRoot == 0 || w.above {
			continue
		}
		p := a.anchors[w.mark.Anchor].Path
		if w.name != "" {
			p = filepath.Dir(p)
		}
		out = append(out, top{p, w.file.File})
	}
	return out
}

// Link marks the inodes of files, in place of those that it marked before, so
// that what is done to them under their other names is seen and refused. It
// returns how many could not be marked for want of room; a file that has gone
// meanwhile is passed over. After Arm it is called again.
func (s *Sensor) Link(files []Link) (missed int, err error) {
	s.armMu.Lock()
	defer s.armMu.Unlock()
	missed = max(len(files)-MaxLinks, 0)
	files = files[:len(files)-missed]
	var opened []*os.File
	marks := make(map[int]bpf.TracerMark)
	anchors := make(map[uint32]Anchor)
	for _, l := range files {
		f, err := s.openBelow(l.Path)
		if err != nil {
			continue
		}
		opened = append(opened, f)
		var st unix.Stat_t
		if unix.Fstat(int(f.Fd()), &st) != nil || st.Nlink < 2 {
			continue
		}
		id := s.number(l.Rule, l.Path)
		marks[int(f.Fd())] = bpf.TracerMark{Anchor: id, Rule: uint32(l.Rule), Mode: modeNumber(l.Mode), Flags: markLink}
		anchors[id] = Anchor{ID: id, Rule: l.Rule, Path: l.Path, Dev: st.Dev, Ino: st.Ino, Link: true}
	}
	keys, err := s.linkKeys(marks)
	if err == nil {
		s.linked = anchors
		s.publish()
		err = s.writeLinks(keys)
	}
	if err != nil {
		closeAll(opened)
		return missed, err
	}
	closeAll(s.linkHeld)
	s.linkHeld = opened
	return missed, nil
}

func (s *Sensor) linkKeys(marks map[int]bpf.TracerMark) (map[uint64]bpf.TracerMark, error) {
	keys := make(map[uint64]bpf.TracerMark)
	if len(marks) == 0 {
		return keys, nil
	}
	rows, err := s.learnInodes()
	if err != nil {
		return nil, err
	}
	for fd, mark := range marks {
		row, ok := rows[fd]
		if !ok {
			return nil, fmt.Errorf("mark a file with several names: the kernel does not show its inode")
		}
		if _, taken := s.keys.marks[row.Inode]; !taken {
			keys[row.Inode] = mark
		}
	}
	return keys, nil
}

func (s *Sensor) writeLinks(keys map[uint64]bpf.TracerMark) error {
	if err := put(s.maps["marks"], keys); err != nil {
		return fmt.Errorf("write links to the kernel: %w", err)
	}
	for k := range s.keys.marks { // not ours to take away
		delete(s.linkMarks, k)
	}
	if err := drop(s.maps["marks"], s.linkMarks, keys); err != nil {
		return err
	}
	s.linkMarks = keys
	return s.settings(func(c *bpf.TracerSettings) { c.Links = uint32(len(keys)) + s.mounted })
}

// openBelow holds a file by way of a held directory above it, so that it keeps no
// mount busy. Neither a symlink nor a mount is followed on the way.
func (s *Sensor) openBelow(path string) (*os.File, error) {
	var best top
	for _, t := range s.tops {
		if policy.Within(t.path, path) && (best.file == nil || len(t.path) > len(best.path)) {
			best = t
		}
	}
	if best.file == nil {
		return nil, os.ErrNotExist
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(path, best.path), "/")
	fd, err := unix.Openat2(int(best.file.Fd()), rel, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}
