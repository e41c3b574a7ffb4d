// Package cas keeps contents on disk under their BLAKE3.
//
// It owns one directory: objects/ab/<64 hex digits>, each a plain zstd frame
// (zstd -d and b3sum check one without Holdfast), and tmp/ for what is not
// durable yet. It promises:
//
//   - A file below objects/ is complete and on stable storage before it has its
//     name there. Put leaves the content in tmp/, Flush does write → fsync →
//     rename → fsync directory for all that waits, in one go if it is much.
//   - Reading never yields bytes that differ from what was put: Open and Bytes
//     verify the digest before the first byte, Stream before it returns nil.
//   - Objects are never changed. Remove is for the owner of the references.
//
// The rollback package calls it and nobody else. It does not know which objects
// are needed, does not lock against a second writer, and does not guarantee that
// an object is still readable years later: Check reads it back.
//
// The package also holds Disk, the one way in which rollback changes a disk, so
// that tests can fail or stop it at each step.
package cas
