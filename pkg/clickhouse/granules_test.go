package clickhouse

import (
	"context"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
	"github.com/holdfast/holdfast/schemas"
)

// before makes a database as programs did that knew no small granules, with records of two hosts in it.
func before(t *testing.T) *DB {
	t.Helper()
	ms, err := schemas.ClickHouse()
	if err != nil {
		t.Fatal(err)
	}
	database := newDatabase()
	for _, m := range ms[:11] {
		statements, err := schemas.Render(m, schemas.Target{Database: database})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range statements {
			server.MustExec(t, strings.Replace(s, ", index_granularity = 512", "", 1))
		}
	}
	db := open(t, server.URL(database))
	for i, host := range []string{testHost, strings.Repeat("ab", 16)} {
		if err := db.Send(context.Background(), host, samples(t, host, 1, uint64(3000+1000*i))); err != nil {
			t.Fatal(err)
		}
	}
	return db
}

func TestADatabaseFromBeforeKeepsItsGranulesAndCanBeCopied(t *testing.T) {
	old, fresh := before(t), newDB(t)
	for db, want := range map[*DB]string{old: "8192 16 1 1", fresh: "512 128 8 8"} {
		name := db.target.Database
		got := server.MustExec(t, "SELECT extract(engine_full, 'index_granularity = (\\\\d+)') FROM system.tables WHERE database = '"+name+"' AND name = 'records'")
		got += " " + strings.Join(strings.Fields(server.MustExec(t, "SELECT granularity FROM system.data_skipping_indices WHERE database = '"+name+
			"' AND table = 'records' AND name IN ('by_all_paths', 'by_paths', 'by_ticket') ORDER BY name")), " ")
		if got != want {
			t.Errorf("granules and entries of by_all_paths, by_paths, by_ticket: %s, want %s", got, want)
		}
	}
	// The statements are those that docs/clickhouse.md tells people to run.
	page, err := os.ReadFile("../../docs/clickhouse.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "<!-- copy -->\n```sql\n")
	text, _, found := strings.Cut(text, "```")
	if !found {
		t.Fatal("docs/clickhouse.md has no statements that copy a database")
	}
	for _, s := range schemas.Split(strings.NewReplacer("fresh.", fresh.target.Database+".", "holdfast.", old.target.Database+".").Replace(text)) {
		server.MustExec(t, s)
	}
	for _, table := range schemas.Retained() {
		final := " FINAL"
		if table == "roots" { // nothing is replaced there
			final = ""
		}
		count := func(db *DB) string {
			return server.MustExec(t, "SELECT count() FROM (SELECT * FROM "+db.target.Database+"."+table+final+")")
		}
		if got, want := count(fresh), count(old); got != want {
			t.Errorf("%s has %s rows, want %s", table, got, want)
		}
	}
	for name, f := range map[string]query.Filter{
		"everything": {}, "the newest of all hosts": {Limit: 100}, "a path": {Path: "/etc/app/conf.d/7.conf", Limit: 50},
		"text in a path": {Path: "**conf.d/4**"}, "a host": {Host: testHost, Limit: 10}, "who": {Path: "/etc/app/conf.d/9.conf", Limit: 1},
	} {
		got, want := answers(t, fresh, f), answers(t, old, f)
		if len(want) == 0 || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %d records, want %d", name, len(got), len(want))
		}
	}
}

func answers(t *testing.T, db *DB, f query.Filter) (ids []string) {
	t.Helper()
	if err := db.Records(context.Background(), f, func(r *event.Record) error {
		ids = append(ids, r.ID)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return ids
}
