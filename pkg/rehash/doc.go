// Package rehash is stage 5: it finds out what a change did.
//
// It owns the known state of every watched path (Known): what was there when we
// last looked, and when that was. A Change comes in, the path is read now, and
// out goes a Finding: the state before, the state after, whether they differ,
// and what else was noticed on the way. The known state follows.
//
// It promises that a hash in a Finding is of content that was there, read by
// pkg/digest between two equal looks at the inode. It never dresses a guess as
// such: the file is looked at some time after the event, so where later
// operations of others may have been read along, the fields that they may have
// changed are taken from the operation that did not touch them, or else State.Unread says
// why there is no hash.
//
// A known state has the moment (ns since boot) at which it was read. "No
// difference" proves that a change was none only if the known state is older
// than the change; otherwise the look came too late, and the kernel's word that
// the operation was done counts (Finding.Late).
//
// What is known moves exactly as a reader of the records moves a tree: whatever
// Check finds out without a record, or cannot tell, stays as the records have it and
// is named in Finding.Again, Looks or Compare, to be looked at once more. So the
// records tell the tree once nothing waits (vmtests/replay is such a reader).
//
// Called by pkg/pipeline, one call at a time; Scan reads in parallel and may run
// beside it. It does not judge, and it keeps no content: it hands the bytes that
// it reads to an Intake, for who keeps versions.
package rehash
