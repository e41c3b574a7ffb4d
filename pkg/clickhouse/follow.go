package clickhouse

import (
	"context"
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
// arrives after a later one of its host (shipping repairs so) is passed over.
func (db *DB) Follow(ctx context.Context, f query.Filter, fn func(*event.Record) error, idle func() error) error {
	seen, err := db.tops(ctx, nil)
	if err != nil {
		return err
	}
	give := func(r *event.Record) error {
		seen[r.HostID] = max(seen[r.HostID], r.Seq)
		return fn(r)
	}
	if err := db.Records(ctx, f, give); err != nil {
		return err
	}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		if err := idle(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		tops, err := db.tops(ctx, seen)
		if err != nil {
			return err
		}
		for hostID, top := range tops {
			g := f
			g.Limit, g.AfterSeq = 0, max(f.AfterSeq, seen[hostID])
			w := where(&g)
			w.and("host_id = ?", hostID)
			w.is("host", named(f.Host, hostID))
			if err := db.ascend(ctx, &g, w, give); err != nil {
				return err
			}
			seen[hostID] = max(seen[hostID], top)
		}
	}
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
