package clickhouse

import (
	"context"
	"slices"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
)

// byTime answers over several hosts, by time, host and sequence. The table is in the
// order of the hosts' logs, so that the server has to sort: it is asked for one
// window of time after the other, and sorts what lies in one. Windows become wider
// while they are nearly empty, and as wide as a page where they are not.
func (db *DB) byTime(ctx context.Context, f *query.Filter, w conditions, fn func(*event.Record) error) error {
	var lo, hi int64
	var n uint64
	err := db.conn.QueryRow(ctx, "SELECT toUnixTimestamp64Nano(min(time)), toUnixTimestamp64Nano(max(time)), count() FROM "+
		db.target.Database+".records"+w.clause(), w.args...).Scan(&lo, &hi, &n)
	if err != nil || n == 0 {
		return db.explain("ask", err)
	}
	x := walk{db: db, f: f, w: w, lo: lo, hi: hi, size: lastPage}
	if f.Limit <= 0 {
		return x.up(ctx, n, fn)
	}
	x.size = min(max(f.Limit, firstPage), lastPage)
	found, err := x.down(ctx, n)
	if err != nil {
		return err
	}
	return backward(found, fn)
}

// walk goes over the rows that w selects, whose times are from lo to hi.
type walk struct {
	db     *DB
	f      *query.Filter
	w      conditions
	lo, hi int64 // ns, inclusive
	size   int   // rows of a page
}

// width is a window that would hold about a page if the n rows lay evenly.
func (x *walk) width(n uint64) int64 {
	return max(1, int64(float64(x.hi-x.lo+1)*float64(x.size)/float64(n)/2))
}

// within is w for times from a to b, inclusive.
func (x *walk) within(a, b int64) conditions {
	c := x.w
	c.and("time >= fromUnixTimestamp64Nano(toInt64(?), 'UTC') AND time <= fromUnixTimestamp64Nano(toInt64(?), 'UTC')", a, b)
	return c
}

// next is the width of the window behind one of that width that gave so many rows.
func (x *walk) next(width int64, rows int) int64 {
	if rows*4 < x.size {
		return min(width, (x.hi-x.lo)/4+1) * 4 // never wider than a few times everything
	}
	return width
}

func (x *walk) up(ctx context.Context, n uint64, fn func(*event.Record) error) error {
	var from *key
	for at, width := x.lo, x.width(n); at <= x.hi; {
		end := min(at+width-1, x.hi)
		c := x.within(at, end)
		if from != nil {
			c.and("(toUnixTimestamp64Nano(time), host_id, seq, boot) > (?, ?, ?, ?)", from.time, from.hostID, from.seq, from.boot)
		}
		p, err := x.db.page(ctx, x.f, c, "ORDER BY time, host_id, seq, boot", x.size)
		if err != nil {
			return err
		}
		if err := x.db.hand(ctx, p.records, fn); err != nil {
			return err
		}
		if p.rows == x.size {
			width, at, from = max(1, p.last.time-at), p.last.time, &p.last
			continue
		}
		at, from, width = end+1, nil, x.next(width, p.rows)
	}
	return nil
}

// down returns the newest f.Limit records, newest first.
func (x *walk) down(ctx context.Context, n uint64) ([]*event.Record, error) {
	var found []*event.Record
	var from *key
	for at, width := x.hi, x.width(n); at >= x.lo; {
		begin := max(at-width+1, x.lo)
		c := x.within(begin, at)
		if from != nil {
			c.and("(toUnixTimestamp64Nano(time), host_id, seq, boot) < (?, ?, ?, ?)", from.time, from.hostID, from.seq, from.boot)
		}
		p, err := x.db.page(ctx, x.f, c, "ORDER BY time DESC, host_id DESC, seq DESC, boot DESC", x.size)
		if err != nil {
			return nil, err
		}
		found = append(found, p.records...)
		if len(found) >= x.f.Limit {
			return slices.Clip(found[:x.f.Limit]), nil
		}
		if p.rows == x.size {
			width, at, from = max(1, at-p.last.time), p.last.time, &p.last
			continue
		}
		at, from, width = begin-1, nil, x.next(width, p.rows)
	}
	return found, nil
}
