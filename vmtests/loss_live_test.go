//go:build live

package vmtests

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/vmtests/replay"
)

// losses is the part of status that these tests read.
type losses struct {
	Queues []struct {
		Name       string
		Len, Limit int
		Dropped    uint64
	}
	Events   struct{ Lost, Failed uint64 }
	Pipeline map[string]uint64
	Journal  struct{ Seq, Durable uint64 }
	Gaps     struct {
		Causes  map[string]uint64
		Waiting uint64
		Healed  uint64
		Open    []struct{ ID string }
	}
	Reasons []string `json:"degraded_reasons"`
}

func (m *machine) losses() (l losses) {
	m.t.Helper()
	if err := json.Unmarshal(m.statusJSON(), &l); err != nil {
		m.t.Fatal(err)
	}
	return l
}

// idle returns when nothing waits anywhere in the daemon, twice in a row, and no
// gap is open. It gives up when nothing has moved for two minutes: how long the
// work takes depends on who else works on this machine.
func (m *machine) idle() (l losses) {
	m.t.Helper()
	quiet, moved := uint64(0), time.Now()
	for last := (losses{}); ; last = l {
		l = m.losses()
		// other people's events are always on their way: what is in the ring is no sign
		busy := l.Pipeline["pipeline_waiting"] > 0 || len(l.Gaps.Open) > 0 || l.Journal.Durable < l.Journal.Seq
		switch {
		case !busy && l.Journal.Seq == quiet:
			return l
		case l.Journal != last.Journal || l.Pipeline["pipeline_waiting"] != last.Pipeline["pipeline_waiting"] || l.Gaps.Healed != last.Gaps.Healed:
			moved = time.Now()
		case time.Since(moved) > 2*time.Minute:
			m.t.Fatalf("the daemon does not come to rest: %+v", l)
		}
		quiet = l.Journal.Seq
		if busy {
			quiet = 0
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// changes counts the changes of an operation by path; path_to for renames.
func (m *machine) changes(op string) map[string]int {
	m.t.Helper()
	out := make(map[string]int)
	found := 0
	eachRecord(m, func(r *struct{ Path, Found string }) {
		if r.Found != "" {
			if found++; found == 1 {
				m.t.Errorf("%s of %s was found by a rescan: %s", op, r.Path, r.Found)
			}
		}
		out[r.Path]++
	}, "--kind", "change", "--op", op)
	if found > 1 {
		m.t.Errorf("%d of %s were found by rescans", found, op)
	}
	return out
}

// Tens of thousands of operations without a pause, all on one processor: each has
// its record, none is lost, and the memory stays within bounds.
func TestLiveBurstsAreToldOneByOne(t *testing.T) {
	const files = 50_000
	m := newMachine(t)
	tree := m.path("tree")
	m.must("mkdir", tree)
	// At its fastest one processor writes to a file in 16 µs, and gives the reader half of the time.
	m.write("conf.yaml", []byte("limits:\n  ring: 64MiB\n"))
	m.conf = m.path("conf.yaml")
	// One processor for the daemon and for who works: children inherit it.
	runtime.LockOSThread()
	var one unix.CPUSet
	one.Set(0)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	m.start(tree + "=observe")
	path := func(i int) string { return fmt.Sprintf("%s/%02d/%05d", tree, i/1000, i) }
	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, burst := range []struct {
		op string
		do func(i int)
	}{
		{"create", func(i int) {
			if i%1000 == 0 {
				try(os.Mkdir(filepath.Dir(path(i)), 0o755))
			}
			try(os.WriteFile(path(i), []byte("one\n"), 0o644))
		}},
		{"write", func(i int) {
			f, err := os.OpenFile(path(i), os.O_WRONLY|os.O_APPEND, 0)
			try(err)
			_, err = f.WriteString("two\n")
			try(err)
			try(f.Close())
		}},
		{"rename", func(i int) { try(os.Rename(path(i), path(i)+".new")) }},
		{"unlink", nil},
	} {
		begin := time.Now()
		if burst.do == nil {
			m.must("sh", "-c", `rm -rf "$1"/*`, "sh", tree)
		} else {
			for i := range files {
				burst.do(i)
			}
		}
		took := time.Since(begin)
		most := m.losses()
		l := m.idle()
		told := m.changes(burst.op)
		for i := range files {
			p := path(i)
			if burst.op == "unlink" {
				p += ".new"
			}
			if told[p] != 1 {
				t.Errorf("%s of %s has %d records", burst.op, p, told[p])
				if i > 0 && t.Failed() {
					break
				}
			}
		}
		if len(told) != files {
			t.Errorf("%d paths have a record of %s, %d were done", len(told), burst.op, files)
		}
		if l.Events.Lost != 0 || len(l.Gaps.Causes) != 0 {
			t.Errorf("after %s: %d lost in the kernel, by cause %v", burst.op, l.Events.Lost, l.Gaps.Causes)
		}
		t.Logf("%s: %d in %v, all told after %v; waiting at the end of the burst: %+v; peak memory %s",
			burst.op, files, took, time.Since(begin), most.Queues, m.field("VmHWM"))
	}
	// Whoever else works on this machine may begin more processes than there is room for: of those no change is missing.
	eachRecord(m, func(r *struct{ Gap struct{ Causes []string } }) {
		if !slices.Equal(r.Gap.Causes, []string{"processes"}) {
			t.Errorf("a gap by cause %q", r.Gap.Causes)
		}
	}, "--kind", "gap")
	m.expect("", "--kind", "gap")
}

// field is a line of the daemon's /proc/PID/status.
func (m *machine) field(name string) string {
	m.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.proc.Pid))
	if err != nil {
		m.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	m.t.Fatalf("no %s", name)
	return ""
}

// replayed compares the tree with its start and all records.
func (m *machine) replayed(start *replay.Tree, tree string) replay.Counts {
	m.t.Helper()
	m.logTo("log.ndjson")
	log, err := os.Open(m.path("log.ndjson"))
	if err != nil {
		m.t.Fatal(err)
	}
	defer log.Close()
	counts, err := start.Follow(log)
	if err != nil {
		m.t.Fatal(err)
	}
	now, err := replay.Scan(tree)
	if err != nil {
		m.t.Fatal(err)
	}
	if d := start.Compare(now); len(d) > 0 {
		m.t.Errorf("%d differences between what the records tell and what is there, first %v", len(d), d[:min(len(d), 10)])
	}
	return counts
}

// found lists how the changes were found that no event told of, and checks that
// they say so: nobody is named, and the gap is.
func (m *machine) found(how string) int {
	m.t.Helper()
	gaps := make(map[string]bool)
	n := 0
	eachRecord(m, func(r *struct {
		ID, Kind, Found, Path, Reason string
		Actor                         struct{ User, Evidence string }
		Process                       *struct{}
		Gap                           struct{ Of, Rescan string }
	}) {
		switch {
		case r.Kind == "gap" && r.Gap.Of == "":
			gaps[r.ID] = false
		case r.Kind == "gap" && r.Gap.Rescan == "done":
			gaps[r.Gap.Of] = true
		case r.Found == how:
			n++
			if r.Actor.User != "unknown" || r.Actor.Evidence != "none" || r.Process != nil || r.Reason == "" {
				m.t.Errorf("%s was %s by %+v: %s", r.Path, how, r.Actor, r.Reason)
			}
			if _, ok := gaps[r.Gap.Of]; !ok {
				m.t.Errorf("%s was found after gap %q, which was not declared before", r.Path, r.Gap.Of)
			}
		}
	})
	for id, closed := range gaps {
		if !closed {
			m.t.Errorf("gap %s is not closed", id)
		}
	}
	return n
}

// A daemon that stands still with the smallest ring loses most of what happens,
// holds nobody up, says so, and then finds all of it; the same for one that is
// killed while others work, and started again.
func TestLiveWhatWasMissedIsDeclaredAndFound(t *testing.T) {
	m := newMachine(t)
	tree, outside := m.path("tree"), m.path("outside")
	m.must("mkdir", tree, outside)
	m.write("conf.yaml", []byte("limits:\n  ring: 64KiB\n  queue: 256\n"))
	m.conf = m.path("conf.yaml")
	m.must(m.bin["fuzz"], "-seed", "1", "-ops", "300", tree, outside)
	start, err := replay.Scan(tree)
	if err != nil {
		t.Fatal(err)
	}
	m.start(tree + "=observe")

	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	try(m.proc.Signal(syscall.SIGSTOP))
	begin := time.Now()
	// The work ends while the daemon stands still: it waited for nothing.
	for seed := 2; seed < 4 || time.Since(begin) < 10*time.Second; seed++ {
		m.must(m.bin["fuzz"], "-seed", fmt.Sprint(seed), "-ops", "500", tree, outside)
	}
	if s := m.field("State"); !strings.HasPrefix(s, "T") {
		t.Errorf("the daemon is %s, it should have stood still", s)
	}
	try(m.proc.Signal(syscall.SIGCONT))
	l := m.idle()
	if l.Gaps.Causes["ring"] == 0 || l.Gaps.Healed == 0 || l.Events.Lost == 0 {
		t.Errorf("nothing was lost: %+v", l)
	}
	if n := m.found("after_gap"); n == 0 {
		t.Error("no change was found after the gap")
	} else {
		t.Logf("%d events were lost by cause %v, %d changes found", l.Events.Lost, l.Gaps.Causes, n)
	}
	if slices.ContainsFunc(l.Reasons, func(r string) bool { return strings.Contains(r, "not healed") }) {
		t.Errorf("status: %q", l.Reasons)
	}

	// The same while nothing stands still, into the daemon's death.
	busy := exec.Command(m.bin["fuzz"], "-seed", "50", "-ops", "100000", "-for", "6s", tree, outside)
	try(busy.Start())
	time.Sleep(3 * time.Second)
	m.kill()
	if err := busy.Wait(); err != nil {
		t.Fatal(err)
	}
	m.start(tree + "=observe")
	m.idle()
	if n := m.found("while_down"); n == 0 {
		t.Error("no change was found that was made while the daemon was down")
	} else {
		t.Logf("%d changes found that were made while it was down", n)
	}
	c := m.replayed(start, tree)
	t.Logf("%d records, %d changes, %d by nobody, %d gaps, %d lost", c.Records, c.Changes, c.Nobody, c.Gaps, c.Lost)
	m.output(m.command("verify"))
}
