// Package ship is stage 9: it follows the journal and copies every record, and
// the newest checkpoint, to a Sink (ClickHouse).
//
// # What it promises
//
// At least once out, exactly once in. It reads only what is durable in the journal
// and forgets nothing until the sink, asked, says that it holds it. Killed at any
// moment, or with the sink killed, it goes on without loss and without a double:
//
//	start, or after any error
//	  -> ask the sink: where does the run of records that it holds end?
//	  -> is it this log? (leaf hashes of its newest rows against the journal; where
//	     rows are not the journal's, what is signed there must be, and not go beyond it)
//	  -> send the batch again that was under way, with the same bounds and token:
//	     the sink drops it if it has it
//	  -> compare what it holds behind the hint with the journal, record by record: send
//	     what is missing, displace what is somebody else's
//	  -> follow the journal: note the bounds of a batch, send it, note it
//	  -> now and then ask again: what was acknowledged but is not there is sent
//	     once more, with a token of its own
//
// The position file holds the last confirmed number and the bounds of the batch
// under way. It is a hint: without it, or with a torn or old one, the sink is
// asked for everything; then a batch that the sink was still working on when we
// were killed may arrive twice, and the table collapses the rows.
//
// Who may insert at the sink can put rows under our id. They do not stop shipping: a
// row where ours belongs is copied to where nothing replaces it and put on the record,
// and ours is sent. That needs a checkpoint and a change of key at the sink that fit
// the journal, and none that does not: an old copy of a state directory, or
// another host with our id, stops.
//
// Memory is bounded by one batch, and by the rows of others at its numbers. While the sink is away nothing is read: the
// journal is the spool, and Stats says how long it has become. A dead sink slows nobody.
//
// # What it does not promise
//
// Rows that the sink loses or somebody changes or adds after they were confirmed are not
// looked at again, unless the last confirmed one is gone: verify --against
// clickhouse finds them. Records that the journal dropped before they were shipped
// cannot be; Stats counts them as Skipped.
//
// The daemon calls it, with the journal's reader as the Source and clickhouse.DB as
// the Sink. Lock order: none, one mutex.
package ship
