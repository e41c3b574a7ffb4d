package index

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"math"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
)

// Bounds on what is looked up before the question itself is asked.
const (
	fewTimes = 50_000 // records in a range of time that are worth finding the first of
	fewPaths = 50_000 // records under a pattern that are worth collecting
)

// plan is a filter as SQL: what SQLite decides, and for patterns over many paths a
// set that is looked into here. One condition drives, by the index on its column;
// the others have a + in front, which keeps SQLite from choosing them.
type plan struct {
	none  bool // nothing can match
	from  string
	first []any // arguments of from
	conds []string
	args  []any          // arguments of conds
	among map[int64]bool // path or path_to must be one of these; nil: any
	lo    uint64         // bounds on the sequence, inclusive
	hi    uint64
	few   int // records that a pattern may select to drive
}

// fewOf weighs two ways to answer with the newest limit of n records below a
// folder, of total: to collect and sort all n, or to look at each record from the
// newest on, which finds one in total/n.
func fewOf(limit int, total uint64) int {
	if limit == 0 {
		return fewPaths
	}
	return min(fewPaths, int(math.Sqrt(float64(limit)*float64(total)/2))+1)
}

// eq is a condition column = string, in the order of how few records they are likely to leave.
type eq struct{ column, value string }

func makePlan(ctx context.Context, tx *sql.Tx, f *query.Filter, indexed uint64) (*plan, error) {
	p := &plan{from: "rec r", lo: f.AfterSeq + 1, hi: indexed, few: fewOf(f.Limit, indexed)}
	if f.AfterSeq >= indexed {
		p.none = true
		return p, nil
	}
	driven, err := p.byPath(ctx, tx, f)
	if err != nil || p.none {
		return p, err
	}
	ip, port := query.SplitSource(f.Source)
	exe, base := f.Exe, ""
	if exe != "" && !strings.Contains(exe, "/") {
		exe, base = "", exe // without a slash it means the last element, which is all there is of a name without one
	}
	for _, e := range []eq{{"exec", f.Exec}, {"session", f.Session}, {"source", ip}, {"user", f.User}, {"exe", exe}, {"base", base},
		{"found", f.Found}, {"rule", f.Rule}, {"op", f.Op}, {"verdict", f.Verdict}, {"kind", f.Kind}} {
		if e.value == "" {
			continue
		}
		id, ok, err := lookup(ctx, tx, "names", e.value)
		if err != nil || !ok {
			p.none = !ok
			return p, err
		}
		plus := "+"
		if !driven {
			plus, driven = "", true
		}
		p.conds, p.args = append(p.conds, plus+"r."+e.column+" = ?"), append(p.args, id)
	}
	if f.Meaning != "" {
		has := "r.meaning IS NOT NULL AND instr(r.meaning, ?) > 0"
		if !driven {
			p.from, driven = "rec r INDEXED BY rec_meaning", true
		}
		p.conds, p.args = append(p.conds, has), append(p.args, f.Meaning)
	}
	if port != 0 {
		p.conds, p.args = append(p.conds, "+r.port = ?"), append(p.args, int64(port))
	}
	if f.Host != "" {
		p.conds = append(p.conds, "(r.host = (SELECT id FROM names WHERE s = ?) OR r.host_id IN (SELECT id FROM names WHERE s = ? OR s >= ? AND s < ?))")
		first := f.Host + event.Again
		p.args = append(p.args, f.Host, f.Host, first, first[:len(first)-1]+string(event.Again[0]+1)) // all that begin with first
	}
	return p, p.byTime(ctx, tx, f.Since, f.Until)
}

func lookup(ctx context.Context, tx *sql.Tx, table, s string) (id int64, ok bool, err error) {
	err = tx.QueryRowContext(ctx, "SELECT id FROM "+table+" WHERE s = ?", s).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, false, nil
	}
	return id, err == nil, err
}

// byPath turns a path pattern into numbers of paths; driven says that they drive.
func (p *plan) byPath(ctx context.Context, tx *sql.Tx, f *query.Filter) (driven bool, err error) {
	if f.Path == "" {
		return false, nil
	}
	kind, prefix := query.ParsePath(f.Path)
	if kind == query.PathExact {
		id, ok, err := lookup(ctx, tx, "paths", f.Path)
		if err != nil || !ok {
			p.none = !ok
			return false, err
		}
		p.from = "by_path b CROSS JOIN rec r ON r.seq = b.seq"
		p.conds, p.args = append(p.conds, "b.path = ?"), append(p.args, id)
		return true, nil
	}
	if kind == query.PathPrefix {
		return p.byPrefix(ctx, tx, prefix)
	}
	ids, err := matching(ctx, tx, f.Path, prefix)
	if err != nil || len(ids) == 0 {
		p.none = len(ids) == 0
		return false, err
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return false, err
	}
	var n int
	err = tx.QueryRowContext(ctx, "SELECT count(*) FROM (SELECT 1 FROM by_path WHERE path IN (SELECT value FROM json_each(?)) LIMIT ?)", string(list), p.few+1).Scan(&n)
	if err != nil {
		return false, err
	}
	if n <= p.few {
		p.from = "(SELECT DISTINCT seq FROM by_path WHERE path IN (SELECT value FROM json_each(?))) b CROSS JOIN rec r ON r.seq = b.seq"
		p.first = []any{string(list)}
		return true, nil
	}
	p.among = make(map[int64]bool, len(ids))
	for _, id := range ids {
		p.among[id] = true
	}
	return false, nil
}

// byPrefix collects the records below a folder if they are few, else has each record looked at.
func (p *plan) byPrefix(ctx context.Context, tx *sql.Tx, prefix string) (driven bool, err error) {
	const below = "FROM paths p CROSS JOIN by_path b ON b.path = p.id WHERE p.s >= ? AND p.s < ?"
	end := behind(prefix)
	var n int
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM (SELECT 1 "+below+" LIMIT ?)", prefix, end, p.few+1).Scan(&n); err != nil {
		return false, err
	}
	switch {
	case n == 0:
		p.none = true
	case n <= p.few:
		p.from = "(SELECT DISTINCT b.seq " + below + ") b CROSS JOIN rec r ON r.seq = b.seq"
		p.first = []any{prefix, end}
		return true, nil
	default:
		p.conds = append(p.conds, "EXISTS (SELECT 1 FROM paths p WHERE p.id IN (r.path, r.path_to) AND p.s >= ? AND p.s < ?)")
		p.args = append(p.args, prefix, end)
	}
	return false, nil
}

// behind is above all texts that begin with prefix: no text of a record has a byte above 0xf4 in it.
func behind(prefix string) string { return prefix + "\xff" }

// matching returns the numbers of the paths that match, of those that begin as the pattern does.
func matching(ctx context.Context, tx *sql.Tx, pattern, prefix string) (ids []int64, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT id, s FROM paths WHERE s >= ? AND s < ?", prefix, behind(prefix))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id int64
		var s string
		if err := rows.Scan(&id, &s); err != nil {
			return nil, err
		}
		if query.MatchPath(pattern, s) {
			ids = append(ids, id)
		}
	}
	return ids, rows.Err()
}

// byTime adds the times and, where it is cheap to know, the first and the last
// sequence that they can have: times grow with the sequence, but not strictly.
func (p *plan) byTime(ctx context.Context, tx *sql.Tx, since, until event.Time) error {
	if since != 0 {
		end := int64(1<<63 - 1)
		if until != 0 {
			end = int64(until)
		}
		var n int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM (SELECT 1 FROM rec INDEXED BY rec_time WHERE till >= ? AND time < ? LIMIT ?)", int64(since), end, fewTimes+1).Scan(&n); err != nil {
			return err
		}
		if n == 0 {
			p.none = true
			return nil
		}
		if n <= fewTimes {
			var lo, hi uint64
			if err := tx.QueryRowContext(ctx, "SELECT min(seq), max(seq) FROM rec INDEXED BY rec_time WHERE till >= ? AND time < ?", int64(since), end).Scan(&lo, &hi); err != nil {
				return err
			}
			p.lo, p.hi = max(p.lo, lo), min(p.hi, hi)
		}
		p.conds, p.args = append(p.conds, "+r.till >= ?"), append(p.args, int64(since))
	}
	if until != 0 {
		p.conds, p.args = append(p.conds, "+r.time < ?"), append(p.args, int64(until))
	}
	return nil
}

// place is where the record of an answer is in the journal.
type place struct {
	seq, seg uint64
	off      int64
}

// page returns up to n places with a sequence from lo to hi, from the low or, with down, from the high end.
func (p *plan) page(ctx context.Context, tx *sql.Tx, lo, hi uint64, n int, down bool) (out []place, err error) {
	lo, hi = max(lo, p.lo), min(hi, p.hi)
	if p.none || lo > hi || n == 0 {
		return nil, nil
	}
	order, seq := "ASC", "r.seq"
	if down {
		order = "DESC"
	}
	if strings.HasPrefix(p.from, "by_path") {
		seq = "b.seq"
	}
	conds := append([]string{seq + " BETWEEN ? AND ?"}, p.conds...)
	args := append(append(append([]any{}, p.first...), int64(lo), int64(hi)), p.args...)
	q := "SELECT r.seq, r.seg, r.off, r.path, r.path_to FROM " + p.from + " WHERE " + strings.Join(conds, " AND ") + " ORDER BY " + seq + " " + order
	if p.among == nil {
		q += " LIMIT ?"
		args = append(args, n)
	}
	rows, err := tx.QueryContext(ctx, q, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for len(out) < n && rows.Next() {
		var x place
		var path, to sql.NullInt64
		if err := rows.Scan(&x.seq, &x.seg, &x.off, &path, &to); err != nil {
			return nil, err
		}
		if p.among == nil || path.Valid && p.among[path.Int64] || to.Valid && p.among[to.Int64] {
			out = append(out, x)
		}
	}
	return out, rows.Err()
}
