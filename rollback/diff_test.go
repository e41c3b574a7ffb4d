package rollback

import (
	"bytes"
	"fmt"
	"math/rand"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/rollback/storetest"
)

// TestDiffTextIsAPatchAsShortAsDiffMakes gives each diff to git apply and counts
// the changed lines of diff(1).
func TestDiffTextIsAPatchAsShortAsDiffMakes(t *testing.T) {
	var many []string
	for i := range 60 {
		many = append(many, fmt.Sprint("line ", i))
	}
	text := strings.Join(many, "\n") + "\n"
	cases := map[string][2]string{
		"a changed line":            {text, strings.Replace(text, "line 30", "other", 1)},
		"two hunks":                 {text, strings.Replace(strings.Replace(text, "line 5\n", "", 1), "line 50", "x\ny", 1)},
		"two changes in one hunk":   {text, strings.Replace(strings.Replace(text, "line 20", "a", 1), "line 26", "b", 1)},
		"from nothing":              {"", "a\nb\n"},
		"to nothing":                {"a\nb\n", ""},
		"no newline at the end":     {"a\nb", "a\nb\nc"},
		"a newline added":           {"a\nb", "a\nb\n"},
		"at the beginning":          {text, "new\n" + text},
		"at the end":                {text, text + "new\n"},
		"nothing in common":         {"a\nb\nc\n", "x\ny\n"},
		"very long and all another": {strings.Repeat("a\n", 3000), strings.Repeat("b\n", 2500)},
	}
	rng := rand.New(rand.NewSource(1))
	for i := range 40 {
		a, b := append([]string(nil), many...), append([]string(nil), many...)
		for range rng.Intn(20) {
			a[rng.Intn(len(a))] = fmt.Sprint("a", rng.Intn(5))
			b[rng.Intn(len(b))] = fmt.Sprint("a", rng.Intn(5))
			at := rng.Intn(len(b))
			b = append(b[:at], b[min(len(b), at+rng.Intn(3)):]...)
		}
		cases[fmt.Sprint("random ", i)] = [2]string{strings.Join(a, "\n") + "\n", strings.Join(b, "\n") + "\n"}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			differ, err := DiffText(&out, strings.NewReader(c[0]), strings.NewReader(c[1]), DiffOptions{OldName: "f", NewName: "f"})
			if err != nil || differ != (c[0] != c[1]) {
				t.Fatal(differ, err)
			}
			if !differ {
				return
			}
			dir := t.TempDir()
			write(t, filepath.Join(dir, "f"), c[0])
			write(t, filepath.Join(dir, "old"), c[0])
			write(t, filepath.Join(dir, "new"), c[1])
			write(t, filepath.Join(dir, "p"), out.String())
			git := exec.Command("git", "apply", "-p0", "p")
			git.Dir = dir
			if msg, err := git.CombinedOutput(); err != nil {
				t.Fatalf("git apply: %v\n%s\n%s", err, msg, out.String())
			}
			if got := read(t, filepath.Join(dir, "f")); got != c[1] {
				t.Errorf("git apply of\n%s\nmakes\n%s\nwanted\n%s", out.String(), got, c[1])
			}
			short := storetest.Sh(t, `cd "$1"; diff -d -u old new | grep -c '^[-+]' || true`, dir)
			if got := strings.Count("\n"+out.String(), "\n-") + strings.Count("\n"+out.String(), "\n+"); len(c[0]) < 5000 && fmt.Sprint(got) != strings.TrimSpace(short) {
				t.Errorf("%d changed lines, diff -d has %s", got, short)
			}
		})
	}
}

func TestDiffOfBinaryAndLongContentsIsOneLine(t *testing.T) {
	for name, c := range map[string]struct{ a, b, want string }{
		"binary": {"a\x00b", "a\x00c", "Binary contents old (3 bytes) and new (3 bytes) differ\n"},
		"long":   {strings.Repeat("x", 200), "y", "Contents old and new differ or are longer than 100 bytes\n"},
		"same":   {"a\x00b", "a\x00b", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			differ, err := DiffText(&out, strings.NewReader(c.a), strings.NewReader(c.b), DiffOptions{Max: 100})
			if err != nil || differ != (c.want != "") || out.String() != c.want {
				t.Errorf("%v, %v, %q", differ, err, out.String())
			}
		})
	}
}
