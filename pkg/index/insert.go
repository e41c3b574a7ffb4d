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
	columns       = 25
	rowsPerInsert = 50
	namesCached   = 100_000
)

// dict numbers strings, each once.
type dict struct {
	table   string
	columns int
	known   map[string]int64
	want    []string // not known yet, each once
	next    int64    // highest number in use, 0 if not looked up
}

// need notes a string that a record refers to, and reports whether its number is not known.
func (d *dict) need(s string) bool {
	if s == "" {
		return false
	}
	_, ok := d.known[s]
	if !ok {
		d.known[s] = 0
		d.want = append(d.want, s)
	}
	return !ok
}

// id returns the number of s after resolve, nil for "".
func (d *dict) id(s string) any {
	if s == "" {
		return nil
	}
	return d.known[s]
}

func (d *dict) begin() {
	if d.known == nil || len(d.known) > namesCached {
		d.known = map[string]int64{}
	}
	d.want = d.want[:0]
}

func (d *dict) forget() { d.known, d.next = nil, 0 }

// resolve numbers what is wanted: first what the table has, then the rest anew. more gives the
// columns of a new one behind its text.
func (d *dict) resolve(ctx context.Context, tx *sql.Tx, more func(s string) []any) error {
	if len(d.want) == 0 {
		return nil
	}
	if err := d.find(ctx, tx); err != nil {
		return err
	}
	if d.next == 0 {
		if err := tx.QueryRowContext(ctx, "SELECT coalesce(max(id), 0) FROM "+d.table).Scan(&d.next); err != nil {
			return err
		}
	}
	put := rows{tx: tx, into: "INSERT OR ROLLBACK INTO " + d.table + " VALUES ", columns: d.columns}
	for _, s := range d.want {
		if d.known[s] != 0 {
			continue
		}
		d.next++
		d.known[s] = d.next
		put.args = append(append(put.args, d.next, s), more(s)...)
		if err := put.full(ctx); err != nil {
			return err
		}
	}
	return put.flush(ctx)
}

func (d *dict) find(ctx context.Context, tx *sql.Tx) error {
	get, err := tx.PrepareContext(ctx, "SELECT id, s FROM "+d.table+" WHERE s IN (?"+strings.Repeat(",?", rowsPerInsert-1)+")")
	if err != nil {
		return err
	}
	args := make([]any, rowsPerInsert)
	for from := 0; from < len(d.want); from += rowsPerInsert {
		for i := range args {
			args[i] = d.want[min(from+i, len(d.want)-1)]
		}
		if err := d.take(get.QueryContext(ctx, args...)); err != nil {
			return err
		}
	}
	return get.Close()
}

func (d *dict) take(found *sql.Rows, err error) error {
	if err != nil {
		return err
	}
	for found.Next() {
		var id int64
		var s string
		if err := found.Scan(&id, &s); err != nil {
			return errors.Join(err, found.Close())
		}
		d.known[s] = id
	}
	return errors.Join(found.Err(), found.Close())
}

// inserter writes one batch. Numbers learned in a transaction that fails are not
// there afterwards: forget drops them.
type inserter struct {
	names, paths, bases, lines dict
	digests                    map[string]string // of the command lines of this batch
	texts                      map[string]string // the command lines by their digests
}

func newInserter() *inserter {
	return &inserter{names: dict{table: "names", columns: 2}, paths: dict{table: "paths", columns: 3},
		bases: dict{table: "bases", columns: 2}, lines: dict{table: "lines", columns: 2}}
}

func (in *inserter) forget() {
	for _, d := range in.dicts() {
		d.forget()
	}
}

func (in *inserter) dicts() []*dict { return []*dict{&in.names, &in.paths, &in.bases, &in.lines} }

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
	for _, d := range in.dicts() {
		d.begin()
	}
	in.digests, in.texts = map[string]string{}, map[string]string{}
	all := make([]*event.Record, len(batch))
	for i := range batch {
		r, err := journal.Decode(batch[i].Bytes)
		if err != nil { // signed, but not by a writer that we understand: it is in the journal all the same
			unread++
			continue
		}
		all[i] = r
		in.strings(r)
	}
	if err := in.resolve(ctx, tx); err != nil {
		return 0, err
	}
	// A conflict means that the file is not what we made. To roll all back at once spares SQLite
	// keeping each page as it was before the statement.
	recs := rows{tx: tx, into: "INSERT OR ROLLBACK INTO rec VALUES ", columns: columns}
	paths := rows{tx: tx, into: "INSERT OR ROLLBACK INTO by_path VALUES ", columns: 2}
	above := pairs{rows: rows{tx: tx, into: "INSERT OR IGNORE INTO above VALUES ", columns: 2}, had: map[[2]int64]bool{}}
	for i, r := range all {
		if r == nil {
			continue
		}
		in.add(&recs, &paths, &batch[i], r)
		above.add(&in.names, r)
		if err := errors.Join(recs.full(ctx), paths.full(ctx), above.full(ctx)); err != nil {
			return 0, err
		}
	}
	if err := errors.Join(recs.flush(ctx), paths.flush(ctx), above.flush(ctx), addSpans(ctx, tx, all)); err != nil {
		return 0, err
	}
	last := &batch[len(batch)-1]
	_, err = tx.ExecContext(ctx, "UPDATE state SET seq = ?, seg = ?, off = ?, leaf = ?", int64(last.Seq), int64(last.Segment), last.Offset, last.Leaf[:])
	return unread, err
}

// resolve numbers all strings of a batch.
func (in *inserter) resolve(ctx context.Context, tx *sql.Tx) error {
	none := func(string) []any { return nil }
	if err := errors.Join(in.names.resolve(ctx, tx, none), in.bases.resolve(ctx, tx, none)); err != nil {
		return err
	}
	pieces := rows{tx: tx, into: "INSERT OR ROLLBACK INTO pieces (rowid, s) VALUES ", columns: 2}
	err := in.paths.resolve(ctx, tx, func(s string) []any {
		pieces.args = append(pieces.args, in.paths.id(s), s)
		return []any{in.bases.id(query.Base(s))}
	})
	if err == nil {
		err = pieces.flush(ctx)
	}
	if err != nil {
		return err
	}
	texts := rows{tx: tx, into: "INSERT OR ROLLBACK INTO commands (rowid, s) VALUES ", columns: 2}
	err = in.lines.resolve(ctx, tx, func(digest string) []any {
		texts.args = append(texts.args, in.lines.id(digest), in.texts[digest])
		return nil
	})
	if err != nil {
		return err
	}
	return texts.flush(ctx)
}

// strings notes the strings of a record that columns refer to.
func (in *inserter) strings(r *event.Record) {
	name := in.names.need
	for _, s := range [...]string{r.Path, r.PathTo} {
		if in.paths.need(s) {
			in.bases.need(query.Base(s))
		}
	}
	for _, s := range [...]string{r.Host, r.HostID, r.Boot, r.Kind, r.Op, r.Rule, r.Verdict, r.Found, r.Detail["ticket"]} {
		name(s)
	}
	if a := r.Actor; a != nil {
		name(a.User)
		name(a.Session)
		name(query.Address(a.SourceIP))
	}
	if p := r.Process; p != nil {
		name(p.ExecID)
		name(p.Exe)
		name(query.Base(p.Exe))
		for i := range p.Ancestors {
			name(p.Ancestors[i].ExecID)
		}
		if s := lineOf(p); in.digests[s] == "" {
			d := lineDigest(s)
			in.lines.need(d)
			in.digests[s], in.texts[d] = d, s
		}
	}
}

// add appends a record's rows.
func (in *inserter) add(recs, paths *rows, e *journal.Entry, r *event.Record) {
	n, a, p := &in.names, r.Actor, r.Process
	if a == nil {
		a = new(event.Actor)
	}
	if p == nil {
		p = new(event.Process)
	}
	path, to := in.paths.id(r.Path), in.paths.id(r.PathTo)
	var meaning any
	if len(r.Meaning) > 0 {
		meaning = strings.Join(r.Meaning, "\n")
	}
	recs.args = append(recs.args, int64(e.Seq), int64(e.Segment), e.Offset, int64(r.Time), int64(max(r.Time, r.TimeEnd)),
		n.id(r.Host), n.id(r.HostID), n.id(r.Boot), n.id(r.Kind), n.id(r.Op), path, to, n.id(r.Rule), n.id(r.Verdict),
		n.id(a.User), n.id(a.Session), n.id(query.Address(a.SourceIP)), int64(a.SourcePort), n.id(p.ExecID), n.id(p.Exe), n.id(query.Base(p.Exe)), n.id(r.Found), n.id(r.Detail["ticket"]), in.lines.id(in.digests[lineOf(p)]), meaning)
	if path != nil {
		paths.args = append(paths.args, path, int64(e.Seq))
	}
	if to != nil && r.PathTo != r.Path {
		paths.args = append(paths.args, to, int64(e.Seq))
	}
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
