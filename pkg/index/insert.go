package index

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/query"
)

// columns is the number of columns of rec; rowsPerInsert rows go into one
// statement, which saves most of the cost of calling SQLite.
const (
	columns       = 20
	rowsPerInsert = 50
	namesCached   = 100_000
)

// dict numbers strings, each once.
type dict struct {
	table string
	known map[string]int64
	get   *sql.Stmt
	put   *sql.Stmt
}

func (d *dict) prepare(ctx context.Context, tx *sql.Tx) (err error) {
	if d.known == nil || len(d.known) > namesCached {
		d.known = map[string]int64{}
	}
	if d.get, err = tx.PrepareContext(ctx, "SELECT id FROM "+d.table+" WHERE s = ?"); err != nil {
		return err
	}
	d.put, err = tx.PrepareContext(ctx, "INSERT INTO "+d.table+" (s) VALUES (?) RETURNING id")
	return err
}

// id returns the number of s, nil for "".
func (d *dict) id(ctx context.Context, s string) (any, error) {
	if s == "" {
		return nil, nil
	}
	if id, ok := d.known[s]; ok {
		return id, nil
	}
	var id int64
	err := d.get.QueryRowContext(ctx, s).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		err = d.put.QueryRowContext(ctx, s).Scan(&id)
	}
	if err != nil {
		return nil, err
	}
	d.known[s] = id
	return id, nil
}

// inserter writes one batch. Numbers learned in a transaction that fails are not
// there afterwards: forget drops them.
type inserter struct {
	names, paths dict
}

func newInserter() *inserter {
	return &inserter{names: dict{table: "names"}, paths: dict{table: "paths"}}
}

func (in *inserter) forget() { in.names.known, in.paths.known = nil, nil }

func (in *inserter) insert(ctx context.Context, db *sql.DB, batch []journal.Entry) (unread int, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	if unread, err = in.fill(ctx, tx, batch); err == nil {
		err = tx.Commit()
	}
	if err != nil {
		in.forget()
		if rerr := tx.Rollback(); rerr != nil && !errors.Is(rerr, sql.ErrTxDone) {
			err = errors.Join(err, rerr)
		}
	}
	return unread, err
}

func (in *inserter) fill(ctx context.Context, tx *sql.Tx, batch []journal.Entry) (unread int, err error) {
	if err := in.names.prepare(ctx, tx); err != nil {
		return 0, err
	}
	if err := in.paths.prepare(ctx, tx); err != nil {
		return 0, err
	}
	recs := rows{tx: tx, into: "INSERT INTO rec VALUES ", columns: columns}
	paths := rows{tx: tx, into: "INSERT OR IGNORE INTO by_path VALUES ", columns: 2}
	for i := range batch {
		e := &batch[i]
		r, err := journal.Decode(e.Bytes)
		if err != nil { // signed, but not by a writer that we understand: it is in the journal all the same
			unread++
			continue
		}
		if err := in.add(ctx, &recs, &paths, e, r); err != nil {
			return 0, err
		}
	}
	if err := errors.Join(recs.flush(ctx), paths.flush(ctx)); err != nil {
		return 0, err
	}
	last := &batch[len(batch)-1]
	_, err = tx.ExecContext(ctx, "UPDATE state SET seq = ?, seg = ?, off = ?, leaf = ?", int64(last.Seq), int64(last.Segment), last.Offset, last.Leaf[:])
	return unread, err
}

func (in *inserter) add(ctx context.Context, recs, paths *rows, e *journal.Entry, r *event.Record) error {
	var errs []error
	id := func(d *dict, s string) any {
		v, err := d.id(ctx, s)
		if err != nil {
			errs = append(errs, err)
		}
		return v
	}
	n, a, p := &in.names, r.Actor, r.Process
	if a == nil {
		a = new(event.Actor)
	}
	if p == nil {
		p = new(event.Process)
	}
	path, to := id(&in.paths, r.Path), id(&in.paths, r.PathTo)
	recs.args = append(recs.args, int64(e.Seq), int64(e.Segment), e.Offset, int64(r.Time),
		id(n, r.Host), id(n, r.HostID), id(n, r.Boot), id(n, r.Kind), id(n, r.Op), path, to, id(n, r.Rule), id(n, r.Verdict),
		id(n, a.User), id(n, a.Session), id(n, query.Address(a.SourceIP)), int64(a.SourcePort), id(n, p.ExecID), id(n, p.Exe), id(n, query.Base(p.Exe)))
	for _, v := range []any{path, to} {
		if v != nil {
			paths.args = append(paths.args, v, int64(e.Seq))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return errors.Join(recs.full(ctx), paths.full(ctx))
}

// rows collects the values of one statement with many rows.
type rows struct {
	tx      *sql.Tx
	into    string
	columns int
	args    []any
	many    *sql.Stmt // for rowsPerInsert rows
}

func (w *rows) text(n int) string {
	one := "(?" + strings.Repeat(",?", w.columns-1) + ")"
	return w.into + one + strings.Repeat(","+one, n-1)
}

func (w *rows) full(ctx context.Context) (err error) {
	for n := rowsPerInsert * w.columns; len(w.args) >= n && err == nil; {
		if w.many == nil {
			if w.many, err = w.tx.PrepareContext(ctx, w.text(rowsPerInsert)); err != nil {
				return err
			}
		}
		_, err = w.many.ExecContext(ctx, w.args[:n]...)
		w.args = append(w.args[:0], w.args[n:]...)
	}
	return err
}

func (w *rows) flush(ctx context.Context) error {
	if err := w.full(ctx); err != nil || len(w.args) == 0 {
		return err
	}
	_, err := w.tx.ExecContext(ctx, w.text(len(w.args)/w.columns), w.args...)
	w.args = w.args[:0]
	return err
}
