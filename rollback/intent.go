package rollback

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
)

// An intent says where a restore is about to leave a temporary name, so that the
// next Open finds it after a crash: intents/<token> is a symlink, which costs
// one system call and cannot be torn, whose text is the parent's flags in
// hexadecimal, a space, and the path under restore. It needs no fsync as long as no flags
// are taken off: on one file system its creation is ordered before the rename that it
// announces, and on another one a temporary name that is left shows at the next scan of
// the tree. A path that is too long for a symlink makes a file of it.

// maxLinkText bounds the text of a symlink (PATH_MAX with its NUL).
const maxLinkText = 4095

// begin marks a restore of path. flags are those taken off the parent directory.
func (s *Store) begin(token, path string, flags uint32) error {
	return s.markAs(token, strconv.FormatUint(uint64(flags), 16)+" "+path)
}

// end removes the mark.
func (s *Store) end(token string) error { return s.disk.Unlink(s.intents, token, 0) }

// recoverIntents ends what interrupted restores left: the temporary name goes to
// the evidence (it is a displaced inode, or a copy of a content that the vault
// has), the parent gets its flags back.
func (s *Store) recoverIntents() error {
	dir := filepath.Join(s.dir, "intents")
	if err := s.disk.Mkdir(unix.AT_FDCWD, dir, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	var err error
	if s.intents, err = digest.AgainInt(func() (int, error) { return unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) }); err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	ents, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	var last []func() // an inode with its flags on has to be where it belongs
	for _, e := range ents {
		token := e.Name()
		text, err := markText(dir, token)
		if err != nil {
			return fmt.Errorf("read intent: %w", err)
		}
		do := func(f func(token, text string) error) {
			if err := f(token, text); err != nil {
				s.opened.Damage = append(s.opened.Damage, Problem{Kind: ProblemLeftover, Object: token, Detail: err.Error()})
			}
		}
		switch {
		case strings.HasSuffix(token, markSuffix): // the one whose place it was to take is there
			do(func(token, _ string) error { return s.end(token) })
		case strings.HasPrefix(text, "="):
			last = append(last, func() { do(s.recoverLift) })
		default:
			do(s.recoverIntent)
		}
	}
	for _, f := range last {
		f()
	}
	return nil
}

func (s *Store) recoverIntent(token, text string) error {
	flags, path, ok := parseMark(text)
	if !ok {
		return s.end(token)
	}
	parent, base, err := digest.OpenParent(path)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return s.end(token) // the directory is gone and the temporary name with it
	}
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	dir := &inode{disk: s.disk, object: filepath.Dir(path), at: parent, read: parent}
	now, err := digest.GetUint32(parent, unix.FS_IOC_GETFLAGS)
	if err == nil && now&held != 0 { // the restore put them back and left something all the same
		flags |= now & held
		if err := s.remark(token, path, flags); err != nil {
			return err
		}
		if err := dir.setFlags(now & event.FlagsMask &^ held); err != nil {
			return err
		}
	}
	kept, err := s.evidence.takeTemp(parent, tempPrefix+token, base, s.now(), token)
	if kept != "" {
		s.opened.Leftovers = append(s.opened.Leftovers, kept)
	}
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	if flags != 0 {
		err = errors.Join(err, dir.addFlags(flags))
	}
	if err != nil {
		return err
	}
	if err := s.disk.Fsync(parent, filepath.Dir(path)); err != nil {
		return err
	}
	return s.end(token)
}
