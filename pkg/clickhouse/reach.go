package clickhouse

import (
	"context"
	"fmt"
	"slices"
)

// reachChunk bounds what one question of Reach makes the server hold in memory.
const reachChunk = 1 << 20

// Reach tells which records of a host the server holds: unbroken is the last of
// the run without a gap that begins behind after (after itself if the next one is
// missing), newest the highest number it holds at all, 0 if none.
func (db *DB) Reach(ctx context.Context, hostID string, after uint64) (unbroken, newest uint64, err error) {
	return db.reach(ctx, hostID, after, reachChunk)
}

func (db *DB) reach(ctx context.Context, hostID string, after, chunk uint64) (unbroken, newest uint64, err error) {
	const op = "ask position of"
	table := db.target.Database + ".records"
	err = db.conn.QueryRow(ctx, "SELECT max(seq) FROM "+table+" WHERE host_id = ?", hostID).Scan(&newest)
	if err != nil {
		return 0, 0, db.explain(op, err)
	}
	unbroken = after
	for unbroken < newest {
		var present uint64
		end := unbroken + chunk
		if err := db.conn.QueryRow(ctx, "SELECT uniqExact(seq) FROM "+table+" WHERE host_id = ? AND seq > ? AND seq <= ?",
			hostID, unbroken, end).Scan(&present); err != nil {
			return 0, 0, db.explain(op, err)
		}
		if present == chunk {
			unbroken = end
			continue
		}
		// The gap is in this chunk, or behind its last record: the run ends where the
		// n-th number is no longer the n-th behind the start.
		var last uint64
		if err := db.conn.QueryRow(ctx, "SELECT max(seq) FROM (SELECT seq, row_number() OVER (ORDER BY seq) AS n FROM"+
			" (SELECT DISTINCT seq FROM "+table+" WHERE host_id = ? AND seq > ? AND seq <= ?)) WHERE seq = ? + n",
			hostID, unbroken, end, unbroken).Scan(&last); err != nil {
			return 0, 0, db.explain(op, err)
		}
		return max(unbroken, last), newest, nil
	}
	return unbroken, newest, nil
}

// Holds returns the leaf hashes of the rows that the server holds of a host's
// records first to last, as the server computes them from the bytes: of each number
// all that are different.
func (db *DB) Holds(ctx context.Context, hostID string, first, last uint64) (map[uint64][][32]byte, error) {
	const op = "ask for records of"
	rows, err := db.conn.Query(ctx, "SELECT DISTINCT seq, SHA256(concat('\\0', rec)) FROM "+db.target.Database+
		".records WHERE host_id = ? AND seq >= ? AND seq <= ?", hostID, first, last)
	if err != nil {
		return nil, db.explain(op, err)
	}
	defer func() { _ = rows.Close() }() // its error is rows.Err's
	out := make(map[uint64][][32]byte)
	for rows.Next() {
		var (
			seq  uint64
			leaf string
		)
		if err := rows.Scan(&seq, &leaf); err != nil {
			return nil, db.explain(op, err)
		}
		if len(leaf) != 32 {
			return nil, fmt.Errorf("ask for records of ClickHouse %s: a hash of %d bytes", db.addr, len(leaf))
		}
		out[seq] = append(out[seq], [32]byte([]byte(leaf)))
	}
	return out, db.explain(op, rows.Err())
}

// displaceMost bounds the hashes in one statement: the server parses 256 KiB of it.
const displaceMost = 1000

// Displace copies the rows first to last of a host that have one of the leaf hashes to the table displaced.
func (db *DB) Displace(ctx context.Context, hostID string, first, last uint64, leaves [][32]byte) error {
	d := db.target.Database
	for some := range slices.Chunk(leaves, displaceMost) {
		names := make([]string, len(some))
		for i, l := range some {
			names[i] = fmt.Sprintf("%X", l)
		}
		var c conditions
		c.and("host_id = ? AND seq >= ? AND seq <= ?", hostID, first, last)
		c.among("hex(SHA256(concat('\\0', rec)))", names)
		if err := db.conn.Exec(ctx, "INSERT INTO "+d+".displaced (host_id, host, boot, seq, rec, arrived) SELECT host_id, host, boot, seq, rec, received FROM "+d+".records"+c.clause(), c.args...); err != nil {
			return db.explain("copy rows to the table displaced of", err)
		}
	}
	return nil
}
