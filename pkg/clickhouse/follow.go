package clickhouse

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
)

var _ query.Follower = (*DB)(nil)

// followEvery is between two looks for news: one small question if there is none.
const followEvery = 500 * time.Millisecond

// Follow implements query.Follower over any number of hosts: what is there as Records
// gives it, then what arrives, host by host in the order of each log. A record that
// arrives after a later one of its host (shipping repairs so) is passed over. Once what was there has been given, a
// server that does not answer is asked again until it does: nothing is lost by it, and nothing given twice.
func (db *DB) Follow(ctx context.Context, f query.Filter, fn func(*event.Record) error, idle func(trouble error) error) error {
	seen, err := db.tops(ctx, nil)
	if err != nil {
		return err
	}
	// What arrives during the walk may be in it, and what came before that of the same host not: what was given is told one by one.
	given := map[string]map[uint64]bool{}
	err = db.Records(ctx, f, func(r *event.Record) error {
		if r.Seq > seen[r.HostID] {
			if given[r.HostID] == nil {
				given[r.HostID] = map[uint64]bool{}
			}
			given[r.HostID][r.Seq] = true
		}
		return fn(r)
	})
	if err != nil {
		return err
	}
	x := &follower{db: db, f: f, seen: seen, given: given, fn: fn}
	var trouble error
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		if err := idle(trouble); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if trouble = x.look(ctx); x.stop != nil {
			return x.stop
		}
		if trouble != nil && (ctx.Err() != nil || !passing(trouble)) {
			return trouble
		}
	}
}

// follower knows what has been given of each host.
type follower struct {
	db    *DB
	f     query.Filter
	seen  map[string]uint64          // up to there
	given map[string]map[uint64]bool // and these above it
	fn    func(*event.Record) error
	stop  error // of fn
}

// passing reports whether the same question may be answered later: the server is away, or has too much to do.
func passing(err error) bool {
	_, server := serverCode(err)
	return errors.Is(err, ErrUnreachable) || server && kindOf(err) == nil
}

// look gives what has arrived since the last look.
func (x *follower) look(ctx context.Context) error {
	tops, err := x.db.tops(ctx, x.seen)
	if err != nil {
		return err
	}
	for hostID, top := range tops {
		g := x.f
		g.Limit, g.AfterSeq = 0, max(x.f.AfterSeq, x.seen[hostID])
		w := where(&g)
		w.and("host_id = ?", hostID)
		w.is("host", named(x.f.Host, hostID))
		err := x.db.ascend(ctx, &g, w, func(r *event.Record) error {
			x.seen[hostID] = max(x.seen[hostID], r.Seq)
			if !x.given[hostID][r.Seq] {
				x.stop = x.fn(r)
			}
			return x.stop
		})
		if err != nil {
			return err
		}
		x.seen[hostID] = max(x.seen[hostID], top)
		delete(x.given, hostID)
	}
	return nil
}

// named is the host's name that a filter wants, "" if it wants the id or nothing.
func named(want, hostID string) string {
	if want == hostID || want == event.Machine(hostID) {
		return ""
	}
	return want
}

// topsAtOnce bounds how many hosts one question of tops names: its text stays far below the server's limit (256 KiB).
const topsAtOnce = 1000

// tops returns the newest sequence of each host that has one above what was seen.
// The view tells which hosts to look at; the numbers are those of the rows themselves.
func (db *DB) tops(ctx context.Context, seen map[string]uint64) (map[string]uint64, error) {
	var ids []string
	err := db.each(ctx, "SELECT toString(host_id), max(last_seq) FROM "+db.target.Database+".hosts GROUP BY host_id", nil, func(hostID string, last uint64) {
		if last > seen[hostID] {
			ids = append(ids, hostID)
		}
	})
	tops := map[string]uint64{}
	for some := range slices.Chunk(ids, topsAtOnce) {
		if err != nil {
			break
		}
		var terms []string
		var args []any
		for _, id := range some {
			terms, args = append(terms, "(host_id = ? AND seq > ?)"), append(args, id, seen[id])
		}
		err = db.each(ctx, "SELECT toString(host_id), max(seq) FROM "+db.target.Database+".records WHERE "+strings.Join(terms, " OR ")+" GROUP BY host_id", args,
			func(hostID string, top uint64) { tops[hostID] = top })
	}
	return tops, err
}

// each calls fn with each line of an answer of a host id and a number.
func (db *DB) each(ctx context.Context, sql string, args []any, fn func(hostID string, n uint64)) error {
	rows, err := db.conn.Query(ctx, sql, args...)
	if err != nil {
		return db.explain("ask", err)
	}
	defer func() { _ = rows.Close() }() // its error is rows.Err's
	for rows.Next() {
		var hostID string
		var n uint64
		if err := rows.Scan(&hostID, &n); err != nil {
			return db.explain("ask", err)
		}
		fn(hostID, n)
	}
	return db.explain("ask", rows.Err())
}
