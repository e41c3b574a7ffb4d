// Package coalesce is stage 4: it makes one event.Change of the many operations
// that one actor does on one file.
//
// It owns the changes that are not settled yet, the openers that still hold a
// file for writing, and the resolution of paths that the kernel side could not
// place (Resolver). It promises that the changes of one path leave in the order
// of their events, that an operation on a name (rename, unlink, mkdir ...)
// leaves at once and after all that was pending on its names, and that its
// memory is bounded: what does not fit is settled early and counted.
//
// A change is settled by the close of its opener, by a quiet period, by an event
// of another actor on the same path, by exec or exit of its process, or, as a
// Partial one, when it was held for MaxHold. While an opener that wrote stays
// open the path is looked at again every MaxHold: the kernel side folds further
// writes until the close, and a close may never be told of (bpf/hooks/syscall.h:
// dup2, close_range and exit are no close(2)).
//
// A Change whose Op is OpOpen tells of no operation: somebody held the file open
// for writing, and the next stage should look whether it differs.
//
// Called by pkg/pipeline, from one goroutine but for Later. It does not verify
// anything: a Change says what the kernel reported, not what is on disk.
package coalesce
