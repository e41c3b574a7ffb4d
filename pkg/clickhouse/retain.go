package clickhouse

import (
	"context"
	"fmt"

	"github.com/holdfast/holdfast/schemas"
)

// Retention is for how long a table keeps its rows, and for how long it should.
type Retention struct {
	Table string `json:"table"`
	Days  int    `json:"days"` // after they arrived; 0 for ever
	Want  int    `json:"want"` // by the configuration
}

// String tells of a change.
func (r Retention) String() string {
	return fmt.Sprintf("retention of %s: %s, was %s", r.Table, days(r.Want), days(r.Days))
}

func days(n int) string {
	if n == 0 {
		return "for ever"
	}
	return fmt.Sprintf("%d days", n)
}

// Retention lists the tables that keep rows for another time than configured. Tables
// that are not there yet are left out.
func (db *DB) Retention(ctx context.Context) ([]Retention, error) {
	rows, err := db.conn.Query(ctx, `SELECT name, toInt64OrZero(extract(create_table_query, 'TTL received \\+ toIntervalDay\\((\\d+)\\)'))
		FROM system.tables WHERE database = ?`, db.target.Database)
	if err != nil {
		return nil, db.explain("read schema of", err)
	}
	defer func() { _ = rows.Close() }() // its error is rows.Err's
	have := map[string]int64{}
	for rows.Next() {
		var name string
		var n int64
		if err := rows.Scan(&name, &n); err != nil {
			return nil, db.explain("read schema of", err)
		}
		have[name] = n
	}
	if err := rows.Err(); err != nil {
		return nil, db.explain("read schema of", err)
	}
	var out []Retention
	for _, table := range schemas.Retained() {
		if n, there := have[table]; there && int(n) != db.target.KeepDays {
			out = append(out, Retention{Table: table, Days: int(n), Want: db.target.KeepDays})
		}
	}
	return out, nil
}

// retain makes the tables keep rows as configured and returns what it changed. The
// server goes over the rows that are there beside its other work.
func (db *DB) retain(ctx context.Context) (changed []string, err error) {
	list, err := db.Retention(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range list {
		if err := db.conn.Exec(ctx, db.target.Retain(r.Table)); err != nil {
			return changed, db.explain("change retention of "+r.Table+" in", err)
		}
		changed = append(changed, r.String())
	}
	return changed, nil
}
