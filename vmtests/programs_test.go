//go:build vm || live

package vmtests

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// logs is where what failed is kept.
const logs = "../.cache/logs"

// programs returns the programs that the tests run: name → file on the host.
// HOLDFAST names a finished binary to test instead of the one of this tree.
func programs(t *testing.T) map[string]string {
	t.Helper()
	bin := map[string]string{"holdfast": os.Getenv("HOLDFAST")}
	for name, pkg := range map[string]string{"holdfast": "../cmd/holdfast", "acts": "./acts", "fuzz": "./cmd/fuzz", "replay": "./cmd/replay", "holder": "./cmd/holder"} {
		if bin[name] == "" {
			bin[name] = build(t, pkg, filepath.Join(t.TempDir(), name))
		}
	}
	return bin
}

func build(t *testing.T, pkg, file string) string {
	t.Helper()
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", file, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return file
}
