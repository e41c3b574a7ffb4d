package sense_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/decode"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/kernel"
	"github.com/holdfast/holdfast/pkg/sense"
)

// These tests attach the best tier that this kernel allows, so they need root.
// They watch their own temporary directory only.

// seen is an event, copied.
type seen struct {
	event.Event
	path, path2, base, base2, script string
}

type watcher struct {
	*sense.Sensor
	mu     sync.Mutex
	events []seen
	bad    []error
}

func watch(t *testing.T) *watcher {
	t.Helper()
	tier := kernel.Probe(t.Context()).Tier
	s, err := sense.Open(sense.Options{Tier: tier, Ring: 1 << 22, Self: uint32(os.Getpid())})
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{Sensor: s}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var d decode.Decoder
	go func() {
		done <- s.Run(ctx, func(raw []byte) {
			var e event.Event
			err := d.Decode(raw, &e)
			w.mu.Lock()
			defer w.mu.Unlock()
			if err != nil {
				w.bad = append(w.bad, err)
			}
			if !s.Waiting() {
				w.bad = append(w.bad, errors.New("a record that is being handled does not count as waiting"))
			}
			w.events = append(w.events, seen{e, string(e.Path), string(e.Path2), string(e.Base), string(e.Base2), string(e.Script)})
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("Run: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		for _, err := range w.bad {
			t.Errorf("decode: %v", err)
		}
	})
	return w
}

// by returns the file events of a process, in order.
func (w *watcher) by(pid int) []seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []seen
	for _, e := range w.events {
		if e.Kind == event.KindFile && int(e.Key.PID) == pid {
			out = append(out, e)
		}
	}
	return out
}

// run runs a program to its end and returns what the kernel side told of it. The
// exit event comes after all others of a process: when it is here, all are.
func (w *watcher) run(t *testing.T, dir string, argv ...string) []seen {
	t.Helper()
	c := exec.Command(argv[0], argv[1:]...)
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	pid := c.Process.Pid
	for range 200 {
		w.mu.Lock()
		for _, e := range w.events {
			if e.Kind == event.KindExit && int(e.Key.PID) == pid {
				w.mu.Unlock()
				return w.by(pid)
			}
		}
		w.mu.Unlock()
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s: its exit was not seen", argv[0])
	return nil
}

// place is the absolute path that an event names.
func (w *watcher) place(e seen) string {
	if e.Flags&event.FlagNamed != 0 {
		if filepath.IsAbs(e.path) {
			return filepath.Clean(e.path)
		}
		return filepath.Join(e.base, e.path)
	}
	p, _, ok := w.Path(e.Anchor)
	if !ok {
		return ""
	}
	return filepath.Join(p, e.path)
}

func TestEveryOperationIsSeenAtItsPlace(t *testing.T) {
	w := watch(t)
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	if err := os.MkdirAll(filepath.Join(tree, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	unarmed, err := w.Arm([]sense.Rule{{ID: 3, Mode: event.ModeObserve, Paths: []string{tree}}})
	if err != nil || len(unarmed) != 0 {
		t.Fatalf("arm: %v, %v", unarmed, err)
	}
	tests := []struct {
		op   event.Op
		path string
		argv []string
	}{
		{event.OpOpen, "a", []string{"cp", "/etc/hostname", "tree/a"}},
		{event.OpWrite, "a", []string{"dd", "if=/etc/hostname", "of=tree/a", "status=none"}},
		{event.OpTruncate, "a", []string{"truncate", "-s", "1", "tree/a"}},
		{event.OpChmod, "a", []string{"chmod", "640", "tree/a"}},
		{event.OpChown, "a", []string{"chown", "1:1", tree + "/a"}},
		{event.OpUtimes, "a", []string{"touch", "-d", "2001-01-01", "tree/a"}},
		{event.OpSetxattr, "a", []string{"setfattr", "-n", "user.x", "-v", "1", "tree/a"}},
		{event.OpRemovexattr, "a", []string{"setfattr", "-x", "user.x", "tree/a"}},
		{event.OpSymlink, "s", []string{"ln", "-s", "a", "tree/s"}},
		{event.OpLink, "a", []string{"ln", "tree/a", "tree/h"}},
		{event.OpRename, "h", []string{"mv", "tree/h", "tree/sub/h"}},
		{event.OpUnlink, "sub/h", []string{"rm", "tree/sub/h"}},
		{event.OpMkdir, "d", []string{"mkdir", "tree/d"}},
		{event.OpRmdir, "d", []string{"rmdir", "tree/d"}},
		{event.OpMknod, "p", []string{"mknod", "tree/p", "p"}},
		{event.OpUnlink, "p", []string{"rm", tree + "/sub/../p"}},
		{event.OpUnlink, "sub", []string{"rm", "-r", "tree/sub"}}, // rmdir by unlinkat
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.argv, " "), func(t *testing.T) {
			want := tt.op
			if tt.argv[0] == "rm" && tt.argv[1] == "-r" {
				want = event.OpRmdir
			}
			var got []string
			for _, e := range w.run(t, dir, tt.argv...) {
				p := w.place(e)
				if e.Op == want && p == filepath.Join(tree, tt.path) {
					return
				}
				got = append(got, fmt.Sprintf("%s %s", e.Op, p))
			}
			t.Errorf("no %s of %s among %q", want, tt.path, got)
		})
	}
}

func TestWhatIsNotWatchedIsNotSent(t *testing.T) {
	w := watch(t)
	dir := t.TempDir()
	for _, d := range []string{"tree/skip", "other"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	rule := sense.Rule{ID: 0, Mode: event.ModeObserve, Paths: []string{dir + "/tree"}, Except: []string{dir + "/tree/skip", dir + "/tree/later"}}
	if _, err := w.Arm([]sense.Rule{rule}); err != nil {
		t.Fatal(err)
	}
	script := "echo 1 > other/f; echo 1 > tree/skip/f; echo 1 > tree/later; cd tree/skip; mkdir d; mv f g; rm g; rmdir d"
	for _, e := range w.run(t, dir, "sh", "-c", script) {
		if e.Flags&event.FlagNamed == 0 && e.Anchor != 0 {
			t.Errorf("%s of %s", e.Op, w.place(e))
		}
	}
	if got := w.run(t, dir, "sh", "-c", "echo 1 > tree/f"); len(got) == 0 {
		t.Errorf("a file beside the excepts was not seen")
	}
}

func TestAFileRuleFollowsItsNameNotItsInode(t *testing.T) {
	w := watch(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "conf")
	if err := os.WriteFile(file, []byte("1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Arm([]sense.Rule{{Mode: event.ModeObserve, Paths: []string{file}}}); err != nil {
		t.Fatal(err)
	}
	w.run(t, dir, "sed", "-i", "s/1/2/", "conf") // replaces the inode
	got := w.run(t, dir, "sh", "-c", "echo 3 >> conf")
	if len(got) == 0 || w.place(got[0]) != file {
		t.Errorf("the new inode is not seen at %s: %+v", file, got)
	}
}

func TestARuleForAMissingPathIsToldWhenItAppears(t *testing.T) {
	w := watch(t)
	dir := t.TempDir()
	rules := []sense.Rule{{ID: 1, Mode: event.ModeObserve, Paths: []string{dir + "/a/b/conf"}}}
	unarmed, err := w.Arm(rules)
	if err != nil || len(unarmed) != 1 || unarmed[0].Err != nil {
		t.Fatalf("arm: %v, %v; want one path that waits", unarmed, err)
	}
	steps := []string{"cd " + dir + "; mkdir a", "cd " + dir + "/a; mkdir b", "cd " + dir + "/a/b; mkfifo q; mv q conf"}
	for i, script := range steps {
		appeared := false
		for _, pid := range w.children(t, script) {
			for _, e := range w.by(pid) {
				appeared = appeared || e.Flags&event.FlagAppeared != 0
			}
		}
		if !appeared {
			t.Fatalf("%q: no event says that a name appeared", script)
		}
		if i == len(steps)-1 {
			break
		}
		if unarmed, err = w.Arm(rules); err != nil || len(unarmed) != 1 {
			t.Fatalf("arm again: %v, %v", unarmed, err)
		}
	}
	if unarmed, err = w.Arm(rules); err != nil || len(unarmed) != 0 {
		t.Errorf("arm the third time: %v, %v; want everything armed", unarmed, err)
	}
}

// children runs a shell script and returns the pids of it and of what it forked.
func (w *watcher) children(t *testing.T, script string) []int {
	t.Helper()
	c := exec.Command("sh", "-c", script)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	time.Sleep(100 * time.Millisecond)
	w.mu.Lock()
	defer w.mu.Unlock()
	pids := []int{c.Process.Pid}
	for _, e := range w.events {
		if e.Kind == event.KindFork && int(e.Parent.PID) == c.Process.Pid {
			pids = append(pids, int(e.Key.PID))
		}
	}
	return pids
}

func TestEventsCarryTheCredentialsOfTheirMoment(t *testing.T) {
	w := watch(t)
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o777), os.Chmod(filepath.Dir(dir), 0o777)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Arm([]sense.Rule{{Mode: event.ModeObserve, Paths: []string{dir}}}); err != nil {
		t.Fatal(err)
	}
	got := w.run(t, dir, "setpriv", "--reuid=1234", "--regid=4321", "--clear-groups", "touch", "f")
	for _, e := range got {
		want := event.Creds{UID: 1234, EUID: 1234, SUID: 1234, FSUID: 1234, GID: 4321, EGID: 4321, SGID: 4321, FSGID: 4321}
		if e.Creds != want || e.CommString() != "touch" {
			t.Errorf("%s by %s with %+v, want %+v", e.Op, e.CommString(), e.Creds, want)
		}
	}
	if len(got) == 0 {
		t.Error("nothing was seen")
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "f"), &st); err != nil || st.Uid != 1234 || st.Gid != 4321 {
		t.Errorf("the file system says %d:%d (%v)", st.Uid, st.Gid, err)
	}
}

func TestWritesOfOneOpenerAreFoldedAndTheirCountsAddUp(t *testing.T) {
	w := watch(t)
	dir := t.TempDir()
	if _, err := w.Arm([]sense.Rule{{Mode: event.ModeObserve, Paths: []string{dir}}}); err != nil {
		t.Fatal(err)
	}
	const writes, size = 5000, 16
	got := w.run(t, dir, "dd", "if=/dev/zero", "of=f", fmt.Sprintf("count=%d", writes), fmt.Sprintf("bs=%d", size), "status=none")
	var count, bytes uint64
	sent := 0
	for _, e := range got {
		if e.Op == event.OpWrite || e.Op == event.OpClose {
			count += e.Count
			bytes += e.Bytes
			sent++
		}
	}
	if count != writes {
		t.Errorf("%d writes were told, dd made %d", count, writes)
	}
	if w.Tier() == sense.TierTracepoint && bytes != writes*size {
		t.Errorf("%d bytes were told, dd wrote %d", bytes, writes*size)
	}
	if sent > writes/4 {
		t.Errorf("%d events for %d writes: nothing was folded", sent, writes)
	}
}

func TestWritesThroughADescriptorThatPassesOnAreToldOfEachWriter(t *testing.T) {
	w := watch(t)
	dir := t.TempDir()
	if _, err := w.Arm([]sense.Rule{{Mode: event.ModeObserve, Paths: []string{dir}}}); err != nil {
		t.Fatal(err)
	}
	if w.Tier() != sense.TierTracepoint {
		if err := w.Need("file_permission", "test"); err != nil {
			t.Fatal(err)
		}
	}
	// a subshell is a process of its own; what it and its parent write is folded each
	w.run(t, dir, "sh", "-c", "exec 3>f; echo 1 >&3; echo 2 >&3; echo 3 >&3; (echo 4 >&3; echo 5 >&3); echo 6 >&3")
	w.mu.Lock()
	defer w.mu.Unlock()
	var order []uint32
	count := map[uint32]uint64{}
	for _, e := range w.events {
		if e.Kind != event.KindFile || e.Op != event.OpWrite && e.Op != event.OpClose || filepath.Base(e.path) != "f" {
			continue
		}
		if n := len(order); n == 0 || order[n-1] != e.Key.PID {
			order = append(order, e.Key.PID)
		}
		count[e.Key.PID] += e.Count
	}
	if len(order) != 3 || len(count) != 2 || order[0] != order[2] || count[order[0]] != 4 || count[order[1]] != 2 {
		t.Errorf("wrote, in this order: %v, so often: %v; want 3 and 1 times by the shell, twice by the subshell between", order, count)
	}
}

func TestCountersAddUp(t *testing.T) {
	w := watch(t)
	dir := t.TempDir()
	if _, err := w.Arm([]sense.Rule{{Mode: event.ModeObserve, Paths: []string{dir}}}); err != nil {
		t.Fatal(err)
	}
	w.run(t, dir, "sh", "-c", "for i in $(seq 50); do echo $i > f$i; mv f$i g$i; rm g$i; done")
	// The programs go on counting for the rest of the machine while we read: a
	// sum that is off by what ran in between is read again.
	var off []string
	for range 100 {
		cs, err := w.Counters()
		if err != nil {
			t.Fatal(err)
		}
		off = nil
		for _, c := range cs {
			if sum := c.Skipped + c.Folded + c.Blocked + c.Sent + c.Lost + c.Failed + c.Deep; sum != c.Seen {
				off = append(off, fmt.Sprintf("%s: seen %d, the rest sums to %d: %+v", c.Hook, c.Seen, sum, c))
			}
			if c.Lost+c.Failed != 0 {
				t.Errorf("%s: lost %d, failed %d", c.Hook, c.Lost, c.Failed)
			}
		}
		if off == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error(off)
}

func TestWhatLiesTooDeepIsCounted(t *testing.T) {
	w := watch(t)
	dir := t.TempDir()
	deep := filepath.Join(dir, strings.Repeat("d/", 70))
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Arm([]sense.Rule{{Mode: event.ModeObserve, Paths: []string{dir}}}); err != nil {
		t.Fatal(err)
	}
	w.run(t, deep, "sh", "-c", "echo 1 > f")
	cs, err := w.Counters()
	if err != nil {
		t.Fatal(err)
	}
	counted := uint64(0)
	for _, c := range cs {
		counted += c.Deep
	}
	if counted == 0 {
		t.Errorf("a write 71 directories below the mark left no trace: %+v", cs)
	}
}
