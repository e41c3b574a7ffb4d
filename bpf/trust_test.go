package bpf_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// Since linux v6.3 the verifier takes the inode of a hook's dentry for granted and
// removes checks for NULL: a load of it, where a name has no inode yet, is an oops.
// So hooks ask inode_of (compat.h), or read it by a probe.
func TestNoHookTakesTheInodeOfADentryForGranted(t *testing.T) {
	files, err := filepath.Glob("hooks/*.h")
	if err != nil || len(files) == 0 {
		t.Fatalf("no hooks: %v", err)
	}
	load := regexp.MustCompile(`->d_inode`)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for n, line := range regexp.MustCompile(`\n`).Split(string(b), -1) {
			if load.MatchString(line) {
				t.Errorf("%s:%d: %s", f, n+1, line)
			}
		}
	}
}
