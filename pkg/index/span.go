package index

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/holdfast/holdfast/pkg/event"
)

// span is the times of the records of a block: the first of time, the last of till.
type span struct {
	block     uint64
	low, high event.Time
}

// timesOf are the two times of a record that questions are about.
func timesOf(r *event.Record) (time, till event.Time) { return r.Time, max(r.Time, r.TimeEnd) }

// addSpans widens the spans by a batch; records that could not be decoded are nil.
func addSpans(ctx context.Context, tx *sql.Tx, batch []*event.Record) error {
	var all []span // by block: a batch is in order
	for _, r := range batch {
		if r == nil {
			continue
		}
		time, till := timesOf(r)
		if till-time > longTime {
			continue
		}
		b := r.Seq / spanRecords
		if n := len(all); n > 0 && all[n-1].block == b {
			all[n-1].low, all[n-1].high = min(all[n-1].low, time), max(all[n-1].high, till)
			continue
		}
		all = append(all, span{b, time, till})
	}
	for _, s := range all {
		if _, err := tx.ExecContext(ctx, `INSERT INTO spans VALUES (?, ?, ?)
			ON CONFLICT (block) DO UPDATE SET low = min(low, excluded.low), high = max(high, excluded.high)`, int64(s.block), int64(s.low), int64(s.high)); err != nil {
			return err
		}
	}
	return nil
}

// spanned has the spans by their blocks.
type spanned map[uint64]span

func readSpans(ctx context.Context, tx *sql.Tx) (all spanned, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT block, low, high FROM spans")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	all = spanned{}
	for rows.Next() {
		var s span
		if err := rows.Scan(&s.block, &s.low, &s.high); err != nil {
			return nil, err
		}
		all[s.block] = s
	}
	return all, rows.Err()
}

// lacks says what keeps a record from being found by its time, "" if it is found.
func (a spanned) lacks(r *event.Record) string {
	time, till := timesOf(r)
	if s, ok := a[r.Seq/spanRecords]; till-time <= longTime && (!ok || time < s.low || till > s.high) {
		return "it is not in the times of its block"
	}
	return ""
}

// stretch is sequences from lo to hi, both included.
type stretch struct{ lo, hi uint64 }

// stretches returns where the sequences lie of all records with till >= since and time < until, and of some others: ascending, apart,
// and not many. 0 is no bound. Times grow with the sequence but for a clock that was set, a record of a long time
// and such: those cost a further stretch or a wider one, and are never left out.
func stretches(ctx context.Context, tx *sql.Tx, since, until event.Time) ([]stretch, error) {
	const most, mostLong = 32, 2000
	from, to := int64(math.MinInt64), int64(math.MaxInt64)
	if since != 0 {
		from = int64(since)
	}
	if until != 0 {
		to = int64(until)
	}
	var out []stretch
	var first, last, n sql.NullInt64
	err := tx.QueryRowContext(ctx, "SELECT min(block), max(block), count(*) FROM spans WHERE high >= ? AND low < ?", from, to).Scan(&first, &last, &n)
	if err != nil {
		return nil, err
	}
	if whole := last.Int64 - first.Int64 + 1; n.Int64 == whole && n.Int64 > 0 { // as it is while the clock only goes forward
		out = append(out, stretch{uint64(first.Int64) * spanRecords, uint64(last.Int64+1)*spanRecords - 1})
	} else if n.Int64 > 0 {
		err = twoNumbers(ctx, tx, func(lo, hi uint64) { out = append(out, stretch{lo, hi}) },
			"SELECT block * ?, (block + 1) * ? - 1 FROM spans WHERE high >= ? AND low < ? ORDER BY block", spanRecords, spanRecords, from, to)
	}
	if err != nil {
		return nil, err
	}
	long := fmt.Sprintf("FROM rec INDEXED BY rec_long WHERE till - time > %d AND till >= ? AND time < ?", longTime)
	longs := 0
	err = twoNumbers(ctx, tx, func(lo, hi uint64) {
		longs++
		out = append(out, stretch{lo, hi})
	}, "SELECT seq, seq "+long+" LIMIT ?", from, to, mostLong)
	if err == nil && longs == mostLong {
		err = twoNumbers(ctx, tx, func(lo, hi uint64) { out = append(out, stretch{lo, hi}) }, "SELECT min(seq), max(seq) "+long, from, to)
	}
	return join(out, most), err
}

func twoNumbers(ctx context.Context, tx *sql.Tx, fn func(a, b uint64), q string, args ...any) (err error) {
	rows, err := tx.QueryContext(ctx, q, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var a, b uint64
		if err := rows.Scan(&a, &b); err != nil {
			return err
		}
		fn(a, b)
	}
	return rows.Err()
}

// join sorts stretches and makes one of those that touch or lie near each other, as near as leaves most.
func join(in []stretch, most int) []stretch {
	slices.SortFunc(in, func(a, b stretch) int { return cmp.Compare(a.lo, b.lo) })
	for gap := uint64(1); ; gap *= 2 {
		out := in[:0]
		for _, s := range in {
			if n := len(out); n > 0 && s.lo <= out[n-1].hi+gap {
				out[n-1].hi = max(out[n-1].hi, s.hi)
			} else {
				out = append(out, s)
			}
		}
		if in = out; len(in) <= most {
			return in
		}
	}
}
