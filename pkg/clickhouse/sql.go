package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/holdfast/holdfast/pkg/query"
)

var _ query.SQL = (*DB)(nil)

// SQL implements query.SQL. The server enforces it, by the setting readonly, which a
// question cannot take back; where it does not say that this holds, nothing is asked.
// What the setting lets through although it does something (KILL, SYSTEM) is refused here.
func (db *DB) SQL(ctx context.Context, text string, begin func(columns []string) error, row func(values []any) error) error {
	if err := query.OneQuestion(text, true, "SELECT", "WITH", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS"); err != nil { // the server refuses several
		return fmt.Errorf("ask ClickHouse %s: %w", db.addr, err)
	}
	conn, err := db.within()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // everything was read, or there is an error to tell
	readonly := func(ctx context.Context) (s string, err error) {
		err = conn.QueryRow(ctx, "SELECT toString(getSetting('readonly'))").Scan(&s)
		return s, db.explain("ask", err)
	}
	has, err := readonly(ctx)
	if err == nil && has == "0" { // who may only read already may not say so again
		ctx = ch.Context(ctx, ch.WithSettings(ch.Settings{"readonly": 1}))
		if has, err = readonly(ctx); err == nil && has == "0" {
			err = errors.New("the server does not take the setting readonly: nothing was asked")
		}
	}
	if err != nil {
		return err
	}
	rows, err := conn.Query(ctx, text)
	if err != nil {
		return db.ask(err)
	}
	defer func() { _ = rows.Close() }() // its error is rows.Err's
	if err := begin(rows.Columns()); err != nil {
		return err
	}
	types := rows.ColumnTypes()
	dest, values := make([]any, len(types)), make([]any, len(types))
	for rows.Next() {
		for i, t := range types {
			dest[i] = reflect.New(t.ScanType()).Interface()
		}
		if err := rows.Scan(dest...); err != nil {
			return db.ask(err)
		}
		for i := range dest {
			values[i] = reflect.ValueOf(dest[i]).Elem().Interface()
		}
		if err := row(values); err != nil {
			return err
		}
	}
	return db.ask(rows.Err())
}

// ask explains an error of a question that a person wrote: of what the question can be
// wrong in, the server's own words tell most.
func (db *DB) ask(err error) error {
	if _, server := serverCode(err); !server {
		return db.explain("ask", err)
	}
	if kind := kindOf(err); errors.Is(kind, ErrReadOnly) {
		return fmt.Errorf("ask ClickHouse %s: %w (%w)", db.addr, query.ErrReadOnly, err)
	}
	return fmt.Errorf("ask ClickHouse %s: %w", db.addr, err)
}

// within is a connection in which names of tables need no database in front.
func (db *DB) within() (ch.Conn, error) {
	o := *db.options
	o.Auth.Database = db.target.Database
	conn, err := ch.Open(&o)
	if err != nil {
		return nil, fmt.Errorf("%w: clickhouse.url: %w", ErrConfig, err)
	}
	return conn, nil
}
