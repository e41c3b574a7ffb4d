package regular_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/internal/regular"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsNoRegularFileIsToldOfAtOnce(t *testing.T) {
	for what, make := range map[string]func(name string) error{
		"a pipe":      func(name string) error { return unix.Mkfifo(name, 0o600) },
		"a directory": func(name string) error { return os.Mkdir(name, 0o700) },
		"a link":      func(name string) error { return os.Symlink("/dev/zero", name) },
		"a link to a regular file": func(name string) error {
			return errors.Join(os.WriteFile(name+".to", []byte("x"), 0o600), os.Symlink(name+".to", name))
		},
		"a socket": func(name string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
			if err == nil {
				l.SetUnlinkOnClose(false)
				err = l.Close()
			}
			return err
		},
		"a device": func(name string) error {
			err := unix.Mknod(name, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5)))
			if errors.Is(err, unix.EPERM) {
				return nil // not root: there is no device then, and reading fails as well
			}
			return err
		},
		"a file of a terabyte": func(name string) error {
			return errors.Join(os.WriteFile(name, nil, 0o600), os.Truncate(name, 1<<40))
		},
	} {
		t.Run(what, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "f")
			must(t, make(name))
			begun := time.Now()
			if b, err := regular.ReadFile(name, 1<<20); !errors.Is(err, regular.ErrNot) && !os.IsNotExist(err) {
				t.Errorf("read %d bytes, %v", len(b), err)
			}
			if what != "a file of a terabyte" && what != "a device" {
				for _, flag := range []int{os.O_RDWR | os.O_CREATE, os.O_WRONLY | os.O_CREATE | os.O_TRUNC, os.O_WRONLY | os.O_APPEND} {
					if f, err := regular.Open(name, flag, 0o600); !errors.Is(err, regular.ErrNot) {
						t.Errorf("opened with %#x: %v, %v", flag, f, err)
					}
				}
			}
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestARegularFileIsOpenedAsEver(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	f, err := regular.Open(name, os.O_CREATE|os.O_WRONLY, 0o600)
	must(t, err)
	_, err = f.WriteString("four")
	must(t, errors.Join(err, f.Close()))
	if b, err := regular.ReadFile(name, 4); err != nil || string(b) != "four" {
		t.Fatalf("%q, %v", b, err)
	}
	if _, err := regular.ReadFile(name, 3); !errors.Is(err, regular.ErrNot) {
		t.Fatal(err)
	}
	f, err = regular.Open(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	must(t, errors.Join(err, f.Close()))
	if b, err := regular.ReadFile(name, 3); err != nil || len(b) != 0 {
		t.Fatalf("%q, %v", b, err)
	}
	if _, err := regular.ReadFile(name+"x", 3); !os.IsNotExist(err) {
		t.Fatal(err)
	}
}
