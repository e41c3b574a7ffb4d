package rollback

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
)

// lifted are the held flags of an inode while they are off it, so that it can be changed or
// moved. A mark of its own says so until they are back, or the inode is where nobody looks
// for it: an Open after a crash puts them back. Its text is "=", the flags in hexadecimal,
// ":", the inode's number, ":", its generation, a space, and its path.
type lifted struct {
	s     *Store
	inode *inode
	flags uint32
	token string
}

// lift takes the held flags off the inode at path, those that it has now: nil if it has
// none. Flags that are not in seen were set since by somebody else, and are errRaced.
func (s *Store) lift(i *inode, path string, seen uint32) (*lifted, error) {
	if i.read < 0 {
		return nil, nil // what cannot be asked has none
	}
	now, err := digest.GetUint32(i.read, unix.FS_IOC_GETFLAGS)
	switch {
	case err != nil && seen&held == 0:
		return nil, nil // nor has what does not know them
	case err != nil:
		return nil, fmt.Errorf("get flags of %q: %w", path, err)
	case now&held&^seen != 0:
		return nil, errRaced
	case now&held == 0:
		return nil, nil
	}
	l := &lifted{s: s, inode: i, flags: now & held}
	var st unix.Stat_t
	if err := digest.Again(func() error { return unix.Fstat(i.read, &st) }); err != nil {
		return nil, fmt.Errorf("stat %q: %w", path, err)
	}
	if l.token, err = s.token(); err != nil {
		return nil, err
	}
	if err := s.markAs(l.token, fmt.Sprintf("=%x:%d:%d %s", l.flags, st.Ino, genOf(i.read), path)); err != nil {
		return nil, err
	}
	if err := s.disk.Fsync(s.intents, "intents"); err != nil { // the flags may be on another disk
		return nil, errors.Join(err, s.end(l.token))
	}
	if err := i.setFlags(now & event.FlagsMask &^ held); err != nil {
		return nil, errors.Join(err, s.end(l.token))
	}
	return l, nil
}

// back puts the flags back beside those that are there by now.
func (l *lifted) back() error {
	if l == nil {
		return nil
	}
	if err := l.inode.addFlags(l.flags); err != nil {
		return err // the mark stays: the next Open tries again
	}
	return l.gone()
}

// gone says that the inode needs them no more.
func (l *lifted) gone() error {
	if l == nil {
		return nil
	}
	return l.s.end(l.token)
}

// settle ends it after what it was for: err says that that failed.
func (l *lifted) settle(err error) error {
	if err != nil {
		return errors.Join(err, l.back())
	}
	return l.gone()
}

// genOf is the generation of an open inode, 0 if its file system does not tell.
func genOf(fd int) uint32 {
	gen, err := digest.GetUint32(fd, getVersion)
	if err != nil {
		return 0
	}
	return gen
}

// recoverLift puts flags back that a restore which was cut off has left off the inode at a
// path. Another one there is none of ours.
func (s *Store) recoverLift(token, text string) error {
	head, path, _ := strings.Cut(text, " ")
	var flags, gen uint32
	var ino uint64
	if n, err := fmt.Sscanf(head, "=%x:%d:%d", &flags, &ino, &gen); n != 3 || err != nil {
		return s.end(token)
	}
	parent, base, err := digest.OpenParent(path)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return s.end(token)
	}
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	i, err := pin(s.disk, parent, base, path, nil)
	if errors.Is(err, unix.ENOENT) {
		return s.end(token)
	}
	if err != nil {
		return err
	}
	defer i.close()
	var st unix.Stat_t
	if err := digest.Again(func() error { return unix.Fstat(i.at, &st) }); err != nil {
		return fmt.Errorf("stat %q: %w", path, err)
	}
	if st.Ino != ino || i.read < 0 || genOf(i.read) != gen {
		return s.end(token)
	}
	now, err := digest.GetUint32(i.read, unix.FS_IOC_GETFLAGS)
	if err == nil && now&event.FlagImmutable == 0 { // else the restore came to its end: nothing is changed any more
		err = i.addFlags(flags & held)
	}
	if err != nil {
		return fmt.Errorf("put flags of %q back: %w", path, err)
	}
	return s.end(token)
}

// markSuffix ends the name of a mark that is to take the place of one.
const markSuffix = ".new"

// remark writes the mark of a restore again, with other flags: at no time is there none.
func (s *Store) remark(token, path string, flags uint32) error {
	temp := token + markSuffix
	if err := s.disk.Unlink(s.intents, temp, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if err := s.begin(temp, path, flags); err != nil {
		return err
	}
	return s.disk.Rename(s.intents, temp, s.intents, token, 0)
}

// markAs makes a mark: a symlink, or a file where the text is too long for one.
func (s *Store) markAs(token, text string) error {
	if len(text) <= maxLinkText {
		return s.disk.Symlink(text, s.intents, token)
	}
	fd, err := s.disk.Create(s.intents, token, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return s.disk.Write(fd, token, []byte(text), 0)
}

// markText reads a mark.
func markText(dir, token string) (string, error) {
	text, err := os.Readlink(filepath.Join(dir, token))
	if !errors.Is(err, unix.EINVAL) {
		return text, err
	}
	b, err := readPlain(dir, token)
	if errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return string(b), err
}

// parseMark takes the mark of a restore apart; ok is false if it is none.
func parseMark(text string) (flags uint32, path string, ok bool) {
	hex, path, ok := strings.Cut(text, " ")
	n, err := strconv.ParseUint(hex, 16, 32)
	return uint32(n), path, ok && err == nil
}
