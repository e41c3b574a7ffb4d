package index

import (
	"context"
	"database/sql"
	"errors"

	"github.com/holdfast/holdfast/pkg/journal"
)

// pruneRows is how many records are taken out in one transaction.
const pruneRows = 5000

// prune takes out the records that have expired in the journal. Strings that nothing refers to any more go when
// a fifth of all that was there has gone.
func (x *Index) prune(ctx context.Context, db *sql.DB) error {
	first, err := x.oldest()
	if err != nil || first <= x.pruned {
		return err
	}
	for {
		n, err := pruneSome(ctx, db, first)
		x.gone += n
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
	}
	x.pruned = first
	var left int64
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM rec").Scan(&left); err != nil {
		return err
	}
	if x.gone <= left/4 {
		return nil
	}
	x.gone = 0
	x.in.forget() // numbers of strings that go may not be given again
	return dropStrings(ctx, db)
}

// oldest is the first record that has not expired.
func (x *Index) oldest() (uint64, error) {
	if x.o.Bounds != nil {
		first, _ := x.o.Bounds()
		return first, nil
	}
	return journal.Oldest(x.dir)
}

func pruneSome(ctx context.Context, db *sql.DB, first uint64) (n int64, err error) {
	var low sql.NullInt64
	if err := db.QueryRowContext(ctx, "SELECT min(seq) FROM rec").Scan(&low); err != nil || !low.Valid || uint64(low.Int64) >= first {
		return 0, err
	}
	end := min(int64(first), low.Int64+pruneRows)
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM by_path WHERE (path, seq) IN
		(SELECT path, seq FROM rec WHERE seq < ?1 AND path IS NOT NULL UNION ALL SELECT path_to, seq FROM rec WHERE seq < ?1 AND path_to IS NOT NULL)`, end)
	if err == nil {
		var res sql.Result
		if res, err = tx.ExecContext(ctx, "DELETE FROM rec WHERE seq < ?", end); err == nil {
			n, err = res.RowsAffected()
		}
	}
	if err == nil {
		_, err = tx.ExecContext(ctx, "DELETE FROM above WHERE exec < 0 AND exec > ?", -end)
	}
	if err == nil {
		_, err = tx.ExecContext(ctx, "DELETE FROM spans WHERE block < ?", end/spanRecords)
	}
	if err == nil {
		return n, tx.Commit()
	}
	return 0, errors.Join(err, tx.Rollback())
}

func dropStrings(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM paths WHERE id NOT IN (SELECT path FROM by_path);
		DELETE FROM pieces WHERE rowid NOT IN (SELECT id FROM paths);
		DELETE FROM above WHERE exec > 0 AND exec NOT IN (SELECT exec FROM rec WHERE exec IS NOT NULL);
		DELETE FROM bases WHERE id NOT IN (SELECT base FROM paths WHERE base IS NOT NULL);
		DELETE FROM lines WHERE id NOT IN (SELECT line FROM rec WHERE line IS NOT NULL);
		DELETE FROM commands WHERE rowid NOT IN (SELECT id FROM lines);
		DELETE FROM names WHERE id NOT IN (SELECT host FROM rec WHERE host IS NOT NULL UNION SELECT host_id FROM rec WHERE host_id IS NOT NULL
			UNION SELECT boot FROM rec WHERE boot IS NOT NULL UNION SELECT kind FROM rec WHERE kind IS NOT NULL UNION SELECT op FROM rec WHERE op IS NOT NULL
			UNION SELECT rule FROM rec WHERE rule IS NOT NULL UNION SELECT verdict FROM rec WHERE verdict IS NOT NULL UNION SELECT user FROM rec WHERE user IS NOT NULL
			UNION SELECT session FROM rec WHERE session IS NOT NULL UNION SELECT source FROM rec WHERE source IS NOT NULL UNION SELECT exec FROM rec WHERE exec IS NOT NULL
			UNION SELECT exe FROM rec WHERE exe IS NOT NULL UNION SELECT base FROM rec WHERE base IS NOT NULL UNION SELECT found FROM rec WHERE found IS NOT NULL
			UNION SELECT ticket FROM rec WHERE ticket IS NOT NULL UNION SELECT ancestor FROM above)`)
	if err == nil {
		return tx.Commit()
	}
	return errors.Join(err, tx.Rollback())
}
