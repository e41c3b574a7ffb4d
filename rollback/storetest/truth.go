package storetest

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Run returns what a program prints and fails the test if the program fails.
func Run(t testing.TB, name string, arg ...string) string {
	t.Helper()
	out, err := exec.Command(name, arg...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, arg, err, out)
	}
	return string(out)
}

// Sh runs a line of shell with the arguments as $1, $2 and so on.
func Sh(t testing.TB, line string, arg ...string) string {
	t.Helper()
	return Run(t, "sh", append([]string{"-euc", line, "sh"}, arg...)...)
}

// truth asks about the name $1 in the current directory. The name itself is cut
// from what is printed.
const truth = `
f=./$1
if test -L "$f"; then stat -c '%F owner %u:%g mtime %.9Y' -- "$f"; readlink -- "$f"
elif test -d "$f"; then stat -c '%F mode %a owner %u:%g' -- "$f"; echo "flags $(lsattr -d -- "$f" 2>/dev/null)"
elif test -f "$f"; then
	stat -c '%F mode %a owner %u:%g mtime %.9Y size %s' -- "$f"
	b3sum --no-names < "$f"
	echo "flags $(lsattr -d -- "$f" 2>/dev/null)"
else stat -c '%F mode %a owner %u:%g mtime %.9Y device %t:%T' -- "$f"
fi
a=$(getfattr -h -d -m - -e hex -- "$f" 2>/dev/null || true)
echo "$a"
case "$a" in *system.posix_acl*) getfacl -cpn -- "$f";; esac
case "$a" in *security.capability*) getcap "$f";; esac
`

// Truth is all that other programs say of a path, "nothing" if nothing is there.
func Truth(t testing.TB, path string) string {
	t.Helper()
	if _, err := os.Lstat(path); os.IsNotExist(err) {
		return "nothing"
	}
	c := exec.Command("sh", "-euc", truth, "sh", filepath.Base(path))
	c.Dir = filepath.Dir(path)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("the truth about %q: %v\n%s", path, err, out)
	}
	var lines []string
	for _, l := range strings.Split(strings.ReplaceAll(string(out), "./"+filepath.Base(path), ""), "\n") {
		if f, ok := strings.CutPrefix(l, "flags "); ok {
			// How data is laid out and indexed is the file system's affair.
			l = "flags " + strings.NewReplacer("-", "", "e", "", "I", "").Replace(f)
		}
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "# file:") {
			lines = append(lines, l)
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

// Tree is Truth of all paths below dir, sorted, each under its name.
func Tree(t testing.TB, dir string) string {
	t.Helper()
	var out bytes.Buffer
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "== %s\n%s", strings.TrimPrefix(p, dir), Truth(t, p))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// Temp returns a directory on memory (tmpfs) that is removed after the test.
func Temp(t testing.TB) string {
	t.Helper()
	d, err := os.MkdirTemp("/dev/shm", "holdfast-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		Loosen(t, d)
		os.RemoveAll(d)
	})
	return d
}

// Disk is a directory below the test's own that can be removed whatever flags
// the test leaves.
func Disk(t testing.TB) string {
	t.Helper()
	d := t.TempDir()
	t.Cleanup(func() { Loosen(t, d) })
	return d
}

// Loosen takes the flags off all below dir that would keep it from being removed.
func Loosen(t testing.TB, dir string) {
	t.Helper()
	Sh(t, `find "$1" \( -type f -o -type d \) -exec chattr -ia {} + 2>/dev/null || true`, dir)
}
