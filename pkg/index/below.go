package index

import (
	"context"
	"database/sql"
	"errors"

	"github.com/holdfast/holdfast/pkg/event"
)

// pairs are rows of above, each once in a batch.
type pairs struct {
	rows
	had map[[2]int64]bool
}

// add takes what a record tells of what is above its execution.
func (p *pairs) add(names *dict, r *event.Record) {
	if r.Process == nil {
		return
	}
	exec := -int64(r.Seq)
	if id := r.Process.ExecID; id != "" {
		exec = names.known[id]
	}
	for i := range r.Process.Ancestors {
		id := r.Process.Ancestors[i].ExecID
		if id == "" {
			continue
		}
		if x := [2]int64{names.known[id], exec}; !p.had[x] {
			p.had[x] = true
			p.args = append(p.args, x[0], x[1])
		}
	}
}

// byBelow has the records drive whose execution, or one above it, has that exec id, if they are few.
func (p *plan) byBelow(ctx context.Context, tx *sql.Tx, below string, driven bool) (bool, error) {
	if below == "" {
		return driven, nil
	}
	id, ok, err := lookup(ctx, tx, "names", below)
	if err != nil || !ok {
		p.none = !ok
		return driven, err
	}
	if !driven {
		const inner = `SELECT DISTINCT seq FROM (SELECT r.seq AS seq FROM above a CROSS JOIN rec r INDEXED BY rec_exec ON r.exec = a.exec WHERE a.ancestor = ?1
			UNION ALL SELECT -exec FROM above WHERE ancestor = ?1 AND exec < 0 UNION ALL SELECT seq FROM rec INDEXED BY rec_exec WHERE exec = ?1)`
		var n int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM ("+inner+" LIMIT ?2)", id, p.few+1).Scan(&n); err != nil {
			return driven, err
		}
		if n <= p.few {
			p.inner, p.first = inner+" WHERE seq", []any{id}
			p.envelop()
			return true, nil
		}
	}
	p.conds = append(p.conds, "(+r.exec = ? OR EXISTS (SELECT 1 FROM above WHERE ancestor = ? AND exec = r.exec) OR EXISTS (SELECT 1 FROM above WHERE ancestor = ? AND exec = -r.seq))")
	p.args = append(p.args, id, id, id)
	return driven, nil
}

// lineage holds what above says against what records tell.
type lineage struct {
	tx  *sql.Tx
	had map[[2]string]bool // pairs that were looked at, some
}

// lacks names an ancestor by which a record is not found, "" if there is none.
func (l *lineage) lacks(ctx context.Context, r *event.Record) (string, error) {
	if r.Process == nil {
		return "", nil
	}
	for i := range r.Process.Ancestors {
		up, exec := r.Process.Ancestors[i].ExecID, r.Process.ExecID
		if up == "" || exec != "" && l.had[[2]string{up, exec}] {
			continue
		}
		var one int
		err := l.tx.QueryRowContext(ctx, "SELECT 1 FROM above WHERE ancestor = (SELECT id FROM names WHERE s = ?1) AND exec = CASE ?2 WHEN '' THEN -?3 ELSE (SELECT id FROM names WHERE s = ?2) END",
			up, exec, int64(r.Seq)).Scan(&one)
		if errors.Is(err, sql.ErrNoRows) {
			return "it is not found below " + up, nil
		}
		if err != nil {
			return "", err
		}
		if len(l.had) > namesCached {
			clear(l.had)
		}
		l.had[[2]string{up, exec}] = true
	}
	return "", nil
}
