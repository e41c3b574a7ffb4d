package rollback

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
)

// newName is what the staged inode is called in a private directory.
const newName = "new"

// build makes the inode that will take the path, complete with content and
// metadata, where nobody sees it: a regular file without a name, anything else
// inside a directory of our own beside the path.
func (j *job) build() error {
	want := &j.step.Want
	if err := j.clean(); err != nil { // of a try that found the disk full
		return err
	}
	switch want.Type {
	case event.TypeRegular:
		var err error
		j.staged, err = j.unnamed()
		if err != nil {
			return err
		}
		if err := j.fill(); err != nil {
			return err
		}
		return j.dressStaged(&inode{disk: j.s.disk, object: j.step.Path, at: j.staged, read: j.staged})
	case event.TypeSocket:
		return ErrKind
	}
	if err := j.makePrivate(); err != nil {
		return err
	}
	if err := j.makeNew(); err != nil {
		return err
	}
	i, err := pin(j.s.disk, j.private, newName, j.step.Path, nil)
	if err != nil {
		return err
	}
	defer i.close()
	return j.dressStaged(i)
}

// unnamed makes the new regular file. Where the file system has no O_TMPFILE it
// gets a name in a private directory.
func (j *job) unnamed() (int, error) {
	fd := -1
	err := j.inParent(func() (err error) {
		fd, err = j.s.disk.Unnamed(j.parent, j.step.Path)
		return err
	})
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	if err := j.makePrivate(); err != nil {
		return -1, err
	}
	return j.s.disk.Create(j.private, newName, 0o600)
}

// makeNew makes what is no regular file.
func (j *job) makeNew() error {
	want := &j.step.Want
	switch want.Type {
	case event.TypeSymlink:
		return j.s.disk.Symlink(string(want.Target), j.private, newName)
	case event.TypeDir:
		return j.s.disk.Mkdir(j.private, newName, 0o700)
	case event.TypeFIFO, event.TypeChar, event.TypeBlock:
		return j.s.disk.Mknod(j.private, newName, nodeType(want.Type)|0o600, want.Rdev)
	}
	return fmt.Errorf("file type %q: %w", want.Type, ErrKind)
}

func (j *job) dressStaged(i *inode) error {
	fd := i.at
	if i.read >= 0 {
		fd = i.read
	}
	cur, err := digest.StatFD(fd)
	if err != nil {
		return err
	}
	j.mine = cur
	var atime *unix.Timespec
	if st, err := lstat(j.parent, j.base); err == nil && j.have.Type == j.step.Want.Type {
		atime = &st.Atim
	}
	return i.dress(cur, &j.step.Want, atime, false)
}

func (j *job) temp() string { return tempPrefix + j.token }

// mark writes the intent, before the first temporary name exists.
func (j *job) mark() error {
	if j.marked {
		return nil
	}
	if err := j.s.begin(j.token, j.step.Path, j.loose); err != nil {
		return err
	}
	j.marked = true
	return nil
}

// makePrivate makes a directory that only we can enter. Whoever owns the parent
// can move it away, but not reach what is in it.
func (j *job) makePrivate() error {
	if err := j.mark(); err != nil {
		return err
	}
	err := j.inParent(func() error { return j.s.disk.Mkdir(j.parent, j.temp(), 0o700) })
	if err != nil {
		return err
	}
	fd, err := digest.AgainInt(func() (int, error) {
		return unix.Openat(j.parent, j.temp(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return j.unmade(fmt.Errorf("open %q: %w", j.temp(), err))
	}
	var st unix.Stat_t
	if err := digest.Again(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return j.unmade(errors.Join(fmt.Errorf("stat %q: %w", j.temp(), err), unix.Close(fd)))
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
		return errors.Join(fmt.Errorf("private directory %q: it was exchanged", j.temp()), unix.Close(fd))
	}
	j.private = fd
	return nil
}

// unmade removes a private directory that cannot be used, because of err; else the intent
// stays, and the next Open clears it.
func (j *job) unmade(err error) error {
	uerr := j.inParent(func() error { return j.s.disk.Unlink(j.parent, j.temp(), unix.AT_REMOVEDIR) })
	j.stuck = uerr != nil
	return errors.Join(err, uerr)
}

// dropPrivate removes our directory and the new inode that may be left in it. A
// displaced one that could not be kept stays.
func (j *job) dropPrivate() error {
	fd := j.private
	j.private = -1
	if j.stuck {
		return unix.Close(fd)
	}
	err := j.s.disk.Unlink(fd, newName, 0)
	if errors.Is(err, unix.EISDIR) {
		err = j.s.disk.Unlink(fd, newName, unix.AT_REMOVEDIR)
	}
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	err = errors.Join(err, unix.Close(fd))
	if uerr := j.s.disk.Unlink(j.parent, j.temp(), unix.AT_REMOVEDIR); uerr != nil {
		j.stuck = true // so that the intent stays and the next Open clears it
		err = errors.Join(err, uerr)
	}
	return err
}

// inParent calls f, which changes names in the parent, and again without the
// parent's held flags if these forbid it. Other restores in the same directory take
// them off and put them back as well: so it may have to be done more than once.
func (j *job) inParent(f func() error) error {
	err := f()
	for try := 1; errors.Is(err, unix.EPERM) && try < attempts; try++ {
		loosened, lerr := j.loosenParent()
		if lerr != nil {
			return lerr
		}
		if !loosened && try > 1 {
			return err
		}
		err = f()
	}
	return err
}

// loosenParent takes the held flags off the parent and reports whether it had some.
func (j *job) loosenParent() (bool, error) {
	flags, err := digest.GetUint32(j.parent, unix.FS_IOC_GETFLAGS)
	if err != nil || flags&held == 0 {
		return false, nil // what has no flags forbids nothing by them
	}
	if off := flags & held; j.loose|off != j.loose {
		was := j.loose
		j.loose |= off
		var err error
		if j.marked { // the mark lacks the flags
			err = j.s.remark(j.token, j.step.Path, j.loose)
		} else {
			err = j.mark()
		}
		if err == nil {
			err = j.s.disk.Fsync(j.s.intents, "intents") // they may be on another disk
		}
		if err != nil {
			j.loose = was
			return false, err
		}
	}
	i := &inode{disk: j.s.disk, object: j.step.Path, at: j.parent, read: j.parent}
	return true, i.setFlags(flags & event.FlagsMask &^ held)
}

// addFlags sets flags beside those that are set.
func (i *inode) addFlags(flags uint32) error {
	now, err := digest.GetUint32(i.read, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return fmt.Errorf("get flags of %q: %w", i.object, err)
	}
	return i.setFlags(now&event.FlagsMask | flags)
}

// settle makes the new inode durable before it gets the name.
func (j *job) settle() error {
	if j.lead != nil {
		return nil
	}
	if j.staged >= 0 {
		return j.s.disk.Fsync(j.staged, j.step.Path)
	}
	if j.private < 0 {
		return nil
	}
	if j.step.Want.Type == event.TypeDir {
		if err := j.s.disk.FsyncAt(j.private, newName); err != nil {
			return err
		}
	}
	return j.s.disk.Fsync(j.private, j.step.Path)
}
