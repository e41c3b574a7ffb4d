package replay

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// Scan looks at everything at and below root, an absolute path without symlinks.
// Nothing may change meanwhile: what does is an error.
func Scan(root string) (*Tree, error) {
	t := &Tree{}
	return t, scan(t, root)
}

func scan(t *Tree, path string) error {
	s, err := look(path)
	if err != nil {
		return fmt.Errorf("scan %s: %w", escape(path), err)
	}
	t.Set(path, s)
	if s.Type != "dir" {
		return nil
	}
	list, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, d := range list {
		if err := scan(t, path+"/"+d.Name()); err != nil {
			return err
		}
	}
	return nil
}

// look takes the state of one path.
func look(path string) (State, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return State{}, err
	}
	s := State{
		Exists: true, Mode: fmt.Sprintf("%04o", st.Mode&0o7777), UID: st.Uid, GID: st.Gid, Ino: st.Ino,
		Mtime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec).UTC(),
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		s.Type, s.Size = "regular", uint64(st.Size)
		if s.Hash, err = hash(path); err != nil {
			return s, err
		}
		s.Flags = flags(path)
	case unix.S_IFDIR:
		s.Type = "dir"
		s.Mtime = time.Time{}
		s.Flags = flags(path)
	case unix.S_IFLNK:
		s.Type = "symlink"
		target, err := os.Readlink(path)
		if err != nil {
			return s, err
		}
		s.Target = Bytes(target)
	case unix.S_IFIFO:
		s.Type = "fifo"
	case unix.S_IFSOCK:
		s.Type = "socket"
	case unix.S_IFCHR:
		s.Type, s.Rdev = "char", st.Rdev
	case unix.S_IFBLK:
		s.Type, s.Rdev = "block", st.Rdev
	}
	s.Xattrs, err = attributes(path)
	return s, err
}

func hash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := blake3.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return "blake3:" + hex.EncodeToString(h.Sum(nil)), nil
}

// flags returns the letters of lsattr(1) but those that tell of layout (linux v6.1
// include/uapi/linux/fs.h FS_*_FL), "" where the file system has none.
func flags(path string) string {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	v, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return ""
	}
	const letters = "s0 u1 S3 D16 i4 a5 d6 A7 c2 E11 j14 t15 T17 C23 x25 F30 P29 V20 m10"
	var out strings.Builder
	for l := range strings.FieldsSeq(letters) {
		var bit uint
		if _, err := fmt.Sscan(l[1:], &bit); err == nil && v>>bit&1 != 0 {
			out.WriteByte(l[0])
		}
	}
	return out.String()
}

func attributes(path string) (map[string]Bytes, error) {
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list attributes: %w", err)
	}
	m := make(map[string]Bytes)
	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		k, err := unix.Lgetxattr(path, name, value)
		if errors.Is(err, unix.EOPNOTSUPP) {
			continue // listed by a file system that has no value for it
		}
		if err != nil {
			return nil, fmt.Errorf("read attribute %s: %w", name, err)
		}
		m[name] = value[:k]
	}
	return m, nil
}
