package daemon_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/daemon"
)

// TestNothingInThePlaceOfAFileOfTheStateDirectoryHangsTheDaemon takes each file that a daemon leaves, whatever its name, and starts another
// daemon on a copy in which a pipe, a directory, a link or a terabyte of nothing is in its place: it begins, or
// ends at once with an error that names the file.
func TestNothingInThePlaceOfAFileOfTheStateDirectoryHangsTheDaemon(t *testing.T) {
	cfg, tree := watching(t)
	r := startWith(t, cfg)
	write(t, filepath.Join(tree, "conf"), "second\n")
	r.stop()
	var files []string
	worked(t, filepath.WalkDir(cfg.State, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && !strings.Contains(path, "/objects/") {
			rel, rerr := filepath.Rel(cfg.State, path)
			files, err = append(files, rel), rerr
		}
		return err
	}))
	// Left by a daemon of another kind: which ships, has windows, was cut off.
	files = append(files, "shipped", "windows.json", "index/records.sqlite-wal", "index/records.sqlite-shm", "keys/journal.key.next", "vault/doomed")
	put := map[string]func(name string) error{
		"a pipe":      func(name string) error { return unix.Mkfifo(name, 0o600) },
		"a directory": func(name string) error { return os.MkdirAll(filepath.Join(name, "more"), 0o700) },
		"a link":      func(name string) error { return os.Symlink("/dev/zero", name) },
		"a terabyte":  func(name string) error { return errors.Join(os.WriteFile(name, nil, 0o600), os.Truncate(name, 1<<40)) },
	}
	began, refused := 0, 0
	for _, file := range files {
		for what, put := range put {
			t.Run(file+" is "+what, func(t *testing.T) {
				cfg := cfg
				cfg.State = filepath.Join(t.TempDir(), "state")
				worked(t, exec.Command("cp", "-a", r.cfg.State, cfg.State).Run())
				name := filepath.Join(cfg.State, file)
				worked(t, errors.Join(os.RemoveAll(name), os.MkdirAll(filepath.Dir(name), 0o700), put(name)))
				done := make(chan error, 1)
				begun := time.Now()
				go func() {
					if what == "a pipe" { // all of a daemon; the others need no more than its state
						ctx, cancel := context.WithCancel(context.Background())
						done <- daemon.Run(ctx, cfg, daemon.Options{Version: "test", Ready: cancel})
						return
					}
					_, end, err := daemon.Offline(cfg)
					if err == nil {
						err = end()
					}
					done <- err
				}()
				select {
				case err := <-done:
					if err == nil {
						began++
					} else if refused++; !strings.Contains(err.Error(), filepath.Base(file)) {
						t.Errorf("the error does not name the file: %v", err)
					}
				case <-time.After(time.Minute):
					t.Fatal("the daemon hangs")
				}
				t.Logf("%v", time.Since(begun))
			})
		}
	}
	t.Logf("%d files: %d began, %d said which file it is", len(files), began, refused)
}

func worked(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
