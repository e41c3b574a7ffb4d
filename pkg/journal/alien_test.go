package journal

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// aliens are ways to be in the way of a file.
func aliens() map[string]func(t *testing.T, name string) {
	return map[string]func(t *testing.T, name string){
		"a file":        func(t *testing.T, name string) { must(t, os.WriteFile(name, []byte("a backup of something"), 0o644)) },
		"an empty file": func(t *testing.T, name string) { must(t, os.WriteFile(name, nil, 0o644)) },
		"a huge file": func(t *testing.T, name string) {
			must(t, errors.Join(os.WriteFile(name, nil, 0o644), os.Truncate(name, 1<<40)))
		},
		"a directory":    func(t *testing.T, name string) { must(t, os.MkdirAll(filepath.Join(name, "with", "more"), 0o755)) },
		"a link":         func(t *testing.T, name string) { must(t, os.Symlink("/dev/zero", name)) },
		"a dangling one": func(t *testing.T, name string) { must(t, os.Symlink(filepath.Join(t.TempDir(), "none"), name)) },
		"a pipe":         func(t *testing.T, name string) { must(t, unix.Mkfifo(name, 0o600)) },
		"an immutable file": func(t *testing.T, name string) {
			must(t, os.WriteFile(name, []byte("x"), 0o644))
			if err := setFlag(name, true); err != nil {
				t.Logf("this file system or user sets no flag: %v", err)
				return
			}
			t.Cleanup(func() { // else nobody can remove it
				if err := setFlag(name, false); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
			})
		},
	}
}

// setFlag sets or clears FS_IMMUTABLE_FL of a file.
func setFlag(name string, on bool) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if flags &^= 0x10; on {
		flags |= 0x10
	}
	if err != nil {
		return err
	}
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
}

func TestWhatIsInThePlaceOfTheNextSegmentIsMovedAsideAndRecorded(t *testing.T) {
	for what, put := range aliens() {
		for _, when := range []string{"while it runs", "while it is off"} {
			t.Run(what+" "+when, func(t *testing.T) {
				l := newLog(t)
				l.o.SegmentBytes, l.o.Continue = 1, true
				j := l.open()
				_, err := j.AppendDurable(context.Background(), sample(0))
				must(t, err)
				if when == "while it is off" {
					l.close(j)
				}
				name := filepath.Join(l.dir, segmentName(2))
				put(t, name)
				if when == "while it is off" {
					j = l.open()
				}
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				for i := range 5 {
					if _, err := j.AppendDurable(ctx, sample(i)); err != nil {
						t.Fatal(err, j.Stats().LastError)
					}
				}
				must(t, j.Sync(ctx))
				opened := j.Opened()
				l.close(j)
				if _, err := os.Lstat(name + ".strange-1"); err != nil && len(opened.Tampered) == 0 && opened.TornFile == "" {
					t.Errorf("what was there is gone, and nothing says so: %v, %+v", err, opened)
				}
				told := 0
				for _, e := range l.read() {
					r, err := Decode(e.Bytes)
					must(t, err)
					if r.Kind == event.RecAgent && strings.HasPrefix(r.PathTo, name+".strange-") {
						told++
					}
				}
				if _, err := os.Lstat(name + ".strange-1"); err == nil && told != 1 {
					t.Errorf("%d records tell of it", told)
				}
				if _, found := l.verify(l.pub()); len(found) > 0 && len(opened.Tampered) == 0 {
					t.Errorf("verify: %q", found)
				}
			})
		}
	}
}

func TestWhatCannotBeMovedLetsTheSegmentInUseGrow(t *testing.T) {
	l := newLog(t)
	l.o.SegmentBytes = 1
	j := l.open()
	_, err := j.AppendDurable(context.Background(), sample(0))
	must(t, err)
	name := filepath.Join(l.dir, segmentName(2))
	must(t, os.Mkdir(name, 0o700))
	if err := unix.Mount("none", name, "tmpfs", 0, "size=4k"); err != nil {
		t.Skipf("mounting a file system needs root: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err = j.AppendDurable(ctx, sample(1))
	must(t, errors.Join(err, unix.Unmount(name, 0)))
	_, err = j.AppendDurable(ctx, sample(2))
	must(t, err)
	l.close(j)
	if got := l.read(); len(got) < 3 || got[1].Segment != 1 || got[2].Segment != 3 {
		t.Fatalf("%d records, %+v", len(got), got)
	}
	if _, found := l.verify(l.pub()); len(found) > 0 {
		t.Errorf("verify: %q", found)
	}
}

// TestNothingInThePlaceOfAFileHoldsUpOrEndsTheLog: the daemon begins (with Continue) or says at once which file it is.
func TestNothingInThePlaceOfAFileHoldsUpOrEndsTheLog(t *testing.T) {
	files := func(l *log) map[string]string {
		return map[string]string{
			"the key": filepath.Join(l.keys, keyName), "the next key": filepath.Join(l.keys, nextName), "the first key": filepath.Join(l.keys, pubName),
			"the next key as it is written": filepath.Join(l.keys, "."+nextName+".tmp"),
			"the lock":                      filepath.Join(l.dir, lockName), "the reserve": filepath.Join(l.dir, reserveName),
			"the checkpoint": filepath.Join(l.dir, checkpointName), "the history": filepath.Join(l.dir, historyName),
			"the chain": filepath.Join(l.dir, chainName), "the hashes": filepath.Join(l.dir, hashesName),
			"the checkpoint as it is written": filepath.Join(l.dir, "."+checkpointName+".tmp"), "the last segment": filepath.Join(l.dir, seg6),
		}
	}
	for file := range files(newLog(t)) {
		for what, put := range aliens() {
			t.Run(file+" is "+what, func(t *testing.T) {
				l := tenEach(t)
				l.o.Continue, l.o.ReserveBytes, l.o.KeyEvery = true, 64<<10, time.Nanosecond
				name := files(l)[file]
				must(t, os.RemoveAll(name))
				put(t, name)
				begun := time.Now()
				j, err := Open(l.dir, l.keys, l.o)
				if err != nil {
					t.Fatalf("it does not begin: %v", err)
				}
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				for i := range 300 { // the checkpoint file is made anew on the way
					if _, err = j.Append(sample(i)); err != nil {
						break
					}
					if i%30 == 0 {
						err = j.Sync(ctx)
					}
				}
				must(t, errors.Join(err, j.Sync(ctx)))
				l.close(j)
				if took := time.Since(begun); took > 15*time.Second {
					t.Errorf("it took %v", took)
				}
				l.o.Continue = true
				l.close(l.open())
				r, err := OpenReader(l.dir)
				must(t, err)
				defer r.Close()
				got := 0
				for {
					if _, err = r.Next(ctx); errors.Is(err, io.EOF) {
						break
					} else if err == nil {
						got++
					} else if !errors.Is(err, ErrCorrupt) {
						t.Fatal(err)
					}
				}
				if got < 300 {
					t.Errorf("%d records", got)
				}
			})
		}
	}
}
