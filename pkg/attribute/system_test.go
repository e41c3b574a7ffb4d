package attribute

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"golang.org/x/sys/unix"
)

// truth is what a process says of itself.
type truth struct {
	PID      uint32
	Exe      string
	Args     []string
	Cwd      string
	Dev, Ino uint64
}

// sayTruth is set in the environment of the copies of the test program that are
// to tell the truth about themselves and wait.
const sayTruth = "HOLDFAST_ATTRIBUTE_TRUTH"

func TestMain(m *testing.M) {
	if os.Getenv(sayTruth) != "" {
		if err := tell(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func tell() error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(exe, &st); err != nil {
		return err
	}
	t := truth{uint32(os.Getpid()), exe, os.Args, cwd, uint64(unix.Major(st.Dev))<<20 | uint64(unix.Minor(st.Dev)), st.Ino}
	if err := json.NewEncoder(os.Stdout).Encode(t); err != nil {
		return err
	}
	_, err = bufio.NewReader(os.Stdin).ReadByte() // until the test closes it
	if err != nil && err.Error() == "EOF" {
		return nil
	}
	return err
}

// child starts a copy of the test program and returns what it says of itself.
// stop ends it.
func child(t *testing.T, args ...string) (truth, func()) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe, args...)
	c.Env = append(os.Environ(), sayTruth+"=1")
	c.Dir = t.TempDir()
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		in.Close()
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	var tr truth
	if err := json.NewDecoder(out).Decode(&tr); err != nil {
		t.Fatal(err)
	}
	return tr, stop
}

// startOf reads when a process started.
func startOf(t *testing.T, pid uint32) uint64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	var ticks uint64
	if _, err := fmt.Sscan(strings.Fields(string(b[bytes.LastIndexByte(b, ')')+2:]))[19], &ticks); err != nil {
		t.Fatal(err)
	}
	return ticks * 10_000_000
}

func TestARealProcessThatWasNeverReported(t *testing.T) {
	tr, stop := child(t, "one", "two words", "")
	start := startOf(t, tr.PID)
	sum, err := digest.ReadPath(t.Context(), tr.Exe, nil)
	if err != nil {
		t.Fatal(err)
	}
	who := func(start, ino uint64) event.Process {
		table := New(NewSystem(uint32(os.Getpid())))
		ev := &event.Event{Kind: event.KindFile, Key: event.ProcKey{PID: tr.PID, Start: start, Execs: 7}, TID: tr.PID, Login: event.Unset, Audit: event.Unset,
			ExeDev: tr.Dev, ExeIno: ino, Time: start + 1}
		_, p := table.Who(ev)
		return p
	}
	for _, c := range []struct {
		name  string
		start uint64
		ino   uint64
		known bool
	}{
		{"it started when the event says", start + 3_456_789, tr.Ino, true},
		{"it started within the same tick", start + nsPerTick - 1, tr.Ino, true},
		{"it started a tick later than the event says", start - 1, tr.Ino, false},
		{"it started a tick earlier than the event says", start + nsPerTick, tr.Ino, false},
		{"it runs another executable than the event says", start, tr.Ino + 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := who(c.start, c.ino)
			if !c.known {
				if p.Exe != event.Unknown || p.Evidence != event.EvidenceNone || p.Argv != nil || p.Cwd != "" {
					t.Errorf("%+v, want nothing known", p)
				}
				return
			}
			if p.Exe != tr.Exe || !reflect.DeepEqual(p.Argv, tr.Args) || p.Cwd != tr.Cwd || p.Evidence != event.EvidenceProcScan {
				t.Errorf("got %q %q in %q (%s)\nwant %q %q in %q", p.Exe, p.Argv, p.Cwd, p.Evidence, tr.Exe, tr.Args, tr.Cwd)
			}
			if p.ExeHash != sum.Hash {
				t.Errorf("hash %v, want %v", p.ExeHash, sum.Hash)
			}
			// the event says up to a tick more than the truth
			if now := event.TimeOf(time.Now()); p.Start > now+nsPerTick || p.Start < now-event.Time(time.Minute) {
				t.Errorf("started %v, now %v", p.Start, now)
			}
		})
	}
	stop()
	if p := who(start, tr.Ino); p.Exe != event.Unknown {
		t.Errorf("a process that ended is %q", p.Exe)
	}
}

func TestTheHashIsOfTheInodeThatRuns(t *testing.T) {
	h := newHasher()
	tr, stop := child(t)
	want, err := digest.ReadPath(t.Context(), tr.Exe, nil)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte("other"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := h.exe(tr.PID, other, tr.Dev, tr.Ino); err != nil || got != want.Hash {
		t.Errorf("of a running process: %v, %v, want %v", got, err, want.Hash)
	}
	if got, err := h.exe(tr.PID, other, tr.Dev, tr.Ino+1); err == nil {
		t.Errorf("of another inode: %v, want an error", got)
	}
	stop()
	h = newHasher()
	if got, err := h.exe(tr.PID, other, tr.Dev, tr.Ino); err == nil {
		t.Errorf("of a path with another inode: %v, want an error", got)
	}
	var st unix.Stat_t
	if err := unix.Stat(other, &st); err != nil {
		t.Fatal(err)
	}
	if got, err := h.exe(tr.PID, other, kernelDev(st.Dev), st.Ino); err == nil {
		t.Errorf("of a path that changed a moment ago: %v, want an error", got)
	}
}

func TestHashesAreKeptByVersionAndBounded(t *testing.T) {
	h := newHasher()
	f := filepath.Join(t.TempDir(), "f")
	hash := func(s string) event.Hash {
		t.Helper()
		if err := os.WriteFile(f, []byte(s), 0o755); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(f, &st); err != nil {
			t.Fatal(err)
		}
		sum, err := h.file(f, kernelDev(st.Dev), st.Ino, 0)
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	if got := hash("a"); got != digest.Sum([]byte("a")) {
		t.Errorf("%v", got)
	}
	if got := hash("bb"); got != digest.Sum([]byte("bb")) {
		t.Errorf("after a change: %v", got)
	}
	for i := range 3 * maxHashes {
		h.keep(version{ino: uint64(i)}, event.Hash{1})
	}
	if n := len(h.recent) + len(h.old); n > maxHashes {
		t.Errorf("%d hashes kept, want at most %d", n, maxHashes)
	}
	if _, ok := h.known(version{ino: 3*maxHashes - 1}); !ok {
		t.Error("the newest was forgotten")
	}
}

func TestAProcessThatKeepsUsWaitingIsGivenUp(t *testing.T) {
	g := newGuard()
	release := make(chan struct{})
	for range maxStuck {
		if _, err := within(g, time.Millisecond, func() (int, error) { <-release; return 0, nil }); !errors.Is(err, errSlow) {
			t.Fatalf("got %v, want %v", err, errSlow)
		}
	}
	if _, err := within(g, time.Minute, func() (int, error) { return 1, nil }); !errors.Is(err, errBusy) {
		t.Fatalf("got %v, want %v", err, errBusy)
	}
	close(release)
	for len(g.slots) > 0 {
		time.Sleep(time.Millisecond)
	}
	if v, err := within(g, time.Minute, func() (int, error) { return 1, nil }); v != 1 || err != nil {
		t.Fatalf("got %d, %v", v, err)
	}
}

func TestControlGroupsByHandleAndByWalkAreTheSame(t *testing.T) {
	mount, err := cgroupMount("/proc/self/mountinfo")
	if err != nil || mount == "" {
		t.Fatalf("no cgroup2 mount: %v", err)
	}
	dir, err := os.MkdirTemp(mount, "holdfast-test-")
	if err != nil {
		t.Fatal(err)
	}
	gone := false
	t.Cleanup(func() {
		if !gone {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		}
	})
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	want := "/" + filepath.Base(dir)
	byHandle, byWalk := newCgroupFS(), newCgroupFS()
	byWalk.walk = true
	for name, c := range map[string]*cgroupFS{"handle": byHandle, "walk": byWalk} {
		if got := c.path(st.Ino); got != want {
			t.Errorf("by %s: %q, want %q", name, got, want)
		}
	}
	for ino, p := range walkGroups(mount) {
		if got, err := byHandle.byHandle(ino); err != nil || got != p {
			t.Errorf("group %d is %q by handle (%v) and %q by walk", ino, got, err, p)
		}
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	gone = true
	if got := byHandle.path(st.Ino); got != "" || byHandle.walk {
		t.Errorf("a group that is gone is %q", got)
	}
}

func TestWallIsTheClock(t *testing.T) {
	w := Wall()
	boot := uint64(clock(unix.CLOCK_BOOTTIME))
	if d := event.TimeOf(time.Now()) - w(boot); d < 0 || d > event.Time(time.Second) {
		t.Errorf("now is %v off", time.Duration(d))
	}
	if w(5) != w(5) || w(1_000_000_005)-w(5) != 1_000_000_000 {
		t.Error("the same argument must give the same moment")
	}
}
