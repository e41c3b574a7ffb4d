package journal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// The environment by which TestMain knows that it is a child that appends until it is killed.
const crashDir = "HOLDFAST_TEST_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		fmt.Fprintln(os.Stderr, appendForEver(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// appendForEver acknowledges each durable record by its number on standard output.
func appendForEver(dir string) error {
	o := testOptions()
	o.SegmentBytes = 100 << 10
	o.HistoryEvery = 20 * time.Millisecond
	o.KeyEvery = time.Millisecond
	o.FlushEvery = 2 * time.Millisecond
	j, err := Open(filepath.Join(dir, "journal"), filepath.Join(dir, "keys"), o)
	if err != nil {
		return err
	}
	failed := make(chan error, 3)
	var mu sync.Mutex
	for g := range 3 {
		go func() {
			for i := 0; ; i++ {
				r := sample(i)
				if g == 0 { // these need not survive
					if _, err := j.Append(r); err != nil && !errors.Is(err, ErrFull) {
						failed <- err
						return
					}
					time.Sleep(50 * time.Microsecond)
					continue
				}
				seq, err := j.AppendDurable(context.Background(), r)
				if err != nil {
					failed <- err
					return
				}
				mu.Lock()
				_, err = fmt.Fprintln(os.Stdout, seq)
				mu.Unlock()
				if err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	return <-failed
}

// crash runs a child until it is killed and returns the highest number that it acknowledged.
func crash(t *testing.T, dir string, after time.Duration) uint64 {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), crashDir+"="+dir)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var last uint64
	lines := bufio.NewScanner(out)
	killed := false
	var timer *time.Timer
	for lines.Scan() {
		n, err := strconv.ParseUint(lines.Text(), 10, 64)
		if err != nil {
			break // the last line may be cut
		}
		last = max(last, n)
		if !killed { // the clock runs from the first acknowledgement on
			killed = true
			timer = time.AfterFunc(after, func() {
				if err := c.Process.Kill(); err != nil {
					t.Error(err)
				}
			})
		}
	}
	if err := c.Wait(); err == nil || !killed {
		t.Fatalf("the child ended by itself: %v", err)
	}
	timer.Stop()
	return last
}

func TestKilledAtAnyMomentNothingAcknowledgedIsLost(t *testing.T) {
	l := newLog(t)
	dir := filepath.Dir(l.dir)
	r := rand.New(rand.NewPCG(5, 6))
	recovered, torn, size := uint64(0), 0, uint64(0)
	const kills = 60
	for i := range kills {
		acked := crash(t, dir, time.Duration(r.IntN(15000))*time.Microsecond)
		j := l.open()
		op := j.Opened()
		if op.Size < acked || op.Size <= size || len(op.Tampered) > 0 {
			t.Fatalf("kill %d: record %d was acknowledged, the log has %+v", i, acked, op)
		}
		if op.TornBytes > 0 {
			torn++
		}
		recovered += op.Recovered
		size = op.Size
		l.close(j)
		if i%10 == 9 {
			if sum, found := l.verify(""); len(found) > 0 || sum.Matched != size {
				t.Fatalf("kill %d: found %q, %+v", i, found, sum)
			}
		}
	}
	for i, e := range l.read() {
		if e.Seq != uint64(i+1) {
			t.Fatalf("record %d in place %d", e.Seq, i+1)
		}
	}
	t.Logf("%d kills, %d records, %d recovered unsealed, %d torn ends", kills, size, recovered, torn)
}

// copyDir makes to a copy of from.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// TestEachStateThatAPowerCutCanLeaveIsRepaired builds them from the state before
// and after a commit: each file of the commit cut at any byte, in the order in
// which they are made durable.
func TestEachStateThatAPowerCutCanLeaveIsRepaired(t *testing.T) {
	before := newLog(t)
	before.fill(20)
	after := newLog(t)
	copyDir(t, filepath.Dir(before.dir), filepath.Dir(after.dir))
	after.fill(23)
	read := func(l *log, name string) []byte {
		b, err := os.ReadFile(filepath.Join(l.dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return b
	}
	seg := segmentName(1)
	order := []string{seg, hashesName, checkpointName, historyName}
	n := 0
	for k, name := range order {
		old, full := len(read(before, name)), read(after, name)
		step := max(1, (len(full)-old)/30)
		for cut := old; ; cut = min(cut+step, len(full)) {
			for _, zeros := range []bool{false, true} {
				l := newLog(t)
				copyDir(t, filepath.Dir(before.dir), filepath.Dir(l.dir))
				for _, done := range order[:k] {
					l.writeFile(done, read(after, done))
				}
				part := full[:cut:cut]
				if zeros { // the length was on disk, the data not
					if name == checkpointName || name == historyName {
						continue // synced before anything relies on their length
					}
					part = append(part, make([]byte, len(full)-cut)...)
				}
				l.writeFile(name, part)
				j := l.open()
				op := j.Opened()
				if op.Size < 20 || k > 0 && op.Size != 23 || len(op.Tampered) > 0 {
					t.Fatalf("%s cut at %d (zeros %v): %+v", name, cut, zeros, op)
				}
				whole := cut == len(full) || cut == old
				if k == 0 && !whole && op.TornBytes == 0 && op.Recovered == 0 {
					t.Fatalf("%s cut at %d (zeros %v): nothing was declared: %+v", name, cut, zeros, op)
				}
				if _, err := j.AppendDurable(context.Background(), sample(99)); err != nil {
					t.Fatal(err)
				}
				l.close(j)
				if sum, found := l.verify(""); len(found) > 0 || sum.Matched != op.Size+1 {
					t.Fatalf("%s cut at %d (zeros %v): found %q, %+v", name, cut, zeros, found, sum)
				}
				n++
			}
			if cut == len(full) {
				break
			}
		}
	}
	t.Logf("%d states", n)
}

func TestASegmentThatWasJustBegunIsRepaired(t *testing.T) {
	before := newLog(t)
	before.o.SegmentBytes = 1
	before.fill(10)
	after := newLog(t)
	after.o.SegmentBytes = 1
	copyDir(t, filepath.Dir(before.dir), filepath.Dir(after.dir))
	after.fill(12)
	old, new := after.readFile(segmentName(1)), after.readFile(segmentName(11))
	head := len(after.frames(segmentName(11))[0])
	for cut := range head + 40 {
		l := newLog(t)
		copyDir(t, filepath.Dir(before.dir), filepath.Dir(l.dir))
		l.writeFile(segmentName(1), old)
		l.writeFile(segmentName(11), new[:cut])
		j := l.open()
		if op := j.Opened(); op.Size != 10 || len(op.Tampered) > 0 || cut != 0 && cut != head && op.TornBytes == 0 {
			t.Fatalf("cut at %d: %+v", cut, op)
		}
		if _, err := j.AppendDurable(context.Background(), sample(99)); err != nil {
			t.Fatal(err)
		}
		l.close(j)
		if sum, found := l.verify(""); len(found) > 0 || sum.Matched != 11 {
			t.Fatalf("cut at %d: found %q, %+v", cut, found, sum)
		}
	}
}
