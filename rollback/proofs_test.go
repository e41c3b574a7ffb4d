package rollback

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/rollback/storetest"
)

// long makes the races run as often as the claims about them say: a million reads,
// a hundred thousand swaps.
var long = flag.Bool("long", false, "run the races for minutes")

func TestAParentThatIsNowASymlinkIsNeverFollowed(t *testing.T) {
	p := places(t)[0]
	s := open1(t, p.vault, Options{})
	file, outside := filepath.Join(p.dir, "dir", "f"), filepath.Join(p.dir, "outside")
	mkdirs(t, filepath.Dir(file), outside)
	write(t, file, "good")
	v := capture(t, s, file)
	storetest.Sh(t, `rm -r "$1"; ln -s "$2" "$1"; echo precious > "$2/f"`, filepath.Dir(file), outside)
	if _, err := s.RestorePath(t.Context(), file, v); err == nil {
		t.Error("restored although the parent, of which no version is known, is a symlink")
	}
	if _, err := s.RestorePath(t.Context(), file, Version{Path: file}); err == nil {
		t.Error("removed through a symlink")
	}
	if got := read(t, outside+"/f"); got != "precious\n" {
		t.Errorf("the file outside is %q", got)
	}
}

func TestAnOpenDescriptorOfTheAttackerReachesTheDisplacedInodeOnly(t *testing.T) {
	for _, p := range places(t) {
		t.Run(p.name, func(t *testing.T) {
			s := open1(t, p.vault, Options{})
			file := filepath.Join(p.dir, "f")
			write(t, file, strings.Repeat("good", 2000))
			v := capture(t, s, file)
			evil, err := os.OpenFile(file, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer evil.Close()
			page, err := unix.Mmap(int(evil.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := unix.Munmap(page); err != nil {
					t.Error(err)
				}
			}()
			copy(page, "mapped evil")
			if _, err := evil.WriteAt([]byte("written evil"), 5000); err != nil {
				t.Fatal(err)
			}
			if _, err := s.RestorePath(t.Context(), file, v); err != nil {
				t.Fatal(err)
			}
			copy(page, "again")
			if _, err := evil.WriteAt([]byte("again"), 0); err != nil {
				t.Fatal(err)
			}
			if err := evil.Truncate(3); err != nil {
				t.Fatal(err)
			}
			if got := read(t, file); got != strings.Repeat("good", 2000) {
				t.Errorf("the restored file is %.20q…", got)
			}
		})
	}
}

func TestReadersNeverSeeAHalfRestoredFile(t *testing.T) {
	for _, p := range places(t) {
		t.Run(p.name, func(t *testing.T) {
			s := open1(t, p.vault, Options{})
			file := filepath.Join(p.dir, "f")
			good, evil := bytes.Repeat([]byte("good"), 64<<10), bytes.Repeat([]byte("evil"), 64<<10)
			if err := os.WriteFile(file, good, 0o600); err != nil {
				t.Fatal(err)
			}
			v := capture(t, s, file)
			stop := make(chan struct{})
			type count struct{ reads, torn, missing int }
			var reads atomic.Int64
			counts := make(chan count)
			for range 2 {
				go func() {
					var c count
					for {
						select {
						case <-stop:
							counts <- c
							return
						default:
						}
						b, err := os.ReadFile(file)
						c.reads++
						reads.Add(1)
						switch {
						case errors.Is(err, os.ErrNotExist):
							c.missing++
						case err != nil || !bytes.Equal(b, good) && !bytes.Equal(b, evil):
							c.torn++
						}
					}
				}()
			}
			restores := 0
			for ; restores < 150 || *long && reads.Load() < 1_000_000/3; restores++ {
				// The attacker replaces the file whole, so that a torn read is ours.
				if err := os.WriteFile(file+".evil", evil, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(file+".evil", file); err != nil {
					t.Fatal(err)
				}
				if r, err := s.RestorePath(t.Context(), file, v); err != nil || r.Outcome != OutcomeDone {
					t.Fatal(r.Outcome, err)
				}
			}
			close(stop)
			var sum count
			for range 2 {
				c := <-counts
				sum.reads, sum.torn, sum.missing = sum.reads+c.reads, sum.torn+c.torn, sum.missing+c.missing
			}
			t.Logf("%d restores, %d reads, %d torn, %d missing", restores, sum.reads, sum.torn, sum.missing)
			if sum.torn > 0 || sum.missing > 0 {
				t.Errorf("%d torn, %d missing of %d reads", sum.torn, sum.missing, sum.reads)
			}
		})
	}
}

// TestAParentSwappedAllTheTimeLeadsNowhereElse runs restores while the parent
// directory is exchanged with a symlink to a precious one.
func TestAParentSwappedAllTheTimeLeadsNowhereElse(t *testing.T) {
	p := places(t)[1]
	s := open1(t, p.vault, Options{})
	dir, precious := filepath.Join(p.dir, "dir"), filepath.Join(p.dir, "precious")
	mkdirs(t, dir, precious)
	file := filepath.Join(dir, "f")
	write(t, file, "good")
	v := capture(t, s, file)
	write(t, filepath.Join(precious, "f"), "precious")
	want := storetest.Tree(t, precious)
	if err := os.Symlink(precious, dir+".link"); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, dir+".link", unix.RENAME_EXCHANGE); err != nil {
				done <- err
				return
			}
		}
	}()
	restored, refused := 0, 0
	tries := 400
	if *long {
		tries = 100_000
	}
	for i := range tries {
		version := v
		if i%2 == 1 {
			version = Version{Path: file} // nothing there
		}
		if _, err := s.RestorePath(t.Context(), file, version); err != nil {
			refused++
		} else {
			restored++
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d restored, %d refused", restored, refused)
	if got := storetest.Tree(t, precious); got != want {
		t.Errorf("the directory behind the symlink was\n%s\nand is\n%s", want, got)
	}
}

func TestAFileLinkedHereFromElsewhereIsNotGivenAway(t *testing.T) {
	p := places(t)[0]
	s := open1(t, p.vault, Options{})
	file, secret := filepath.Join(p.dir, "f"), filepath.Join(p.dir, "secret")
	storetest.Sh(t, `: > "$1"; chown 1000:1000 "$1"; chmod 666 "$1"`, file)
	v := capture(t, s, file)
	storetest.Sh(t, `: > "$2"; chmod 600 "$2"; touch -r "$1" "$2"; rm "$1"; ln "$2" "$1"`, file, secret)
	want := storetest.Truth(t, secret)
	r, err := s.RestorePath(t.Context(), file, v)
	if err != nil {
		t.Fatal(err)
	}
	if got := storetest.Truth(t, secret); got != want {
		t.Errorf("the other file was\n%s\nand is now\n%s", want, got)
	}
	if !strings.Contains(r.Step.Reason, "hard links") {
		t.Errorf("reason %q says nothing of hard links", r.Step.Reason)
	}
}

// TestAReaderThatHasAFileMappedNeverLosesAPage maps a file, and reads all pages of
// the mapping while the file is restored to shorter and longer ones.
func TestAReaderThatHasAFileMappedNeverLosesAPage(t *testing.T) {
	for _, p := range places(t) {
		t.Run(p.name, func(t *testing.T) {
			s := open1(t, p.vault, Options{})
			file := filepath.Join(p.dir, "lib.so")
			const size = 64 << 10
			if err := os.WriteFile(file, bytes.Repeat([]byte("m"), 100), 0o755); err != nil {
				t.Fatal(err)
			}
			v := capture(t, s, file)
			defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
			for i := range 50 {
				if err := os.WriteFile(file+".new", bytes.Repeat([]byte("x"), size), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(file+".new", file); err != nil {
					t.Fatal(err)
				}
				f, err := os.Open(file)
				if err != nil {
					t.Fatal(err)
				}
				page, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_SHARED)
				f.Close()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.RestorePath(t.Context(), file, v); err != nil {
					t.Fatal(err)
				}
				if err := touchPages(page); err != nil {
					t.Fatalf("restore %d: %v", i, err)
				}
				if err := unix.Munmap(page); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// touchPages reads a byte of each page; a fault (SIGBUS) is an error.
func touchPages(b []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("reading the mapping: %v", r)
		}
	}()
	for i := 0; i < len(b); i += 4096 {
		if b[i] != 'x' {
			return fmt.Errorf("byte %d is %q", i, b[i])
		}
	}
	return nil
}
