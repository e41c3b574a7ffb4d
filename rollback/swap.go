package rollback

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// swap gives the path to the new inode, or to nothing, in one rename, and moves
// what was there to the evidence.
func (j *job) swap() error {
	if j.have.Flags&held == 0 {
		return j.swapFree()
	}
	i, err := pin(j.s.disk, j.parent, j.base, j.step.Path, &j.have)
	if err != nil {
		return err
	}
	defer i.close()
	off, err := j.s.lift(i, j.step.Path, j.have.Flags)
	if err != nil {
		return err
	}
	err = j.swapFree()
	if j.displaced(i) && !several(&j.have) {
		return errors.Join(err, off.gone())
	}
	return errors.Join(err, off.back())
}

// displaced reports whether an inode is in the evidence, on its way there, or nowhere.
func (j *job) displaced(i *inode) bool {
	at, err := os.Readlink(i.path())
	kept, kerr := os.Readlink(fmt.Sprint("/proc/self/fd/", j.s.evidence.fd))
	return err == nil && (kerr == nil && within(at, kept) || strings.HasPrefix(filepath.Base(filepath.Dir(at)), tempPrefix) ||
		strings.HasPrefix(filepath.Base(at), tempPrefix) || strings.HasSuffix(at, " (deleted)"))
}

// swapFree is swap of what has no held flags.
func (j *job) swapFree() error {
	if j.step.Action == ActionRmdir {
		return j.removeEmpty()
	}
	if err := j.freeLead(); err != nil {
		return err
	}
	switch {
	case !j.step.Want.Exists:
		return j.takeAway()
	case !j.have.Exists:
		return j.place()
	}
	return j.exchange()
}

// place names the new inode where nothing is.
func (j *job) place() error {
	err := j.inParent(func() error {
		if fd := j.nameless(); fd >= 0 {
			return j.s.disk.LinkFD(fd, j.parent, j.base)
		}
		return j.s.disk.Rename(j.private, newName, j.parent, j.base, unix.RENAME_NOREPLACE)
	})
	if errors.Is(err, unix.EEXIST) {
		return errRaced
	}
	if err != nil {
		return err
	}
	return j.hold()
}

// exchange swaps the new inode with the one at the path.
//
//	before    base = bad inode     from/name = new inode
//	after     base = new inode     from/name = bad inode → evidence
func (j *job) exchange() error {
	from, name := j.private, newName
	if fd := j.nameless(); fd >= 0 {
		if err := j.mark(); err != nil {
			return err
		}
		from, name = j.parent, j.temp()
		if err := j.inParent(func() error { return j.s.disk.LinkFD(fd, from, name) }); err != nil {
			return err
		}
	}
	err := j.inParent(func() error {
		return j.s.disk.Rename(from, name, j.parent, j.base, unix.RENAME_EXCHANGE)
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		return j.replace(from, name)
	}
	if err != nil {
		return j.notExchanged(from, name, err)
	}
	j.stuck = true // from here on the name holds what must not be lost
	out, err := lstat(from, name)
	if err != nil {
		return err
	}
	if out.Ino != j.have.Ino || out.Dev != j.have.Dev {
		if j.strict {
			return j.swapBack(from, name)
		}
		j.note("another change came in between and was displaced too")
	}
	j.keep(from, name, j.token)
	return j.hold()
}

// notExchanged removes the new inode's temporary name and says why. What is a
// mount point may be written in place instead.
func (j *job) notExchanged(from int, name string, err error) error {
	mounted := errors.Is(err, unix.EBUSY)
	if from == j.parent {
		if uerr := j.s.disk.Unlink(from, name, 0); uerr != nil {
			j.stuck = true
			return errors.Join(err, uerr)
		}
	}
	switch {
	case mounted:
		return j.inPlace()
	case errors.Is(err, unix.ENOENT):
		return errRaced
	}
	return err
}

// replace is exchange for file systems that cannot: the bad inode gets a second
// name, then the new one replaces it at the path, which is atomic as well.
func (j *job) replace(from int, name string) error {
	if j.have.Type == event.TypeDir || j.step.Want.Type == event.TypeDir {
		return j.notExchanged(from, name, errors.New("this file system cannot exchange a directory with something else"))
	}
	token, err := j.s.token()
	if err == nil {
		err = j.s.begin(token, j.step.Path, 0)
	}
	if err != nil {
		return j.notExchanged(from, name, err)
	}
	old := tempPrefix + token
	if err := j.s.disk.Link(j.parent, j.base, j.parent, old); err != nil {
		return j.notExchanged(from, name, errors.Join(err, j.s.end(token)))
	}
	if err := j.s.disk.Rename(from, name, j.parent, j.base, 0); err != nil {
		err = errors.Join(err, j.s.disk.Unlink(j.parent, old, 0), j.s.end(token))
		return j.notExchanged(from, name, err)
	}
	if j.keep(j.parent, old, token) {
		if err := j.s.end(token); err != nil {
			return err
		}
	}
	j.stuck = false // the first token's name is gone
	return j.hold()
}

// swapBack undoes an exchange that took out an inode the plan did not know.
func (j *job) swapBack(from int, name string) error {
	if err := j.s.disk.Rename(from, name, j.parent, j.base, unix.RENAME_EXCHANGE); err != nil {
		return errors.Join(ErrRaced, err)
	}
	out, err := lstat(from, name)
	switch {
	case err != nil:
	case out.Ino != j.mine.Ino || out.Dev != j.mine.Dev: // a third change came between the two
		j.keep(from, name, j.token)
	case from == j.parent:
		if err = j.s.disk.Unlink(from, name, 0); err == nil {
			j.stuck = false
		}
	default:
		j.stuck = false
	}
	return errors.Join(ErrRaced, err)
}

// several reports whether an inode has other names.
func several(st *event.State) bool { return st.Nlink > 1 && st.Type != event.TypeDir }

// keep moves a displaced inode to the evidence. If that fails it stays under its
// temporary name, with the intent, so that the next Open tries again; the restore
// counts all the same. One that is too big for the evidence is dropped: what was
// trusted is back, and the record of the change has the hash of the other.
func (j *job) keep(from int, name, token string) bool {
	if several(&j.have) && j.step.Action != ActionRelink {
		j.note(fmt.Sprintf("it had %d hard links: the other names keep the displaced inode", j.have.Nlink))
	}
	take := j.s.evidence.takeTemp
	if several(&j.have) { // through another name it could still be changed
		take = j.s.evidence.copy
	}
	kept, err := take(from, name, j.base, j.s.now(), token)
	if from == j.parent && kept == "" && errors.Is(err, unix.EPERM) { // another restore in it has put its flags back
		err = j.inParent(func() (err error) {
			if kept == "" {
				kept, err = take(from, name, j.base, j.s.now(), token)
			}
			return err
		})
	}
	j.stuck = kept == ""
	if errors.Is(err, errTooBig) {
		if derr := j.s.evidence.drop(from, name); derr == nil {
			j.note("what was displaced was dropped: " + err.Error())
			j.stuck = false
			return true
		}
	}
	if err != nil {
		j.note(err.Error())
		if _, serr := lstat(from, name); serr == nil {
			j.stuck = true // it was copied but could not be removed
		}
	}
	if j.stuck {
		j.note("what was displaced is still beside it as " + tempPrefix + token)
	}
	switch {
	case kept == "":
	case j.kept == "":
		j.kept = kept
	default:
		j.note("displaced as well: " + kept)
	}
	return !j.stuck
}

// hold sets what has to wait until the new inode has its name: the project, the
// time of a directory, which changes when it gets another parent (linux v6.1
// fs/xfs/xfs_inode.c:xfs_cross_rename), and the held flags, for nothing changes it
// after that.
func (j *job) hold() error {
	want := &j.step.Want
	if want.Flags&held == 0 && want.Project == j.mine.Project && want.Type != event.TypeDir || j.lead != nil {
		return nil
	}
	i, err := pin(j.s.disk, j.parent, j.base, j.step.Path, &j.mine)
	if err != nil {
		return err
	}
	defer i.close()
	if err := i.setProject(want); err != nil {
		return err
	}
	if want.Type == event.TypeDir {
		if err := i.setTimes(&event.State{}, want, nil); err != nil {
			return err
		}
	}
	if want.Flags&held == 0 {
		return nil
	}
	return i.addFlags(want.Flags & held) // the others it has, and those that somebody has set since
}

// takeAway moves what is at the path to the evidence. If that is on the same file
// system and it does not matter what is there, one rename does it; else the name
// goes first, to a temporary one.
func (j *job) takeAway() error {
	err := error(unix.EXDEV)
	if !j.strict && !several(&j.have) {
		var kept string
		err = j.inParent(func() (err error) {
			kept, err = j.s.evidence.take(j.parent, j.base, j.base, j.s.now(), j.token)
			return err
		})
		if kept != "" {
			j.kept = kept
			if err != nil {
				j.note(err.Error())
			}
			return nil
		}
	}
	if errors.Is(err, unix.EXDEV) {
		err = j.takeAside()
	}
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case errors.Is(err, unix.ENOENT):
		return errRaced
	}
	return err
}

// takeAside refuses what is too big for the evidence: nothing would be left of it.
func (j *job) takeAside() error {
	if j.s.evidence.far(j.parent) {
		if err := j.s.evidence.fits(j.parent, j.base); err != nil {
			return err
		}
	}
	if err := j.mark(); err != nil {
		return err
	}
	err := j.inParent(func() error {
		return j.s.disk.Rename(j.parent, j.base, j.parent, j.temp(), unix.RENAME_NOREPLACE)
	})
	if err != nil {
		return err
	}
	j.stuck = true
	out, err := lstat(j.parent, j.temp())
	if err != nil {
		return err
	}
	if j.strict && (out.Ino != j.have.Ino || out.Dev != j.have.Dev) {
		err := j.s.disk.Rename(j.parent, j.temp(), j.parent, j.base, unix.RENAME_NOREPLACE)
		j.stuck = err != nil
		return errors.Join(ErrRaced, err)
	}
	j.keep(j.parent, j.temp(), j.token)
	return nil
}

// removeEmpty removes a directory that holds nothing: never what others put in.
func (j *job) removeEmpty() error {
	err := j.inParent(func() error { return j.s.disk.Unlink(j.parent, j.base, unix.AT_REMOVEDIR) })
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("the directory holds files that are not part of this: %w", err)
	}
	return err
}
