// Package journal is stage 8: the append-only log that holds every record, and
// the proof that none was altered, removed or added later. It is the truth; the
// index and ClickHouse are copies of it.
//
// # What it owns
//
// One directory, written by one process at a time (flock on the file lock):
//
//	00000000000000000001.seg   records 1..n: frames (frame.go) of deterministic CBOR
//	00000000000000000912.seg   records 912..; a segment is named by its first record
//	hashes                     Merkle tree over the record bytes: the hashes of
//	                           golang.org/x/mod/sumdb/tlog in its storage order
//	checkpoint                 recent signed checkpoints, the last one is in force
//	checkpoints                the history: one in HistoryEvery while records come, never rewritten
//	chain                      each key's last word: which key signs after it (chain.go)
//	reserve                    space given up so that critical records fit on a full disk
//	torn-*                     bytes that were cut off at an open after a crash
//
// and in the key directory the signing key, journal.key (0600), and journal.pub, the
// verifier's key of the first key as one line of text, which never changes. Copy journal.pub when the log is begun,
// and now and then a checkpoint and the chain, to a place that root on this host cannot write.
//
// # Keys
//
// A key signs for KeyEvery, then names its successor under the root of the log as it is, and is
// overwritten and removed. So a key that is stolen can sign no other past than its own: what lies below
// the root with which it began was signed by a key that nobody has any more.
//
// # The order of a commit
//
//	batch of frames -> segment, fdatasync -> leaf and node hashes -> hashes
//	-> note over (host, size, root, time) signed with Ed25519 -> checkpoint, fdatasync
//
// A checkpoint on disk therefore says that all records below its size were on disk
// before it. The hash file needs no fsync of its own: what a crash takes from it
// is computed again from the records and must give the signed root.
//
// Numbers start at 1, have no gaps and go on across boots: record n is leaf n-1
// of the tree. Times of commits: at once for AppendDurable, else when FlushEvery
// has passed since the oldest waiting record or a MiB waits.
//
// # After a crash
//
// Records that no checkpoint covers may be torn. Open cuts the torn bytes
// off (after copying them to torn-*), signs the whole records it found and says both
// in Opened, so that the caller can write a gap record; the checkpoint made then carries
// the line "recovered N". Records that a signed checkpoint covers cannot be torn
// by a crash: if one is missing or differs, Open returns ErrTampered and changes
// nothing, unless Options.Continue is set: then everything is left as it is, for evidence,
// a new segment begins behind the signed size (or, where nothing is left to go on from, another log
// under a host id of its own: Journal.HostID), and Opened().Tampered names what is
// wrong. Open looks at the last segment, the ends of the others and the root;
// Verify looks at everything.
//
// # What expires
//
// Whole segments by age and size (expire.go), each time behind a record that tells and a checkpoint that says
// "first N". The hashes stay, so that every root and every record that was kept elsewhere can still be proven.
//
// # What is not promised
//
// Whoever is root can stop the writer, take the key and sign other records since that
// key began (at most KeyEvery), or put back an older copy of the whole directory. Verify cannot tell this from the directory alone:
// it needs the first verifier's key and a later checkpoint that were kept elsewhere. That a key was
// overwritten says nothing of copies: of the file system (snapshots, copy on write, flash), of memory (swap,
// what the runtime moved), of backups of the key directory. Records that no
// checkpoint covers yet (at most FlushEvery and one commit) can be dropped by a
// power cut or a kill and nobody can tell how many there were. The verification of a log whose writer is dead and whose
// last records are unsealed fails until the writer has been opened once.
//
// # Who calls it
//
// The daemon appends; ship, index and the command line read (OpenReader), beside the
// writer or without it; verify calls Verify. Lock order: none, the package holds one mutex.
package journal
