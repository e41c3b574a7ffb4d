//go:build live

package vmtests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// inside runs a shell script in the daemon's own mount namespace.
func (m *machine) inside(script string) string {
	m.t.Helper()
	return strings.TrimSpace(string(m.must("nsenter", "-t", fmt.Sprint(m.pid), "-m", "sh", "-ec", "cd "+m.dir+"; "+script)))
}

// What a path leads to changes by mounts, by renames above it and by other names,
// in a mount namespace of the daemon's own: each is told with who did it, and what
// is there then is compared.
func TestLiveMountsRenamesAboveAndOtherNames(t *testing.T) {
	m := newMachine(t)
	m.attr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // Go makes its mounts private
	www := m.path("top/www")
	for _, d := range []string{filepath.Join(www, "sub"), m.path("out")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"top/www/a", "top/www/linked", "top/www/sub/inner", "out/other"} {
		m.write(f, []byte("content of "+f+"\n"))
	}
	if err := os.Link(filepath.Join(www, "linked"), m.path("out/linked")); err != nil {
		t.Fatal(err)
	}
	m.start(www + "=observe")
	var want strings.Builder
	hash := func(path string) string { return "blake3:" + m.inside("b3sum --no-names "+path) }
	expect := func(format string, args ...any) { fmt.Fprintf(&want, "record "+format+"\n", args...) }

	m.inside("mount -t tmpfs shown top/www/sub")
	m.settle()
	expect("op=mount path=%s/sub process.exe=/usr/bin/mount detail.source=shown", www)
	m.inside("echo new >top/www/sub/new")
	m.settle()
	expect("op=create path=%s/sub/new after.hash=%s", www, hash("top/www/sub/new"))
	m.inside("umount top/www/sub")
	m.settle()
	expect("op=umount path=%s/sub process.exe=/usr/bin/umount", www)

	m.inside("mount -t tmpfs cover top")
	m.settle()
	expect("op=mount path=%s path_seen=%s process.exe=/usr/bin/mount", www, m.path("top"))
	m.inside("mkdir top/www; echo other >top/www/a")
	m.settle()
	expect("op=create path=%s/a after.hash=%s", www, hash("top/www/a"))
	m.inside("umount top")
	m.settle()
	expect("op=umount path=%s path_seen=%s process.exe=/usr/bin/umount", www, m.path("top"))
	expect("op=write path=%s/a found=beneath process.exe=/usr/bin/umount after.hash=%s", www, hash("top/www/a"))

	m.inside("mount --bind top/www top/www")
	m.settle()
	m.inside("mount -o remount,bind,ro top/www")
	m.settle()
	expect("op=remount path=%s process.exe=/usr/bin/mount", www)
	m.inside("umount top/www")
	m.settle()

	m.inside("mv $PWD/top $PWD/moved")
	m.settle()
	expect("op=rename path=%s process.exe=/usr/bin/mv", www)
	m.inside("mv $PWD/moved $PWD/top")
	m.settle()
	expect("op=rename path=%s process.exe=/usr/bin/mv reason~a.directory.was.renamed.to.this.path.*", www)
	m.inside("mv $PWD/top $PWD/moved; echo meanwhile >>moved/www/a; mv $PWD/moved $PWD/top")
	m.settle()
	expect("op=write path=%s/a after.hash=%s", www, hash("top/www/a"))
	m.inside("echo again >>top/www/a")
	m.settle()
	expect("op=write path=%s/a after.hash=%s", www, hash("top/www/a"))

	m.inside("echo more >>out/linked")
	m.settle()
	expect("op=write path=%s/linked after.hash=%s", www, hash("top/www/linked"))
	m.inside("mount --bind out/other top/www/a")
	m.settle()
	expect("op=mount path=%s/a process.exe=/usr/bin/mount", www)
	m.inside("echo more >>out/other")
	m.settle()
	expect("op=write path=%s/a after.hash=%s", www, hash("out/other"))
	m.inside("umount top/www/a; mkdir elsewhere; mount -t tmpfs t elsewhere; { umount elsewhere || { sleep 1; umount elsewhere; }; }")
	m.settle()

	m.inside("mount -t tmpfs brief top; umount top; mount -t tmpfs brief top/www/sub; umount top/www/sub")
	m.settle()
	for _, op := range []string{"mount", "umount"} {
		expect("op=%s path=%s path_seen=%s process.exe=/usr/bin/%s", op, www, m.path("top"), op)
		expect("op=%s path=%s/sub process.exe=/usr/bin/%s", op, www, op)
	}
	m.inside("mount --bind top/www top/www; mount --make-shared top/www; mkdir peer; mount --bind top/www peer; mkdir peer/here")
	m.settle()
	m.inside("mount -t tmpfs spread peer/here")
	m.settle()
	expect("op=mount path=%s/here process.exe=/usr/bin/mount detail.source=spread", www)
	m.inside("umount peer/here")
	m.settle()
	expect("op=umount path=%s/here process.exe=/usr/bin/umount", www)
	m.inside("umount peer; umount top/www")
	m.settle()
	// what was hidden and is there again was not touched
	for _, p := range []string{"sub/inner", "linked", "sub"} {
		for _, op := range []string{"create", "mkdir", "unlink", "rmdir"} {
			fmt.Fprintf(&want, "none op=%s path=%s/%s\n", op, www, p)
		}
	}
	fmt.Fprintf(&want, "none op=unlink path=%s/a\n", www)
	m.expect(want.String() + "none op=mount path_seen=" + m.path("elsewhere") + "\nnone kind=gap\n")
}

// What is written to the device below a file system goes past it. The file system's
// own writes are no such thing, and unmounted and mounted again it is what it was.
func TestLiveDevicesBelow(t *testing.T) {
	m := newMachine(t)
	m.attr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	disk, image := m.path("disk"), m.path("image")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	m.must("truncate", "-s", "8M", image)
	m.must("mkfs.ext4", "-q", image)
	m.start(disk + "=observe")
	m.inside("mount -o loop image disk")
	defer m.inside("umount disk")
	m.settle()
	dev := m.inside("findmnt -no SOURCE disk")
	m.inside("echo text >disk/file; sync disk/file")
	m.settle()
	m.inside("dd if=/dev/zero of=" + dev + " bs=1 count=3 seek=100 conv=notrunc status=none")
	m.settle()
	m.inside("umount disk; mount -o loop image disk")
	m.settle()
	m.inside("echo more >>disk/file; sync disk/file")
	m.settle()
	hash := "blake3:" + m.inside("b3sum --no-names disk/file")
	var want strings.Builder
	for _, line := range []string{
		"record op=raw_write path=DISK path_seen=" + dev + " process.exe=/usr/bin/dd",
		"record op=create path=DISK/file",
		"record op=umount path=DISK process.exe=/usr/bin/umount",
		"record op=write path=DISK/file after.hash=" + hash,
		"none op=raw_write process.comm~loop.*|kworker.*",
		"none op=unlink path=DISK/file",
		"none op=rmdir path=DISK/lost+found",
		"none kind=gap",
	} {
		want.WriteString(strings.ReplaceAll(line, "DISK", disk) + "\n")
	}
	m.expect(want.String())
}
