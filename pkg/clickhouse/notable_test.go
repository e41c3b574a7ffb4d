package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/schemas"
)

// mixed are records of which one of three is an observed change by nobody.
func mixed(t *testing.T, hostID string, first, last uint64) [][]byte {
	t.Helper()
	var out [][]byte
	for i := first; i <= last; i++ {
		r := sample(hostID, i)
		switch i % 3 {
		case 0:
			r.Actor = event.Nobody()
		case 1:
			r.Actor, r.Verdict, r.Reason = event.Nobody(), event.VerdictUnauthorized, "nobody may"
		}
		out = append(out, encode(t, r))
	}
	return out
}

// whatNotableLacks tells how notable differs from what records has for it: rows that are missing, of another content, and too many.
func whatNotableLacks(t *testing.T, database string) string {
	t.Helper()
	columns := strings.ReplaceAll(server.MustExec(t, "SELECT arrayStringConcat(groupArray(name), ', ') FROM (SELECT name FROM system.columns WHERE database = '"+database+
		"' AND table = 'notable' AND default_kind = '' ORDER BY position)"), "\n", "")
	if !strings.Contains(columns, "gap_changes") {
		t.Fatal(columns)
	}
	of := func(table, where string) string {
		return "(SELECT tuple(" + columns + ") FROM " + database + "." + table + " FINAL WHERE " + where + ")"
	}
	want, have := of("records", "NOT (actor_user IN ('', 'unknown') AND kind = 'change' AND verdict = 'observed')"), of("notable", "1")
	return server.MustExec(t, "SELECT (SELECT count() FROM "+want+"), (SELECT count() FROM (SELECT * FROM "+want+" EXCEPT SELECT * FROM "+have+")), (SELECT count() FROM "+have+")")
}

func TestNotableHasEachRowOnce(t *testing.T) {
	ctx := context.Background()
	db := newDB(t)
	batch := mixed(t, testHost, 1, 90)
	for range 3 {
		if err := db.Send(ctx, "one", batch); err != nil {
			t.Fatal(err)
		}
	}
	if got := server.MustExec(t, "SELECT count(), uniqExact(seq) FROM "+db.target.Database+".notable"); got != "60\t60" {
		t.Errorf("a batch with the same token: %s rows and sequences, want 60 of 60", got)
	}
	// When the server has forgotten the token, what is in both tables twice is collapsed in both.
	if err := db.Send(ctx, "another", batch); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"records", "notable"} {
		server.MustExec(t, "OPTIMIZE TABLE "+db.target.Database+"."+table+" FINAL")
	}
	if got := server.MustExec(t, "SELECT count() FROM "+db.target.Database+".notable"); got != "60" {
		t.Errorf("after a merge %s rows, want 60", got)
	}
	if got := whatNotableLacks(t, db.target.Database); got != "60\t0\t60" {
		t.Errorf("wanted, missing, there: %s", got)
	}
	grouped := "SELECT min(seq), max(seq), groupBitmap(seq) FROM " + db.target.Database + ".records GROUP BY host_id, boot SETTINGS force_optimize_projection = 1"
	late := "SELECT sum(n) FROM (SELECT dateDiff('second', greatest(time, time_end), received) AS late, count() AS n FROM " + db.target.Database + ".records GROUP BY late) SETTINGS force_optimize_projection = 1"
	if got, n := server.MustExec(t, grouped), server.MustExec(t, late); got != "1\t90\t90" || n != "90" {
		t.Errorf("projections after a merge: %s, %s rows", got, n)
	}
	server.MustExec(t, "ALTER TABLE "+db.target.Database+".records DELETE WHERE seq = 7 SETTINGS mutations_sync = 2")
	if got, n := server.MustExec(t, grouped), server.MustExec(t, late); got != "1\t90\t89" || n != "89" {
		t.Errorf("projections after a row was deleted: %s, %s rows", got, n)
	}
	// A projection would not follow a light deletion on every server: it is refused.
	if _, err := server.Exec(ctx, "DELETE FROM "+db.target.Database+".records WHERE seq = 8"); err == nil {
		t.Error("a light deletion is taken")
	}
}

// TestNotableIsFilled: rows that were there before, and rows that come while the migration runs.
func TestNotableIsFilled(t *testing.T) {
	ctx := context.Background()
	ours, err := schemas.ClickHouse()
	if err != nil {
		t.Fatal(err)
	}
	db, err := Open(ctx, Config{URL: server.URL(newDatabase()), KeepDays: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.apply(ctx, ours[:7]); err != nil {
		t.Fatal(err)
	}
	statements, err := schemas.Render(ours[7], db.target)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Send(ctx, "before", mixed(t, testHost, 1, 300)); err != nil {
		t.Fatal(err)
	}
	for _, s := range statements[:2] {
		server.MustExec(t, s)
	}
	// The sender of an insert that went past the view sends it again.
	if err := db.Send(ctx, "before", mixed(t, testHost, 1, 300)); err != nil {
		t.Fatal(err)
	}
	if got := server.MustExec(t, "SELECT (SELECT count() FROM "+db.target.Database+".records), (SELECT count() FROM "+db.target.Database+".notable)"); got != "300\t200" {
		t.Errorf("sent again with a view: %s rows, want 300 and 200 of them", got)
	}
	server.MustExec(t, "DROP TABLE "+db.target.Database+".to_notable SYNC")
	server.MustExec(t, "DROP TABLE "+db.target.Database+".notable SYNC")
	var batches [30][][]byte
	for i := range batches {
		batches[i] = mixed(t, testHost, 301+uint64(i)*90, 390+uint64(i)*90)
	}
	var wg sync.WaitGroup
	var sent error
	wg.Go(func() {
		for i, b := range batches {
			if sent == nil {
				sent = db.Send(ctx, fmt.Sprint(i), b)
			}
		}
	})
	for range 2 { // the second time it runs again
		for _, s := range statements {
			if strings.HasPrefix(s, "SELECT sum(sleepEachRow(1))") {
				wg.Wait() // instead of the minute after which no insert goes on that began before
				continue
			}
			server.MustExec(t, s)
		}
	}
	if sent != nil {
		t.Fatal(sent)
	}
	if got := whatNotableLacks(t, db.target.Database); got != "2000\t0\t2000" {
		t.Errorf("wanted, missing, there: %s, want 2000, 0, 2000", got)
	}
}

// TestWhatWentPastTheViewsIsFilledIn: inserts that began before the views of 0003 and 0004 were made and ended when these
// had been filled. Their rows came two hours ago, so that 0008 does not wait for others.
func TestWhatWentPastTheViewsIsFilledIn(t *testing.T) {
	ctx := context.Background()
	ours, err := schemas.ClickHouse()
	if err != nil {
		t.Fatal(err)
	}
	db, err := Open(ctx, Config{URL: server.URL(newDatabase()), KeepDays: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	name := db.target.Database
	apply := func(first, last int) {
		t.Helper()
		for _, m := range ours[first-1 : last] {
			if err := db.applyOne(ctx, m); err != nil {
				t.Fatal(err)
			}
		}
	}
	apply(1, 2)
	// A server makes the way of an insert when that begins, and its sender has all its time.
	begin := func(into string) driver.Batch {
		t.Helper()
		b, err := db.conn.PrepareBatch(ch.Context(ctx, ch.WithSettings(insertSettings(into))), "INSERT INTO "+name+"."+into)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	records := begin("records (host_id, host, boot, seq, time, kind, actor_session, received)")
	checkpoints := begin("checkpoints (host_id, size, note, received)")
	apply(3, 4)
	ago := time.Now().Add(-2 * time.Hour)
	for i := range uint64(6) {
		if err := errors.Join(records.Append("h", "web1", "b", i+1, ago, "change", "s", ago), checkpoints.Append("h", i+1, "note", ago)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(records.Send(), checkpoints.Send()); err != nil {
		t.Fatal(err)
	}
	apply(5, 9)
	tell := func() string {
		return server.MustExec(t, "SELECT (SELECT max(last_seq) FROM "+name+".hosts), (SELECT groupBitmapMerge(seqs) FROM "+name+".hourly), "+
			"(SELECT groupBitmapMerge(records) FROM "+name+".sessions), (SELECT count() FROM "+name+".roots), (SELECT count() FROM "+name+".records)")
	}
	if got := tell(); got != "0\t0\t0\t0\t6" {
		t.Errorf("before: newest, by the hour, in sessions, roots, records: %s; want nothing of 6", got)
	}
	for range 2 { // the second time it runs again
		apply(10, 10)
		if got := tell(); got != "6\t6\t6\t6\t6" {
			t.Errorf("newest, by the hour, in sessions, roots, records: %s; want 6 of each", got)
		}
	}
}
