package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// makeFixture creates what the acts need below tree and out: a directory for
// each in both.
func makeFixture(tree, out string) error {
	for _, a := range everyAct() {
		s := newScene(a, tree, out)
		for _, d := range []string{s.dir, s.aside} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return err
			}
		}
		if s.path != "" {
			if err := makeThing(s.path, a.have); err != nil {
				return fmt.Errorf("make fixture of %s: %w", a.name, err)
			}
		}
		if err := makeThing(s.to, a.over); err != nil {
			return fmt.Errorf("make fixture of %s: %w", a.name, err)
		}
	}
	return nil
}

// stranger owns what is not the acting user's.
const stranger = 1234

func makeThing(path string, k kind) error {
	if k != nothing {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
	}
	switch k {
	case nothing:
		return nil
	case emptyDir:
		return os.Mkdir(path, 0o755)
	case dir:
		return errors.Join(os.Mkdir(path, 0o755), makeThing(filepath.Join(path, "inside"), file))
	case soft:
		return os.Symlink("/nonexistent/target", path)
	case subvolume:
		err := makeSubvolume(path)
		if err == nil {
			return makeThing(filepath.Join(path, "inside"), file)
		}
		return missing(err)
	}
	text := strings.Repeat("original content of "+filepath.Base(filepath.Dir(path))+"\n", 40)
	if k == blocks || k == swapFile || k == plainBlocks {
		text = strings.Repeat(text, 16*4096/len(text)+1)[:16*4096]
	}
	if k == swapFile {
		text = swapHeader() + text[4096:]
	}
	if k == plainBlocks {
		if err := withoutChecksum(path); err != nil {
			return err
		}
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	switch k {
	case suidFile:
		return errors.Join(os.Chown(path, stranger, stranger), unix.Chmod(path, 0o4755))
	case swapFile:
		return os.Chmod(path, 0o600)
	case attrFile:
		return errors.Join(missing(unix.Setxattr(path, "user.kept", []byte("kept"), 0)), missing(unix.Setxattr(path, "system.posix_acl_access", acl(), 0)))
	}
	return nil
}

// withoutChecksum makes path, empty, such that btrfs reads whatever is in its blocks.
func withoutChecksum(path string) error {
	const noCow = 0x00800000 // FS_NOCOW_FL
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags|noCow)
	}
	return errors.Join(missing(err), unix.Close(fd))
}

// missing forgives what a file system or a user cannot have: the act then says so.
func missing(err error) error {
	for _, e := range []error{unix.EOPNOTSUPP, unix.ENOTTY, unix.EPERM, unix.EINVAL} {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}

// swapHeader is the first page of a swap area of sixteen pages (linux/swap.h, union swap_header).
func swapHeader() string {
	page := make([]byte, 4096)
	binary.LittleEndian.PutUint32(page[1024:], 1)
	binary.LittleEndian.PutUint32(page[1028:], 15)
	copy(page[4086:], "SWAPSPACE2")
	return string(page)
}
