package rollback

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/cas"
)

// held are the flags that forbid changing an inode; they are put on last.
const held = event.FlagImmutable | event.FlagAppend

// byXattr are the flags that an attribute of btrfs sets as well (linux v6.1 fs/btrfs/props.c:
// prop_compression_apply): those of compression, c and m of chattr(1).
const byXattr = 0x4 | 0x400

// fill writes the content that the step brings along, or else the vault's.
func (j *job) fill() error {
	if j.step.Content != nil {
		return j.s.disk.Write(j.staged, j.step.Path, j.step.Content, 0)
	}
	return j.s.fill(j.ctx, j.staged, j.step.Path, &j.step.Want, j.holes)
}

// fill writes the content of want into a new regular file, which nobody can see
// yet, leaving its holes out. The content is verified on the way: on error the
// file must be thrown away.
func (s *Store) fill(ctx context.Context, fd int, object string, want *event.State, holes []digest.Extent) error {
	w := &holeWriter{ctx: ctx, disk: s.disk, fd: fd, object: object, holes: holes}
	switch {
	case len(holes) > 0:
		if err := s.disk.Truncate(fd, object, int64(want.Size)); err != nil {
			return err
		}
	case want.Size > cas.SmallSize:
		if err := s.disk.Allocate(fd, object, int64(want.Size)); err != nil {
			return err
		}
	}
	n, err := s.objects.Stream(want.Hash, w)
	if err != nil {
		return err
	}
	if uint64(n) != want.Size {
		return fmt.Errorf("content of %q: %w: %d bytes, the version says %d", object, ErrCorrupt, n, want.Size)
	}
	return nil
}

// holeWriter writes a stream and passes over the holes.
type holeWriter struct {
	ctx    context.Context
	disk   cas.Disk
	fd     int
	object string
	holes  []digest.Extent
	off    int64
}

func (w *holeWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	total := len(p)
	for len(p) > 0 {
		n := int64(len(p))
		for len(w.holes) > 0 && w.holes[0].Off+w.holes[0].Len <= w.off {
			w.holes = w.holes[1:]
		}
		if len(w.holes) > 0 {
			h := w.holes[0]
			if h.Off <= w.off {
				n = min(n, h.Off+h.Len-w.off)
				p, w.off = p[n:], w.off+n
				continue
			}
			n = min(n, h.Off-w.off)
		}
		if err := w.disk.Write(w.fd, w.object, p[:n], w.off); err != nil {
			return total - len(p), err
		}
		p, w.off = p[n:], w.off+n
	}
	return total, nil
}

// inode is an inode whose metadata is being set: at may be an O_PATH descriptor,
// read is one that can take ioctls, or -1 for what has no flags.
type inode struct {
	disk   cas.Disk
	object string
	at     int
	read   int
}

func (i *inode) path() string { return fmt.Sprintf("/proc/self/fd/%d", i.at) }

// dress makes the metadata of an inode that is in state cur what want says. The
// order follows from what undoes what:
//
//	held flags off   nothing can be set before
//	chown            clears set-id bits and capabilities
//	ACLs that go     their mask shows in the group bits
//	chmod            rewrites the mask of an ACL
//	ACLs, others     set the group bits
//	capabilities     must come after all that strips them
//	times
//	flags            at the very end; the held ones only if last is set
//
// atime is set too if it is not nil. The project is set only if last is, for no
// link leads from a directory that hands its own project down to a file of another
// one (linux v6.1 fs/ext4/namei.c:ext4_link).
func (i *inode) dress(cur event.State, want *event.State, atime *unix.Timespec, last bool) error {
	if cur.Flags&held != 0 {
		if err := i.setFlags(cur.Flags &^ held); err != nil {
			return err
		}
		cur.Flags &^= held
	}
	owner := cur.UID != want.UID || cur.GID != want.GID
	if owner {
		if err := i.disk.Chown(i.at, i.object, want.UID, want.GID); err != nil {
			return err
		}
	}
	for _, n := range cur.XattrNames() {
		if _, keep := want.Xattrs[n]; keep || kernelOwns(n) || owner && n == event.XattrCaps {
			continue
		}
		err := i.disk.Removexattr(i.path(), i.object, n)
		if err != nil && !errors.Is(err, unix.ENODATA) {
			return err
		}
	}
	aclChanges := string(cur.Xattrs[event.XattrACL]) != string(want.Xattrs[event.XattrACL])
	if want.Type != event.TypeSymlink && (owner || aclChanges || cur.Mode != want.Mode) {
		if err := i.disk.Chmod(i.path(), i.object, uint32(want.Mode)); err != nil {
			return err
		}
		aclChanges = aclChanges || cur.Mode != want.Mode
	}
	if err := i.setXattrs(&cur, want, owner, aclChanges); err != nil {
		return err
	}
	if err := i.setTimes(&cur, want, atime); err != nil {
		return err
	}
	flags := want.Flags
	if !last {
		flags &^= held
	} else if err := i.setProject(want); err != nil {
		return err
	}
	if flags == cur.Flags {
		return nil
	}
	if i.read >= 0 {
		now, err := digest.GetUint32(i.read, unix.FS_IOC_GETFLAGS)
		if err == nil && (now^cur.Flags)&event.FlagsSet&^byXattr != 0 {
			return errRaced // somebody has set others, or taken some off, since they were looked at
		}
	}
	return i.setFlags(flags)
}

// setXattrs sets what differs; capabilities come last.
func (i *inode) setXattrs(cur, want *event.State, owner, acl bool) error {
	names := want.XattrNames()
	for _, caps := range []bool{false, true} {
		for _, n := range names {
			if (n == event.XattrCaps) != caps || kernelOwns(n) {
				continue
			}
			if v, ok := cur.Xattrs[n]; ok && string(v) == string(want.Xattrs[n]) && !(caps && owner) && !(acl && n == event.XattrACL) {
				continue
			}
			if err := i.disk.Setxattr(i.path(), i.object, n, want.Xattrs[n]); err != nil {
				return err
			}
		}
	}
	return nil
}

// kernelOwns names attributes that the kernel keeps itself and lets nobody set:
// EVM's seal is bound to the inode (linux security/integrity/evm).
func kernelOwns(name string) bool {
	return name == "security.evm" || strings.HasPrefix(name, "trusted.overlay.")
}

func (i *inode) setTimes(cur, want *event.State, atime *unix.Timespec) error {
	if cur.Mtime == want.Mtime && atime == nil {
		return nil
	}
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, timespec(want.Mtime)}
	if atime != nil {
		ts[0] = *atime
	}
	return i.disk.Utimes(i.at, i.object, ts)
}

// setProject sets the quota project. One that the file system does not have is no
// error if none is wanted.
func (i *inode) setProject(want *event.State) error {
	if i.read < 0 {
		return nil
	}
	x, err := digest.GetFSXattr(i.read)
	if err != nil || x.Project == want.Project {
		if want.Project == 0 {
			err = nil
		}
		return err
	}
	x.Project = want.Project
	return i.disk.SetProject(i.read, i.object, x)
}

// timespec splits t so that nanoseconds count upwards before 1970 too.
func timespec(t event.Time) unix.Timespec {
	sec, ns := int64(t)/1e9, int64(t)%1e9
	if ns < 0 {
		sec, ns = sec-1, ns+1e9
	}
	return unix.Timespec{Sec: sec, Nsec: ns}
}

// setFlags sets the chattr(1) flags and leaves those that nobody can set as
// they are.
func (i *inode) setFlags(flags uint32) error {
	if i.read < 0 {
		return fmt.Errorf("set flags of %q: it has none", i.object)
	}
	now, err := digest.GetUint32(i.read, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return fmt.Errorf("get flags of %q: %w", i.object, err)
	}
	next := now&^event.FlagsSet | flags&event.FlagsSet
	if next == now {
		return nil
	}
	return i.disk.Setflags(i.read, i.object, next)
}

// pin opens name in dirfd so that its metadata can be set, and makes sure that
// it is the inode that was looked at.
func pin(disk cas.Disk, dirfd int, name, object string, seen *event.State) (*inode, error) {
	fd, err := digest.AgainInt(func() (int, error) { return unix.Openat(dirfd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", object, err)
	}
	i := &inode{disk: disk, object: object, at: fd, read: -1}
	var st unix.Stat_t
	if err := digest.Again(func() error { return unix.Fstat(fd, &st) }); err != nil {
		i.close()
		return nil, fmt.Errorf("stat %q: %w", object, err)
	}
	if seen != nil && (st.Ino != seen.Ino || st.Dev != seen.Dev) {
		i.close()
		return nil, errRaced
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
		i.read, err = digest.AgainInt(func() (int, error) {
			return unix.Open(i.path(), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		})
		if err != nil {
			i.close()
			return nil, fmt.Errorf("open %q: %w", object, err)
		}
	}
	return i, nil
}

func (i *inode) close() {
	unix.Close(i.at)
	if i.read >= 0 {
		unix.Close(i.read)
	}
}
