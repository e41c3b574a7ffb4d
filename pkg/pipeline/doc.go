// Package pipeline wires the stages 2 to 8 together: decode, attribute, coalesce,
// rehash, judge, respond, journal. Run names them in that order.
//
// It owns the queues between them, the gaps, the rescans and the records of
// changes. Two goroutines work: one takes what the ring reader hands over and
// carries it through decode, attribute and coalesce, which are fast; the other
// reads files, answers and writes records, which is slow, one change after the
// other, so that the order of changes is the order of records.
//
// It promises that nothing is lost silently. Feed never blocks its caller: what
// finds no room in the hand-over, no place in the queue, was lost in the kernel
// or could not be placed is counted and declared by a gap record; all but the
// last of these are closed by a rescan of the watched trees, whose finds are
// records with an unknown actor. A record that the journal has no room for is
// offered again until it is taken: the queue behind it fills, and that is
// declared too. An answer to a change is not given before its intent is durable.
//
// Our own work is skipped by what it leaves, never by who does it: after a
// restore the known state is the restored one, so that its events find no
// difference. A difference found under our own pid is looked at again a moment
// later, and then recorded like any other.
//
// Called by pkg/daemon. It does not load programs, does not know where rules come
// from, and does not ship.
//
// Lock order: queue.mu, then nothing; coalesce and rehash lock themselves and
// call back into nobody while they do.
package pipeline
