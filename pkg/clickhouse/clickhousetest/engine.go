package clickhousetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// engine returns the path of libchdb.so: $LIBCHDB, or the repository's cache.
func engine() (string, error) {
	lib := os.Getenv("LIBCHDB")
	if lib == "" {
		top, err := top()
		if err != nil {
			return "", err
		}
		lib = filepath.Join(top, ".cache", "clickhouse", "libchdb.so")
	}
	if _, err := os.Stat(lib); err != nil {
		return "", fmt.Errorf("%w (%s)", ErrNoEngine, lib)
	}
	return lib, nil
}

// top finds the repository: the nearest folder above the working directory, which
// go test sets to the package's, that holds go.mod.
func top() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("find the repository: no go.mod above the working directory: set LIBCHDB to the path of libchdb.so")
		}
		dir = up
	}
}

// buildLauncher compiles chserver into dir and returns its path. Test binaries of
// several packages do it at the same time: each builds under a name of its own and
// renames. With a warm build cache it takes a fraction of a second.
func buildLauncher(ctx context.Context, dir string) (string, error) {
	tmp, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", fmt.Errorf("build chserver: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	cmd := exec.CommandContext(ctx, "go", "build", "-o", tmp, "github.com/holdfast/holdfast/pkg/clickhouse/clickhousetest/chserver")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build chserver: %w\n%s", err, out)
	}
	bin := filepath.Join(dir, "chserver")
	if err := os.Rename(filepath.Join(tmp, "chserver"), bin); err != nil {
		return "", fmt.Errorf("build chserver: %w", err)
	}
	return bin, nil
}
