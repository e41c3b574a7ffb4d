package coalesce

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

// inOwnMounts is set in the copy of the test program that may mount.
const inOwnMounts = "HOLDFAST_TEST_OWN_MOUNTS"

func TestMain(m *testing.M) {
	before := descriptors()
	code := m.Run()
	if after := descriptors(); code == 0 && after > before {
		os.Stderr.WriteString("descriptors were left open\n")
		code = 1
	}
	os.Exit(code)
}

func descriptors() int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	n := 0
	for _, d := range list {
		// the runtime's own poller and its wake-up stay
		if t, err := os.Readlink("/proc/self/fd/" + d.Name()); err == nil && !strings.HasPrefix(t, "anon_inode:") {
			n++
		}
	}
	return n
}

type world struct {
	dir string // canonical
	*Resolver
}

func root(t testing.TB, path, name string, anchor uint32) Root {
	t.Helper()
	at := path
	if name != "" {
		at = filepath.Dir(path)
	}
	var st unix.Stat_t
	if err := unix.Lstat(at, &st); err != nil {
		t.Fatal(err)
	}
	return Root{Path: path, Dev: st.Dev, Ino: st.Ino, Name: name, Anchor: anchor}
}

func do(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newWorld makes
//
//	w/sub/f       the watched tree w, anchor 1
//	w/in/deep     a nested root in/, anchor 2
//	etc/one       a watched file, anchor 3
//	o/            not watched: links into the tree
func newWorld(t testing.TB) *world {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	do(t, err)
	for _, d := range []string{"w/sub", "w/in/deep", "etc", "o"} {
		do(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	for _, f := range []string{"w/sub/f", "etc/one", "etc/two", "o/f"} {
		do(t, os.WriteFile(filepath.Join(dir, f), []byte(f), 0o644))
	}
	for name, target := range map[string]string{
		"o/dir": "../w/sub", "o/abs": dir + "/w/sub/f", "o/rel": "dir/f", "o/chain": "rel", "o/loop": "loop",
		"o/dangling": "../w/sub/gone", "w/out": "../o", "w/sub/ln": "f", "o/up": "dir/../sub",
	} {
		do(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	r := NewResolver(0, []Root{
		root(t, dir+"/w", "", 1), root(t, dir+"/w/in", "", 2), root(t, dir+"/etc/one", "one", 3),
	})
	t.Cleanup(func() { do(t, r.Close()) })
	return &world{dir, r}
}

func TestNamesLeadToTheirPlace(t *testing.T) {
	w := newWorld(t)
	tests := []struct {
		name   string
		base   string // below the world
		path   string // @ stands for the world
		follow bool
		want   string // below the world, "" for outside
		anchor uint32
	}{
		{"an absolute name", "", "@/w/sub/f", false, "w/sub/f", 1},
		{"a relative name", "/w", "sub/f", false, "w/sub/f", 1},
		{"a name with dots", "/o", "./.././w/./sub//f", false, "w/sub/f", 1},
		{"the root itself", "", "@/w", false, "w", 1},
		{"the root by its own dot", "/w/sub", "..", false, "w", 1},
		{"a directory named with a slash at its end", "", "@/w/sub/", false, "w/sub", 1},
		{"a directory on the way is a symlink", "", "@/o/dir/f", false, "w/sub/f", 1},
		{"dots behind a symlink go up from where it leads", "", "@/o/dir/../sub/f", false, "w/sub/f", 1},
		{"a last symlink that is not followed is outside", "", "@/o/abs", false, "", 0},
		{"a last symlink that is followed, absolute", "", "@/o/abs", true, "w/sub/f", 1},
		{"a last symlink that is followed, relative through another", "", "@/o/rel", true, "w/sub/f", 1},
		{"a chain of symlinks", "", "@/o/chain", true, "w/sub/f", 1},
		{"a symlink in the tree that is not followed is itself", "", "@/w/sub/ln", false, "w/sub/ln", 1},
		{"a symlink in the tree that is followed", "", "@/w/sub/ln", true, "w/sub/f", 1},
		{"a followed symlink to what is not there", "", "@/o/dangling", true, "w/sub/gone", 1},
		{"out of the tree through a symlink", "", "@/w/out/f", false, "", 0},
		{"what does not exist any more", "/w/sub", "was/../gone", false, "w/sub/gone", 1},
		{"a name whose directory is gone, in the tree as it reads", "", "@/w/gone/f", false, "w/gone/f", 1},
		{"the nearest root wins", "", "@/w/in/deep/x", false, "w/in/deep/x", 2},
		{"a nested root itself", "/w", "in", false, "w/in", 2},
		{"a watched file", "", "@/etc/one", false, "etc/one", 3},
		{"a watched file by a way round", "/o", "../etc/./one", false, "etc/one", 3},
		{"the file beside it", "", "@/etc/two", false, "", 0},
		{"the directory of a watched file", "", "@/etc", false, "", 0},
		{"somewhere else", "", "@/o/f", false, "", 0},
		{"an empty name is the base", "/w/sub", "", false, "w/sub", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			base := "/"
			if tt.base != "" {
				base = w.dir + tt.base
			}
			got, err := w.Resolve(Query{Base: base, Path: strings.ReplaceAll(tt.path, "@", w.dir), Follow: tt.follow, PID: uint32(os.Getpid())})
			if err != nil && !errors.Is(err, ErrUnresolved) {
				t.Fatal(err)
			}
			want := Place{}
			if tt.want != "" {
				want = Place{Anchor: tt.anchor, Path: w.dir + "/" + tt.want}
			}
			if got != want {
				t.Errorf("got %+v, want %+v (%v)", got, want, err)
			}
		})
	}
}

func TestADescriptorOfTheProcessLeadsToItsFile(t *testing.T) {
	w := newWorld(t)
	f, err := os.Open(w.dir + "/w/sub/f")
	do(t, err)
	defer f.Close()
	got, err := w.Resolve(Query{Base: "/", Path: "/proc/self/fd/" + strconv.Itoa(int(f.Fd())), Follow: true, PID: uint32(os.Getpid())})
	if err != nil || got.Path != w.dir+"/w/sub/f" {
		t.Errorf("%+v %v", got, err)
	}
}

func TestANameThatNothingIsLeftOfIsUnresolved(t *testing.T) {
	w := newWorld(t)
	for _, q := range []Query{
		{Base: "/", Path: w.dir + "/gone/link/f"},
		{Base: "/", Path: "/proc/999999999/fd/3", Follow: true},
		{Base: "", Path: "f\x00g"},
		{Base: "relative", Path: "f"},
	} {
		if p, err := w.Resolve(q); !errors.Is(err, ErrUnresolved) {
			t.Errorf("%+v: %+v %v", q, p, err)
		}
	}
	// One name in a directory that the kernel walked to cannot have been redirected.
	if p, err := w.Resolve(Query{Base: w.dir + "/gone", Path: "f"}); err != nil || p != (Place{}) {
		t.Errorf("%+v %v", p, err)
	}
}

// git gc takes a directory away while events about what was in it are placed.
func TestADirectoryThatIsRemovedWhileANameIsPlacedHasNoPathButThatOne(t *testing.T) {
	dir := t.TempDir()
	top, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	do(t, err)
	defer closeFD(top)
	for name, want := range map[string]string{"d": "", "d (deleted)": "/watched/d (deleted)/f"} {
		do(t, os.Mkdir(filepath.Join(dir, name), 0o755))
		fd, err := unix.Open(filepath.Join(dir, name), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		do(t, err)
		defer closeFD(fd)
		if want == "" {
			do(t, os.Remove(filepath.Join(dir, name)))
		}
		p, found, err := down(Root{Path: "/watched", Anchor: 1}, fd, top, "f")
		if p.Path != want || found != (want != "") || errors.Is(err, unix.ENOENT) == found {
			t.Errorf("%s: %+v, %v, %v", name, p, found, err)
		}
	}
}

func TestARootThatWasRenamedIsStillFound(t *testing.T) {
	w := newWorld(t)
	do(t, os.Rename(w.dir+"/w", w.dir+"/elsewhere"))
	p, err := w.Resolve(Query{Base: "/", Path: w.dir + "/elsewhere/sub/f"})
	if err != nil || p.Path != w.dir+"/w/sub/f" {
		t.Errorf("%+v %v", p, err)
	}
}

// It runs itself again in a mount namespace of its own.
func TestOtherMountsOfTheTreeLeadToTheSamePlace(t *testing.T) {
	if os.Getenv(inOwnMounts) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), inOwnMounts+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		if os.Getuid() != 0 {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	do(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	w := newWorld(t)
	mount := func(from, to string) {
		do(t, os.MkdirAll(w.dir+to, 0o755))
		do(t, unix.Mount(w.dir+from, w.dir+to, "", unix.MS_BIND, ""))
		t.Cleanup(func() { do(t, unix.Unmount(w.dir+to, unix.MNT_DETACH)) })
	}
	mount("/w", "/o/whole")
	mount("/w/sub", "/o/part")
	mount("/etc", "/o/conf")
	for path, want := range map[string]string{
		"/o/whole/sub/f": "/w/sub/f", "/o/part/f": "/w/sub/f", "/o/part/gone": "/w/sub/gone", "/o/part": "/w/sub",
		"/o/conf/one": "/etc/one", "/o/conf/two": "", "/o/f": "",
	} {
		p, err := w.Resolve(Query{Base: "/", Path: w.dir + path})
		if want != "" {
			want = w.dir + want
		}
		if err != nil || p.Path != want {
			t.Errorf("%s: %+v %v, want %q", path, p, err, want)
		}
	}
	// A process that has changed its root names things from there.
	p, err := w.Resolve(Query{Base: w.dir + "/o", Path: "/part/f"})
	if err != nil || p.Path != w.dir+"/w/sub/f" || p.Seen != "/part/f" {
		t.Errorf("chroot: %+v %v", p, err)
	}
	// A symlink to an absolute name stays within that root.
	do(t, os.Symlink("/part/f", w.dir+"/o/inroot"))
	p, err = w.Resolve(Query{Base: w.dir + "/o", Path: "/inroot", Follow: true})
	if err != nil || p.Path != w.dir+"/w/sub/f" {
		t.Errorf("symlink in a chroot: %+v %v", p, err)
	}
}

func TestTheMountTableIsReadAsTheKernelWritesIt(t *testing.T) {
	got := parseMounts([]byte(`36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
37 35 98:0 /a\040b /c\134d\012e rw - tmpfs none rw
short line
`))
	want := []mount{{36, "98:0", "/mnt1", "/mnt2"}, {37, "98:0", "/a b", "/c\\d\ne"}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%+v", got)
	}
}

func FuzzResolve(f *testing.F) {
	w := newWorld(f)
	for _, p := range []string{"w/sub/f", "../w", "o/dir/../..", "o/chain", "o/loop", "/proc/self/root/etc", "..", ".", "", "//", "w/\xff", "o/up/f", "/proc/self/cwd/x"} {
		f.Add("/", w.dir+"/"+p, true, uint32(0))
		f.Add(w.dir+"/o", p, false, uint32(1))
	}
	f.Fuzz(func(t *testing.T, base, path string, follow bool, ns uint32) {
		p, err := w.Resolve(Query{Base: base, Path: path, Follow: follow, PID: uint32(os.Getpid()), TID: 1, MntNS: ns})
		if err != nil {
			if p != (Place{}) || !errors.Is(err, ErrUnresolved) {
				t.Errorf("%+v with error %v", p, err)
			}
			return
		}
		if p.Path == "" {
			if p != (Place{}) {
				t.Errorf("%+v", p)
			}
			return
		}
		roots := map[uint32]string{1: w.dir + "/w", 2: w.dir + "/w/in", 3: w.dir + "/etc/one"}
		if r := roots[p.Anchor]; r == "" || !Within(r, p.Path) || filepath.Clean(p.Path) != p.Path {
			t.Errorf("%+v escapes %q", p, r)
		}
	})
}

func BenchmarkResolveUnwatched(b *testing.B) {
	w := newWorld(b)
	q := Query{Base: "/", Path: w.dir + "/o/f"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Resolve(q); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkResolveWatched(b *testing.B) {
	w := newWorld(b)
	q := Query{Base: w.dir + "/o", Path: "dir/f"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Resolve(q); err != nil {
			b.Fatal(err)
		}
	}
}

func TestTheSourceOfALinkIsNotGuessed(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "other"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(dir, "one"), filepath.Join(dir, "new")); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	r := NewResolver(0, []Root{{Path: dir, Dev: st.Dev, Ino: st.Ino, Anchor: 1}})
	defer r.Close()
	for open, want := range map[string]string{"one": filepath.Join(dir, "one"), "other": ""} {
		f, err := os.Open(filepath.Join(dir, open)) // what the descriptor is when the event is looked at
		if err != nil {
			t.Fatal(err)
		}
		var got []*event.Change
		tab := New(Options{Anchors: anchors{1: dir}, Resolver: r, Emit: func(c *event.Change) { got = append(got, c) }})
		e := ev(1, event.OpLink, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), by(uint32(os.Getpid())), flags(event.FlagNamed|event.FlagFollow))
		e.Base, e.Base2, e.Path2 = []byte("/"), []byte(dir), []byte("new")
		if err := tab.Add(e, nil); err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || got[0].Path != want || got[0].PathTo != filepath.Join(dir, "new") {
			t.Errorf("%s: %+v", open, got)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
