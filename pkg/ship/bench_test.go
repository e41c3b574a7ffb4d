package ship_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/clickhouse"
	"github.com/holdfast/holdfast/pkg/clickhouse/clickhousetest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/ship"
)

// shipped is how many records each journal of BenchmarkShip has: four batches.
const shipped = 40_000

// BenchmarkShip sends journals of small records to one real engine: each by a sender of its own, and, to compare, by the bare
// client: the same rows, decoded beforehand, inserted in batches of the same size by as many connections.
func BenchmarkShip(b *testing.B) {
	ctx := context.Background()
	server := clickhousetest.New(b, "")
	withSchema(b, clickhouse.Config{URL: server.URL("holdfast")})
	dir := b.TempDir()
	var rows [8][][]clickhouse.Row // batches
	for i := range rows {
		var err error
		if rows[i], err = smallRecords(filepath.Join(dir, hostOf(i)), hostOf(i)); err != nil {
			b.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		agents int
		send   func(i, round int) (end time.Time, err error)
	}{
		{"bare client", 1, func(i, round int) (time.Time, error) { return insert(ctx, server, rows[i], i, round) }},
		{"one agent", 1, func(i, _ int) (time.Time, error) { return agent(ctx, server, filepath.Join(dir, hostOf(i)), hostOf(i)) }},
		{"eight agents", 8, func(i, _ int) (time.Time, error) { return agent(ctx, server, filepath.Join(dir, hostOf(i)), hostOf(i)) }},
		{"eight bare clients", 8, func(i, round int) (time.Time, error) { return insert(ctx, server, rows[i], i, round) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			took, round := time.Duration(0), 0
			for b.Loop() {
				for _, table := range []string{"records", "notable", "hourly", "sessions", "hosts"} {
					server.MustExec(b, "TRUNCATE TABLE holdfast."+table)
				}
				errs, ends := make([]error, c.agents), make([]time.Time, c.agents)
				round++
				began := time.Now()
				var wg sync.WaitGroup
				for i := range c.agents {
					wg.Go(func() { ends[i], errs[i] = c.send(i, round) })
				}
				wg.Wait()
				took += slices.MaxFunc(ends, time.Time.Compare).Sub(began)
				if err := errors.Join(errs...); err != nil {
					b.Fatal(err)
				}
				if got := server.MustExec(b, "SELECT count(), uniqExact(host_id, seq) FROM holdfast.records"); got != fmt.Sprintf("%d\t%[1]d", c.agents*shipped) {
					b.Fatalf("%s rows and different ones", got)
				}
			}
			b.ReportMetric(float64(round*c.agents*shipped)/took.Seconds(), "rows/s")
		})
	}
}

func hostOf(i int) string { return fmt.Sprintf("8a7f6f1d2c3b4a59687a8b9c0d1e2f3%d", i) }

// smallRecords writes a journal and returns its rows in batches of 10,000.
func smallRecords(dir, hostID string) (batches [][]clickhouse.Row, err error) {
	log, err := journal.Open(filepath.Join(dir, "journal"), filepath.Join(dir, "keys"), journal.Options{HostID: hostID, Host: "web1", Boot: "boot", QueueBytes: 1 << 30})
	if err != nil {
		return nil, err
	}
	for range shipped {
		if _, err := log.Append(&event.Record{Time: event.TimeOf(time.Now()), Kind: event.RecChange, Op: "write", Path: "/etc/app/config",
			After: &event.State{Exists: true, Type: event.TypeRegular, Mode: 0o644, Size: 12}, Actor: &event.Actor{User: "alice", Loginuid: 1000},
			Process: &event.Process{PID: 4242, Exe: "/usr/bin/sed", Argv: []string{"sed", "-i", "s/a/b/", "config"}}}); err != nil {
			return nil, err
		}
	}
	if err := log.Close(); err != nil {
		return nil, err
	}
	src, err := openSource(filepath.Join(dir, "journal"))
	if err != nil {
		return nil, err
	}
	for i := range shipped {
		e, err := src.Next(context.Background())
		if err != nil {
			return nil, err
		}
		r, err := clickhouse.NewRow(e.Bytes)
		if err != nil {
			return nil, err
		}
		if i%10_000 == 0 {
			batches = append(batches, nil)
		}
		batches[len(batches)-1] = append(batches[len(batches)-1], r)
	}
	return batches, src.Close()
}

// agent ships the journal below dir, and tells when the server had acknowledged all of it. It stops when it has nothing to
// ask any more: this engine ends when a client hangs up with an answer unread.
func agent(ctx context.Context, server *clickhousetest.Server, dir, hostID string) (end time.Time, err error) {
	db, err := clickhouse.New(clickhouse.Config{URL: server.URL("holdfast")})
	if err != nil {
		return end, err
	}
	src, err := openSource(filepath.Join(dir, "journal"))
	if err != nil {
		return end, err
	}
	s, err := ship.New(src, db, ship.Options{HostID: hostID})
	if err != nil {
		return end, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for st := s.Stats(); st.Confirmed < shipped && err == nil; st = s.Stats() {
		if st.LastError != "" {
			err = errors.New(st.LastError)
		}
		if st.Shipped == shipped && end.IsZero() {
			end = time.Now()
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	return end, errors.Join(err, <-done, src.Close(), db.Close())
}

// insert is what a program does that has the rows and nothing else to do.
func insert(ctx context.Context, server *clickhousetest.Server, batches [][]clickhouse.Row, i, round int) (end time.Time, err error) {
	db, err := clickhouse.New(clickhouse.Config{URL: server.URL("holdfast")})
	if err != nil {
		return end, err
	}
	for n, rows := range batches {
		if err := db.Insert(ctx, fmt.Sprint(i, round, n), rows); err != nil {
			return end, errors.Join(err, db.Close())
		}
	}
	return time.Now(), db.Close()
}
