package ship_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/clickhouse"
	"github.com/holdfast/holdfast/pkg/clickhouse/clickhousetest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/ship"
)

// counted is the real sink, and the records that it took.
type counted struct {
	*clickhouse.DB
	mu   sync.Mutex
	took [][]byte
}

func (c *counted) Send(ctx context.Context, token string, records [][]byte) error {
	err := c.DB.Send(ctx, token, records)
	if err == nil {
		c.mu.Lock()
		c.took = append(c.took, records...)
		c.mu.Unlock()
	}
	return err
}

// TestAnHourWithoutTheServer has the real engine away for an hour by the clock of the sender and of the journal, in which
// a pause takes no time. Five records come in each second of it.
func TestAnHourWithoutTheServer(t *testing.T) {
	for _, c := range []struct {
		name    string
		keep    int64 // bytes of the journal
		stopped bool  // the engine is stopped, else it cannot be reached
		all     bool  // records are there in the end
	}{
		{"stopped, and the journal keeps what was not shipped", 0, true, true},
		{"unreachable, and the journal has room for a part", 3 << 20, false, false},
	} {
		t.Run(c.name, func(t *testing.T) { anHour(t, c.keep, c.stopped, c.all) })
	}
}

func anHour(t *testing.T, keep int64, stopped, all bool) {
	ctx := t.Context()
	server := clickhousetest.New(t, "")
	f := newFront(t)
	f.set(address(server), false, 0)
	db := withSchema(t, clickhouse.Config{URL: "clickhouse://default@" + f.addr() + "/holdfast", DialTimeout: 500 * time.Millisecond})
	const hostID = "8a7f6f1d2c3b4a59687a8b9c0d1e2f30"
	state := t.TempDir()
	dir, file := filepath.Join(state, "journal"), filepath.Join(state, "shipped")
	clock := &clock{now: time.Now()}
	log, err := journal.Open(dir, filepath.Join(state, "keys"), journal.Options{HostID: hostID, Host: "web1", Boot: "boot",
		Now: clock.Now, SegmentBytes: 256 << 10, FlushEvery: 5 * time.Millisecond, KeepFor: 10 * time.Minute, KeepBytes: keep,
		Shipped: func(host string) uint64 {
			n, err := ship.Confirmed(file, host)
			if err != nil {
				t.Error(err)
			}
			return n
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	write := func(n int) error {
		for range n {
			if _, err := log.Append(&event.Record{Time: event.TimeOf(clock.Now()), Kind: event.RecChange, Op: "write", Path: "/etc/app/config",
				Process: &event.Process{PID: 1, Exe: "/usr/bin/sed", Argv: []string{"sed", "-i", "s/one/two/", "/etc/app/config"}}}); err != nil {
				return err
			}
		}
		return log.Sync(ctx)
	}
	if err := write(500); err != nil {
		t.Fatal(err)
	}
	src, err := openSource(dir)
	if err != nil {
		t.Fatal(err)
	}

	// What happens between two tries, by the goroutine of the sender.
	var (
		s         *ship.Shipper
		began     time.Time
		pauses    []time.Duration
		last      ship.Stats // at the last try of the hour
		failed    error
		spool     int64 // the largest the journal was
		back      bool
		most      = time.Minute
		sink      = &counted{DB: db}
		untilBack = func() (err error) {
			if err := write(int(pauses[len(pauses)-1].Seconds() * 5)); err != nil {
				return err
			}
			spool = max(spool, sizeOf(t, dir))
			if clock.Now().Sub(began) < time.Hour {
				return nil
			}
			last, back = s.Stats(), true
			if stopped {
				err = server.Start(ctx)
			}
			f.set(address(server), false, 0)
			return err
		}
	)
	s, err = ship.New(src, sink, ship.Options{HostID: hostID, PositionFile: file, BatchRows: 1000, FlushEvery: 20 * time.Millisecond, ConfirmEvery: 20 * time.Millisecond,
		Poll: 5 * time.Millisecond, Timeout: 20 * time.Second, BackoffMin: 500 * time.Millisecond, BackoffMax: most, Now: clock.Now,
		Pause: func(ctx context.Context, d time.Duration) bool {
			clock.add(d)
			pauses = append(pauses, d)
			if !back {
				failed = errors.Join(failed, untilBack())
			}
			return ctx.Err() == nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	run, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Run(run) }()
	t.Cleanup(cancel)
	wait := func(what string, ok func(ship.Stats) bool) {
		t.Helper()
		for end := time.Now().Add(3 * time.Minute); !ok(s.Stats()); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("waited in vain for %s: %+v", what, s.Stats())
			}
		}
	}
	wait("what was before", func(st ship.Stats) bool { return st.Confirmed == 500 })
	sink.mu.Lock()
	before := len(sink.took)
	sink.mu.Unlock()

	began = clock.Now()
	if stopped {
		server.Kill()
	}
	f.set("", false, 0)
	if err := write(5); err != nil {
		t.Fatal(err)
	}
	wait("the end of the outage", func(st ship.Stats) bool {
		return st.Connected && st.Lag == 0 && st.Confirmed == st.Newest && st.Newest > 10_000
	})
	cancel()
	if err := errors.Join(<-done, failed); err != nil {
		t.Fatal(err)
	}

	for i, d := range pauses {
		if d > most || i >= 8 && d < most/2 {
			t.Errorf("pause %d of %d is %v", i+1, len(pauses), d)
		}
	}
	st := s.Stats()
	if n := len(pauses); n < 60 || n > 130 || st.Retries != uint64(n) {
		t.Errorf("%d pauses in an hour, %d retries", n, st.Retries)
	}
	if last.Connected || last.LastError == "" || last.Shipped != 500 || last.Lag != last.Newest-500 || last.Newest < 17_000 {
		t.Errorf("at the end of the hour: %+v", last)
	}
	next := uint64(501)
	if !all {
		next += st.Skipped
	}
	for _, b := range sink.took[before:] {
		r, err := journal.Decode(b)
		if err != nil || r.Seq != next {
			t.Fatalf("record %d was shipped where %d was to come (%v); %d were skipped", r.Seq, next, err, st.Skipped)
		}
		next++
	}
	if next != st.Newest+1 {
		t.Errorf("the last that was shipped is %d of %d", next-1, st.Newest)
	}
	switch {
	case all && (st.Skipped != 0 || spool < 4<<20):
		t.Errorf("%d records were skipped; the journal had %d bytes", st.Skipped, spool)
	case !all && (st.Skipped == 0 || spool > keep+3*(256<<10)):
		t.Errorf("%d records were skipped; the journal had %d bytes, %d are kept", st.Skipped, spool, keep)
	}
	if got := server.MustExec(t, "SELECT count(), uniqExact(seq) FROM holdfast.records"); got != fmt.Sprintf("%d\t%[1]d", st.Newest-st.Skipped) {
		t.Errorf("rows, different ones: %s, want %d", got, st.Newest-st.Skipped)
	}
	lost := 0
	r, err := journal.OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	first := uint64(0)
	diff, err := db.Compare(ctx, hostID, 501+st.Skipped, 0, func(ctx context.Context) (uint64, []byte, error) {
		for {
			e, err := r.Next(ctx)
			if err != nil {
				return 0, nil, err
			}
			if first == 0 {
				first = e.Seq
			}
			if x, err := journal.Decode(e.Bytes); err == nil && x.Detail["not_shipped"] != "" {
				var n int
				if _, err := fmt.Sscan(x.Detail["not_shipped"], &n); err != nil {
					return 0, nil, err
				}
				lost += n
			}
			if e.Seq > 500+st.Skipped {
				return e.Seq, e.Bytes, nil
			}
		}
	}, func(d clickhouse.Difference) { t.Error(d) })
	if err != nil || !diff.Clean() || diff.Matched != st.Newest-500-st.Skipped {
		t.Errorf("compared with the journal by hash: %+v, %v", diff, err)
	}
	if uint64(lost) != st.Skipped {
		t.Errorf("the journal tells of %d records that expired before they were shipped, the sender of %d", lost, st.Skipped)
	}
}

// clock is what the time is.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// sizeOf is how many bytes the files of a directory have.
func sizeOf(t *testing.T, dir string) (n int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".seg" {
			continue
		}
		if i, err := e.Info(); err == nil { // else it has expired meanwhile
			n += i.Size()
		}
	}
	return n
}
