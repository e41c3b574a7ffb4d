// Package pipeline wires the stages 2 to 8 together: decode, attribute, coalesce,
// rehash, judge, respond, journal. Run names them in that order.
//
// It owns the queues between them, the gaps, the rescans and the records of
// changes. Two goroutines work: one takes what the ring reader hands over and
// carries it through decode, attribute and coalesce, which are fast; the other
// reads files, answers and writes records, which is slow, one change after the
// other, so that the order of changes is the order of records.
//
// What takes long, because a large file has to be read or put back, goes aside to a
// third one (lane), with all that meets it: the order is kept of what happens to one
// path, to one file and to the names above and below it. A change of something else is
// recorded and answered meanwhile.
//
// It promises that nothing is lost silently. Losses anywhere are counted by cause
// (event.Cause*) and declared by a gap record with their window and the trees that
// may be concerned, before these are compared with what is known of them:
//
//	lost ── lose ──► gap record "pending" ──► rescan ──► finds: found "after_gap", gap.of
//	                        │                    │
//	                        │                    └──► gap record "done", or "failed" and again later
//	                        └── a run that ends in between leaves it to the next one (Down)
//
// A rescan begins when the events that were sent before the loss was noticed are
// taken in: they know who did what it would find. Its own finds have an unknown
// actor. What could not be placed is compared without a gap record. A record that
// the journal has no room for is offered again until it is taken: the queue behind
// it fills, and that is declared too. An answer to a change is not given before
// its intent is durable.
//
// Feed waits while the hand-over is full: the kernel's ring holds what comes
// meanwhile, is dropped into when it is full too, and never makes the host wait.
//
// Events come in another order than deeds when a process loses its CPU at the end of
// a system call, and files are looked at later than both. What that leaves open is
// looked at a second time, under a renamed directory by comparing it; what such a
// look finds and nobody told of has an unknown actor.
//
// Our own work is skipped by what it leaves, never by who does it: after a
// restore the known state is the restored one, so that its events find no
// difference. A difference found under our own pid is looked at again a moment
// later, and then recorded like any other.
//
// Called by pkg/daemon. It does not load programs, does not know where rules come
// from, and does not ship.
//
// Lock order: turn, which who works on items has, then queue.mu or lane.mu, then
// nothing; coalesce and rehash lock themselves and call back into nobody while they do.
package pipeline
