package clickhouse

import (
	"context"
	"fmt"
	"slices"
)

// Checkpoints returns signed checkpoints of a host that the server keeps: of each minute of the last day, and of each hour
// before, in which some came, the two of the largest logs (two of one size contradict each other), in order of size. The
// times are the server's: nobody can put another one into a minute that is over.
func (db *DB) Checkpoints(ctx context.Context, hostID string) (notes [][]byte, err error) {
	err = db.texts(ctx, "ask for checkpoints of", func(n string) { notes = append(notes, []byte(n)) },
		`SELECT note FROM (
			SELECT DISTINCT note, size, if(received > now() - INTERVAL 1 DAY, toStartOfMinute(received), toStartOfHour(received)) AS span
			FROM `+db.target.Database+`.roots WHERE host_id = ? ORDER BY size DESC LIMIT 2 BY span)
		ORDER BY size, note`, hostID)
	return notes, err
}

// Notes calls fn with signed notes of a host that the server keeps: all that are over more than above records, and Checkpoints.
func (db *DB) Notes(ctx context.Context, hostID string, above uint64, fn func(signed []byte)) error {
	notes, err := db.Checkpoints(ctx, hostID)
	if err != nil {
		return err
	}
	for _, n := range notes {
		fn(n)
	}
	return db.texts(ctx, "ask for checkpoints of", func(n string) { fn([]byte(n)) },
		"SELECT note FROM "+db.target.Database+".roots WHERE host_id = ? AND size > ?", hostID, above)
}

// changesMost bounds the changes of key that are read of one host: eleven years of one an hour.
const changesMost = 100_000

// Changes returns the notes by which keys of a host's log named their successors, the first of them naming itself, in the order in
// which they arrived.
func (db *DB) Changes(ctx context.Context, hostID string) (notes [][]byte, err error) {
	const op = "ask for changes of key of"
	err = db.texts(ctx, op, func(n string) { notes = append(notes, []byte(n)) },
		"SELECT note FROM "+db.target.Database+".roots WHERE host_id = ? AND position(note, '\\nnext ') > 0 ORDER BY received, size LIMIT ?", hostID, changesMost)
	if err == nil && len(notes) == changesMost {
		err = fmt.Errorf("%s ClickHouse %s: host %s has more than %d", op, db.addr, hostID, changesMost-1)
	}
	return notes, err
}

// handedAtOnce bounds how many notes one question of Handed names.
const handedAtOnce = 500

// Handed returns the leaf hashes (Leaf) of those of the notes that the server has of a host, however many others it has.
func (db *DB) Handed(ctx context.Context, hostID string, notes [][]byte) (map[[32]byte]bool, error) {
	out := map[[32]byte]bool{}
	for some := range slices.Chunk(notes, handedAtOnce) {
		var c conditions
		c.is("host_id", hostID)
		leaves := make([]string, len(some))
		for i, n := range some {
			leaves[i] = fmt.Sprintf("%X", Leaf(n))
		}
		c.among("hex(SHA256(concat('\\0', note)))", leaves)
		err := db.texts(ctx, "ask for changes of key of", func(h string) { out[[32]byte(append([]byte(h), make([]byte, 32)...))] = true }, // nobody says that it has 32 bytes
			"SELECT DISTINCT SHA256(concat('\\0', note)) FROM "+db.target.Database+".roots"+c.clause(), c.args...)
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// texts asks for one column of text.
func (db *DB) texts(ctx context.Context, op string, each func(string), question string, args ...any) error {
	rows, err := db.conn.Query(ctx, question, args...)
	if err != nil {
		return db.explain(op, err)
	}
	defer func() { _ = rows.Close() }() // its error is rows.Err's
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return db.explain(op, err)
		}
		each(s)
	}
	return db.explain(op, rows.Err())
}
