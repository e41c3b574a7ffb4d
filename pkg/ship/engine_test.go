package ship_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/clickhouse"
	"github.com/holdfast/holdfast/pkg/clickhouse/clickhousetest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/ship"
)

// source is the journal's reader as a ship.Source, as the daemon has it.
type source struct {
	*journal.Reader
	dir string
}

func openSource(dir string) (*source, error) {
	r, err := journal.OpenReader(dir)
	if err != nil {
		return nil, err
	}
	r.Follow = true
	return &source{Reader: r, dir: dir}, nil
}

func (s *source) Next(ctx context.Context) (ship.Entry, error) {
	for {
		e, err := s.Reader.Next(ctx)
		if errors.Is(err, journal.ErrCorrupt) {
			continue
		}
		return ship.Entry{Seq: e.Seq, Bytes: e.Bytes}, err
	}
}

func (s *source) Newest() (uint64, error) { return journal.Newest(s.dir) }

func (s *source) Checkpoint() ([]byte, error) { return journal.LatestCheckpoint(s.dir) }

// child is what the killed process is told.
type child struct {
	State, URL, HostID string
	BatchRows          int
}

const childVar = "SHIP_TEST_CHILD"

func TestMain(m *testing.M) {
	if spec := os.Getenv(childVar); spec != "" {
		if err := runChild(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// runChild ships until its standard input is closed, and prints the number of the
// last acknowledged record whenever it has grown.
func runChild(spec string) error {
	var c child
	if err := json.Unmarshal([]byte(spec), &c); err != nil {
		return err
	}
	src, err := openSource(filepath.Join(c.State, "journal"))
	if err != nil {
		return err
	}
	db, err := clickhouse.New(clickhouse.Config{URL: c.URL})
	if err != nil {
		return err
	}
	s, err := ship.New(src, db, ship.Options{
		HostID: c.HostID, PositionFile: filepath.Join(c.State, "ship"), BatchRows: c.BatchRows,
		FlushEvery: 20 * time.Millisecond, ConfirmEvery: 200 * time.Millisecond,
		BackoffMin: 10 * time.Millisecond, BackoffMax: 50 * time.Millisecond, Checkpoint: src.Checkpoint, Changes: journal.NewHandovers(src.dir),
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	go func() {
		for last := uint64(0); ctx.Err() == nil; time.Sleep(time.Millisecond) {
			if st := s.Stats(); st.Shipped > last {
				last = st.Shipped
				fmt.Println(last)
			}
		}
	}()
	return s.Run(ctx)
}

// process is a running child.
type process struct {
	cmd     *exec.Cmd
	stdin   io.Closer
	shipped chan uint64
}

func start(t *testing.T, c child) *process {
	t.Helper()
	spec, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVar+"="+string(spec))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd, stdin: in, shipped: make(chan uint64, 1<<16)}
	go func() {
		defer close(p.shipped)
		for s := bufio.NewScanner(out); s.Scan(); {
			var n uint64
			if _, err := fmt.Sscan(s.Text(), &n); err == nil {
				p.shipped <- n
			}
		}
	}()
	return p
}

// until waits for a number that ok likes and returns it.
func (p *process) until(t *testing.T, server *clickhousetest.Server, ok func(uint64) bool) uint64 {
	t.Helper()
	const atMost = 3 * time.Minute // without any progress: a busy machine takes its time
	limit := time.NewTimer(atMost)
	defer limit.Stop()
	alive := time.NewTicker(50 * time.Millisecond)
	defer alive.Stop()
	for {
		select {
		case n, open := <-p.shipped:
			if !open {
				t.Fatal("the shipping process ended")
			}
			if ok(n) {
				return n
			}
			limit.Reset(atMost)
		case <-alive.C:
			if err := server.Revive(context.Background()); err != nil {
				t.Fatal(err)
			}
		case <-limit.C:
			t.Fatal("no progress in three minutes")
		}
	}
}

func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = p.cmd.Wait() // killed is what it says
	_ = p.stdin.Close()
}

// How much of TestKill there is; make kills asks for 1,000,000, 500 and 50.
var (
	killRecords = flag.Int("records", 20_000, "records that are shipped")
	kills       = flag.Int("kills", 10, "times that the shipping process is killed")
	serverKills = flag.Int("server-kills", 2, "times that the server is killed")
)

// withSchema connects to a server and makes the tables.
func withSchema(t testing.TB, c clickhouse.Config) *clickhouse.DB {
	t.Helper()
	db, err := clickhouse.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.Apply(context.Background()); err != nil {
		t.Fatal(err)
	}
	return db
}

// TestKill ships a journal that is being written to the real engine. The shipping process and the server are killed at random
// moments, each while records are on their way, and now and then both at once. Each life has batches of another size.
func TestKill(t *testing.T) {
	ctx := context.Background()
	server := clickhousetest.New(t, "")
	c := child{State: t.TempDir(), URL: server.URL("holdfast"), HostID: "8a7f6f1d2c3b4a59687a8b9c0d1e2f30"}
	db := withSchema(t, clickhouse.Config{URL: c.URL})
	journalDir := filepath.Join(c.State, "journal")
	log, err := journal.Open(journalDir, filepath.Join(c.State, "keys"), journal.Options{HostID: c.HostID, Host: "web1", Boot: "boot", FlushEvery: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	total := uint64(0)
	write := func(n int) {
		t.Helper()
		for i := range n {
			if _, err := log.Append(&event.Record{
				Time: event.TimeOf(time.Now()), Kind: event.RecChange, Op: "write", Path: "/etc/app/config", Verdict: event.VerdictObserved,
				After: &event.State{Exists: true, Type: event.TypeRegular, Mode: 0o644, Size: 12},
				Actor: &event.Actor{User: "alice", Loginuid: 1000, SourceIP: "192.0.2.7"}, Process: &event.Process{PID: 4242, Exe: "/usr/bin/sed"},
			}); err != nil {
				t.Fatal(err)
			}
			if total++; i%5000 == 4999 || i == n-1 {
				if err := log.Sync(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	write(*killRecords / 2)

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	pause := func(most time.Duration) { time.Sleep(time.Duration(rnd.Int64N(int64(most)))) }
	left, both := *serverKills, 0
	for life := range *kills {
		c.BatchRows = 50 + rnd.IntN(*killRecords / *kills / 2)
		p := start(t, c)
		// It ships, and has done its share of nine tenths: die at any moment of the next few batches.
		share := uint64(*killRecords / *kills * 9 / 10 * life)
		n := p.until(t, server, func(m uint64) bool { return m >= share })
		serverToo := rnd.IntN(*kills-life) < left
		if serverToo {
			left--
			pause(100 * time.Millisecond)
			server.Kill()
		}
		write((*killRecords - *killRecords/2) / *kills)
		if serverToo && rnd.IntN(2) == 0 {
			both++
			pause(100 * time.Millisecond)
			p.kill(t)
			if err := server.Start(ctx); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if serverToo {
			if err := server.Start(ctx); err != nil {
				t.Fatal(err)
			}
			n = p.until(t, server, func(m uint64) bool { return m > n })
		}
		pause(200 * time.Millisecond)
		p.kill(t)
		if life%10 == 9 {
			t.Logf("life %d: killed when %d or more of %d were shipped", life+1, n, total)
		}
		if life == *kills-1 && n >= total {
			t.Error("all was shipped before the last kill: it proves less than it should")
		}
	}
	t.Logf("%d kills, %d of the server, %d of them with the shipping process", *kills, *serverKills-left, both)
	write(*killRecords - int(total)) // what the division left
	p := start(t, c)
	p.until(t, server, func(n uint64) bool { return n == total })
	waitCheckpoint(t, server, total)
	p.kill(t)
	for range 50 { // this engine ends when a client hangs up with an answer unread, a moment later
		if err := server.Revive(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}

	if got := server.MustExec(t, "SELECT count(), uniqExact(host_id, boot, seq), min(seq), max(seq) FROM holdfast.records"); got != fmt.Sprintf("%d\t%[1]d\t1\t%[1]d", total) {
		t.Errorf("count, different records, first, last: %s; want %d each once", got, total)
	}
	if got := server.MustExec(t, "SELECT count() FROM holdfast.records FINAL"); got != fmt.Sprint(total) {
		t.Errorf("%s rows after collapsing, want %d", got, total)
	}
	r, err := journal.OpenReader(journalDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	next := func(ctx context.Context) (uint64, []byte, error) {
		e, err := r.Next(ctx)
		return e.Seq, e.Bytes, err
	}
	diff, err := db.Compare(ctx, c.HostID, 1, 0, next, func(d clickhouse.Difference) { t.Error(d) })
	if err != nil || !diff.Clean() || diff.Matched != total {
		t.Errorf("compared with the journal: %+v, %v", diff, err)
	}
}

// TestALogThatWasBegunAgainIsShippedBesideTheEarlierOne wipes a shipped journal, keys left, within one boot: the server keeps
// the rows of the earlier log, takes those of the new one, and both fit what was signed.
func TestALogThatWasBegunAgainIsShippedBesideTheEarlierOne(t *testing.T) {
	ctx := t.Context()
	server := clickhousetest.New(t, "")
	db := withSchema(t, clickhouse.Config{URL: server.URL("holdfast")})
	const machine = "8a7f6f1d2c3b4a59687a8b9c0d1e2f30"
	state := t.TempDir()
	dir, keys := filepath.Join(state, "journal"), filepath.Join(state, "keys")
	var names []string
	for life, n := range []uint64{300, 120, 500} {
		if life > 0 {
			if err := os.Rename(dir, fmt.Sprintf("%s.%d", dir, life-1)); err != nil {
				t.Fatal(err)
			}
		}
		log, err := journal.Open(dir, keys, journal.Options{HostID: machine, Host: "web1", Boot: "boot", Continue: true})
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			if _, err := log.Append(&event.Record{Time: event.TimeOf(time.Now()), Kind: event.RecChange, Op: "write", Path: "/etc/app/config"}); err != nil {
				t.Fatal(err)
			}
		}
		names = append(names, log.HostID())
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		src, err := openSource(dir)
		if err != nil {
			t.Fatal(err)
		}
		s, stop := run(t, src, db, ship.Options{
			HostID: log.HostID(), PositionFile: filepath.Join(state, "shipped"), FlushEvery: 20 * time.Millisecond, ConfirmEvery: 20 * time.Millisecond,
			Poll: 5 * time.Millisecond, BackoffMin: 10 * time.Millisecond, Checkpoint: src.Checkpoint, Changes: journal.NewHandovers(dir),
		})
		await(t, s, "all of it and the checkpoint", func(st ship.Stats) bool { return st.Confirmed == n && st.Checkpoint == n && st.LastError == "" })
		stop()
		if err := server.Revive(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for i, n := range []uint64{300, 120, 500} {
		r, err := journal.OpenReader(dir + []string{".0", ".1", ""}[i])
		if err != nil {
			t.Fatal(err)
		}
		diff, err := db.Compare(ctx, names[i], 1, 0, func(ctx context.Context) (uint64, []byte, error) {
			e, err := r.Next(ctx)
			return e.Seq, e.Bytes, err
		}, func(d clickhouse.Difference) { t.Error(d) })
		if err != nil || !diff.Clean() || diff.Matched != n {
			t.Errorf("log %s: %+v, %v", names[i], diff, err)
		}
		notes, err := db.Checkpoints(ctx, names[i])
		if err != nil || len(notes) == 0 {
			t.Errorf("log %s: %d checkpoints, %v", names[i], len(notes), err)
		}
		handed, err := journal.Handovers(dir + []string{".0", ".1", ""}[i])
		got, err2 := db.Changes(ctx, names[i])
		if err := errors.Join(err, err2); err != nil || len(handed) == 0 || !reflect.DeepEqual(got, handed) {
			t.Errorf("log %s: %d changes of key arrived of %d, %v", names[i], len(got), len(handed), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := server.MustExec(t, "SELECT count(), uniqExact(host_id), uniqExact(boot), uniqExact(host) FROM holdfast.records"); got != "920\t3\t1\t1" {
		t.Errorf("rows, logs, boots, names: %s", got)
	}
}

// waitCheckpoint waits for the checkpoint over all records and opens it.
func waitCheckpoint(t *testing.T, server *clickhousetest.Server, size uint64) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if server.MustExec(t, "SELECT max(size) FROM holdfast.checkpoints") == fmt.Sprint(size) {
			return
		}
	}
	t.Errorf("no checkpoint of size %d arrived", size)
}
