// Package digest answers two questions: what is the BLAKE3 of these bytes, and
// what is at this path now.
//
// It promises that a State it returns without error is one the path had: the
// metadata, the content hash and the name belong to the same inode, and nothing
// that the kernel tells of changed between the first look and the last one. It
// never follows a symlink, neither in the last component nor, with the path
// variants, in a parent; it never opens a device, a FIFO or a socket; it leaves
// access times alone where it may. A path that is not there is a State, not an
// error.
//
// Everything that looks at files calls it: rehash, rollback, policy checks.
//
// It does not guarantee that the path is still so when the caller looks at the
// State. Stores through a shared mapping leave no trace that a reader could
// check; and on kernels without fine-grained times (linux before v6.13,
// commit ffb6cf19e063) two writes within one timer tick look like one: Settle
// waits the tick out for callers that must not take a half-written file.
package digest
