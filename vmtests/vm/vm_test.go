package vm

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseKernels(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"comments and empty lines are left out", "# no\n\n6.1 linux-image-6\\.1.* bookworm\n", ""},
		{"a line needs three fields", "6.1 linux-image\n", "kernels.txt:1"},
		{"a pattern must be one", "a [ b\n", "kernels.txt:1"},
		{"a name appears once", "a b c\na d e\n", "kernels.txt:2: kernel a appears twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ks, err := ParseKernels([]byte(tt.text))
			if tt.want == "" {
				if err != nil || len(ks) != 1 || !ks[0].Package.MatchString("linux-image-6.1.0-9-cloud") {
					t.Errorf("got %v, %v", ks, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestKernelsFile(t *testing.T) {
	text, err := os.ReadFile("../kernels.txt")
	if err != nil {
		t.Fatal(err)
	}
	ks, err := ParseKernels(text)
	if err != nil || len(ks) == 0 {
		t.Fatalf("got %d kernels, %v", len(ks), err)
	}
	if _, err := Find(ks, "0.01"); !errors.Is(err, ErrUnknownKernel) {
		t.Errorf("an unknown kernel gives %v", err)
	}
}

func TestCompareVersions(t *testing.T) {
	got := []string{"linux-image-6.1.0-41-cloud-amd64", "linux-image-6.1.0-9-cloud-amd64", "linux-image-6.12.1-1-cloud-amd64", "linux-image-6.1.0-100-cloud-amd64"}
	slices.SortFunc(got, compareVersions)
	want := []string{"linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-41-cloud-amd64", "linux-image-6.1.0-100-cloud-amd64", "linux-image-6.12.1-1-cloud-amd64"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestParseSerial(t *testing.T) {
	for _, tt := range []struct {
		name, serial, output string
		exit                 int
		ok                   bool
	}{
		{"output and exit code are cut out", "Booting\n@@BEGIN 6.1.0\nhello\n\n@@EXIT 3\n[ 1.0] Power down\n", "hello\n", 3, true},
		{"a script that prints a marker of its own does not end early", "@@BEGIN 6.1.0\n@@EXIT 0\nmore\n\n@@EXIT 1\n", "@@EXIT 0\nmore\n", 1, true},
		{"a guest that never came to the script", "Kernel panic\n", "", 0, false},
		{"a guest that stopped in the script", "@@BEGIN 6.1.0\nhello\n", "hello\n", 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := parseSerial([]byte(tt.serial))
			if tt.ok != (err == nil) || err != nil && !errors.Is(err, ErrNoEnd) {
				t.Fatalf("error %v", err)
			}
			if r.Output != tt.output || r.Exit != tt.exit {
				t.Errorf("got %q, %d", r.Output, r.Exit)
			}
		})
	}
}

func TestFilesGoInAndOut(t *testing.T) {
	dir, out := t.TempDir(), t.TempDir()
	src := filepath.Join(dir, "tree")
	if err := os.MkdirAll(filepath.Join(src, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"tree/sub/a": "one", "tree/b": "two", "lone": "three"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	disk := filepath.Join(dir, "disk")
	if err := packIn(disk, Options{Script: "true", Files: map[string]string{"/etc/tree": src, "/etc/lone": filepath.Join(dir, "lone")}}); err != nil {
		t.Fatal(err)
	}
	if err := unpackOut(disk, out); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"etc/tree/sub/a": "one", "etc/tree/b": "two", "etc/lone": "three", "run/vm/script": "true"} {
		if got, err := os.ReadFile(filepath.Join(out, name)); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestModuleNames(t *testing.T) {
	for _, tt := range []struct{ file, name, unpack string }{
		{"/lib/modules/5.10.0/fs/xfs/xfs.ko", "xfs.ko", ""},
		{"/lib/modules/6.12/fs/xfs/xfs.ko.xz", "xfs.ko", "xz"},
		{"/lib/modules/7.2/fs/xfs/xfs.ko.zst", "xfs.ko", "zstd"},
		{"/lib/modules/7.2/fs/xfs/xfs.ko.gz", "xfs.ko", "gzip"},
	} {
		if name, unpack := moduleName(tt.file); name != tt.name || unpack != tt.unpack {
			t.Errorf("%s is %s, unpacked by %q", tt.file, name, unpack)
		}
	}
}
