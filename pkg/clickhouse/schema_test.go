package clickhouse

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
	"github.com/holdfast/holdfast/schemas"
)

func TestSchema(t *testing.T) {
	ctx := context.Background()
	ours, err := schemas.ClickHouse()
	if err != nil {
		t.Fatal(err)
	}
	connect := func(t *testing.T) *DB {
		t.Helper()
		db, err := Open(ctx, Config{URL: server.URL(newDatabase())})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		return db
	}
	t.Run("before the first migration all are pending and nothing is ready", func(t *testing.T) {
		db := connect(t)
		st, err := db.SchemaStatus(ctx)
		if err != nil || len(st) != len(ours) || st[0].State != Pending {
			t.Errorf("%+v, %v", st, err)
		}
		wantErr(t, db.Ready(ctx), ErrNoSchema)
		wantErr(t, db.Send(ctx, "t", samples(t, testHost, 1, 1)), ErrNoSchema)
		_, _, err = db.Reach(ctx, testHost, 0)
		wantErr(t, err, ErrNoSchema)
	})
	t.Run("apply makes it ready, a second apply does nothing", func(t *testing.T) {
		db := connect(t)
		done, err := db.Apply(ctx)
		if err != nil || len(done) != len(ours) {
			t.Fatalf("applied %v, %v", done, err)
		}
		if err := db.Ready(ctx); err != nil {
			t.Error(err)
		}
		done, err = db.Apply(ctx)
		if err != nil || len(done) != 0 {
			t.Errorf("the second time it applied %v, %v", done, err)
		}
		st, err := db.SchemaStatus(ctx)
		if err != nil || st[0].State != Applied || st[0].Applied.IsZero() || st[0].By == "" {
			t.Errorf("%+v, %v", st, err)
		}
	})
	t.Run("every statement may run again", func(t *testing.T) {
		db := connect(t)
		for range 2 {
			if _, err := db.Apply(ctx); err != nil {
				t.Fatal(err)
			}
			server.MustExec(t, "TRUNCATE TABLE "+db.target.Database+".schema_migrations")
		}
	})
	t.Run("an edited migration is refused", func(t *testing.T) {
		db := connect(t)
		if _, err := db.Apply(ctx); err != nil {
			t.Fatal(err)
		}
		edited := append([]schemas.Migration(nil), ours...)
		edited[0].Checksum = "another"
		_, err := db.apply(ctx, edited)
		wantErr(t, err, ErrEdited)
	})
	t.Run("a newer program's schema is refused", func(t *testing.T) {
		db := connect(t)
		if _, err := db.Apply(ctx); err != nil {
			t.Fatal(err)
		}
		server.MustExec(t, "INSERT INTO "+db.target.Database+".schema_migrations (number, name) VALUES (9999, '9999_later.sql')")
		wantErr(t, db.Ready(ctx), ErrNewerSchema)
		st, err := db.SchemaStatus(ctx)
		wantErr(t, err, ErrNewerSchema)
		if len(st) != len(ours)+1 || st[len(ours)].State != Newer {
			t.Errorf("status %+v", st)
		}
	})
	t.Run("several appliers at once end with one note of each", func(t *testing.T) {
		db := connect(t)
		var wg sync.WaitGroup
		errs := make([]error, 6)
		for i := range errs {
			wg.Go(func() { _, errs[i] = db.Apply(ctx) })
		}
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				t.Error(err)
			}
		}
		if got := server.MustExec(t, "SELECT count() FROM "+db.target.Database+".schema_migrations"); got != fmt.Sprint(len(ours)) {
			t.Errorf("%s notes, want %d", got, len(ours))
		}
	})
	t.Run("a broken migration is not noted", func(t *testing.T) {
		db := connect(t)
		broken := append(append([]schemas.Migration(nil), ours...), schemas.Migration{
			Number: uint32(len(ours) + 1), Name: "broken.sql", Checksum: "x", Text: "CREATE TABLE {{.Database}}.t (nonsense;"})
		done, err := db.apply(ctx, broken)
		if err == nil || len(done) != len(ours) {
			t.Errorf("applied %v, %v", done, err)
		}
		if err := db.Ready(ctx); err != nil {
			t.Error(err)
		}
	})
}

// TestClusterVariant: the server parses the ON CLUSTER form. It cannot run it: the
// engine that the tests have has no keeper.
func TestClusterVariant(t *testing.T) {
	ms, err := schemas.ClickHouse()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		statements, err := schemas.Render(m, schemas.Target{Database: "holdfast", Cluster: "{cluster}", KeepDays: 30})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range statements {
			// What is inserted on one replica, the others fetch.
			if !strings.Contains(s, "ON CLUSTER '{cluster}'") && !strings.Contains(s, "INSERT INTO") && !strings.HasPrefix(s, "SELECT ") {
				t.Errorf("not on the cluster: %.80s", s)
			}
			if strings.Contains(s, "CREATE TABLE") && !strings.Contains(s, "ENGINE = Replicated") {
				t.Errorf("not replicated: %.80s", s)
			}
			if !strings.Contains(s, "INSERT INTO") { // EXPLAIN AST parses no INSERT
				server.MustExec(t, "EXPLAIN AST "+s)
			}
		}
	}
}

func TestPrintSchema(t *testing.T) {
	var b strings.Builder
	if err := PrintSchema(&b, Config{URL: "clickhouse://h/audit", KeepDays: 30}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CREATE DATABASE IF NOT EXISTS audit", "audit.records", "toIntervalDay(30)", "-- 0001_records.sql (sha256 "} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in what is printed", want)
		}
	}
	// What is printed is what apply runs: it can be fed to a client.
	database := newDatabase()
	b.Reset()
	if err := PrintSchema(&b, Config{URL: "clickhouse://h/" + database}); err != nil {
		t.Fatal(err)
	}
	for _, s := range schemas.Split(b.String()) {
		server.MustExec(t, s)
	}
}

func TestRetention(t *testing.T) {
	ctx := context.Background()
	db, err := Open(ctx, Config{URL: server.URL(newDatabase()), KeepDays: 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.Apply(ctx); err != nil {
		t.Fatal(err)
	}
	table := db.target.Database + ".records"
	for seq, age := range map[int]int{1: 31, 2: 29, 3: 0} {
		server.MustExec(t, fmt.Sprintf("INSERT INTO %s (host_id, seq, time, received) VALUES ('h', %d, now64(9), now() - toIntervalDay(%d))", table, seq, age))
	}
	// A host whose clock is decades off keeps its new records.
	server.MustExec(t, "INSERT INTO "+table+" (host_id, seq, time) VALUES ('h', 4, 0)")
	for _, table := range []string{table, db.target.Database + ".notable"} {
		server.MustExec(t, "OPTIMIZE TABLE "+table+" FINAL")
		if got := server.MustExec(t, "SELECT groupArray(seq) FROM (SELECT seq FROM "+table+" ORDER BY seq)"); got != "[2,3,4]" {
			t.Errorf("%s kept %s, want [2,3,4]: what arrived more than 30 days ago goes", table, got)
		}
	}
	if got := server.MustExec(t, "SELECT groupBitmap(seq) FROM "+table+" GROUP BY host_id SETTINGS force_optimize_projection = 1"); got != "3" {
		t.Errorf("a projection has %s rows, want 3", got)
	}
}

func TestRetentionChangesByApply(t *testing.T) {
	ctx := context.Background()
	database := newDatabase()
	apply := func(keep int) []string {
		t.Helper()
		db, err := Open(ctx, Config{URL: server.URL(database), KeepDays: keep})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		done, err := db.Apply(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if left, err := db.Retention(ctx); err != nil || len(left) > 0 {
			t.Errorf("after apply: %v, %v", left, err)
		}
		return done
	}
	apply(400)
	server.MustExec(t, "INSERT INTO "+database+".records (host_id, seq, time, received) VALUES ('h', 1, now64(9), now() - toIntervalDay(100)), ('h', 2, now64(9), now())")
	for _, c := range []struct {
		keep, tables, rows int
		says               string
	}{{400, 0, 2, ""}, {-1, 7, 2, "retention of records: for ever, was 400 days"}, {200, 7, 2, "retention of records: 200 days, was for ever"}, {30, 7, 1, "retention of records: 30 days, was 200 days"}} {
		done := apply(c.keep)
		if len(done) != c.tables || c.tables > 0 && done[0] != c.says {
			t.Errorf("keep %d: %v, want %d changes, the first %q", c.keep, done, c.tables, c.says)
		}
		server.MustExec(t, "OPTIMIZE TABLE "+database+".records FINAL")
		if got := server.MustExec(t, "SELECT count() FROM "+database+".records"); got != fmt.Sprint(c.rows) {
			t.Errorf("keep %d: %s rows, want %d", c.keep, got, c.rows)
		}
	}
}

// TestPruning asks the server how it would read: each question must skip granules.
func TestPruning(t *testing.T) {
	db := newDB(t)
	table := db.target.Database + ".records"
	server.MustExec(t, "INSERT INTO "+table+` (host, host_id, boot, seq, time, path, actor_user, actor_source_ip, after_hash, process_exec_id, process_argv, verdict, process_exe, detail)
		SELECT if(number < 200000, 'alpha', 'beta'), if(number < 200000, 'a', 'b'), 'x', number + 1, toDateTime64('2026-03-01 00:00:00', 9, 'UTC') + number,
		concat('/srv/', toString(intDiv(number, 1000)), '/', toString(number)), concat('u', toString(intDiv(number, 50000))),
		toIPv6(concat('2001:db8::', hex(intDiv(number, 10000)))), unhex(hex(SHA256(toString(number)))), toString(number),
		['sed', '-i', toString(number)], if(number = 333333, 'unauthorized', 'observed'), concat('/usr/bin/p', toString(intDiv(number, 30000))), if(intDiv(number, 100) = 777, map('window', '1', 'ticket', 'CHG-42'), map())
		FROM numbers(400000)`)
	server.MustExec(t, "OPTIMIZE TABLE "+table+" FINAL")
	at := func(hours int) event.Time {
		return event.TimeOf(time.Date(2026, 3, 1, hours, 0, 0, 0, time.UTC))
	}
	of := func(f query.Filter) conditions { return where(&f) }
	raw := func(term string) (c conditions) {
		c.and(term)
		return c
	}
	cases := []struct {
		name string
		c    conditions
	}{
		{"one record", raw("host_id = 'a' AND seq = 1234")},
		{"a host", raw("host_id = 'b'")},
		{"a host by its name", raw("host = 'alpha'")},
		{"a hash", raw("after_hash = unhex(hex(SHA256('777')))")},
		{"a range of a host's log", of(query.Filter{AfterSeq: 398_000})},
		{"an hour of all hosts", of(query.Filter{Since: at(10), Until: at(11)})},
		{"a path", of(query.Filter{Path: "/srv/55/55123"})},
		{"below a path", of(query.Filter{Path: "/srv/255/"})},
		{"any part of a path", of(query.Filter{Path: "**55/55123**"})},
		{"a glob", of(query.Filter{Path: "/srv/2[5]5/255*"})},
		{"a user", of(query.Filter{User: "u3"})},
		{"an address", of(query.Filter{Source: "2001:db8::11"})},
		{"a process", of(query.Filter{Exec: "399999"})},
		{"text in a command line", of(query.Filter{Command: "-i 77123"})},
		{"a rare verdict", of(query.Filter{Verdict: event.VerdictUnauthorized})},
		{"a ticket", of(query.Filter{Ticket: "CHG-42"})},
		{"an executable", of(query.Filter{Exe: "/usr/bin/p7"})},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			plan := explain(t, db, c.c)
			// The last "Granules: read/all" is what remains after all indexes.
			var read, all int
			i := strings.LastIndex(plan, "Granules: ")
			if i < 0 {
				t.Fatalf("no granules in\n%s", plan)
			}
			if _, err := fmt.Sscanf(plan[i:], "Granules: %d/%d", &read, &all); err != nil {
				t.Fatal(err)
			}
			total := 400000/schemas.Granule + 1
			if read*3 > total*2 {
				t.Errorf("reads %d of %d granules:\n%s", read, total, plan)
			}
			t.Logf("%d of %d granules", read, total)
		})
	}
}

// explain asks the server how it would look for what c selects.
func explain(t *testing.T, db *DB, c conditions) string {
	t.Helper()
	rows, err := db.conn.Query(context.Background(), "EXPLAIN indexes = 1 SELECT count() FROM "+db.target.Database+".records"+c.clause(), c.args...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var plan strings.Builder
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		plan.WriteString(line + "\n")
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return plan.String()
}
