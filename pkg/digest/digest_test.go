package digest

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// run gives the output of a tool: the truth these tests compare with.
func run(t testing.TB, name string, arg ...string) string {
	t.Helper()
	out, err := exec.Command(name, arg...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, arg, err, out)
	}
	return string(out)
}

// places are directories on the kinds of file systems that the tests run on.
func places(t *testing.T) map[string]string {
	t.Helper()
	m := map[string]string{"disk": t.TempDir()}
	d, err := os.MkdirTemp("/dev/shm", "digest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d) })
	m["tmpfs"] = d
	return m
}

func TestSumAndReaderAreWhatB3sumPrints(t *testing.T) {
	for _, size := range []int{0, 1, 1023, 1024, 1025, 8192, 8193, 65536, bufSize, bufSize + 1, 3<<20 + 7} {
		t.Run(fmt.Sprint(size, " bytes"), func(t *testing.T) {
			b := make([]byte, size)
			rand.New(rand.NewSource(int64(size))).Read(b)
			f := filepath.Join(t.TempDir(), "f")
			if err := os.WriteFile(f, b, 0o600); err != nil {
				t.Fatal(err)
			}
			want := strings.TrimSpace(run(t, "b3sum", "--no-names", f))
			if got := Sum(b).Hex(); got != want {
				t.Errorf("Sum = %s, b3sum %s", got, want)
			}
			h, n, err := Reader(bytes.NewReader(b))
			if err != nil || n != int64(size) || h.Hex() != want {
				t.Errorf("Reader = %s, %d, %v, b3sum %s", h.Hex(), n, err, want)
			}
			s, err := ReadPath(t.Context(), f, nil)
			if err != nil || s.Hash.Hex() != want || s.Size != uint64(size) {
				t.Errorf("ReadPath = %s, %d, %v, b3sum %s", s.Hash.Hex(), s.Size, err, want)
			}
		})
	}
}

// TestStateIsWhatCoreutilsPrint compares each field with stat, readlink,
// getfattr and lsattr.
func TestStateIsWhatCoreutilsPrint(t *testing.T) {
	kinds := []struct {
		name  string
		build func(t *testing.T, p string)
		typ   string
	}{
		{"a regular file", func(t *testing.T, p string) {
			run(t, "cp", "/bin/true", p)
			run(t, "chown", "1:2", p)
			run(t, "chmod", "4751", p)
			run(t, "setfattr", "-n", "user.note", "-v", "hello", p)
			run(t, "setfattr", "-n", "user.empty", p)
			run(t, "setfattr", "-n", "trusted.t", "-v", strings.Repeat("x", 900), p)
			run(t, "setfacl", "-m", "u:33:r", p)
			run(t, "setcap", "cap_net_raw=ep", p)
			run(t, "chattr", "+dAi", p)
			t.Cleanup(func() { run(t, "chattr", "-i", p) })
		}, event.TypeRegular},
		{"an empty file", func(t *testing.T, p string) { run(t, "touch", "-d", "2001-02-03 04:05:06.789012345Z", p) }, event.TypeRegular},
		{"a file before 1970", func(t *testing.T, p string) { run(t, "touch", "-d", "1969-12-31 23:59:58.25Z", p) }, event.TypeRegular},
		{"a directory", func(t *testing.T, p string) {
			run(t, "mkdir", "-m", "2770", p)
			run(t, "setfacl", "-m", "d:u:33:r", p)
			run(t, "chattr", "+a", p)
			t.Cleanup(func() { run(t, "chattr", "-a", p) })
		}, event.TypeDir},
		{"a symlink that leads nowhere", func(t *testing.T, p string) {
			run(t, "ln", "-s", "no\xffwhere", p)
			run(t, "chown", "-h", "7:8", p)
			run(t, "setfattr", "-h", "-n", "trusted.l", "-v", "on the link", p)
		}, event.TypeSymlink},
		{"a symlink to a directory", func(t *testing.T, p string) { run(t, "ln", "-s", "/etc", p) }, event.TypeSymlink},
		{"a fifo", func(t *testing.T, p string) { run(t, "mkfifo", "-m", "0642", p) }, event.TypeFIFO},
		{"a character device", func(t *testing.T, p string) { run(t, "mknod", p, "c", "1", "3") }, event.TypeChar},
		{"a block device", func(t *testing.T, p string) { run(t, "mknod", p, "b", "259", "300") }, event.TypeBlock},
		{"a hard link", func(t *testing.T, p string) { run(t, "touch", p); run(t, "ln", p, p+"2") }, event.TypeRegular},
		{"a name that is no UTF-8", func(t *testing.T, p string) { run(t, "touch", p) }, event.TypeRegular},
	}
	for fs, dir := range places(t) {
		for i, k := range kinds {
			t.Run(fs+": "+k.name, func(t *testing.T) {
				p := filepath.Join(dir, fmt.Sprintf("f\xfe%d", i))
				k.build(t, p)
				read, err := ReadPath(t.Context(), p, nil)
				if err != nil {
					t.Fatal(err)
				}
				stat, err := StatPath(p)
				if err != nil {
					t.Fatal(err)
				}
				stat.Hash = read.Hash
				if d := stat.Diff(&read); len(d) != 0 || stat.Ino != read.Ino || stat.Dev != read.Dev {
					t.Errorf("Stat and Read differ in %v", d)
				}
				compare(t, p, k.typ, &read)
			})
		}
	}
}

func compare(t *testing.T, p, typ string, s *event.State) {
	t.Helper()
	if s.Type != typ {
		t.Errorf("type %q, want %q", s.Type, typ)
	}
	mtime := fmt.Sprintf("%d.%09d", s.Mtime.Go().Unix(), s.Mtime.Go().Nanosecond())
	if s.Mtime < 0 { // stat prints the sign before a fraction that counts upwards
		mtime = fmt.Sprintf("-%d.%09d", (-s.Mtime)/1e9, (-s.Mtime)%1e9)
	}
	got := fmt.Sprintf("%o %d %d %s %d %d %d", uint32(s.Mode), s.UID, s.GID, mtime, s.Dev, s.Ino, s.Nlink)
	if want := strings.TrimSpace(run(t, "stat", "-c", "%a %u %g %.9Y %d %i %h", p)); got != want {
		t.Errorf("state %s\nstat  %s", got, want)
	}
	name := func(n string) string {
		if n == "" {
			return "UNKNOWN"
		}
		return n
	}
	if got, want := name(s.User)+" "+name(s.Group), strings.TrimSpace(run(t, "stat", "-c", "%U %G", p)); got != want {
		t.Errorf("names %q, stat says %q", got, want)
	}
	switch typ {
	case event.TypeRegular:
		if want := strings.TrimSpace(run(t, "stat", "-c", "%s", p)); fmt.Sprint(s.Size) != want {
			t.Errorf("size %d, stat says %s", s.Size, want)
		}
		if want := strings.TrimSpace(run(t, "b3sum", "--no-names", p)); s.Hash.Hex() != want {
			t.Errorf("hash %s, b3sum says %s", s.Hash, want)
		}
	case event.TypeSymlink:
		if want := run(t, "readlink", "-n", p); string(s.Target) != want {
			t.Errorf("target %q, readlink says %q", s.Target, want)
		}
	case event.TypeChar, event.TypeBlock:
		got := fmt.Sprintf("%x,%x", unix.Major(s.Rdev), unix.Minor(s.Rdev))
		if want := strings.TrimSpace(run(t, "stat", "-c", "%t,%T", p)); got != want {
			t.Errorf("device %s, stat says %s", got, want)
		}
	}
	if typ == event.TypeRegular || typ == event.TypeDir {
		shown := strings.Fields(run(t, "lsattr", "-d", p))[0]
		want := strings.NewReplacer("-", "", "e", "", "I", "", "N", "").Replace(shown)
		if got := s.FlagsText(); got != want {
			t.Errorf("flags %q, lsattr says %q", got, want)
		}
	}
	want := map[string]string{}
	for _, l := range strings.Split(run(t, "getfattr", "-h", "-d", "-m", "-", "-e", "hex", "--absolute-names", p), "\n") {
		if n, v, ok := strings.Cut(l, "="); ok && !strings.HasPrefix(l, "#") {
			want[n] = strings.TrimPrefix(v, "0x")
		} else if l != "" && !strings.HasPrefix(l, "#") {
			want[l] = ""
		}
	}
	for _, n := range s.XattrNames() {
		if v, ok := want[n]; !ok || v != hex.EncodeToString(s.Xattrs[n]) {
			t.Errorf("attribute %s = %x, getfattr says %q", n, s.Xattrs[n], v)
		}
	}
	if len(want) != len(s.Xattrs) {
		t.Errorf("attributes %v, getfattr says %v", s.XattrNames(), want)
	}
}

func TestNothingAtThePathIsAStateNotAnError(t *testing.T) {
	d := t.TempDir()
	run(t, "touch", d+"/file")
	for _, p := range []string{d + "/none", d + "/none/below", d + "/file/below", d + "/file/below/it"} {
		t.Run(strings.TrimPrefix(p, d), func(t *testing.T) {
			s, err := ReadPath(t.Context(), p, nil)
			if err != nil || s.Exists {
				t.Errorf("ReadPath = %+v, %v", s, err)
			}
			s, err = StatPath(p)
			if err != nil || s.Exists {
				t.Errorf("StatPath = %+v, %v", s, err)
			}
		})
	}
}

func TestPathsThatCouldMeanSomethingElseAreRefused(t *testing.T) {
	d := t.TempDir()
	run(t, "mkdir", d+"/real")
	run(t, "touch", d+"/real/f")
	run(t, "ln", "-s", "real", d+"/link")
	for _, p := range []string{"", "relative", d + "/real/../real/f", d + "/real//f", d + "/real/", "/a\x00b", d + "/link/f"} {
		t.Run(fmt.Sprintf("%q", strings.TrimPrefix(p, d)), func(t *testing.T) {
			if s, err := ReadPath(t.Context(), p, nil); err == nil {
				t.Errorf("ReadPath = %+v, want an error", s)
			}
		})
	}
	if _, err := ReadPath(t.Context(), d+"/link/f", nil); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a parent that is a symlink gives %v, want ELOOP", err)
	}
}

func TestTheRootDirectoryHasAState(t *testing.T) {
	s, err := ReadPath(t.Context(), "/", nil)
	if err != nil || s.Type != event.TypeDir {
		t.Errorf("ReadPath(/) = %+v, %v", s, err)
	}
}

func TestReadingLeavesTheAccessTimeAlone(t *testing.T) {
	f := filepath.Join(t.TempDir(), "f")
	run(t, "cp", "/bin/true", f)
	run(t, "touch", "-a", "-d", "2001-01-01", f)
	before := run(t, "stat", "-c", "%x", f)
	if _, err := ReadPath(t.Context(), f, nil); err != nil {
		t.Fatal(err)
	}
	if after := run(t, "stat", "-c", "%x", f); after != before {
		t.Errorf("access time was %s, is %s", before, after)
	}
}

// collect is a sink as the vault uses it.
type collect struct {
	bytes.Buffer
	resets int
	holes  []Extent
	each   func()
}

func (c *collect) Reset()           { c.Buffer.Reset(); c.resets++ }
func (c *collect) Holes(h []Extent) { c.holes = h }
func (c *collect) Write(p []byte) (int, error) {
	if c.each != nil {
		c.each()
	}
	return c.Buffer.Write(p)
}

func TestTheSinkGetsTheBytesAndTheHoles(t *testing.T) {
	for fs, d := range places(t) {
		t.Run(fs, func(t *testing.T) {
			f := filepath.Join(d, "sparse")
			run(t, "truncate", "-s", "1M", f)
			run(t, "dd", "if=/bin/true", "of="+f, "bs=4096", "count=1", "seek=16", "conv=notrunc")
			var c collect
			s, err := ReadPath(t.Context(), f, &c)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(c.Bytes(), want) || s.Size != 1<<20 {
				t.Errorf("the sink got %d bytes that differ from the %d of the file", c.Len(), len(want))
			}
			if got := fmt.Sprint(c.holes); got != "[{0 65536} {69632 978944}]" {
				t.Errorf("holes %s", got)
			}
		})
	}
}

func TestAFileWrittenWhileItIsReadIsReadAgain(t *testing.T) {
	for fs, d := range places(t) {
		t.Run(fs, func(t *testing.T) {
			f := filepath.Join(d, "busy")
			if err := os.WriteFile(f, bytes.Repeat([]byte("a"), 3*bufSize), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(f, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond) // so that the change below has another tick
			done := false
			c := collect{each: func() {
				if !done {
					done = true
					if err := os.WriteFile(f, bytes.Repeat([]byte("b"), 3*bufSize), 0o600); err != nil {
						t.Error(err)
					}
				}
			}}
			s, err := ReadPath(t.Context(), f, &c)
			if err != nil || c.resets == 0 {
				t.Fatalf("resets %d, error %v", c.resets, err)
			}
			if want := Sum(bytes.Repeat([]byte("b"), 3*bufSize)); s.Hash != want || Sum(c.Bytes()) != want {
				t.Error("the state is torn")
			}
		})
	}
}

func TestAFileThatNeverStopsChangingIsUnstable(t *testing.T) {
	f := filepath.Join(t.TempDir(), "busy")
	n := 0
	write := func() {
		n++
		if err := os.WriteFile(f, bytes.Repeat([]byte{byte(n)}, bufSize+n), 0o600); err != nil {
			t.Error(err)
		}
	}
	write()
	for most, read := range map[int]func(context.Context, string, io.Writer) (event.State, error){attempts: ReadPath, 1: ReadPathOnce} {
		c := &collect{each: write}
		if _, err := read(t.Context(), f, c); !errors.Is(err, ErrUnstable) || c.resets != most-1 {
			t.Errorf("read again %d times of %d: %v", c.resets, most-1, err)
		}
	}
	s, err := ReadPath(t.Context(), f, &collect{each: write})
	if !errors.Is(err, ErrUnstable) || s.Unread == "" || !s.Hash.IsZero() || !s.Exists {
		t.Errorf("state %+v, error %v", s, err)
	}
}

func TestAFileReplacedWhileItIsReadIsReadAgain(t *testing.T) {
	d := t.TempDir()
	f := filepath.Join(d, "f")
	run(t, "sh", "-c", "echo old >"+f+"; echo new >"+f+".new")
	done := false
	c := collect{each: func() {
		if !done {
			done = true
			if err := os.Rename(f+".new", f); err != nil {
				t.Error(err)
			}
		}
	}}
	s, err := ReadPath(t.Context(), f, &c)
	if err != nil || s.Hash != Sum([]byte("new\n")) || c.String() != "new\n" {
		t.Errorf("state %+v of %q, error %v", s, c.String(), err)
	}
}

func TestUnreadableContentLeavesTheMetadata(t *testing.T) {
	f := filepath.Join(t.TempDir(), "f")
	run(t, "sh", "-c", "echo x >"+f)
	bad := errors.New("no more room")
	s, err := ReadPath(t.Context(), f, failing{bad})
	if !errors.Is(err, bad) || !s.Exists || s.Size != 2 || s.Unread == "" {
		t.Errorf("state %+v, error %v", s, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ReadPath(ctx, f, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancel: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestSettleOutlastsTheTickOfTheLastChange(t *testing.T) {
	f := filepath.Join(t.TempDir(), "f")
	for range 20 {
		run(t, "touch", f)
		fd, base, err := OpenParent(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := Settle(t.Context(), fd, base); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(f, &st); err != nil {
			t.Fatal(err)
		}
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
			t.Fatal(err)
		}
		if now.Nano() <= st.Ctim.Nano() {
			t.Fatal("still in the tick of the change")
		}
		unix.Close(fd)
	}
}

func TestNamesFollowTheFile(t *testing.T) {
	f := filepath.Join(t.TempDir(), "passwd")
	n := names{file: f}
	if got := n.name(5); got != "" {
		t.Errorf("without a file: %q", got)
	}
	for i, text := range []string{"a:x:5:\nb:x:5:\nbad\n:x:6:\nz:x:nine:\n", "c:x:5:\nd:x:6:1:more\n", ""} {
		if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		want := [][2]string{{"a", ""}, {"c", "d"}, {"", ""}}[i]
		if got := [2]string{n.name(5), n.name(6)}; got != want {
			t.Errorf("of %q: %q, want %q", text, got, want)
		}
	}
}

func TestMain(m *testing.M) {
	code := m.Run()
	if left := openFiles(); code == 0 && len(left) > 0 {
		fmt.Fprintln(os.Stderr, "descriptors left open:", left)
		code = 1
	}
	os.Exit(code)
}

// openFiles lists descriptors on files: what a test forgot to close.
func openFiles() []string {
	var left []string
	ents, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return []string{err.Error()}
	}
	for _, e := range ents {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && strings.HasPrefix(to, "/") && !strings.HasPrefix(to, "/dev/null") &&
			!strings.HasPrefix(to, "/proc/") && e.Name() > "2" && strings.Contains(to, "Test") {
			left = append(left, to)
		}
	}
	return left
}

func BenchmarkReadPath(b *testing.B) {
	for _, size := range []int{1 << 10, 4 << 10, 16 << 10, 64 << 10, 1 << 20, 64 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			f := filepath.Join(b.TempDir(), "f")
			if err := os.WriteFile(f, bytes.Repeat([]byte("holdfast"), size/8), 0o600); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ReadPath(b.Context(), f, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkReader hashes bytes from memory: the ceiling of the machine.
func BenchmarkReader(b *testing.B) {
	buf := make([]byte, 16<<20)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if _, _, err := Reader(struct{ io.Reader }{bytes.NewReader(buf)}); err != nil {
			b.Fatal(err)
		}
	}
}
