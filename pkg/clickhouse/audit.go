package clickhouse

import (
	"context"
	"fmt"
	"slices"

	"github.com/holdfast/holdfast/pkg/journal"
)

// Logs returns the ids of all hosts of which the server has rows or checkpoints, in order, with their names; name "" stands for all.
func (db *DB) Logs(ctx context.Context, name string) (ids []string, names map[string]string, err error) {
	const op = "ask for hosts of"
	d := db.target.Database
	rows, err := db.conn.Query(ctx, "SELECT host_id, max(host) FROM (SELECT toString(host_id) AS host_id, toString(argMaxMerge(host)) AS host FROM "+d+".hosts GROUP BY host_id"+
		" UNION ALL SELECT DISTINCT toString(host_id), '' FROM "+d+".roots UNION ALL SELECT DISTINCT toString(host_id), '' FROM "+d+".checkpoints"+
		" UNION ALL SELECT DISTINCT toString(host_id), '' FROM "+d+".records) GROUP BY host_id ORDER BY host_id")
	if err != nil {
		return nil, nil, db.explain(op, err)
	}
	defer func() { _ = rows.Close() }() // its error is rows.Err's
	names = map[string]string{}
	for rows.Next() {
		var id, host string
		if err := rows.Scan(&id, &host); err != nil {
			return nil, nil, db.explain(op, err)
		}
		ids, names[id] = append(ids, id), host
	}
	if err := rows.Err(); err != nil || name == "" {
		return ids, names, db.explain(op, err)
	}
	own, err := db.hosts(ctx, name)
	return slices.DeleteFunc(ids, func(id string) bool { return !slices.Contains(own, id) && id != name }), names, err
}

// Audited counts what AuditHost found in a host's rows, beside what its log's keys say of them.
type Audited struct {
	HostID string `json:"host_id"`
	Host   string `json:"host,omitempty"`
	journal.AuditSummary
	Rows       uint64 `json:"rows"`
	Altered    uint64 `json:"altered"`
	Extra      uint64 `json:"extra"`
	Duplicated uint64 `json:"duplicated"`
}

// OK reports whether the rows are the log's, as far as it is signed.
func (a Audited) OK() bool { return a.Problems == 0 && a.Altered+a.Extra+a.Duplicated == 0 }

// AuditHost holds the rows of a host against what the keys of its log signed, and each column against the record's bytes. It has nothing of the
// host but what is here and in a. differ is told of rows, a's own report of the log. The pin is what to keep for the next time, nil if not all is well.
func (db *DB) AuditHost(ctx context.Context, hostID string, a *journal.Audit, differ func(Difference)) (Audited, *journal.Pin, error) {
	cs := columns()
	from := a.Next() - 1 // the last that was proven before; no log has a record 0: whoever put one there is told of
	rows, err := db.conn.Query(ctx, "SELECT "+names(cs)+" FROM "+db.target.Database+".records WHERE host_id = ? AND seq >= ? ORDER BY host_id, seq, boot", hostID, from)
	if err != nil {
		return Audited{}, nil, db.explain("audit", err)
	}
	defer func() { _ = rows.Close() }() // its error is rows.Err's
	c := newComparer(rows, cs, hostID, differ)
	x := auditor{comparer: c, a: a}
	if err := x.run(); err != nil {
		return Audited{}, nil, db.explain("audit", err)
	}
	sum, pin := a.End()
	out := Audited{HostID: hostID, AuditSummary: sum, Rows: c.count.Rows, Altered: c.count.Altered, Extra: c.count.Extra, Duplicated: c.count.Duplicated}
	if !out.OK() {
		pin = nil
	}
	return out, pin, nil
}

type auditor struct {
	*comparer
	a *journal.Audit
}

func (x *auditor) run() error {
	if err := x.advance(); err != nil {
		return err
	}
	if last := x.a.Next() - 1; last > 0 && (!x.more || x.seq() != last) {
		x.a.Lost()
	}
	for x.more {
		seq := x.seq()
		if seq < x.a.Next() && seq > 0 {
			x.count.Rows-- // it was proven before
			if err := x.advance(); err != nil {
				return err
			}
			continue
		}
		if seq == 0 { // no log has a record 0
			x.count.Extra++
			x.differ(Extra, x.boot(), 0, "no log has such a number")
			if err := x.advance(); err != nil {
				return err
			}
			continue
		}
		if !x.a.Broken() && seq > x.a.Next() {
			x.a.Gone(seq - 1)
		}
		if err := x.row(seq); err != nil {
			return err
		}
	}
	return nil
}

// row judges all rows of one number, and gives the log the bytes of the one whose columns tell what it does.
func (x *auditor) row(seq uint64) error {
	var rec []byte // of the first good one
	var bad []byte // of the first other
	for n := 0; x.more && x.seq() == seq; n++ {
		b := []byte(*x.dest[x.recAt].(*string))
		wrong := ""
		if row, err := NewRow(b); err != nil {
			wrong = "the bytes are no record"
		} else if cols := x.wrongColumns(&views([]Row{row})[0]); len(cols) > 0 {
			wrong = fmt.Sprintf("columns %v do not tell what the record does", cols)
		}
		switch {
		case wrong != "":
			x.count.Altered++
			x.differ(Altered, x.boot(), seq, wrong)
			if bad == nil {
				bad = b
			}
		case rec == nil:
			rec = b
		case Leaf(rec) == Leaf(b):
			x.count.Duplicated++
			x.differ(Duplicated, x.boot(), seq, "")
		default:
			x.count.Extra++
			x.differ(Extra, x.boot(), seq, "another record has this number too; one of them was never signed")
		}
		if err := x.advance(); err != nil {
			return err
		}
	}
	if rec == nil {
		rec = bad
	}
	x.a.Record(rec)
	return nil
}
