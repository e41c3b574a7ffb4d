package bpf_test

import (
	"os"
	"path/filepath"
	"strings"
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

	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for n, line := range strings.Split(string(b), "\n") {
			if strings.Contains(line, "->d_inode") {
				t.Errorf("%s:%d: %s", f, n+1, line)
			}
		}
	}
}
