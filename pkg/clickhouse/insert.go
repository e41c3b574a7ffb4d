package clickhouse

import (
	"context"
	"errors"
	"fmt"

	ch "github.com/ClickHouse/clickhouse-go/v2"
)

// insertSettings are those of every insert. The server's own batching of small
// inserts is off: it forgets tokens unless told otherwise, and ours are batches
// already. A wrong clock on a host may spread one batch over many months.
func insertSettings(token string) ch.Settings {
	return ch.Settings{
		"async_insert":                                       0,
		"insert_deduplicate":                                 1,
		"insert_deduplication_token":                         token,
		"throw_on_max_partitions_per_insert_block":           0,
		"deduplicate_blocks_in_dependent_materialized_views": 1,
	}
}

// Insert writes rows as one batch and returns when the server has acknowledged
// them. The same rows with the same token are inserted once however often it is
// called; rows that differ under one token are lost, so never reuse one. A batch
// is all or nothing within a month of record time.
func (db *DB) Insert(ctx context.Context, token string, rows []Row) (err error) {
	if len(rows) == 0 {
		return nil
	}
	if token == "" {
		return errors.New("insert records: no token")
	}
	cs := columns()
	ctx = ch.Context(ctx, ch.WithSettings(insertSettings(token)))
	b, err := db.conn.PrepareBatch(ctx, "INSERT INTO "+db.target.Database+".records ("+names(cs)+")")
	if err != nil {
		return db.explain("insert records into", err)
	}
	vs := views(rows)
	for i, c := range cs {
		if err := b.Column(i).Append(c.slice(vs)); err != nil {
			return db.explain("insert records into", errors.Join(fmt.Errorf("column %s: %w", c.name, err), b.Abort()))
		}
	}
	return db.explain("insert records into", b.Send())
}

// Send is Insert for records that are still bytes; pkg/ship calls it.
func (db *DB) Send(ctx context.Context, token string, records [][]byte) error {
	rows := make([]Row, len(records))
	for i, b := range records {
		r, err := NewRow(b)
		if err != nil {
			return fmt.Errorf("insert records: record %d of the batch: %w", i, err)
		}
		rows[i] = r
	}
	return db.Insert(ctx, token, rows)
}

// SendCheckpoint stores a signed checkpoint of the host's log.
func (db *DB) SendCheckpoint(ctx context.Context, hostID string, size uint64, note []byte) error {
	token := fmt.Sprintf("checkpoint/%s/%d/%x", hostID, size, Leaf(note))
	ctx = ch.Context(ctx, ch.WithSettings(insertSettings(token)))
	b, err := db.conn.PrepareBatch(ctx, "INSERT INTO "+db.target.Database+".checkpoints (host_id, size, note)")
	if err != nil {
		return db.explain("insert checkpoint into", err)
	}
	if err := b.Append(hostID, size, string(note)); err != nil {
		return db.explain("insert checkpoint into", err)
	}
	return db.explain("insert checkpoint into", b.Send())
}
