// Package clickhouse is Holdfast's side of a ClickHouse server: it connects, applies
// the migrations of schemas, inserts records, answers questions about them
// (query.Store) and proves rows against a journal (Compare).
//
// A row holds typed columns and the exact bytes of the record. Answers are decoded
// from the bytes, so that they equal the journal's; the columns only find rows.
// Compare checks both: bytes by leaf hash, columns by what they must be.
//
// Promises: Insert with the same token and the same rows inserts them once, for as
// long as the server remembers the token (schemas: 10,000 inserts). An error says
// what to do about it, and wraps one of the Err values where the cause is known.
//
// It does not retry, keeps nothing on disk and starts no goroutine: pkg/ship does
// the first two. cmd and the daemon call it. It does not guarantee that a row is
// still there after it was acknowledged: retention, and whoever may alter tables,
// remove rows. Compare tells.
package clickhouse
