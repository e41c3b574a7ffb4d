package ship_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/clickhouse"
	"github.com/holdfast/holdfast/pkg/clickhouse/clickhousetest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/ship"
)

// front stands before a server and does what networks do.
type front struct {
	l net.Listener

	mu     sync.Mutex
	to     string // "": connections are closed at once
	silent bool   // what comes is taken and goes nowhere
	cut    int64  // bytes to the server after which a connection breaks; 0: never
	conns  map[net.Conn]bool
}

func newFront(t *testing.T) *front {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{l: l, conns: map[net.Conn]bool{}}
	t.Cleanup(func() { _ = l.Close(); f.set("", false, 0) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go f.serve(c)
		}
	}()
	return f
}

func (f *front) addr() string { return f.l.Addr().String() }

// set changes what happens from now on, and breaks the connections that there are.
func (f *front) set(to string, silent bool, cut int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.to, f.silent, f.cut = to, silent, cut
	for c := range f.conns {
		_ = c.Close()
	}
	f.conns = map[net.Conn]bool{}
}

func (f *front) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	f.mu.Lock()
	to, silent, cut := f.to, f.silent, f.cut
	f.conns[c] = true
	f.mu.Unlock()
	if silent {
		_, _ = io.Copy(io.Discard, c)
		return
	}
	if to == "" {
		return
	}
	s, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer func() { _ = s.Close() }()
	f.mu.Lock()
	f.conns[s] = true
	f.mu.Unlock()
	go func() {
		_, _ = io.Copy(c, s)
		_ = c.Close()
	}()
	if cut > 0 {
		_, _ = io.CopyN(s, c, cut)
		return
	}
	_, _ = io.Copy(s, c)
}

// address is where a server listens for the native protocol.
func address(s *clickhousetest.Server) string {
	return strings.TrimSuffix(strings.TrimPrefix(s.URL(""), "clickhouse://default@"), "/")
}

// users has who starts the server, and who ships: with a profile that may only read,
// or a quota of one insert in 2 seconds.
const users = `<clickhouse>
<profiles><default/><reading><readonly>2</readonly></reading></profiles>
<quotas><default/><small><interval><duration>2</duration><query_inserts>1</query_inserts></interval></small></quotas>
<users>
<default><password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota></default>
<agent><password/><networks><ip>::/0</ip></networks><profile>PROFILE</profile><quota>QUOTA</quota></agent>
</users>
</clickhouse>`

// TestTrouble ships through one kind of trouble after the other. In each it must say
// that it is behind and why, and afterwards go on without help, nothing lost or double.
func TestTrouble(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	launch := func(profile, quota string) *clickhousetest.Server {
		t.Helper()
		s, err := clickhousetest.Launch(ctx, clickhousetest.Options{Dir: dir, Users: strings.NewReplacer("PROFILE", profile, "QUOTA", quota).Replace(users)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Kill)
		return s
	}
	server := launch("default", "default")
	a, b := newFront(t), newFront(t)
	a.set(address(server), false, 0)
	db := withSchema(t, clickhouse.Config{URL: "clickhouse://agent@" + a.addr() + "," + b.addr() + "/holdfast", DialTimeout: 500 * time.Millisecond})
	const hostID = "8a7f6f1d2c3b4a59687a8b9c0d1e2f30"
	state := t.TempDir()
	log, err := journal.Open(filepath.Join(state, "journal"), filepath.Join(state, "keys"), journal.Options{HostID: hostID, Host: "web1", Boot: "boot"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	total := uint64(0)
	write := func(n uint64) {
		t.Helper()
		for range n {
			if _, err := log.Append(&event.Record{Time: event.TimeOf(time.Now()), Kind: event.RecChange, Op: "write", Path: fmt.Sprintf("/etc/app/%d", total), Process: &event.Process{PID: 1, TID: 7}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := log.Sync(ctx); err != nil {
			t.Fatal(err)
		}
		total += n
	}
	src, err := openSource(filepath.Join(state, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := ship.New(src, db, ship.Options{HostID: hostID, PositionFile: filepath.Join(state, "shipped"), BatchRows: 200, FlushEvery: 20 * time.Millisecond, ConfirmEvery: 50 * time.Millisecond,
		CheckEvery: 100 * time.Millisecond, Poll: 10 * time.Millisecond, Timeout: 2 * time.Second, BackoffMin: 10 * time.Millisecond, BackoffMax: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	run, cancel := context.WithCancel(ctx)
	done := make(chan error)
	go func() { done <- s.Run(run) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	wait := func(what string, ok func(ship.Stats) bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !ok(s.Stats()); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: not within a minute: %+v", what, s.Stats())
			}
			if err := server.Revive(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	shipped := func(st ship.Stats) bool { return st.Confirmed == total && st.Lag == 0 && st.LastError == "" }

	restart := func(profile, quota string) {
		server.Kill()
		server = launch(profile, quota)
		a.set(address(server), false, 0)
	}
	for _, c := range []struct {
		name       string
		begin, end func()
		says       string // in the error
	}{
		{"a column of another type", func() {
			server.MustExec(t, "ALTER TABLE holdfast.records DROP COLUMN process_tid")
			server.MustExec(t, "ALTER TABLE holdfast.records ADD COLUMN process_tid Array(String)")
		}, func() {
			server.MustExec(t, "ALTER TABLE holdfast.records DROP COLUMN process_tid")
			server.MustExec(t, "ALTER TABLE holdfast.records ADD COLUMN process_tid UInt32")
		}, "process_tid"},
		{"a row that a constraint forbids", func() {
			server.MustExec(t, "ALTER TABLE holdfast.records ADD CONSTRAINT c CHECK seq % 700 != 0")
		}, func() { server.MustExec(t, "ALTER TABLE holdfast.records DROP CONSTRAINT c") }, "constraint"},
		{"a server that is away", func() { a.set("", false, 0) }, func() { a.set(address(server), false, 0) }, "connection"},
		{"a server that does not answer", func() { a.set("", true, 0) }, func() { a.set(address(server), false, 0) }, ""},
		{"a connection that breaks in the middle of a batch", func() { a.set(address(server), false, 20_000) }, func() { a.set(address(server), false, 0) }, ""},
		{"a server that may only be read", func() { restart("reading", "default") }, func() { restart("default", "small") }, "may not write"},
		{"a quota that is used up", func() {}, func() {}, "quota"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.begin()
			write(1000)
			wait("the trouble", func(st ship.Stats) bool {
				return st.Lag > 0 && st.LastError != "" && strings.Contains(strings.ToLower(st.LastError), c.says)
			})
			c.end()
			wait("its end", shipped)
		})
	}
	t.Run("the first of two servers is away", func(t *testing.T) {
		a.set("", false, 0)
		b.set(address(server), false, 0)
		write(300)
		wait("by the second", shipped)
	})
	if got := server.MustExec(t, "SELECT count(), uniqExact(seq), min(seq), max(seq) FROM holdfast.records"); got != fmt.Sprintf("%d\t%[1]d\t1\t%[1]d", total) {
		t.Errorf("rows, different ones, first, last: %s; want %d", got, total)
	}
	r, err := journal.OpenReader(filepath.Join(state, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	diff, err := db.Compare(ctx, hostID, 1, 0, func(ctx context.Context) (uint64, []byte, error) {
		e, err := r.Next(ctx)
		return e.Seq, e.Bytes, err
	}, func(d clickhouse.Difference) { t.Error(d) })
	if err != nil || !diff.Clean() || diff.Matched != total {
		t.Errorf("compared with the journal: %+v, %v", diff, err)
	}
}
