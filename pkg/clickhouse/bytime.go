package clickhouse

import (
	"context"
	"slices"
	"strconv"

	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
	"github.com/holdfast/holdfast/schemas"
)

// byTime answers over several hosts, by time, host and sequence. The table is in the
// order of the hosts' logs, so that the server has to sort: it is asked for one
// window of time after the other, and sorts what lies in one.
func (db *DB) byTime(ctx context.Context, f *query.Filter, w conditions, hosts []string, fn func(*event.Record) error) error {
	x := walk{db: db, f: f, w: w, size: lastPage}
	if f.Limit > 0 {
		x.size = min(f.Limit, lastPage)
		found, err := x.down(ctx, hosts)
		if err != nil {
			return err
		}
		return backward(found, fn)
	}
	n, err := x.bounds(ctx, w)
	if err != nil || n == 0 {
		return err
	}
	return x.up(ctx, n, fn)
}

// walk goes over the rows that w selects, whose times are from lo to hi.
type walk struct {
	db     *DB
	f      *query.Filter
	w      conditions
	lo, hi int64 // ns, inclusive
	size   int   // rows of a page
}

// bounds sets lo and hi to the times of the rows that w selects, and returns how many these are. Where w
// selects all, the server knows it without looking at a row.
func (x *walk) bounds(ctx context.Context, w conditions) (n uint64, err error) {
	err = x.db.conn.QueryRow(ctx, "SELECT toUnixTimestamp64Nano(min(time)), toUnixTimestamp64Nano(max(time)), count() FROM "+
		x.db.target.Database+".records"+w.clause(), w.args...).Scan(&x.lo, &x.hi, &n)
	return n, x.db.explain("ask", err)
}

// span is how far the times of rows lie apart, in ns: up to 2^64, which no int64 holds, as rows may have any times.
func (x *walk) span() float64 { return float64(x.hi) - float64(x.lo) + 1 }

// width is a window that would hold about a page if the n rows lay evenly.
func (x *walk) width(n uint64) float64 { return max(1, x.span()*float64(x.size)/float64(n)/2) }

// end is the last ns of a window of that width from at on.
func (x *walk) end(at int64, width float64) int64 {
	if left := uint64(x.hi) - uint64(at); width < float64(left) {
		return at + int64(min(uint64(width-1), left))
	}
	return x.hi
}

// within is c for times from a to b, inclusive.
func (c conditions) within(a, b int64) conditions {
	c.and("time >= fromUnixTimestamp64Nano(toInt64(?), 'UTC') AND time <= fromUnixTimestamp64Nano(toInt64(?), 'UTC')", a, b)
	return c
}

// next is the width of the window behind one of that width that gave so many rows.
func (x *walk) next(width float64, rows int) float64 {
	if rows*4 < x.size {
		return min(width, x.span()) * 4 // never wider than a few times everything
	}
	return width
}

func (x *walk) up(ctx context.Context, n uint64, fn func(*event.Record) error) error {
	var from *key
	for at, width := x.lo, x.width(n); at <= x.hi; {
		end := x.end(at, width)
		c := x.w.within(at, end)
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
			width, at, from = max(1, float64(p.last.time)-float64(at)), p.last.time, &p.last
			continue
		}
		if end == x.hi {
			return nil
		}
		at, from, width = end+1, nil, x.next(width, p.rows)
	}
	return nil
}

// The windows of down: the server reads rows in granules, and one of each host at least, so that a window with fewer
// rows costs no less. Where it was not enough, the next one is as wide as what was found makes likely to be enough,
// so many times as wide at least.
const (
	wider  = 2
	widest = 6
)

// down returns the newest f.Limit records of these hosts, newest first.
func (x *walk) down(ctx context.Context, hosts []string) ([]*event.Record, error) {
	n, err := x.bounds(ctx, conditions{})
	if err != nil || n == 0 {
		return nil, err
	}
	rows := float64(len(hosts)) * schemas.Granule
	switch {
	case x.f.Host != "" || x.f.Session != "" || x.f.Exec != "" || x.f.Below != "": // they lie together
		rows = float64(n)
	case *x.f == query.Filter{Limit: x.f.Limit, Since: x.f.Since, Until: x.f.Until}:
		rows = min(rows, 1000*float64(x.size)) // many at some times, few at others
	}
	each := x.span() / float64(n) // ns
	if x.f.Until != 0 {
		x.hi = min(x.hi, int64(x.f.Until)-1)
	}
	g := *x.f
	g.Since = 0
	begun := where(&g)
	if g.Host != "" {
		begun.among("host_id", hosts)
	}
	text := x.f.Command + x.f.Meaning
	if kind, _ := query.ParsePath(x.f.Path); kind != query.PathExact { // who looks for one path wants all of its changes
		text += x.f.Path
	}
	var found []*event.Record
	seen := map[key]bool{}
	for at := x.hi; at >= x.lo; {
		begin := x.lo
		if w := each * rows; w < float64(at)-float64(x.lo) {
			begin = at - int64(uint64(w)) // may be more than an int64 holds: it wraps, and so does the difference
		}
		had := len(found)
		c := x.w
		if since := int64(x.f.Since); at >= since { // times of the end do not matter
			begin, c = max(begin, since), begun
		}
		window := c.within(begin, at)
		for from, more := (*key)(nil), true; more; {
			c := window
			if from != nil {
				c.and("(toUnixTimestamp64Nano(time), host_id, seq, boot) < (?, ?, ?, ?)", from.time, from.hostID, from.seq, from.boot)
			}
			p, err := x.newest(ctx, c, seen)
			if err != nil {
				return nil, err
			}
			found = append(found, p.records...)
			if len(found) >= x.f.Limit {
				return slices.Clip(found[:x.f.Limit]), nil
			}
			if from, more = &p.last, p.rows >= x.size; more { // most of what the columns told was not meant
				x.size = min(4*x.size, lastPage)
			}
		}
		if begin == x.lo {
			break
		}
		at = begin - 1
		switch got := len(found) - had; {
		case x.f.Since != 0 && at < int64(x.f.Since), got == 0 && text == "":
			rows = float64(n) // what lasted until then, and what is so rare, indexes find
		case got == 0:
			rows *= widest // the index over text is large
		default:
			rows *= max(wider, 2*float64(x.f.Limit-len(found))/float64(got))
		}
	}
	return found, nil
}

// newest asks for the newest rows that c selects, without those that were seen. What is needed to find rows and to put
// them in order is a small part of them: the bytes are read of the found ones alone. A server that does so by itself is
// asked once; others look through the index twice.
func (x *walk) newest(ctx context.Context, c conditions, seen map[key]bool) (page, error) {
	const (
		what  = "SELECT host_id, seq, boot, toUnixTimestamp64Nano(time), rec FROM "
		order = " ORDER BY time DESC, host_id DESC, seq DESC, boot DESC"
	)
	v, err := x.db.conn.ServerVersion()
	if err != nil {
		return page{}, x.db.explain("ask", err)
	}
	table, limit := x.db.target.Database+".records", " LIMIT "+strconv.Itoa(x.size)
	if lazy(v.Version) && !x.db.eager {
		// By time alone the server needs no more than the newest times that it has found so far to pass over the rest. Where the
		// last one and the next have the same, the order of these matters.
		all, err := x.db.read(ctx, what+table+c.clause()+" ORDER BY time DESC LIMIT "+strconv.Itoa(x.size+1), c.args)
		if err != nil {
			return page{}, err
		}
		slices.SortFunc(all, func(a, b found) int { return b.compare(a.key) })
		if len(all) <= x.size || all[x.size-1].time != all[x.size].time {
			return x.db.decode(x.f, all[:min(len(all), x.size)], seen)
		}
		return x.db.rows(ctx, x.f, what+table+c.clause()+order+limit, c.args, seen)
	}
	var of conditions
	of.and("(host_id, seq, boot, time) IN (SELECT host_id, seq, boot, time FROM "+table+c.clause()+order+limit+")", c.args...)
	return x.db.rows(ctx, x.f, what+table+of.clause()+order, of.args, seen)
}

// lazy reports whether a server reads, of the rows that a question with a limit orders, the columns that neither find nor
// order them only for the rows that it answers: since 25.12 up to a limit of 10,000 (query_plan_optimize_lazy_materialization,
// query_plan_max_limit_for_lazy_materialization in system.settings_changes).
func lazy(v proto.Version) bool { return v.Major > 25 || v.Major == 25 && v.Minor >= 12 }
