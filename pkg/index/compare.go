package index

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/query"
)

// What can differ between the journal and the index.
const (
	Missing = "missing" // the journal has it, the index does not
	Extra   = "extra"   // the index has it, the journal does not
	Altered = "altered" // the index says something else than the record
)

// Difference is a record whose rows are not as they should be. Seq 0 is the file itself.
type Difference struct {
	What   string `json:"what"`
	Seq    uint64 `json:"seq,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// Comparison counts what Compare found.
type Comparison struct {
	Records uint64 `json:"records"` // read from the journal, up to where the index is
	Rows    uint64 `json:"rows"`
	Matched uint64 `json:"matched"`
	Missing uint64 `json:"missing"`
	Extra   uint64 `json:"extra"`
	Altered uint64 `json:"altered"`
	Behind  uint64 `json:"behind"`            // records not indexed yet
	Expired uint64 `json:"expired,omitempty"` // rows of records that have expired: nothing is left to hold them against
}

// Clean reports whether the index says what the journal does.
func (c Comparison) Clean() bool { return c.Missing == 0 && c.Extra == 0 && c.Altered == 0 }

// Compare holds each row of the index in path against the journal in dir, and has SQLite check the file.
// It works beside the writer. Records that the journal cannot give are left out: journal.Verify names them.
func Compare(ctx context.Context, path, dir string, report func(Difference)) (c Comparison, err error) {
	fail := func(err error) (Comparison, error) { return c, fmt.Errorf("compare index %s: %w", path, err) }
	if err := plain(path); err != nil {
		return fail(err)
	}
	db, err := sql.Open("sqlite", dsn(path, "ro"))
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	w := &comparing{c: &c, report: report}
	err = w.run(ctx, db, dir)
	if err != nil && unusable(err) {
		w.differs(Difference{What: Altered, Detail: err.Error()})
		err = nil
	}
	if err != nil {
		return fail(err)
	}
	return c, nil
}

type comparing struct {
	c      *Comparison
	report func(Difference)
}

func (w *comparing) differs(d Difference) {
	switch d.What {
	case Missing:
		w.c.Missing++
	case Extra:
		w.c.Extra++
	default:
		w.c.Altered++
	}
	w.report(d)
}

// row is one record as the index has it.
type row struct {
	seq, seg uint64
	off      int64
	time     int64
	till     int64
	port     sql.NullInt64
	text     [18]sql.NullString // as differ names them
}

const rowQuery = `SELECT r.seq, r.seg, r.off, r.time, r.till, r.port, h.s, hi.s, b.s, k.s, o.s, p.s, pt.s, ru.s, v.s, u.s, se.s, so.s, ex.s, e.s, ba.s, fo.s, ti.s, cm.c0
	FROM rec r LEFT JOIN names h ON h.id = r.host LEFT JOIN names hi ON hi.id = r.host_id LEFT JOIN names b ON b.id = r.boot LEFT JOIN names k ON k.id = r.kind
	LEFT JOIN names o ON o.id = r.op LEFT JOIN paths p ON p.id = r.path LEFT JOIN paths pt ON pt.id = r.path_to LEFT JOIN names ru ON ru.id = r.rule
	LEFT JOIN names v ON v.id = r.verdict LEFT JOIN names u ON u.id = r.user LEFT JOIN names se ON se.id = r.session LEFT JOIN names so ON so.id = r.source
	LEFT JOIN names ex ON ex.id = r.exec LEFT JOIN names e ON e.id = r.exe LEFT JOIN names ba ON ba.id = r.base LEFT JOIN names fo ON fo.id = r.found LEFT JOIN names ti ON ti.id = r.ticket
	LEFT JOIN commands_content cm ON cm.id = r.line WHERE r.seq >= ? AND r.seq <= ? ORDER BY r.seq`

func (w *comparing) run(ctx context.Context, db *sql.DB, dir string) (err error) {
	if err := w.integrity(ctx, db); err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}) // one state of the index, whatever its writer does
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tx.Rollback()) }()
	st, err := readState(ctx, tx)
	if err != nil {
		return err
	}
	first, err := journal.Oldest(dir)
	if err != nil {
		return err
	}
	newest, err := journal.Newest(dir)
	if err != nil {
		return err
	}
	w.c.Behind = newest - min(newest, st.seq)
	var beyond uint64
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM rec WHERE seq > ?", int64(min(newest, st.seq))).Scan(&beyond); err != nil {
		return err
	}
	if beyond > 0 {
		w.c.Extra += beyond - 1
		w.differs(Difference{What: Extra, Seq: st.seq + 1, Detail: fmt.Sprintf("%d rows behind the last record", beyond)})
	}
	if err := w.below(ctx, tx, first); err != nil {
		return err
	}
	if err := w.bases(ctx, tx); err != nil {
		return err
	}
	return w.merge(ctx, tx, dir, first, min(newest, st.seq))
}

// below looks at the rows below the first record that has not expired. A running daemon takes them out, so that there are few or none. What
// such a record said is beyond proof; that there can be no such row is not: no record has a number below 1, and none stands in a
// segment that begins behind it or has not expired.
func (w *comparing) below(ctx context.Context, tx *sql.Tx, first uint64) (err error) {
	rows, err := tx.QueryContext(ctx, "SELECT seq FROM rec WHERE seq < ?1 AND (seq < 1 OR seg > seq OR seg >= ?1 OR seg < 1) UNION SELECT seq FROM by_path WHERE seq < 1 ORDER BY 1 LIMIT 1000", int64(first))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	forged := uint64(0)
	for rows.Next() {
		var seq int64
		if err := rows.Scan(&seq); err != nil {
			return err
		}
		forged++
		w.differs(Difference{What: Extra, Seq: uint64(max(seq, 0)), Detail: fmt.Sprintf("a row of record %d, which cannot stand where it says", seq)})
	}
	if err := rows.Err(); err != nil {
		return err
	}
	var all uint64
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM rec WHERE seq < ?", int64(first)).Scan(&all); err != nil {
		return err
	}
	w.c.Rows += all
	w.c.Expired = all - min(all, forged)
	return nil
}

// bases holds the last elements of all paths, and the texts by which they are found, against the paths.
func (w *comparing) bases(ctx context.Context, tx *sql.Tx) (err error) {
	rows, err := tx.QueryContext(ctx, "SELECT p.s, coalesce(b.s, ''), coalesce(c.c0, '') FROM paths p LEFT JOIN bases b ON b.id = p.base LEFT JOIN pieces_content c ON c.id = p.id")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var path, base, text string
		if err := rows.Scan(&path, &base, &text); err != nil {
			return err
		}
		if text != path {
			w.differs(Difference{What: Altered, Detail: fmt.Sprintf("path %q is found as %q", path, text)})
		}
		if base != query.Base(path) {
			w.differs(Difference{What: Altered, Detail: fmt.Sprintf("the last element of path %q is %q", path, base)})
		}
	}
	return rows.Err()
}

// integrity has SQLite compare its tables with their indexes.
func (w *comparing) integrity(ctx context.Context, db *sql.DB) error {
	rows, err := db.QueryContext(ctx, "PRAGMA integrity_check(20)")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return err
		}
		if s != "ok" {
			w.differs(Difference{What: Altered, Detail: s})
		}
	}
	return rows.Err()
}

// merge walks journal, rows and paths together.
func (w *comparing) merge(ctx context.Context, tx *sql.Tx, dir string, first, last uint64) (err error) {
	rows, err := tx.QueryContext(ctx, rowQuery, int64(first), int64(last))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	paths, err := tx.QueryContext(ctx, "SELECT b.seq, p.s FROM by_path b LEFT JOIN paths p ON p.id = b.path WHERE b.seq >= ? AND b.seq <= ? ORDER BY b.seq", int64(first), int64(last))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, paths.Close()) }()
	named := &pathRows{rows: paths}
	spans, err := readSpans(ctx, tx)
	if err != nil {
		return err
	}
	above := &lineage{tx: tx, had: map[[2]string]bool{}}
	r, err := journal.OpenReader(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := r.Seek(first); err != nil {
		return err
	}
	have, ok, err := nextRow(rows)
	for err == nil {
		var e journal.Entry
		e, err = r.Next(ctx)
		if errors.Is(err, journal.ErrCorrupt) {
			err = nil
			continue
		}
		if errors.Is(err, io.EOF) || err == nil && e.Seq > last {
			break
		}
		if err != nil {
			return err
		}
		rec, derr := journal.Decode(e.Bytes)
		if derr != nil {
			continue
		}
		w.c.Records++
		for ok && have.seq < e.Seq && err == nil {
			w.c.Rows++
			w.differs(Difference{What: Extra, Seq: have.seq})
			have, ok, err = nextRow(rows)
		}
		if err != nil {
			return err
		}
		if !ok || have.seq != e.Seq {
			w.differs(Difference{What: Missing, Seq: e.Seq})
			continue
		}
		w.c.Rows++
		got, perr := named.of(e.Seq)
		if perr != nil {
			return perr
		}
		what := cmp.Or(differ(have, rowOf(&e, rec), got, pathsOf(rec)), spans.lacks(rec))
		if what == "" {
			if what, err = above.lacks(ctx, rec); err != nil {
				return err
			}
		}
		if what != "" {
			w.differs(Difference{What: Altered, Seq: e.Seq, Detail: what})
		} else {
			w.c.Matched++
		}
		have, ok, err = nextRow(rows)
	}
	for ok && (err == nil || errors.Is(err, io.EOF)) {
		w.c.Rows++
		w.differs(Difference{What: Extra, Seq: have.seq})
		have, ok, err = nextRow(rows)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return err
}

func nextRow(rows *sql.Rows) (x row, ok bool, err error) {
	if !rows.Next() {
		return row{}, false, rows.Err()
	}
	dest := []any{&x.seq, &x.seg, &x.off, &x.time, &x.till, &x.port}
	for i := range x.text {
		dest = append(dest, &x.text[i])
	}
	if err := rows.Scan(dest...); err != nil {
		return row{}, false, err
	}
	return x, true, nil
}

// rowOf is the row that a record must have.
func rowOf(e *journal.Entry, r *event.Record) row {
	a, p := r.Actor, r.Process
	if a == nil {
		a = new(event.Actor)
	}
	if p == nil {
		p = new(event.Process)
	}
	x := row{seq: e.Seq, seg: e.Segment, off: e.Offset, time: int64(r.Time), till: int64(max(r.Time, r.TimeEnd)), port: sql.NullInt64{Int64: int64(a.SourcePort), Valid: true}}
	for i, s := range []string{r.Host, r.HostID, r.Boot, r.Kind, r.Op, r.Path, r.PathTo, r.Rule, r.Verdict, a.User, a.Session, query.Address(a.SourceIP), p.ExecID, p.Exe, query.Base(p.Exe), r.Found, r.Detail["ticket"], lineOf(p)} {
		x.text[i] = sql.NullString{String: s, Valid: s != ""}
	}
	return x
}

func pathsOf(r *event.Record) (out []string) {
	for _, s := range []string{r.Path, r.PathTo} {
		if s != "" && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return out
}

// differ names the first column that is not as it must be.
func differ(have, want row, paths, wantPaths []string) string {
	names := [...]string{"host", "host_id", "boot", "kind", "op", "path", "path_to", "rule", "verdict", "actor.user", "actor.session", "actor.source_ip", "process.exec_id", "process.exe", "name of process.exe", "found", "detail.ticket", "process.argv"}
	switch {
	case have.seg != want.seg || have.off != want.off:
		return fmt.Sprintf("it points to byte %d of segment %d, the record is at byte %d of segment %d", have.off, have.seg, want.off, want.seg)
	case have.time != want.time || have.till != want.till:
		return "time is another"
	case have.port != want.port:
		return "actor.source_port is another"
	}
	for i := range names {
		if have.text[i] != want.text[i] {
			return fmt.Sprintf("%s is %q, the record says %q", names[i], have.text[i].String, want.text[i].String)
		}
	}
	if !reflect.DeepEqual(paths, wantPaths) {
		return fmt.Sprintf("it is found under %q, the record is of %q", paths, wantPaths)
	}
	return ""
}

// pathRows reads by_path in order of records.
type pathRows struct {
	rows *sql.Rows
	seq  uint64
	s    sql.NullString
	held bool // seq and s are the row under the cursor
}

// of returns the paths of record seq; calls must be in ascending order.
func (p *pathRows) of(seq uint64) (out []string, err error) {
	for p.held || p.rows.Next() {
		if !p.held {
			if err := p.rows.Scan(&p.seq, &p.s); err != nil {
				return nil, err
			}
		}
		if p.held = p.seq > seq; p.held {
			break
		}
		if p.seq == seq {
			out = append(out, p.s.String)
		}
	}
	slices.Sort(out)
	return out, p.rows.Err()
}
