package clickhouse

import (
	"context"
	"database/sql"
	"errors"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/query"
)

var _ query.Store = (*DB)(nil)

// Records implements query.Store. Records are decoded from their bytes. The columns
// only find them, and whoever changed columns alone hides a record or is passed
// over: Compare tells. Rows that are there twice count once.
func (db *DB) Records(ctx context.Context, f query.Filter, fn func(*event.Record) error) error {
	w := where(&f)
	if f.Limit <= 0 {
		return db.walk(ctx, &f, w, "ORDER BY host_id, seq, boot LIMIT 1 BY host_id, seq, boot", fn)
	}
	hosts, err := db.hosts(ctx, f.Host)
	if err != nil {
		return err
	}
	for _, h := range hosts {
		if err := db.newest(ctx, &f, w, h, fn); err != nil {
			return err
		}
	}
	return nil
}

// hosts returns the host ids that there are, of the host called name alone if it is
// not "", in order. It goes from one to the next along the key.
func (db *DB) hosts(ctx context.Context, name string) ([]string, error) {
	var out []string
	for last := ""; ; last = out[len(out)-1] {
		c := conditions{}
		c.host(name)
		if len(out) > 0 {
			c.and("host_id > ?", last)
		}
		var h string
		err := db.conn.QueryRow(ctx, "SELECT toString(host_id) FROM "+db.target.Database+".records"+c.clause()+" ORDER BY host_id LIMIT 1", c.args...).Scan(&h)
		if errors.Is(err, sql.ErrNoRows) {
			return out, nil
		}
		if err != nil {
			return nil, db.explain("ask", err)
		}
		out = append(out, h)
	}
}

// newest calls fn with the newest f.Limit records of one host, oldest first. The
// server reads the host's rows from the end and stops when it has enough.
func (db *DB) newest(ctx context.Context, f *query.Filter, w conditions, hostID string, fn func(*event.Record) error) error {
	order := "ORDER BY seq DESC, boot DESC LIMIT 1 BY seq, boot"
	w.and("host_id = ?", hostID)
	if w.exact {
		order += " LIMIT ?"
		w.args = append(w.args, f.Limit)
	}
	var found []*event.Record
	err := db.walk(ctx, f, w, order, func(r *event.Record) error {
		if found = append(found, r); len(found) == f.Limit {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	for i := len(found) - 1; i >= 0; i-- {
		if err := fn(found[i]); err != nil {
			return err
		}
	}
	return nil
}

// errEnough ends a walk early.
var errEnough = errors.New("enough")

// walk calls fn with the records of the rows that w selects and f means.
func (db *DB) walk(ctx context.Context, f *query.Filter, w conditions, order string, fn func(*event.Record) error) error {
	// Leaving early must end the query on the server too.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rows, err := db.conn.Query(ctx, "SELECT rec FROM "+db.target.Database+".records"+w.clause()+" "+order, w.args...)
	if err != nil {
		return db.explain("ask", err)
	}
	defer func() {
		cancel()
		_ = rows.Close() // its error is rows.Err's, or that of our cancelling
	}()
	for rows.Next() {
		var rec string
		if err := rows.Scan(&rec); err != nil {
			return db.explain("ask", err)
		}
		r, err := journal.Decode([]byte(rec))
		if err != nil {
			return db.explain("ask", err)
		}
		if !f.Match(r) {
			continue
		}
		if err := fn(r); err != nil {
			return err
		}
	}
	return db.explain("ask", rows.Err())
}

// Lag implements query.Store. What is newest over several hosts is the record with
// the latest time.
func (db *DB) Lag(ctx context.Context) (query.Lag, error) {
	table := db.target.Database + ".records"
	var (
		at  time.Time
		seq uint64
	)
	if err := db.conn.QueryRow(ctx, "SELECT max(time) FROM "+table).Scan(&at); err != nil {
		return query.Lag{}, db.explain("ask", err)
	}
	if err := db.conn.QueryRow(ctx, "SELECT max(seq) FROM "+table+" WHERE time = (SELECT max(time) FROM "+table+")").Scan(&seq); err != nil {
		return query.Lag{}, db.explain("ask", err)
	}
	if seq == 0 {
		return query.Lag{Note: "no records in ClickHouse yet"}, nil
	}
	return query.Lag{Newest: seq, Time: event.TimeOf(at),
		Note: "what the hosts have not shipped yet is not in this answer: holdfast status on a host tells its lag"}, nil
}

// conditions is a WHERE clause in the making.
type conditions struct {
	terms []string
	args  []any
	exact bool // selects what the filter means, not more
}

func (c *conditions) and(term string, args ...any) {
	c.terms = append(c.terms[:len(c.terms):len(c.terms)], term)
	c.args = append(c.args[:len(c.args):len(c.args)], args...)
}

func (c *conditions) is(column, value string) {
	if value != "" {
		c.and(column+" = ?", value)
	}
}

func (c *conditions) host(name string) {
	if name != "" {
		c.and("(host = ? OR host_id = ?)", name, name)
	}
}

func (c *conditions) clause() string {
	if len(c.terms) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.terms, " AND ")
}

// where writes a filter as conditions on the columns. They never select less than
// the filter means; exact says that they do not select more either.
func where(f *query.Filter) conditions {
	c := conditions{exact: true}
	// Numbers, not times: the driver writes times of a query in whole seconds.
	if f.Since != 0 {
		c.and("time >= fromUnixTimestamp64Nano(toInt64(?), 'UTC')", int64(f.Since))
	}
	if f.Until != 0 {
		c.and("time < fromUnixTimestamp64Nano(toInt64(?), 'UTC')", int64(f.Until))
	}
	if f.AfterSeq != 0 {
		c.and("seq > ?", f.AfterSeq)
	}
	c.is("op", f.Op)
	c.is("kind", f.Kind)
	c.is("verdict", f.Verdict)
	c.is("rule", f.Rule)
	c.is("actor_user", f.User)
	c.is("actor_session", f.Session)
	c.is("process_exec_id", f.Exec)
	c.host(f.Host)
	switch {
	case f.Exe == "":
	case strings.Contains(f.Exe, "/"):
		c.is("process_exe", f.Exe)
	default:
		c.and("(process_exe = ? OR endsWith(process_exe, ?))", f.Exe, "/"+f.Exe)
	}
	c.source(f.Source)
	c.path(f.Path)
	return c
}

func (c *conditions) source(s string) {
	if s == "" {
		return
	}
	ip, port := query.SplitSource(s)
	if port != 0 {
		c.and("actor_source_port = ?", port)
	}
	a, err := netip.ParseAddr(ip)
	if err != nil || a.Zone() != "" {
		c.exact = false // the column has no text that is no address, and no zones
	}
	c.and("actor_source_ip = toIPv6(?)", sourceIP(ip).String())
	if a.IsUnspecified() {
		c.exact = false // none is :: too
	}
}

// path repeats what MatchPath means: an empty path matches nothing.
func (c *conditions) path(pattern string) {
	if pattern == "" {
		return
	}
	either := func(term string, arg string) {
		c.and("("+strings.ReplaceAll(term, "PATH", "path")+" OR "+strings.ReplaceAll(term, "PATH", "path_to")+")", arg, arg)
	}
	kind, prefix := query.ParsePath(pattern)
	switch kind {
	case query.PathExact:
		either("PATH = ?", pattern)
	case query.PathPrefix:
		either("startsWith(PATH, ?)", prefix)
	default:
		if prefix != "" { // this is what the index can use
			either("startsWith(PATH, ?)", prefix)
		}
		if !utf8.ValidString(pattern) {
			c.exact = false
			return
		}
		either("(PATH != '' AND match(PATH, ?))", query.GlobRegexp(pattern))
	}
}
