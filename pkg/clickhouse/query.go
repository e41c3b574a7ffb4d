package clickhouse

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/query"
)

var _ query.Store = (*DB)(nil)

// Pages of rows that one question of Records asks for: small at first, for those
// who want one record, then larger.
const (
	firstPage = 64
	lastPage  = 4096
)

// Records implements query.Store. Records are decoded from their bytes. The columns
// only find them, and whoever changed columns alone hides a record or is passed
// over: Compare tells. Rows that are there twice count once.
//
// The server is asked page by page, and no question is open while fn runs: fn may
// take its time, ask itself, or end the walk, and nothing has to be cancelled.
func (db *DB) Records(ctx context.Context, f query.Filter, fn func(*event.Record) error) error {
	hosts, err := db.hosts(ctx, f.Host)
	if err != nil || len(hosts) == 0 {
		return err
	}
	w := where(&f)
	if f.Host != "" || len(hosts) == 1 { // else these are all
		w.among("host_id", hosts)
	}
	switch {
	case len(hosts) > 1:
		return db.byTime(ctx, &f, w, hosts, fn)
	case f.Limit <= 0:
		return db.ascend(ctx, &f, w, fn)
	}
	found, err := db.newest(ctx, &f, w)
	if err != nil {
		return err
	}
	return backward(found, fn)
}

func backward(found []*event.Record, fn func(*event.Record) error) error {
	for _, r := range slices.Backward(found) {
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

// hand calls fn with each record, until that fails or ctx is done.
func (db *DB) hand(ctx context.Context, records []*event.Record, fn func(*event.Record) error) error {
	for _, r := range records {
		if err := fn(r); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return db.explain("ask", err)
		}
	}
	return nil
}

// ascend calls fn with everything that f selects.
func (db *DB) ascend(ctx context.Context, f *query.Filter, w conditions, fn func(*event.Record) error) error {
	for from, size := (*key)(nil), firstPage; ; size = min(size*4, lastPage) {
		c := w
		if from != nil {
			// The first term is for the server's index, the second is what is meant.
			c.and("(host_id > ? OR host_id = ? AND seq >= ?)", from.hostID, from.hostID, from.seq)
			c.and("(host_id, seq, boot) > (?, ?, ?)", from.hostID, from.seq, from.boot)
		}
		p, err := db.page(ctx, f, c, "ORDER BY host_id, seq, boot", size)
		if err != nil {
			return err
		}
		if err := db.hand(ctx, p.records, fn); err != nil {
			return err
		}
		if p.rows < size {
			return nil
		}
		from = &p.last
	}
}

// newest returns the newest f.Limit records, newest first, where w selects one host.
func (db *DB) newest(ctx context.Context, f *query.Filter, w conditions) ([]*event.Record, error) {
	var found []*event.Record
	size := min(max(f.Limit, firstPage), lastPage)
	for c := w; ; size = min(size*4, lastPage) {
		p, err := db.page(ctx, f, c, "ORDER BY host_id DESC, seq DESC, boot DESC", size)
		if err != nil {
			return nil, err
		}
		found = append(found, p.records...)
		if len(found) >= f.Limit {
			return found[:f.Limit], nil
		}
		if p.rows < size {
			return found, nil
		}
		c = w
		c.and("seq <= ?", p.last.seq)
		c.and("(seq, boot) < (?, ?)", p.last.seq, p.last.boot)
	}
}

// hosts returns the host ids that there are, in order: all, or those of the hosts
// that have, or ever had, name as their name or id.
func (db *DB) hosts(ctx context.Context, name string) (ids []string, err error) {
	if name == "" {
		err := db.conn.QueryRow(ctx, "SELECT arraySort(groupUniqArray(toString(host_id))) FROM "+db.target.Database+".hosts").Scan(&ids)
		return ids, db.explain("ask", err)
	}
	// The view by the hour has every name that a host had, in a thousandth of the rows.
	err = db.conn.QueryRow(ctx, "SELECT arraySort(groupUniqArray(toString(host_id))) FROM "+db.target.Database+".hourly WHERE host = ? OR host_id = ? OR startsWith(host_id, ?)",
		name, name, name+event.Again).Scan(&ids)
	return ids, db.explain("ask", err)
}

// key is the place of a row in the table's order, and its time.
type key struct {
	hostID string
	seq    uint64
	boot   string
	time   int64 // ns
}

// compare orders keys as questions of several hosts are answered.
func (k key) compare(o key) int {
	return cmp.Or(cmp.Compare(k.time, o.time), strings.Compare(k.hostID, o.hostID), cmp.Compare(k.seq, o.seq), strings.Compare(k.boot, o.boot))
}

// page is one answer: the records that the filter means, of so many rows.
type page struct {
	records []*event.Record
	rows    int
	last    key
}

// page asks for the first size rows in that order that c selects, each record once.
func (db *DB) page(ctx context.Context, f *query.Filter, c conditions, order string, size int) (page, error) {
	return db.rows(ctx, f, "SELECT host_id, seq, boot, toUnixTimestamp64Nano(time), rec FROM "+db.target.Database+".records"+c.clause()+
		" "+order+" LIMIT 1 BY host_id, seq, boot LIMIT "+strconv.Itoa(size), c.args, nil)
}

// rows reads the answer to one question. Where seen is not nil, records whose key is in it are left out, and those of the
// answer are put into it.
func (db *DB) rows(ctx context.Context, f *query.Filter, text string, args []any, seen map[key]bool) (page, error) {
	all, err := db.read(ctx, text, args)
	if err != nil {
		return page{}, err
	}
	return db.decode(f, all, seen)
}

// found is one row of an answer.
type found struct {
	key
	rec string
}

// read asks one question, for keys and bytes.
func (db *DB) read(ctx context.Context, text string, args []any) (all []found, err error) {
	rows, err := db.conn.Query(ctx, text, args...)
	if err != nil {
		return nil, db.explain("ask", err)
	}
	defer func() { _ = rows.Close() }() // its error is rows.Err's
	for rows.Next() {
		var r found
		if err := rows.Scan(&r.hostID, &r.seq, &r.boot, &r.time, &r.rec); err != nil {
			return nil, db.explain("ask", err)
		}
		all = append(all, r)
	}
	return all, db.explain("ask", rows.Err())
}

// decode makes a page of rows.
func (db *DB) decode(f *query.Filter, all []found, seen map[key]bool) (page, error) {
	p := page{rows: len(all)}
	for _, row := range all {
		p.last = row.key
		if seen != nil {
			k := key{hostID: row.hostID, seq: row.seq, boot: row.boot}
			if seen[k] {
				continue
			}
			seen[k] = true
		}
		r, err := journal.Decode([]byte(row.rec))
		if err != nil {
			return p, db.explain("ask", fmt.Errorf("record %s/%s/%d: %w", row.hostID, row.boot, row.seq, err))
		}
		if f.Match(r) {
			p.records = append(p.records, r)
		}
	}
	return p, nil
}

// Lag implements query.Store. Over several hosts it tells of the one that was heard
// of last.
func (db *DB) Lag(ctx context.Context) (query.Lag, error) {
	table := db.target.Database + ".records"
	var (
		at  time.Time
		seq uint64
	)
	err := db.conn.QueryRow(ctx, "SELECT seq, time FROM "+table+" WHERE host_id IN (SELECT host_id FROM "+table+
		" WHERE time = (SELECT max(time) FROM "+table+") LIMIT 1) ORDER BY host_id DESC, seq DESC LIMIT 1").Scan(&seq, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return query.Lag{Note: "no records in ClickHouse yet"}, nil
	}
	if err != nil {
		return query.Lag{}, db.explain("ask", err)
	}
	return query.Lag{Newest: seq, Time: event.TimeOf(at),
		Note: "what the hosts have not shipped yet is not in this answer: holdfast status on a host tells its lag"}, nil
}

// conditions is a WHERE clause in the making.
type conditions struct {
	terms []string
	args  []any
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

func (c *conditions) among(column string, values []string) {
	args := make([]any, len(values))
	for i, v := range values {
		args[i] = v
	}
	c.and(column+" IN ("+strings.TrimSuffix(strings.Repeat("?, ", len(values)), ", ")+")", args...)
}

func (c *conditions) clause() string {
	if len(c.terms) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.terms, " AND ")
}

// where writes a filter but for its host as conditions on the columns. They never select less than
// the filter means; what they select more (an address that is no address, a zone)
// Match leaves out.
func where(f *query.Filter) conditions {
	var c conditions
	// Numbers, not times: the driver writes times of a query in whole seconds.
	if f.Since != 0 {
		c.and("greatest(time, time_end) >= fromUnixTimestamp64Nano(toInt64(?), 'UTC')", int64(f.Since))
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
	c.is("found", f.Found)
	c.is("ticket", f.Ticket)
	c.is("actor_user", f.User)
	c.is("actor_session", f.Session)
	c.is("process_exec_id", f.Exec)
	switch {
	case f.Exe == "":
	case strings.Contains(f.Exe, "/"):
		c.is("process_exe", f.Exe)
	default:
		c.and("(process_exe = ? OR endsWith(process_exe, ?))", f.Exe, "/"+f.Exe)
	}
	c.source(f.Source)
	c.path(f.Path)
	if f.Command != "" {
		c.and("arrayStringConcat(process_argv, ' ') LIKE ?", contains(f.Command))
	}
	if f.Below != "" {
		c.and("(process_exec_id = ? OR has(process_ancestors_exec_id, ?))", f.Below, f.Below)
	}
	if f.Meaning != "" {
		c.and("arrayStringConcat(meaning, '\n') LIKE ?", contains(f.Meaning))
	}
	return c
}

// contains is the pattern of LIKE for every text that s is in. Where s begins or ends within a character, that is left
// out: the server's index over text knows whole ones.
func contains(s string) string {
	s = strings.TrimFunc(s, func(r rune) bool { return r == utf8.RuneError })
	return "%" + strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(s) + "%"
}

func (c *conditions) source(s string) {
	if s == "" {
		return
	}
	ip, port := query.SplitSource(s)
	if port != 0 {
		c.and("actor_source_port = ?", port)
	}
	c.and("actor_source_ip = toIPv6(?)", sourceIP(ip).String())
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
	// One index has both names of a record in it. It is looked at for one path too: its largest pieces tell soonest that a path is nowhere.
	if text := query.Literal(pattern); len(text) >= 4 {
		c.and("concat(path, '\\n', path_to) LIKE ?", contains(text))
	}
	switch kind {
	case query.PathExact: // as another index has it
		c.and("has(array(path, path_to), ?)", pattern)
	case query.PathPrefix:
		either("startsWith(PATH, ?)", prefix)
	default:
		if prefix != "" { // this is what the index can use
			either("startsWith(PATH, ?)", prefix)
		}
		if utf8.ValidString(pattern) { // else no regular expression of RE2
			either("(PATH != '' AND match(PATH, ?))", query.GlobRegexp(pattern))
		}
	}
}
