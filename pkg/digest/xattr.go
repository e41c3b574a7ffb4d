package digest

import (
	"bytes"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// fdXattrs reads all extended attributes of an open file.
func fdXattrs(fd int) (map[string]event.Bytes, error) {
	return xattrs(
		func(b []byte) (int, error) { return unix.Flistxattr(fd, b) },
		func(n string, b []byte) (int, error) { return unix.Fgetxattr(fd, n, b) })
}

// pathXattrs reads those of an inode that cannot be opened, through the magic
// link of an O_PATH descriptor: the link leads to the inode itself and goes no
// further, even if that is a symlink.
func pathXattrs(p string) (map[string]event.Bytes, error) {
	return xattrs(
		func(b []byte) (int, error) { return unix.Listxattr(p, b) },
		func(n string, b []byte) (int, error) { return unix.Getxattr(p, n, b) })
}

func xattrs(list func([]byte) (int, error), get func(string, []byte) (int, error)) (map[string]event.Bytes, error) {
	var small [512]byte
	raw, err := sized(small[:], list)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil, nil
	}
	if err != nil || len(raw) == 0 {
		return nil, err
	}
	m := map[string]event.Bytes{}
	var value [512]byte
	for _, n := range bytes.Split(bytes.TrimSuffix(raw, []byte{0}), []byte{0}) {
		name := string(n)
		v, err := sized(value[:], func(b []byte) (int, error) { return get(name, b) })
		switch {
		case errors.Is(err, unix.ENODATA), errors.Is(err, unix.EOPNOTSUPP):
			continue // removed since it was listed, or listed by a file system that has no value for it
		case err != nil:
			return nil, err
		}
		m[name] = bytes.Clone(v)
		if v == nil || m[name] == nil {
			m[name] = event.Bytes{}
		}
	}
	if len(m) == 0 {
		return nil, nil
	}
	return m, nil
}

// sized calls f with a buffer that is large enough: the one given if it is, else
// one of the size that f asks for, again if it grew meanwhile.
func sized(buf []byte, f func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := AgainInt(func() (int, error) { return f(buf) })
		if err == nil {
			return buf[:n], nil
		}
		if !errors.Is(err, unix.ERANGE) {
			return nil, err
		}
		if n, err = AgainInt(func() (int, error) { return f(nil) }); err != nil {
			return nil, err
		}
		buf = make([]byte, n+256)
	}
}
