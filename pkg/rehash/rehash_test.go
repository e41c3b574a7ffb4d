package rehash

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

func boot() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err)
	}
	return uint64(ts.Nano())
}

func do(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type bench struct {
	t *testing.T
	*Rehash
	dir   string
	later map[string]Later
}

func newBench(t *testing.T) *bench {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	do(t, err)
	b := &bench{t: t, dir: dir, later: map[string]Later{}}
	b.Rehash = New(Options{Now: boot})
	do(t, os.WriteFile(b.at("f"), []byte("old"), 0o644))
	do(t, os.Mkdir(b.at("d"), 0o755))
	do(t, os.WriteFile(b.at("d/x"), []byte("x"), 0o600))
	n, errs, err := b.Enrol(t.Context(), Tree{Root: dir})
	if n != 4 || len(errs) > 0 || err != nil {
		t.Fatal(n, errs, err)
	}
	return b
}

func (b *bench) at(p string) string { return filepath.Join(b.dir, p) }

func (b *bench) write(p, s string) {
	b.t.Helper()
	do(b.t, os.WriteFile(b.at(p), []byte(s), 0o644))
}

// change is what the stages before would make of an operation that is just done.
func (b *bench) change(op event.Op, path string, more ...string) *event.Change {
	now := boot()
	c := &event.Change{Path: b.at(path), Op: op, Ops: []event.Op{op}, First: now, Last: now}
	if len(more) > 0 {
		c.PathTo = b.at(more[0])
	}
	return c
}

func (b *bench) check(c *event.Change) Finding {
	b.t.Helper()
	f, err := b.Check(b.t.Context(), c, func(p string) Later { return b.later[p] }, false)
	do(b.t, err)
	return f
}

// b3sum is the truth about a content.
func (b *bench) b3sum(content string) string {
	b.t.Helper()
	cmd := exec.Command("b3sum", "--no-names")
	cmd.Stdin = strings.NewReader(content)
	out, err := cmd.Output()
	do(b.t, err)
	return "blake3:" + strings.TrimSpace(string(out))
}

// settled fails unless what is known is what a fresh scan finds.
func (b *bench) settled() {
	b.t.Helper()
	want := map[string]event.State{}
	do(b.t, b.Scan(b.t.Context(), Tree{Root: b.dir}, func(p string, s event.State, err error) {
		do(b.t, err)
		want[p] = s
	}))
	got := map[string]event.State{}
	b.Known().Walk(b.dir, func(p string, s *event.State) { got[p] = *s })
	for p, s := range want {
		if k, ok := got[p]; !ok || !k.Same(&s) {
			b.t.Errorf("%s: known %+v, is %+v", p, k, s)
		}
		delete(got, p)
	}
	for p := range got {
		b.t.Errorf("%s: known, is not there", p)
	}
}

func TestAWriteIsFoundWithItsHashes(t *testing.T) {
	b := newBench(t)
	b.write("f", "new")
	f := b.check(b.change(event.OpWrite, "f"))
	if !f.Changed || f.Before.Hash.String() != b.b3sum("old") || f.After.Hash.String() != b.b3sum("new") {
		t.Errorf("%+v", f)
	}
	b.settled()
}

func TestAnOperationThatLeftNoDifferenceIsNone(t *testing.T) {
	b := newBench(t)
	time.Sleep(2 * time.Duration(slack))
	do(t, os.Chmod(b.at("f"), 0o644))
	if f := b.check(b.change(event.OpChmod, "f")); f.Changed {
		t.Errorf("%+v", f)
	}
	b.settled()
}

func TestWhatIsGoneWhenLookedAtIsStillAChange(t *testing.T) {
	b := newBench(t)
	created, removed := b.change(event.OpCreate, "tmp"), b.change(event.OpUnlink, "tmp")
	f := b.check(created)
	if !f.Changed || f.Before.Exists || !f.After.Exists || f.After.Unread == "" {
		t.Errorf("create: %+v", f)
	}
	f = b.check(removed)
	if !f.Changed || !f.Before.Exists || f.After.Exists {
		t.Errorf("unlink: %+v", f)
	}
	b.settled()
}

func TestAFileThatWasRenamedBeforeTheLookIsReadAtItsNewName(t *testing.T) {
	b := newBench(t)
	b.write("tmp", "content")
	made := b.change(event.OpCreate, "tmp")
	do(t, os.Rename(b.at("tmp"), b.at("f")))
	moved := b.change(event.OpRename, "tmp", "f")
	b.later[b.at("tmp")] = Later{Any: true, First: moved.First, Name: true, MovedTo: b.at("f")}
	f := b.check(made)
	if f.After.Hash.String() != b.b3sum("content") {
		t.Errorf("create: %+v", f.After)
	}
	delete(b.later, b.at("tmp"))
	f = b.check(moved)
	if f.Path != b.at("f") || f.Before.Hash.String() != b.b3sum("old") || f.After.Hash.String() != b.b3sum("content") {
		t.Errorf("rename: %+v", f)
	}
	if f.From == nil || f.From.Before.Hash.String() != b.b3sum("content") || f.From.After.Exists {
		t.Errorf("rename from: %+v", f.From)
	}
	b.settled()
}

func TestALaterWriteIsNotTakenForAnEarlierOne(t *testing.T) {
	b := newBench(t)
	b.write("f", "first")
	one := b.change(event.OpWrite, "f")
	b.write("f", "second")
	two := b.change(event.OpWrite, "f")
	b.later[b.at("f")] = Later{Any: true, First: two.First, Content: true}
	f := b.check(one)
	if !f.Changed || f.Before.Hash.String() != b.b3sum("old") || !f.After.Hash.IsZero() || f.After.Unread == "" {
		t.Errorf("first: %+v", f)
	}
	delete(b.later, b.at("f"))
	f = b.check(two)
	if !f.Changed || !f.Before.Hash.IsZero() || f.After.Hash.String() != b.b3sum("second") {
		t.Errorf("second: %+v", f)
	}
	b.settled()
}

func TestALaterChmodDoesNotHideTheContentOfAWrite(t *testing.T) {
	b := newBench(t)
	b.write("f", "new")
	one := b.change(event.OpWrite, "f")
	do(t, os.Chmod(b.at("f"), 0o600))
	two := b.change(event.OpChmod, "f")
	b.later[b.at("f")] = Later{Any: true, First: two.First, Meta: true}
	f := b.check(one)
	if f.After.Hash.String() != b.b3sum("new") || f.After.Mode != 0o644 {
		t.Errorf("write: %+v", f.After)
	}
	delete(b.later, b.at("f"))
	f = b.check(two)
	if d := f.Before.Diff(&f.After); !slices.Equal(d, []string{"mode"}) {
		t.Errorf("chmod: %v %+v", d, f)
	}
	b.settled()
}

func TestAChangeThatIsToldOfAfterItWasReadIsStillRecorded(t *testing.T) {
	b := newBench(t)
	b.write("f", "new")
	one := b.change(event.OpWrite, "f")
	do(t, os.Chmod(b.at("f"), 0o600))
	two := b.change(event.OpChmod, "f")
	f := b.check(one) // reads the chmod along: nobody has told of it yet
	if !f.Changed {
		t.Fatalf("%+v", f)
	}
	f = b.check(two)
	if !f.Changed || !f.Late || !slices.Equal(f.Before.Diff(&f.After), []string{"mode"}) {
		t.Errorf("%+v", f)
	}
	b.settled()
}

func TestWhatWasPutBackBeforeItWasToldOfIsStillRecorded(t *testing.T) {
	b := newBench(t)
	trusted, _ := b.Known().Get(b.at("f"))
	b.write("f", "bad")
	two := b.change(event.OpWrite, "f")
	b.write("f", "old")
	do(t, os.Chtimes(b.at("f"), time.Time{}, trusted.State.Mtime.Go()))
	b.Put(b.at("f"), trusted.State)
	f := b.check(two)
	if !f.Changed || !f.Late || f.After.Unread == "" {
		t.Errorf("%+v", f)
	}
	if b.Differs(t.Context(), b.at("f")) {
		t.Error("the restored state is not the known one any more")
	}
}

func TestNamesOfTheFileSystemAreFollowed(t *testing.T) {
	tests := []struct {
		name   string
		do     func(b *bench) *event.Change
		before string // type of what was there, "" for nothing
		after  string
	}{
		{"mkdir", func(b *bench) *event.Change {
			do(b.t, os.Mkdir(b.at("n"), 0o755))
			return b.change(event.OpMkdir, "n")
		}, "", "dir"},
		{"symlink", func(b *bench) *event.Change {
			do(b.t, os.Symlink("f", b.at("n")))
			return b.change(event.OpSymlink, "n")
		}, "", "symlink"},
		{"a fifo", func(b *bench) *event.Change {
			do(b.t, unix.Mkfifo(b.at("n"), 0o600))
			return b.change(event.OpMknod, "n")
		}, "", "fifo"},
		{"a hard link", func(b *bench) *event.Change {
			do(b.t, os.Link(b.at("f"), b.at("n")))
			return b.change(event.OpLink, "f", "n")
		}, "", "regular"},
		{"unlink", func(b *bench) *event.Change {
			do(b.t, os.Remove(b.at("f")))
			return b.change(event.OpUnlink, "f")
		}, "regular", ""},
		{"a directory removed with all below it", func(b *bench) *event.Change {
			do(b.t, os.Rename(b.at("d"), b.dir+"-out"))
			b.t.Cleanup(func() { os.RemoveAll(b.dir + "-out") })
			return b.change(event.OpRename, "d")
		}, "dir", ""},
		{"a directory renamed with all below it", func(b *bench) *event.Change {
			do(b.t, os.Rename(b.at("d"), b.at("e")))
			return b.change(event.OpRename, "d", "e")
		}, "", "dir"},
		{"a file renamed over another", func(b *bench) *event.Change {
			do(b.t, os.Rename(b.at("f"), b.at("d/x")))
			return b.change(event.OpRename, "f", "d/x")
		}, "regular", "regular"},
		{"two names exchanged", func(b *bench) *event.Change {
			do(b.t, unix.Renameat2(unix.AT_FDCWD, b.at("f"), unix.AT_FDCWD, b.at("d"), unix.RENAME_EXCHANGE))
			c := b.change(event.OpRename, "f", "d")
			c.Exchange = true
			return c
		}, "dir", "regular"},
		{"a file moved in from outside", func(b *bench) *event.Change {
			b.t.Cleanup(func() { os.Remove(b.dir + "-out") })
			do(b.t, os.WriteFile(b.dir+"-out", []byte("o"), 0o600))
			do(b.t, os.Rename(b.dir+"-out", b.at("n")))
			c := b.change(event.OpRename, "n", "n")
			c.Path = ""
			return c
		}, "", "regular"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			f := b.check(tt.do(b))
			if !f.Changed || f.Before.Type != tt.before || f.After.Type != tt.after || f.After.Unread != "" {
				t.Errorf("%+v", f)
			}
			b.settled()
		})
	}
}

func TestALookTellsWhatAnOperationWouldHave(t *testing.T) {
	b := newBench(t)
	look := func(p string) Finding { return b.check(&event.Change{Path: b.at(p), Op: event.OpOpen}) }
	if f := look("f"); f.Changed {
		t.Errorf("%+v", f)
	}
	tests := []struct {
		do   func()
		path string
		want event.Op
	}{
		{func() { b.write("f", "other") }, "f", event.OpWrite},
		{func() { do(t, os.Chmod(b.at("f"), 0o4755)) }, "f", event.OpChmod},
		{func() { do(t, os.Chtimes(b.at("f"), time.Time{}, time.Unix(5, 7))) }, "f", event.OpUtimes},
		{func() { do(t, unix.Setxattr(b.at("f"), "user.a", []byte("v"), 0)) }, "f", event.OpSetxattr},
		{func() { do(t, os.Remove(b.at("d/x"))) }, "d/x", event.OpUnlink},
		{func() { do(t, os.Remove(b.at("d"))) }, "d", event.OpRmdir},
		{func() { do(t, os.Mkdir(b.at("n"), 0o700)) }, "n", event.OpMkdir},
		{func() { do(t, os.Symlink("x", b.at("s"))) }, "s", event.OpSymlink},
	}
	for _, tt := range tests {
		tt.do()
		if f := look(tt.path); !f.Changed || f.Op != tt.want {
			t.Errorf("%s: %+v, want %s", tt.path, f, tt.want)
		}
	}
	b.settled()
}

// A program opens a file for writing, writes nothing and closes it; another file is renamed
// over it before the look, and that is told of afterwards.
func TestWhoHadAFileOpenDidNotDoWhatAnotherFileBrought(t *testing.T) {
	b := newBench(t)
	e, _ := b.Known().Get(b.at("f"))
	first := boot()
	b.write("new", "other")
	do(t, os.Rename(b.at("new"), b.at("f")))
	f := b.check(&event.Change{Path: b.at("f"), Op: event.OpOpen, Ino: e.State.Ino, First: first, Last: first})
	if f.Changed || !f.Again {
		t.Errorf("the look: %+v", f)
	}
	f = b.check(&event.Change{Path: b.at("new"), PathTo: b.at("f"), Op: event.OpRename, First: first, Last: first})
	if !f.Changed || f.Before.Hash != e.State.Hash || f.After.Hash.IsZero() || f.After.Hash == e.State.Hash {
		t.Errorf("the rename: %+v", f)
	}
	b.settled()
}

func TestAGlanceAnswersForAFileThatWasLeftAlone(t *testing.T) {
	b := newBench(t)
	time.Sleep(time.Duration(2 * settled))
	do(t, b.Refresh(t.Context(), b.dir))
	look := &event.Change{Path: b.at("f"), Op: event.OpOpen}
	b.check(look)
	reads := b.Stats().Reads
	b.check(look)
	if s := b.Stats(); s.Reads != reads || s.Spared == 0 {
		t.Errorf("%+v after %d reads", s, reads)
	}
	// The same content and times, but touched: a glance does not vouch for it.
	e, _ := b.Known().Get(b.at("f"))
	b.write("f", "OLD")
	do(t, os.Chtimes(b.at("f"), time.Time{}, e.State.Mtime.Go()))
	if f := b.check(look); !f.Changed || f.Op != event.OpWrite {
		t.Errorf("%+v", f)
	}
}

func TestSuspectsAreWhatDiffers(t *testing.T) {
	b := newBench(t)
	time.Sleep(time.Duration(2 * settled))
	do(t, b.Refresh(t.Context(), b.dir))
	b.write("f", "other")
	b.write("d/new", "n")
	do(t, os.Remove(b.at("d/x")))
	var got []string
	n, err := b.Suspects(t.Context(), Tree{Root: b.dir}, func(p string) error { got = append(got, p); return nil })
	do(t, err)
	if all := b.Known().Len() + 1; n != all { // one is new
		t.Errorf("%d paths compared, there are %d", n, all)
	}
	sort.Strings(got)
	// d's own times are those of its entries
	want := []string{b.at("d"), b.at("d/new"), b.at("d/x"), b.at("f")}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// holder keeps what is read, as a vault would.
type holder struct {
	bytes.Buffer
	ended int
}

func (h *holder) Discard() error { h.ended++; return nil }

func TestTheContentIsHandedOverOnceOrDiscarded(t *testing.T) {
	b := newBench(t)
	var last *holder
	b.o.Intake = func() Intake { last = &holder{}; return last }
	b.write("f", "new")
	f, err := b.Check(t.Context(), b.change(event.OpWrite, "f"), func(string) Later { return Later{} }, true)
	do(t, err)
	if f.Content != last || last.String() != "new" || last.ended != 0 {
		t.Errorf("%+v %+v", f, last)
	}
	time.Sleep(2 * time.Duration(slack))
	f, err = b.Check(t.Context(), b.change(event.OpChmod, "f"), func(string) Later { return Later{} }, true)
	do(t, err)
	if f.Changed || f.Content != nil || last.ended != 1 {
		t.Errorf("%+v %+v", f, last)
	}
}

func TestAScanIsParallelBoundedAndCanBeStopped(t *testing.T) {
	b := newBench(t)
	for i := range 50 {
		b.write(fmt.Sprint(i), "x")
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := b.Scan(ctx, Tree{Root: b.dir, Skip: func(p string) bool { return p == b.at("d") }}, func(p string, _ event.State, _ error) {
		if strings.HasPrefix(p, b.at("d")) {
			t.Errorf("%s was to be skipped", p)
		}
		if n++; n == 10 {
			cancel()
		}
	})
	if err == nil || n > 10+b.o.Workers {
		t.Errorf("%d visited, %v", n, err)
	}
}

func TestTheTreeOfNamesBehavesLikeAMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var k Known
	model := map[string]bool{} // path → is a directory
	name := func() string {
		p := ""
		for range 1 + rng.IntN(3) {
			p += "/" + string(rune('a'+rng.IntN(3)))
		}
		return p
	}
	dropBelow := func(p string) {
		for q := range model {
			if strings.HasPrefix(q, p+"/") {
				delete(model, q)
			}
		}
	}
	for i := range 5000 {
		p, q := name(), name()
		switch rng.IntN(4) {
		case 0:
			k.put(p, Entry{State: event.State{Exists: true, Type: event.TypeDir}})
			model[p] = true
		case 1:
			k.put(p, Entry{State: event.State{Exists: true, Type: event.TypeRegular}})
			model[p] = false
			dropBelow(p)
		case 2:
			k.put(p, Entry{})
			delete(model, p)
			dropBelow(p)
		case 3:
			if strings.HasPrefix(q+"/", p+"/") || strings.HasPrefix(p+"/", q+"/") {
				continue
			}
			k.move(p, q, uint64(i))
			moved := map[string]bool{}
			for m, d := range model {
				if m == p || strings.HasPrefix(m, p+"/") {
					moved[q+m[len(p):]] = d
				}
			}
			delete(model, p)
			dropBelow(p)
			delete(model, q)
			dropBelow(q)
			for m, d := range moved {
				model[m] = d
			}
		}
		if i%500 == 0 {
			k.prune("/", uint64(i))
		}
		if k.Len() != len(model) {
			t.Fatalf("step %d: %d known, want %d", i, k.Len(), len(model))
		}
	}
	var got []string
	k.Walk("/", func(p string, _ *event.State) { got = append(got, p) })
	var want []string
	for p := range model {
		want = append(want, p)
	}
	sort.Strings(want)
	sort.Strings(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A store into a page that is dirty already moves no time of the inode.
func TestAMappedFileIsReadWhateverItsTimesSay(t *testing.T) {
	b := newBench(t)
	do(t, os.WriteFile(b.at("m"), make([]byte, 4096), 0o644))
	f, err := os.OpenFile(b.at("m"), os.O_RDWR, 0)
	do(t, err)
	defer f.Close()
	page, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	do(t, err)
	defer unix.Munmap(page)
	page[0] = 1
	time.Sleep(2 * time.Duration(settled)) // the known state is of an inode at rest
	b.check(b.change(event.OpOpen, "m"))
	page[0] = 2
	c := b.change(event.OpOpen, "m")
	c.Mapped = true
	if !b.DiffersRead(t.Context(), c.Path) {
		t.Error("a store is taken for none")
	}
	got := b.check(c)
	if !got.Changed || got.Op != event.OpMapWrite {
		t.Errorf("changed %v, op %s", got.Changed, got.Op)
	}
	if out, err := exec.Command("b3sum", "--no-names", b.at("m")).Output(); err != nil || got.After.Hash.String() != "blake3:"+strings.TrimSpace(string(out)) {
		t.Errorf("after is %s, b3sum says %s (%v)", got.After.Hash, out, err)
	}
}

func TestStoresThatLeftNothingAreNoChange(t *testing.T) {
	b := newBench(t)
	c := b.change(event.OpMapWrite, "f")
	c.Count, c.Mapped = 5, true
	c.First += uint64(time.Second) // long after what is known
	c.Last = c.First
	if got := b.check(c); got.Changed {
		t.Errorf("five stores of what was there are a change: %+v", got)
	}
}
