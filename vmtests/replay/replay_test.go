package replay

import (
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// told is a tree as text: each path with its mode.
func told(t *Tree) string {
	var o []string
	t.Walk(func(path string, s *State) { o = append(o, path+" "+s.Mode) })
	return strings.Join(o, ", ")
}

func TestRecordsMoveATreeOn(t *testing.T) {
	const (
		dir  = `{"exists":true,"type":"dir","mode":"0755"}`
		file = `{"exists":true,"type":"regular","mode":"0644"}`
		more = `{"exists":true,"type":"regular","mode":"0600"}`
		gone = `{"exists":false}`
	)
	rec := func(op, path, to, after string, ops ...string) string {
		return `{"kind":"change","op":"` + op + `","ops":["` + strings.Join(append(ops, op), `","`) + `"],"path":"` + path + `","path_to":"` + to + `","after":` + after + `}`
	}
	for _, tt := range []struct {
		name string
		log  []string
		want string
	}{
		{"a file is made and changed", []string{rec("create", "/t/a", "", file), rec("chmod", "/t/a", "", more)}, "/t 0755, /t/a 0600, /t/d 0755, /t/d/x 0644"},
		{"a removed directory takes all below along", []string{rec("rmdir", "/t/d", "", gone)}, "/t 0755"},
		{"a renamed directory takes all below along", []string{rec("rename", "/t/d", "/t/e", dir)}, "/t 0755, /t/e 0755, /t/e/x 0644"},
		{"a rename replaces what was there", []string{rec("create", "/t/a", "", more), rec("rename", "/t/a", "/t/d/x", more)}, "/t 0755, /t/d 0755, /t/d/x 0600"},
		{"an exchange swaps both names", []string{rec("create", "/t/a", "", more), rec("rename", "/t/a", "/t/d", more, "exchange")}, "/t 0755, /t/a 0755, /t/a/x 0644, /t/d 0600"},
		{"a rename out of the tree takes the name", []string{rec("rename", "/t/d/x", "", gone)}, "/t 0755, /t/d 0755"},
		{"a link gives the second name", []string{rec("link", "/t/d/x", "/t/y", file)}, "/t 0755, /t/d 0755, /t/d/x 0644, /t/y 0644"},
		{"bytes that are no text are told by their numbers", []string{rec("create", `/t/\\xFF\\x5Cx41`, "", file)}, "/t 0755, /t/d 0755, /t/d/x 0644, /t/\xff\\x41 0644"},
		{"what is no change changes nothing", []string{`{"kind":"attempt","op":"unlink","path":"/t/d/x","after":{"exists":false}}`}, "/t 0755, /t/d 0755, /t/d/x 0644"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tree := &Tree{}
			tree.Set("/t", State{Exists: true, Type: "dir", Mode: "0755"})
			tree.Set("/t/d", State{Exists: true, Type: "dir", Mode: "0755"})
			tree.Set("/t/d/x", State{Exists: true, Type: "regular", Mode: "0644"})
			log := ""
			for i, l := range tt.log {
				log += `{"seq":` + string(rune('1'+i)) + `,` + l[1:] + "\n"
			}
			if _, err := tree.Follow(strings.NewReader(log)); err != nil {
				t.Fatal(err)
			}
			if got := told(tree); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestAMissingRecordIsAnError(t *testing.T) {
	if _, err := (&Tree{}).Follow(strings.NewReader("{\"seq\":1}\n{\"seq\":3}\n")); err == nil {
		t.Error("no error")
	}
}

// What a scan tells is what other programs tell, and each kind of difference is found.
func TestAScanTellsWhatOtherProgramsTell(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, []byte("content\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("some\nwhere", link); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := Scan(dir)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("b3sum", "--no-names", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := before.Get(file).Hash, "blake3:"+strings.TrimSpace(string(out)); got != want {
		t.Errorf("hash %s, b3sum says %s", got, want)
	}
	if s := before.Get(link); s.Type != "symlink" || string(s.Target) != "some\nwhere" {
		t.Errorf("symlink: %+v", s)
	}
	for field, change := range map[string]func() error{
		"hash":  func() error { return os.WriteFile(file, []byte("kontent\n"), 0o640) },
		"mode":  func() error { return os.Chmod(file, 0o4750) },
		"owner": func() error { return os.Lchown(link, os.Getuid(), 12345) },
		"mtime": func() error { return unix.Utimes(file, []unix.Timeval{{Sec: 1}, {Sec: 1}}) },
		"exists": func() error {
			return os.Rename(filepath.Join(dir, "fifo"), filepath.Join(dir, hex.EncodeToString([]byte("fifo"))))
		},
	} {
		if field == "owner" && os.Getuid() != 0 {
			continue
		}
		was, err := Scan(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		now, err := Scan(dir)
		if err != nil {
			t.Fatal(err)
		}
		if d := was.Compare(now); !slices.ContainsFunc(d, func(d Difference) bool { return d.Field == field }) {
			t.Errorf("%s: differences %v", field, d)
		}
		if d := now.Compare(now); len(d) != 0 {
			t.Errorf("a tree differs from itself: %v", d)
		}
	}
}
