package journal

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast/holdfast/pkg/event"
)

func testOptions() Options {
	return Options{HostID: "7d1f0c5e2a6b4e0f9a3c", Host: "web-1", Boot: "b0072c4e-0001", ReserveBytes: -1}
}

// sample is a record as a busy host writes them.
func sample(i int) *event.Record {
	var h event.Hash = sha256.Sum256([]byte{byte(i), byte(i >> 8)})
	return &event.Record{
		Time: event.Time(1_700_000_000_000_000_000 + int64(i)*1_000_003), Kind: event.RecChange, Op: "write",
		Ops: []string{"open", "write", "close"}, Count: 3, Bytes: uint64(i),
		Path:   fmt.Sprintf("/etc/app/conf.d/%d.conf", i%100),
		File:   &event.File{Type: event.TypeRegular, Dev: 2049, Ino: uint64(100000 + i), Nlink: 1},
		Before: &event.State{Exists: true, Type: event.TypeRegular, Hash: h, Size: 120, Mode: 0o644, User: "root", Group: "root", Mtime: 1_690_000_000_000_000_000},
		After:  &event.State{Exists: true, Type: event.TypeRegular, Hash: h, Size: 140, Mode: 0o644, User: "root", Group: "root", Mtime: 1_700_000_000_000_000_000},
		Rule:   "etc", Mode: event.ModeObserve, Verdict: event.VerdictObserved,
		Actor: &event.Actor{User: "alice", Loginuid: 1000, Via: []string{"sudo"}, Session: "41", Origin: event.OriginSSH,
			SourceIP: "192.0.2.7", SourcePort: 50122, Evidence: event.EvidenceAccepted},
		Process: &event.Process{PID: 4000, TID: 4000, ExecID: "4000-2-9913371", Comm: "sed", Exe: "/usr/bin/sed", ExeHash: h,
			Argv: []string{"sed", "-i", "s/a/b/", "x.conf"}, Cwd: "/root", Start: 1_699_999_999_000_000_000, Cgroup: "/user.slice"},
		Sensor: &event.Sensor{Tier: "tracepoint", Hook: "sys_exit"},
	}
}

// merkle is the tree hash of RFC 6962 section 2.1, written down as it stands there.
func merkle(d [][]byte) [32]byte {
	switch len(d) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, d[0]...))
	}
	k := 1
	for k*2 < len(d) {
		k *= 2
	}
	l, r := merkle(d[:k]), merkle(d[k:])
	return sha256.Sum256(append(append([]byte{1}, l[:]...), r[:]...))
}

type log struct {
	t         testing.TB
	dir, keys string
	o         Options
}

func newLog(t testing.TB) *log {
	d := t.TempDir()
	return &log{t: t, dir: filepath.Join(d, "journal"), keys: filepath.Join(d, "keys"), o: testOptions()}
}

func (l *log) open() *Journal {
	l.t.Helper()
	j, err := Open(l.dir, l.keys, l.o)
	if err != nil {
		l.t.Fatal(err)
	}
	return j
}

// fill appends records up to number n and closes the log.
func (l *log) fill(n int) {
	l.t.Helper()
	j := l.open()
	for i := int(j.Stats().Seq) + 1; i <= n; i++ {
		if seq, err := j.Append(sample(i)); err != nil || seq != uint64(i) {
			l.t.Fatalf("append %d: %d, %v", i, seq, err)
		}
		if l.o.SegmentBytes > 0 && i%10 == 0 || i%10000 == 0 {
			l.sync(j)
		}
	}
	l.close(j)
}

func (l *log) sync(j *Journal) {
	l.t.Helper()
	if err := j.Sync(context.Background()); err != nil {
		l.t.Fatal(err)
	}
}

func (l *log) close(j *Journal) {
	l.t.Helper()
	if err := j.Close(); err != nil {
		l.t.Fatal(err)
	}
}

func (l *log) read() []Entry {
	l.t.Helper()
	r, err := OpenReader(l.dir)
	if err != nil {
		l.t.Fatal(err)
	}
	defer r.Close()
	var all []Entry
	for {
		e, err := r.Next(context.Background())
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			l.t.Fatal(err)
		}
		all = append(all, e)
	}
}

func TestRecordsComeBackInOrderAndTheRootIsThatOfRFC6962(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 7, 8, 63, 100} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			l := newLog(t)
			l.o.SegmentBytes = 8 << 10
			l.fill(n)
			entries := l.read()
			if len(entries) != n {
				t.Fatalf("%d records, want %d", len(entries), n)
			}
			var leaves [][]byte
			for i, e := range entries {
				r, err := Decode(e.Bytes)
				if err != nil {
					t.Fatal(err)
				}
				want := sample(i + 1)
				want.Seq, want.Host, want.HostID, want.Boot = uint64(i+1), l.o.Host, l.o.HostID, l.o.Boot
				want.ID = fmt.Sprintf("%s/%s/%d", l.o.HostID, l.o.Boot, i+1)
				if !reflect.DeepEqual(r, want) {
					t.Fatalf("record %d: got %+v, want %+v", i+1, r, want)
				}
				if e.Leaf != tlog.RecordHash(e.Bytes) || e.Seq != uint64(i+1) {
					t.Fatalf("entry %d: %d %v", i+1, e.Seq, e.Leaf)
				}
				leaves = append(leaves, e.Bytes)
			}
			b, err := latestNote(l.dir, checkpointName)
			if err != nil {
				t.Fatal(err)
			}
			pub, err := os.ReadFile(filepath.Join(l.keys, pubName))
			if err != nil {
				t.Fatal(err)
			}
			k, err := newChain(string(pub))
			if err != nil {
				t.Fatal(err)
			}
			c, _, err := k.open(b)
			if err != nil {
				t.Fatal(err)
			}
			if c.Size != uint64(n) || c.Root != tlog.Hash(merkle(leaves)) {
				t.Fatalf("checkpoint %+v, want size %d root %v", c, n, tlog.Hash(merkle(leaves)))
			}
		})
	}
}

func TestTheLogGoesOnAcrossOpensWithoutAGapInNumbers(t *testing.T) {
	l := newLog(t)
	for _, n := range []int{5, 5, 23, 24} {
		l.o.Boot = fmt.Sprintf("boot-%d", n)
		l.fill(n)
	}
	for i, e := range l.read() {
		if e.Seq != uint64(i+1) {
			t.Fatalf("entry %d has number %d", i, e.Seq)
		}
	}
}

func TestManyAppendersGetEachNumberOnceAndInTheirOwnOrder(t *testing.T) {
	l := newLog(t)
	j := l.open()
	const goroutines, each = 8, 200
	seqs := make([][]uint64, goroutines)
	var wait sync.WaitGroup
	for g := range goroutines {
		wait.Go(func() {
			for i := range each {
				r := sample(i)
				r.Reason = fmt.Sprint(g, " ", i)
				seq, err := j.Append(r)
				if i%40 == 7 {
					seq, err = j.AppendDurable(context.Background(), r)
				}
				if err != nil {
					t.Error(err)
				}
				seqs[g] = append(seqs[g], seq)
			}
		})
	}
	wait.Wait()
	l.close(j)
	next := make([]int, goroutines)
	for i, e := range l.read() {
		r, err := Decode(e.Bytes)
		if err != nil || e.Seq != uint64(i+1) {
			t.Fatal(e.Seq, err)
		}
		var g, n int
		if _, err := fmt.Sscan(r.Reason, &g, &n); err != nil {
			t.Fatal(err)
		}
		if n < next[g] {
			t.Fatalf("record %d of appender %d comes behind %d", n, g, next[g])
		}
		next[g] = n
	}
	for g, s := range seqs {
		if !slices.IsSorted(s) || len(s) != each {
			t.Fatalf("appender %d got %v", g, s)
		}
	}
}

func TestAFollowingReaderSeesEachRecordOnceItIsSigned(t *testing.T) {
	l := newLog(t)
	l.o.SegmentBytes = 4 << 10
	j := l.open()
	r, err := OpenReader(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.Follow = true
	ctx, cancel := context.WithCancel(context.Background())
	got := make(chan uint64, 100)
	done := make(chan error)
	go func() {
		for {
			e, err := r.Next(ctx)
			if err != nil {
				done <- err
				return
			}
			got <- e.Seq
		}
	}()
	for i := 1; i <= 50; i++ {
		if _, err := j.AppendDurable(ctx, sample(i)); err != nil {
			t.Fatal(err)
		}
		select {
		case seq := <-got:
			if seq != uint64(i) {
				t.Fatalf("read %d, want %d", seq, i)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("record %d was not seen", i)
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	l.close(j)
}
