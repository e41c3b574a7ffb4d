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
	fewPaths = 50_000 // records under a pattern that are worth collecting
	fewNames = 1000   // paths or command lines that match and are worth collecting
	fewTexts = 500    // paths that are sooner looked at than found by their text
)

// plan is a filter as SQL: what SQLite decides, and for patterns a set that is looked into here.
// One condition drives, by the index on its column; the others have a + in front, which keeps SQLite from choosing them.
type plan struct {
	none    bool // nothing can match
	from    string
	inner   string // a select of the sequences that drive, which from then calls b
	first   []any  // arguments of inner
	conds   []string
	args    []any          // arguments of conds
	paths   map[int64]bool // path or path_to must be one of these; nil: any
	lines   map[int64]bool // line must be one of these; nil: any
	pattern string         // path or path_to must match it, where that is looked at for each record
	where   []stretch      // the sequences in question, ascending
	few     int            // records that a pattern may select to drive
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
	p := &plan{from: "rec r", few: fewOf(f.Limit, indexed)}
	if f.AfterSeq >= indexed {
		p.none = true
		return p, nil
	}
	if err := p.byTime(ctx, tx, f, indexed); err != nil || p.none {
		return p, err
	}
	driven, err := p.byPath(ctx, tx, f)
	if err == nil && !p.none {
		driven, err = p.byCommand(ctx, tx, f.Command, driven)
	}
	if err == nil && !p.none {
		driven, err = p.byBelow(ctx, tx, f.Below, driven)
	}
	if err != nil || p.none {
		return p, err
	}
	ip, port := query.SplitSource(f.Source)
	exe, base := f.Exe, ""
	if exe != "" && !strings.Contains(exe, "/") {
		exe, base = "", exe // without a slash it means the last element, which is all there is of a name without one
	}
	for _, e := range []eq{{"ticket", f.Ticket}, {"exec", f.Exec}, {"session", f.Session}, {"source", ip}, {"user", f.User}, {"exe", exe}, {"base", base},
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
		has := "r.meaning IS NOT NULL AND instr(CAST(r.meaning AS BLOB), ?) > 0" // as bytes: the text may begin within a character
		if !driven {
			p.from, driven = "rec r INDEXED BY rec_meaning", true
		}
		p.conds, p.args = append(p.conds, has), append(p.args, []byte(f.Meaning))
	}
	if port != 0 {
		p.conds, p.args = append(p.conds, "+r.port = ?"), append(p.args, int64(port))
	}
	if f.Host != "" {
		p.conds = append(p.conds, "(r.host = (SELECT id FROM names WHERE s = ?) OR r.host_id IN (SELECT id FROM names WHERE s = ? OR s >= ? AND s < ?))")
		first := f.Host + event.Again
		p.args = append(p.args, f.Host, f.Host, first, first[:len(first)-1]+string(event.Again[0]+1)) // all that begin with first
	}
	return p, nil
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
	ids, more, err := matching(ctx, tx, f.Path, prefix)
	switch {
	case err != nil:
		return false, err
	case more:
		p.pattern = f.Path
		return false, nil
	}
	driven, p.paths, err = p.collect(ctx, tx, ids, "by_path WHERE path")
	return driven, err
}

// collect has the records drive that an index finds under these numbers, if they are few; else it gives the
// numbers to look into. column is a table and the column of it, with seq beside.
func (p *plan) collect(ctx context.Context, tx *sql.Tx, ids []int64, column string) (driven bool, among map[int64]bool, err error) {
	if len(ids) == 0 {
		p.none = true
		return false, nil, nil
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return false, nil, err
	}
	of := " FROM " + column + " IN (SELECT value FROM json_each(?))"
	var n int
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM (SELECT 1"+of+" LIMIT ?)", string(list), p.few+1).Scan(&n); err != nil {
		return false, nil, err
	}
	if n <= p.few {
		p.inner, p.first = "SELECT DISTINCT seq"+of+" AND seq", []any{string(list)}
		p.envelop()
		return true, nil, nil
	}
	among = make(map[int64]bool, len(ids))
	for _, id := range ids {
		among[id] = true
	}
	return false, among, nil
}

// envelop makes one of all stretches, for what is collected once.
func (p *plan) envelop() {
	p.where = []stretch{{p.where[0].lo, p.where[len(p.where)-1].hi}}
}

// byCommand turns words into numbers of command lines. Where these are many, those of each record are looked at.
func (p *plan) byCommand(ctx context.Context, tx *sql.Tx, words string, driven bool) (bool, error) {
	if words == "" {
		return driven, nil
	}
	ids, more, err := linesWith(ctx, tx, words, fewNames)
	switch {
	case err != nil:
		return false, err
	case more:
		p.conds = append(p.conds, "(instr(CAST((SELECT c0 FROM commands_content WHERE id = r.line) AS BLOB), ?) > 0 OR +r.line = (SELECT id FROM lines WHERE s = ?))")
		p.args = append(p.args, []byte(words), lineDigest(opaque))
	case driven || len(ids) == 0:
		p.none = len(ids) == 0
		p.lines = make(map[int64]bool, len(ids))
		for _, id := range ids {
			p.lines[id] = true
		}
	default:
		driven, p.lines, err = p.collect(ctx, tx, ids, "rec INDEXED BY rec_line WHERE line")
	}
	return driven, err
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
		p.inner, p.first = "SELECT DISTINCT b.seq "+below+" AND b.seq", []any{prefix, end}
		p.envelop()
		return true, nil
	default:
		p.conds = append(p.conds, "EXISTS (SELECT 1 FROM paths p WHERE p.id IN (r.path, r.path_to) AND p.s >= ? AND p.s < ?)")
		p.args = append(p.args, prefix, end)
	}
	return false, nil
}

// behind is above all texts that begin with prefix: no text of a record has a byte above 0xf4 in it.
func behind(prefix string) string { return prefix + "\xff" }

// matching returns the numbers of up to fewNames paths that match, of those that begin as the pattern does, hold its longest
// text and have a last element that matches its last; more says that there are more.
func matching(ctx context.Context, tx *sql.Tx, pattern, prefix string) (ids []int64, more bool, err error) {
	q, args := " FROM paths WHERE s >= ? AND s < ?", []any{prefix, behind(prefix)}
	if last := query.LastElement(pattern); last != "" {
		_, begin := query.ParsePath(last)
		if !strings.ContainsAny(last, "*?[") {
			begin = last
		}
		bases, more, err := texts(ctx, tx, last, " FROM bases WHERE s >= ? AND s < ?", begin, behind(begin))
		if err != nil || len(bases) == 0 {
			return nil, false, err
		}
		if !more {
			list, err := json.Marshal(bases)
			if err != nil {
				return nil, false, err
			}
			q = strings.Replace(q, " WHERE", " INDEXED BY paths_base WHERE base IN (SELECT value FROM json_each(?)) AND", 1)
			return texts(ctx, tx, pattern, q, append([]any{string(list)}, args...)...)
		}
	}
	if text := query.Literal(pattern); len(text) > 0 && text != prefix {
		q += " AND instr(CAST(s AS BLOB), ?) > 0"
		args = append(args, []byte(text))
		var n int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM (SELECT 1 FROM paths WHERE s >= ? AND s < ? LIMIT ?)", prefix, behind(prefix), fewTexts).Scan(&n); err != nil {
			return nil, false, err
		}
		if ask := trigrams(text); ask != "" && n == fewTexts { // else they are soon looked at
			return texts(ctx, tx, pattern, strings.Replace(q, " FROM paths", " FROM (SELECT rowid AS n FROM pieces WHERE pieces MATCH ?) CROSS JOIN paths ON id = n", 1), append([]any{ask}, args...)...)
		}
	}
	return texts(ctx, tx, pattern, q, args...)
}

// texts returns the numbers of up to fewNames strings that match a pattern.
func texts(ctx context.Context, tx *sql.Tx, pattern, from string, args ...any) (ids []int64, more bool, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT id, s"+from, args...)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for len(ids) <= fewNames && rows.Next() {
		var id int64
		var s string
		if err := rows.Scan(&id, &s); err != nil {
			return nil, false, err
		}
		if query.MatchPath(pattern, s) {
			ids = append(ids, id)
		}
	}
	return ids, len(ids) > fewNames, rows.Err()
}

// byTime adds the times, and bounds the sequences by them.
func (p *plan) byTime(ctx context.Context, tx *sql.Tx, f *query.Filter, indexed uint64) error {
	p.where = []stretch{{f.AfterSeq + 1, indexed}}
	if f.Since == 0 && f.Until == 0 {
		return nil
	}
	all, err := stretches(ctx, tx, f.Since, f.Until)
	if err != nil {
		return err
	}
	p.where = p.where[:0]
	for _, s := range all {
		if s = (stretch{max(s.lo, f.AfterSeq+1), min(s.hi, indexed)}); s.lo <= s.hi {
			p.where = append(p.where, s)
		}
	}
	p.none = len(p.where) == 0
	if f.Since != 0 {
		p.conds, p.args = append(p.conds, "+r.till >= ?"), append(p.args, int64(f.Since))
	}
	if f.Until != 0 {
		p.conds, p.args = append(p.conds, "+r.time < ?"), append(p.args, int64(f.Until))
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
	if p.none || n == 0 {
		return nil, nil
	}
	get, err := tx.PrepareContext(ctx, p.text(down))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, get.Close()) }()
	for i := range p.where {
		if down {
			i = len(p.where) - 1 - i
		}
		lo, hi := max(lo, p.where[i].lo), min(hi, p.where[i].hi)
		if lo > hi || len(out) == n {
			continue
		}
		if out, err = p.take(out, n)(get.QueryContext(ctx, p.bind(lo, hi, n-len(out))...)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// text is the question as SQL; bind gives its arguments.
func (p *plan) text(down bool) string {
	order, seq, from, paths := "", "r.seq", p.from, "NULL, NULL"
	if down {
		order = " DESC"
	}
	if p.inner != "" { // limited before the records are looked up, if it can be
		from = "(" + p.inner + " BETWEEN ? AND ? ORDER BY 1" + order + " LIMIT ?) b CROSS JOIN rec r ON r.seq = b.seq"
	} else if strings.HasPrefix(from, "by_path") {
		seq = "b.seq"
	}
	if p.pattern != "" {
		paths = "(SELECT s FROM paths WHERE id = r.path), (SELECT s FROM paths WHERE id = r.path_to)"
	}
	return "SELECT r.seq, r.seg, r.off, r.path, r.path_to, r.line, " + paths + " FROM " + from +
		" WHERE " + strings.Join(append(p.conds[:len(p.conds):len(p.conds)], seq+" BETWEEN ? AND ?"), " AND ") + " ORDER BY " + seq + order + " LIMIT ?"
}

// bind gives the arguments of text: sequences from lo to hi, and how many rows are wanted.
func (p *plan) bind(lo, hi uint64, n int) (args []any) {
	limit := n
	if p.looked() {
		limit = -1
	}
	if p.inner != "" {
		of := limit
		if len(p.conds) > 0 {
			of = -1
		}
		args = append(append(args, p.first...), int64(lo), int64(hi), of)
	}
	return append(append(args, p.args...), int64(lo), int64(hi), limit)
}

// looked reports whether rows are left out here, so that SQLite may not limit them.
func (p *plan) looked() bool { return p.paths != nil || p.lines != nil || p.pattern != "" }

// take appends the places of rows that are looked for, up to n in all.
func (p *plan) take(out []place, n int) func(*sql.Rows, error) ([]place, error) {
	return func(rows *sql.Rows, err error) ([]place, error) {
		if err != nil {
			return nil, err
		}
		for len(out) < n && rows.Next() {
			var x place
			var path, to, line sql.NullInt64
			var s, sTo sql.NullString
			if err := rows.Scan(&x.seq, &x.seg, &x.off, &path, &to, &line, &s, &sTo); err != nil {
				return nil, errors.Join(err, rows.Close())
			}
			switch {
			case p.paths != nil && !(path.Valid && p.paths[path.Int64]) && !(to.Valid && p.paths[to.Int64]):
			case p.lines != nil && !(line.Valid && p.lines[line.Int64]):
			case p.pattern != "" && !query.MatchPath(p.pattern, s.String) && !query.MatchPath(p.pattern, sTo.String):
			default:
				out = append(out, x)
			}
		}
		return out, errors.Join(rows.Err(), rows.Close())
	}
}
