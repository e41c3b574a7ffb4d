package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"modernc.org/sqlite"

	"github.com/holdfast/holdfast/pkg/query"
)

var _ query.SQL = (*store)(nil)

// limitAttached is SQLITE_LIMIT_ATTACHED (sqlite3.h): how many further files a
// statement may open. Without any, nothing can be written anywhere: neither by
// ATTACH nor by VACUUM INTO.
const limitAttached = 7

// SQL implements query.SQL over the view records of the index: what is not indexed yet
// is not in it. The file is open for reading only, and no other can be opened.
func (s *store) SQL(ctx context.Context, text string, begin func(columns []string) error, row func(values []any) error) error {
	if s.db == nil {
		return fmt.Errorf("%w: %w", query.ErrNoIndex, s.why)
	}
	if err := query.OneQuestion(text, false, "SELECT", "WITH", "VALUES", "EXPLAIN"); err != nil {
		return fmt.Errorf("ask index: %w", err)
	}
	return s.statement(ctx, text, begin, row)
}

// statement runs what SQLite lets through on a file that is open for reading only.
func (s *store) statement(ctx context.Context, text string, begin func(columns []string) error, row func(values []any) error) (err error) {
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("ask index: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if _, err := sqlite.Limit(conn, limitAttached, 0); err != nil {
		return fmt.Errorf("ask index: %w", err)
	}
	rows, err := conn.QueryContext(ctx, text)
	if err != nil {
		return askError(err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	columns, err := rows.Columns()
	if err == nil {
		err = begin(columns)
	}
	if err != nil {
		return err
	}
	return scanRows(rows, len(columns), row)
}

// scanRows hands rows on; a blob comes as a string, as bytes do from ClickHouse.
func scanRows(rows *sql.Rows, n int, row func([]any) error) error {
	values, dest := make([]any, n), make([]any, n)
	for i := range dest {
		dest[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return askError(err)
		}
		for i, v := range values {
			if b, ok := v.([]byte); ok {
				values[i] = string(b)
			}
		}
		if err := row(values); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return askError(err)
	}
	return nil
}

// askError names what a person may have meant: sqlite3.h, SQLITE_READONLY.
func askError(err error) error {
	const readonly = 8
	var e *sqlite.Error
	if errors.As(err, &e) && e.Code()&0xff == readonly {
		return fmt.Errorf("ask index: %w (%w)", query.ErrReadOnly, err)
	}
	return fmt.Errorf("ask index: %w", err)
}
