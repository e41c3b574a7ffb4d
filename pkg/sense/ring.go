package sense

import (
	"os"
	"path/filepath"
	"strings"
)

// Rings counts the instances of io_uring below proc that hold files of their own: one
// that was registered and closed is in no table of descriptors (linux v6.1
// io_uring/fdinfo.c:io_uring_show_fdinfo, UserFiles). It looks at every descriptor of
// the machine.
func Rings(proc string) int {
	all, err := filepath.Glob(filepath.Join(proc, "[0-9]*/fd/*"))
	if err != nil {
		return 0 // the pattern is fixed
	}
	n := 0
	for _, fd := range all {
		if to, err := os.Readlink(fd); err != nil || to != "anon_inode:[io_uring]" {
			continue
		}
		dir, name := filepath.Split(fd)
		b, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Clean(dir)), "fdinfo", name))
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "UserFiles:"); ok && strings.TrimSpace(v) != "0" {
				n++
			}
		}
	}
	return n
}
