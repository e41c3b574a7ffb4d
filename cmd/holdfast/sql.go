package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
)

func (a *app) sqlCommand() *cli.Command {
	return &cli.Command{
		Name:      "sql",
		Usage:     "ask in SQL; nothing can be changed by it",
		ArgsUsage: "QUERY",
		Description: "The view records of the index (--store local, SQLite; time is ns since 1970), or all tables of ClickHouse:\n" +
			"   holdfast sql \"SELECT path, count(*) AS n FROM records WHERE verdict = 'unauthorized' GROUP BY path ORDER BY n DESC\"",
		Flags:  []cli.Flag{jsonFlag(), storeFlag()},
		Action: a.sql,
	}
}

// sqlRows is how many rows decide how wide the columns of a table are.
const sqlRows = 1000

func (a *app) sql(c *cli.Context) (err error) {
	if err := someArgs(c, "a query", 1, 1); err != nil {
		return err
	}
	s, err := a.openStore(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	db, ok := s.(query.SQL)
	if !ok {
		return usagef("sql: this store answers none")
	}
	var names []string
	t := &table{}
	row := func(values []any) error {
		cells := make([]string, len(values))
		for i, v := range values {
			cells[i] = printableText(sqlText(v))
		}
		t.add(cells...)
		if len(t.rows) > sqlRows { // as wide as these are, so that an endless answer takes no more memory
			a.print(t)
			t.rows = t.rows[:0]
		}
		return nil
	}
	if c.Bool("json") {
		row = func(values []any) error { return a.jsonRow(names, values) }
	}
	err = db.SQL(c.Context, c.Args().First(), func(columns []string) error {
		names = columns
		t.add(columns...)
		return nil
	}, row)
	if errors.Is(err, query.ErrReadOnly) {
		return hint(usageError{err}, "holdfast sql only reads")
	}
	if errors.Is(err, query.ErrNoIndex) {
		return hint(err, "holdfast log and who read the journal instead; the daemon builds the index, holdfast index rebuild does it without; --store clickhouse asks the server")
	}
	if err != nil {
		return err
	}
	if !c.Bool("json") {
		a.print(t)
	}
	return a.note(c.Context, s)
}

// jsonRow prints one object whose names are in the order of the columns.
func (a *app) jsonRow(names []string, values []any) error {
	var b strings.Builder
	for i, v := range values {
		name, err := json.Marshal(names[i])
		if err != nil {
			return err
		}
		value, err := json.Marshal(plain(v))
		if err != nil {
			value, err = json.Marshal(sqlText(v)) // a number that JSON has not, such as NaN
		}
		if err != nil {
			return err
		}
		b.WriteString(map[bool]string{true: "{", false: ","}[i == 0] + string(name) + ":" + string(value))
	}
	_, err := a.buf.WriteString(b.String() + "}\n")
	return err
}

// plain is a value as records write it: bytes that are no text escaped, addresses and
// moments as text, lists and maps of such, and nil for what is not there.
func plain(v any) any {
	switch x := v.(type) {
	case nil:
		return nil
	case string:
		return event.Text([]byte(x))
	case time.Time:
		return x.UTC().Format(time.RFC3339Nano)
	case *big.Int:
		return x
	case big.Int:
		return &x
	}
	r := reflect.ValueOf(v)
	if r.Kind() == reflect.Pointer {
		if r.IsNil() {
			return nil
		}
		return plain(r.Elem().Interface())
	}
	if s, ok := v.(fmt.Stringer); ok {
		return s.String()
	}
	switch r.Kind() {
	case reflect.Slice, reflect.Array:
		out := make([]any, r.Len())
		for i := range out {
			out[i] = plain(r.Index(i).Interface())
		}
		return out
	case reflect.Map:
		out := make(map[string]any, r.Len())
		for _, k := range r.MapKeys() {
			out[sqlText(k.Interface())] = plain(r.MapIndex(k).Interface())
		}
		return out
	}
	return v
}

// sqlText is a value in a table.
func sqlText(v any) string {
	switch v = plain(v); v.(type) {
	case nil:
		return ""
	case []any, map[string]any:
		if b, err := json.Marshal(v); err == nil {
			return string(b)
		}
	}
	return fmt.Sprint(v)
}
