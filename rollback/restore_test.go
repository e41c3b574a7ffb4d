package rollback

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/storetest"
)

// kinds of files to protect, each made by a line of shell with the path as $1.
var kinds = []struct{ name, make string }{
	{"a plain file", `echo hello > "$1"; chown 1:2 "$1"; chmod 640 "$1"; touch -d '2001-02-03 04:05:06.123456789' "$1"`},
	{"an empty file", `: > "$1"`},
	{"a set-id program with capabilities, ACL and attributes", `cp /bin/true "$1"; chown 7:8 "$1"; chmod 6755 "$1"; setfacl -m u:33:r,g:34:rx "$1"
		setfattr -n user.a -v 1 "$1"; setfattr -n trusted.b -v 22 "$1"; setfattr -n user.empty "$1"; setcap cap_net_raw,cap_net_admin=ep "$1"; touch -d 1969-12-31T01:02:03.5Z "$1"`},
	{"a sparse file", `truncate -s 300K "$1"; printf middle | dd of="$1" bs=1 seek=131072 conv=notrunc 2>/dev/null; touch -d 2010-01-01 "$1"`},
	{"a file of 3 MiB", `head -c 3145728 /bin/bash /bin/bash /bin/bash /usr/bin/perl | head -c 3145729 > "$1"`},
	{"an immutable file", `echo still > "$1"; chattr +i "$1"`},
	{"an append-only file that is not dumped", `echo log > "$1"; chattr +ad "$1"`},
	{"a symlink", `ln -s /nowhere/at/all "$1"; chown -h 5:6 "$1"; touch -h -d 2002-02-02 "$1"; setfattr -h -n trusted.link -v x "$1"`},
	{"a directory", `mkdir -m 2750 "$1"; chown 9:10 "$1"; setfacl -m u:33:rx,d:u:33:rwx "$1"; setfattr -n user.d -v d "$1"`},
	{"a FIFO", `mkfifo -m 622 "$1"; chown 11:12 "$1"; touch -d 2003-03-03 "$1"`},
	{"a device node", `mknod -m 666 "$1" c 1 3; touch -d 2004-04-04 "$1"`},
	{"nothing", `:`},
}

// tampering with it; lines that cannot apply to a kind fail and are passed over.
var tampering = []struct{ name, line string }{
	{"overwritten", `printf evil > "$1"`},
	{"overwritten with as many bytes", `test -s "$1"; t=$(stat -c %y "$1"); printf X | dd of="$1" bs=1 conv=notrunc 2>/dev/null; touch -d "$t" "$1"`},
	{"appended to", `echo evil >> "$1"`},
	{"truncated", `truncate -s 1 "$1"`},
	{"deleted", `rm -r "$1"`},
	{"replaced by rename", `echo evil > "$1.new"; mv -T "$1.new" "$1"`},
	{"made writable for all", `chmod 4777 "$1"`},
	{"given away", `chown -h 1234:4321 "$1"`},
	{"touched", `touch -h "$1"`},
	{"given other attributes", `setfattr -h -n trusted.evil -v 1 "$1"; setfattr -x user.a "$1" || true; setfattr -h -x trusted.link "$1" || true; setcap cap_sys_admin=ep "$1" || true`},
	{"given another ACL", `setfacl -m u:666:rwx,g:34:- "$1"`},
	{"stripped of its ACL", `setfacl -b "$1"`},
	{"made immutable after a change", `echo evil >> "$1"; chattr +i "$1"`},
	{"replaced by a symlink", `rm -rf "$1"; ln -s /etc/passwd "$1"`},
	{"replaced by a directory with files", `rm -rf "$1"; mkdir -p "$1/sub"; echo evil > "$1/sub/file"; ln -s . "$1/sub/link"; chattr +i "$1/sub"`},
	{"replaced by a FIFO", `rm -rf "$1"; mkfifo "$1"`},
	{"replaced by a hard link", `rm -rf "$1"; echo other > "$1.other"; ln "$1.other" "$1"`},
	{"replaced in an immutable directory", `rm -rf "$1"; echo evil > "$1"; chattr +i "$(dirname "$1")"`},
}

// TestWhateverIsDoneToAPathARestoreUndoesIt compares what stat, getfacl, getcap,
// getfattr, lsattr and b3sum say before the tampering with what they say after
// the restore.
func TestWhateverIsDoneToAPathARestoreUndoesIt(t *testing.T) {
	for i, p := range places(t) {
		t.Run(p.name, func(t *testing.T) {
			s := open1(t, p.vault, Options{})
			n := 0
			for j, k := range kinds {
				for _, tm := range tampering {
					if n++; (n+j)%3 != i {
						continue // each place has its third of them
					}
					dir := filepath.Join(p.dir, fmt.Sprintf("d%d\xff", n)) // no UTF-8
					t.Run(k.name+" "+tm.name, func(t *testing.T) { restoreOne(t, s, dir, k.make, tm.line) })
				}
			}
			if err := s.Sync(); err != nil {
				t.Fatal(err)
			}
			clean(t, s)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func restoreOne(t *testing.T, s *Store, dir, make, tamper string) {
	mkdirs(t, dir)
	path := filepath.Join(dir, "file with a space")
	storetest.Sh(t, make, path)
	want, blocks := storetest.Truth(t, path), blocksOf(path)
	v := capture(t, s, path)
	// What does not apply to this kind (truncating a symlink to nowhere) may fail.
	storetest.Sh(t, `chattr -ia "$1" 2>/dev/null || true; if test -p "$1"; then exec 9<>"$1"; fi; (`+tamper+`) >/dev/null 2>&1 || true`, path)
	found, err := digest.ReadPath(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	tampered := len(diff(&found, &v.State)) > 0 || found.Mtime != v.State.Mtime

	r, err := s.RestorePath(t.Context(), path, v)
	if err != nil {
		t.Fatal(err)
	}
	if got := storetest.Truth(t, path); got != want {
		t.Fatalf("before:\n%s\nafter the restore:\n%s\n(tampered: %+v)", want, got, found)
	}
	if got := blocksOf(path); v.State.Type == event.TypeRegular && got > blocks {
		t.Errorf("%d blocks, had %d: holes are filled", got, blocks)
	}
	if d := diff(&r.After, &v.State); len(d) > 0 {
		t.Errorf("the result's after differs in %q", d)
	}
	if tampered == (r.Outcome == OutcomeSkipped) {
		t.Errorf("outcome %s, but the path was tampered with: %v", r.Outcome, tampered)
	}
	if r.Evidence != "" && (r.Step.Action == ActionMeta || r.Step.Action == ActionNone) {
		t.Errorf("action %s left evidence %s", r.Step.Action, r.Evidence)
	}
	if r.Evidence != "" && found.Type == event.TypeRegular {
		if kept, err := digest.ReadPath(t.Context(), r.Evidence, nil); err != nil || kept.Hash != found.Hash || kept.UID != found.UID {
			t.Errorf("the evidence is not what was displaced: %+v, %v", kept, err)
		}
	}
	if strings.Contains(tamper, "chattr +i \"$(dirname") {
		if !strings.Contains(storetest.Run(t, "lsattr", "-d", dir), "i") {
			t.Error("the directory lost its flag")
		}
		storetest.Run(t, "chattr", "-i", dir)
	}
	noLeftovers(t, dir)

	again, err := s.RestorePath(t.Context(), path, v)
	if err != nil || again.Outcome != OutcomeSkipped {
		t.Errorf("a second restore: %s, %v", again.Outcome, err)
	}
}

func blocksOf(path string) int64 {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return 0
	}
	return st.Blocks
}

// TestFilesOfAnOverlayAreRestored has files that come from the lower layer, as in
// a container.
func TestFilesOfAnOverlayAreRestored(t *testing.T) {
	base := storetest.Temp(t)
	storetest.Sh(t, `cd "$1"; mkdir lower upper work merged`, base)
	for i, k := range kinds[:5] {
		storetest.Sh(t, k.make, filepath.Join(base, "lower", fmt.Sprint("f", i)))
	}
	merged := filepath.Join(base, "merged")
	storetest.Sh(t, `cd "$1"; mount -t overlay none -o lowerdir=lower,upperdir=upper,workdir=work merged`, base)
	defer storetest.Run(t, "umount", "--lazy", merged)
	for _, vault := range []string{filepath.Join(base, "state", "vault"), filepath.Join(merged, "state", "vault")} {
		mkdirs(t, filepath.Dir(vault))
		s := open1(t, vault, Options{})
		for i, k := range kinds[:5] {
			for _, tamper := range []string{`echo evil >> "$1"`, `rm "$1"`, `chmod 777 "$1"`, `rm "$1"; mkdir "$1"; echo evil > "$1/x"`} {
				t.Run(k.name+" "+tamper, func(t *testing.T) {
					file := filepath.Join(merged, fmt.Sprint("f", i))
					want := storetest.Truth(t, file)
					v := capture(t, s, file)
					storetest.Sh(t, tamper, file)
					if _, err := s.RestorePath(t.Context(), file, v); err != nil {
						t.Fatal(err)
					}
					if got := storetest.Truth(t, file); got != want {
						t.Errorf("before:\n%s\nafter:\n%s", want, got)
					}
					noLeftovers(t, merged)
				})
			}
		}
		clean(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDeletedParentsComeBackAsTheirVersionsSay(t *testing.T) {
	for _, p := range places(t) {
		t.Run(p.name, func(t *testing.T) {
			s := open1(t, p.vault, Options{})
			top := filepath.Join(p.dir, "top")
			file := filepath.Join(top, "a", "b", "file")
			storetest.Sh(t, `mkdir -p "$(dirname "$1")"; echo x > "$1"; d=$(dirname "$1"); chmod 2711 "$d"; chown 3:4 "$d"; chmod 700 "$(dirname "$d")"`, file)
			want := storetest.Tree(t, top)
			for _, x := range []string{top, top + "/a", top + "/a/b"} {
				capture(t, s, x)
			}
			v := capture(t, s, file)
			for _, tamper := range []string{
				`rm -r "$1"`,
				`rm -r "$1/a"; ln -s /tmp "$1/a"`,
				`rm -r "$1/a/b"; echo file > "$1/a/b"`,
				`mv "$1" "$1.moved"; ln -s "$1.moved" "$1"`,
			} {
				t.Run(tamper, func(t *testing.T) {
					storetest.Sh(t, tamper, top)
					if _, err := s.RestorePath(t.Context(), file, v); err != nil {
						t.Fatal(err)
					}
					if got := storetest.Tree(t, top); got != want {
						t.Errorf("before:\n%s\nafter:\n%s", want, got)
					}
				})
			}
		})
	}
}

func TestARunningProgramIsRestoredWhileItRuns(t *testing.T) {
	p := places(t)[0]
	s := open1(t, p.vault, Options{})
	prog := filepath.Join(p.dir, "prog")
	storetest.Run(t, "cp", "/bin/sleep", prog)
	v := capture(t, s, prog)
	storetest.Sh(t, `cp "$1" "$1.evil"; printf evil >> "$1.evil"; mv "$1.evil" "$1"; "$1" 60 >/dev/null 2>&1 & echo $! > "$1.pid"`, prog)
	defer storetest.Sh(t, `kill "$(cat "$1.pid")"`, prog)
	if _, err := s.RestorePath(t.Context(), prog, v); err != nil {
		t.Fatal(err)
	}
	storetest.Run(t, "cmp", prog, "/bin/sleep")
}

func TestAMountPointIsRefused(t *testing.T) {
	p := places(t)[0]
	s := open1(t, p.vault, Options{})
	file, other := filepath.Join(p.dir, "f"), filepath.Join(p.dir, "other")
	write(t, file, "good")
	write(t, other, "evil")
	v := capture(t, s, file)
	storetest.Run(t, "mount", "--bind", other, file)
	defer storetest.Run(t, "umount", "--lazy", file)
	_, err := s.RestorePath(t.Context(), file, v)
	if !errors.Is(err, ErrBusy) {
		t.Errorf("over a bind mount: %v, want ErrBusy", err)
	}
	if _, err := s.RestorePath(t.Context(), file, Version{Path: file}); !errors.Is(err, ErrBusy) {
		t.Errorf("removing a bind mount: %v, want ErrBusy", err)
	}
	noLeftovers(t, p.dir)
	if got := read(t, other); got != "evil" {
		t.Errorf("the mounted file is %q", got)
	}
}

// TestFileSystemsWithoutExchangeOrUnnamedFiles stands in for them by refusing
// these calls as they do.
func TestFileSystemsWithoutExchangeOrUnnamedFiles(t *testing.T) {
	for _, lacking := range []string{"exchange", "tmpfile", "exchange tmpfile"} {
		t.Run(lacking, func(t *testing.T) {
			for _, p := range places(t) {
				t.Run(p.name, func(t *testing.T) {
					o := Options{}
					o.Disk.Before = func(op, _ string) error {
						switch {
						case !strings.Contains(lacking, op):
							return nil
						case op == "exchange":
							return unix.EINVAL
						}
						return unix.EOPNOTSUPP
					}
					s := open1(t, p.vault, o)
					for _, k := range kinds[:5] {
						file := filepath.Join(p.dir, strings.ReplaceAll(k.name, " ", "-"))
						storetest.Sh(t, k.make, file)
						want := storetest.Truth(t, file)
						v := capture(t, s, file)
						write(t, file, "evil")
						r, err := s.RestorePath(t.Context(), file, v)
						if err != nil {
							t.Fatal(err)
						}
						if got := storetest.Truth(t, file); got != want {
							t.Errorf("before:\n%s\nafter:\n%s", want, got)
						}
						if got := read(t, r.Evidence); got != "evil" {
							t.Errorf("evidence %q", got)
						}
						noLeftovers(t, p.dir)
					}
				})
			}
		})
	}
}

func TestARestoreThatCannotBeMadeTouchesNothing(t *testing.T) {
	p := places(t)[0]
	s := open1(t, p.vault, Options{})
	file := filepath.Join(p.dir, "f")
	write(t, file, "present")
	gone := event.State{Exists: true, Type: event.TypeRegular, Size: 3, Mode: 0o644, Hash: event.Hash{1}}
	_, err := s.RestorePath(t.Context(), file, Version{Path: file, State: gone})
	if !errors.Is(err, ErrMissing) {
		t.Errorf("restore of a content that the vault lacks: %v", err)
	}
	if got := read(t, file); got != "present" {
		t.Errorf("the file is %q", got)
	}
	if _, err := s.RestorePath(t.Context(), file, Version{Path: file, State: event.State{Exists: true, Type: event.TypeSocket}}); !errors.Is(err, ErrKind) {
		t.Errorf("restore of a socket: %v", err)
	}
}

func TestADamagedObjectIsNeverRestored(t *testing.T) {
	for _, size := range []int{10, 100_000, 5 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			p := places(t)[0]
			s := open1(t, p.vault, Options{})
			file := filepath.Join(p.dir, "f")
			content := bytes.Repeat([]byte("0123456789"), size/10)
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
			v := capture(t, s, file)
			sync1(t, s)
			object := filepath.Join(p.vault, "objects", v.State.Hash.Hex()[:2], v.State.Hash.Hex())
			b, err := os.ReadFile(object)
			if err != nil {
				t.Fatal(err)
			}
			write(t, file, "evil")
			for i := 0; i < len(b); i += 1 + len(b)/40 {
				bad := bytes.Clone(b)
				bad[i] ^= 0x10
				storetest.Run(t, "chmod", "600", object)
				if err := os.WriteFile(object, bad, 0o600); err != nil {
					t.Fatal(err)
				}
				_, err := s.RestorePath(t.Context(), file, v)
				got := read(t, file)
				if err == nil && got == string(content) { // a bit that the frame does not use
					write(t, file, "evil")
					continue
				}
				if !errors.Is(err, ErrCorrupt) || got != "evil" {
					t.Fatalf("byte %d flipped: %v, the file is %.10q", i, err, got)
				}
				if r, err := s.Content(v.State.Hash); err == nil {
					r.Close()
					t.Fatalf("byte %d flipped: Content returned a reader", i)
				}
			}
			noLeftovers(t, p.dir)
		})
	}
}

func TestAPathThatNeverStopsChangingFailsAndSaysSo(t *testing.T) {
	p := places(t)[1]
	o := Options{}
	file := filepath.Join(p.dir, "f")
	var s *Store
	n := 0
	o.Disk.Before = func(op, object string) error {
		if op == "fsync" && object == file { // after the exchange, before the read back
			n++
			write(t, file, fmt.Sprint("evil again ", n))
		}
		return nil
	}
	s = open1(t, p.vault, o)
	write(t, file, "good")
	v := capture(t, s, file)
	write(t, file, "evil")
	r, err := s.RestorePath(t.Context(), file, v)
	if err == nil || r.Outcome != OutcomeFailed || !strings.Contains(err.Error(), "changed meanwhile") {
		t.Errorf("outcome %s, error %v", r.Outcome, err)
	}
	noLeftovers(t, p.dir)
}
