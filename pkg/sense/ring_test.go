package sense

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/holdfast/holdfast/vmtests/uring"
)

func TestRingsThatHoldFilesAreCounted(t *testing.T) {
	proc := t.TempDir() // this process alone, as the kernel tells of it
	if err := os.Symlink("/proc/self", filepath.Join(proc, strconv.Itoa(os.Getpid()))); err != nil {
		t.Fatal(err)
	}
	r, err := uring.New(0)
	if err != nil {
		t.Fatal(err)
	}
	if n := Rings(proc); n != 0 {
		t.Errorf("%d rings hold files before one was registered", n)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.RegisterFiles(int32(f.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if n := Rings(proc); n != 1 {
		t.Errorf("%d rings hold files, want 1", n)
	}
}
