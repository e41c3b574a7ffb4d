package rollback

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/cas"
)

// evidence is the directory of displaced inodes, readable by root alone. Each
// item is named after the moment it was taken, so that names sort by age.
type evidence struct {
	dir  string
	max  int64
	disk cas.Disk
	fd   int

	mu      sync.Mutex
	items   []item // oldest first
	bytes   int64
	dropped uint64
	untold  []string // names of those that went since tellDropped
}

type item struct {
	name  string
	bytes int64
}

// partPrefix begins the name of a copy that is not complete.
const partPrefix = ".part-"

func openEvidence(dir string, max int64, disk cas.Disk) (*evidence, error) {
	if err := disk.Mkdir(unix.AT_FDCWD, dir, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	fd, err := digest.AgainInt(func() (int, error) {
		return unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, fmt.Errorf("open evidence %s: %w", dir, err)
	}
	e := &evidence{dir: dir, max: max, disk: disk, fd: fd}
	ents, err := os.ReadDir(dir)
	if err != nil {
		return e, errors.Join(fmt.Errorf("list evidence: %w", err), e.close())
	}
	t := tree{disk: disk}
	for _, en := range ents {
		if len(en.Name()) >= len(partPrefix) && en.Name()[:len(partPrefix)] == partPrefix {
			if err := t.remove(fd, en.Name()); err != nil {
				return e, errors.Join(err, e.close())
			}
			continue
		}
		n, err := t.size(fd, en.Name())
		if err != nil {
			return e, errors.Join(err, e.close())
		}
		e.items = append(e.items, item{en.Name(), n})
		e.bytes += n
	}
	sort.Slice(e.items, func(i, j int) bool { return e.items[i].name < e.items[j].name })
	return e, nil
}

func (e *evidence) close() error { return unix.Close(e.fd) }

func (e *evidence) stats() (bytes int64, items int, dropped uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.bytes, len(e.items), e.dropped
}

// tellDropped says which items went for others since it was asked last, "" if none did. The
// oldest go first: all between two names are gone.
func (e *evidence) tellDropped() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	gone := e.untold
	e.untold = nil
	switch len(gone) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("older evidence was dropped, which the limit of %d bytes leaves no room for: %s", e.max, gone[0])
	}
	return fmt.Sprintf("older evidence was dropped, which the limit of %d bytes leaves no room for: %d items, from %s to %s", e.max, len(gone), gone[0], gone[len(gone)-1])
}

// itemName is what the inode that was at base is called here.
func itemName(base string, at time.Time, token string) string {
	text := event.Text([]byte(base))
	if len(text) > 160 {
		text = text[:160]
	}
	return at.UTC().Format("20060102T150405.000000000Z") + "-" + token[:8] + "-" + text
}

// take moves name out of a directory and returns where it is now. From another
// file system the error wraps unix.EXDEV. An empty path means that name is still
// where it was; a path with an error, that only counting failed.
func (e *evidence) take(dirfd int, name, base string, at time.Time, token string) (string, error) {
	as := itemName(base, at, token)
	err := e.disk.Rename(dirfd, name, e.fd, as, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) { // a file system without flags: the name is random enough
		err = e.disk.Rename(dirfd, name, e.fd, as, 0)
	}
	if err != nil {
		return "", err
	}
	return e.add(as)
}

// takeTemp is take for a temporary name: from another file system it is copied
// and then removed, and may be seen while the copy runs.
func (e *evidence) takeTemp(dirfd int, name, base string, at time.Time, token string) (string, error) {
	path, err := e.take(dirfd, name, base, at, token)
	if errors.Is(err, unix.EXDEV) {
		return e.copy(dirfd, name, base, at, token)
	}
	return path, err
}

// copy takes a copy and removes the original.
func (e *evidence) copy(dirfd int, name, base string, at time.Time, token string) (string, error) {
	path, err := e.copyOf(dirfd, name, itemName(base, at, token))
	if err != nil {
		return path, err
	}
	return path, tree{disk: e.disk}.remove(dirfd, name)
}

// copyOf keeps a copy and leaves the original where it is.
func (e *evidence) copyOf(dirfd int, name, as string) (string, error) {
	t := tree{disk: e.disk}
	if err := e.fits(dirfd, name); err != nil {
		return "", err
	}
	if err := t.copy(dirfd, name, e.fd, partPrefix+as); err != nil {
		return "", errors.Join(fmt.Errorf("keep %q as evidence: %w", as, err), t.remove(e.fd, partPrefix+as))
	}
	if err := e.disk.Rename(e.fd, partPrefix+as, e.fd, as, 0); err != nil {
		return "", err
	}
	return e.add(as)
}

// errTooBig says that an item alone is more than may be kept.
var errTooBig = errors.New("too big to be kept as evidence")

// fits looks whether name could be copied here.
func (e *evidence) fits(dirfd int, name string) error {
	n, err := tree{disk: e.disk}.size(dirfd, name)
	if err == nil && n > e.max {
		err = fmt.Errorf("%w: %d bytes, the limit is %d", errTooBig, n, e.max)
	}
	return err
}

// far reports whether a directory is on another file system.
func (e *evidence) far(dirfd int) bool {
	var a, b unix.Stat_t
	return digest.Again(func() error { return unix.Fstat(dirfd, &a) }) != nil || digest.Again(func() error { return unix.Fstat(e.fd, &b) }) != nil || a.Dev != b.Dev
}

// drop removes what is too big, and counts it.
func (e *evidence) drop(dirfd int, name string) error {
	if err := (tree{disk: e.disk}).remove(dirfd, name); err != nil {
		return err
	}
	e.mu.Lock()
	e.dropped++
	e.mu.Unlock()
	return nil
}

// add counts a new item and lets the oldest ones go if there is too much now.
// The new one stays, whatever its size.
func (e *evidence) add(name string) (string, error) {
	path := filepath.Join(e.dir, name)
	t := tree{disk: e.disk}
	n, err := t.size(e.fd, name)
	if err != nil {
		return path, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.items = append(e.items, item{name, n})
	e.bytes += n
	for e.bytes > e.max && len(e.items) > 1 {
		old := e.items[0]
		if err := t.remove(e.fd, old.name); err != nil && !errors.Is(err, unix.ENOENT) {
			return path, fmt.Errorf("drop evidence %s: %w", old.name, err)
		}
		e.items = e.items[1:]
		e.bytes -= old.bytes
		e.dropped++
		e.untold = append(e.untold, old.name)
	}
	return path, nil
}
