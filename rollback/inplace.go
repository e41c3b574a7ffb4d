package rollback

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
)

// A file that something is mounted on cannot be exchanged: rename(2) says EBUSY
// for a mount point. If the mounted inode is the one that the version was taken
// of, as with the files that a container runtime mounts one by one, it is written
// in place instead. Any other one was mounted there since: writing into it would
// change a file that lives elsewhere.

// inPlace writes the version into the inode that is there, which readers may see
// half done.
func (j *job) inPlace() error {
	want := &j.step.Want
	if j.have.Type != event.TypeRegular || want.Type != event.TypeRegular ||
		want.Ino == 0 || j.have.Ino != want.Ino || j.have.Dev != want.Dev {
		return ErrBusy
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
	return off.settle(j.writeInPlace(i))
}

func (j *job) writeInPlace(i *inode) error {
	fd, err := digest.AgainInt(func() (int, error) {
		return unix.Open(i.path(), unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	})
	if err != nil {
		return fmt.Errorf("open %q for writing: %w", j.step.Path, err)
	}
	defer unix.Close(fd)
	if err := j.keepCopy(); err != nil {
		return err
	}
	staged := j.staged
	j.staged = fd
	err = j.fillOver()
	j.staged = staged
	if err != nil {
		return err
	}
	j.note("it is a mount point: written in place, which readers could see half done")
	cur, err := digest.StatFD(i.read)
	if err != nil {
		return err
	}
	if err := i.dress(cur, &j.step.Want, nil, true); err != nil {
		return err
	}
	return j.s.disk.Fsync(i.read, j.step.Path)
}

// keepCopy copies the bad content to the evidence, if it fits.
func (j *job) keepCopy() error {
	at := j.s.now()
	kept, err := j.s.evidence.copyOf(j.parent, j.base, itemName(j.base, at, j.token))
	if errors.Is(err, errTooBig) {
		j.note("what was there is not kept: " + err.Error())
		return nil
	}
	j.kept = kept
	return err
}

// fillOver writes the whole content over what is there, holes too, and cuts it to
// length at the end: mappings of it lose no page before.
func (j *job) fillOver() error {
	j.holes = nil
	if err := j.fill(); err != nil {
		return err
	}
	return j.s.disk.Truncate(j.staged, j.step.Path, int64(j.step.Want.Size))
}
