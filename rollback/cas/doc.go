// Package cas keeps contents on disk under their BLAKE3.
//
// It owns one directory: objects/ab/<64 hex digits>, and tmp/ for what is not
// durable yet. The first four bytes of an object say what it is: a zstd frame
// (zstd -d and b3sum check one without Holdfast), or "HFC1", the list of the
// chunks of a content longer than SmallSize, which are objects themselves. Either may
// be in an envelope, "HFS", which tells with which key a Sealer sealed it; what is
// stored without a Sealer has none. An envelope of a form that is not known is
// ErrSealed; any other beginning is damage. Stores of before there were chunks have
// one frame for a long content: it is read as such.
//
// Sealing hides what objects say and nothing else. Their names are the BLAKE3 of the
// contents in the clear, and how long they are and where a long one is cut depends on
// these: who reads the directory can tell whether a file that he has is kept, whole
// or in parts. (A keyed address and keyed cuts would change place, what Walk tells
// and newGear; they would be worth little while the log has the same hashes.)
//
// Objects are files of their own and not parts of packs: one is removed by
// unlinking it, and mended by renaming another over it. What packs would save is
// the rounding to blocks (docs/benchmarks.md has the size beside restic's), and
// their one fsync is one syncfs here when much is flushed.
//
// Contents are not reflinked (FICLONE), not even where vault and file are on one
// file system that can: an object is compressed and cut, which a clone cannot be,
// and a clone shares its blocks with the file: what damages these below the file
// system, by a write to the device or by rot, would damage both; nor could it be sealed.
//
// It promises:
//
//   - A file below objects/ is complete and on stable storage before it has its
//     name there. Put leaves the content in tmp/, Flush does write → fsync →
//     rename → fsync directory for all that waits, in one go if it is much.
//   - Reading never yields bytes that differ from what was put: Open and Bytes
//     verify the digest before the first byte, Stream before it returns nil.
//   - Objects are never changed. Remove is for the owner of the references.
//   - What is sealed and cannot be opened is ErrSealed, never ErrCorrupt, and is
//     never stored over: it may be whole for who has the key.
//
// The rollback package calls it and nobody else. It does not know which objects
// are needed (Parts tells which chunks a content needs), does not lock against a
// second writer, and does not guarantee that an object is still readable years
// later: Check reads it back.
//
// The package also holds Disk, the one way in which rollback changes a disk, so
// that tests can fail or stop it at each step.
package cas
