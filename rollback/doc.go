// Package rollback keeps versions of files and puts them back. It is usable
// without the daemon.
//
// The words, used only so in this package:
//
//	vault     a directory with contents (objects/), the log of versions (versions/),
//	          marks of restores under way (intents/) and the plans that are begun (plans/)
//	version   what a path was at one moment: a State and the content behind its hash;
//	          a State that does not exist says that nothing was there
//	trusted   the one version of a path that a restore brings back; Promote moves it
//	capture   read what is at a path now and keep it as a version
//	plan      the steps that would make paths equal to versions, and the conflicts
//	          that a person has to decide
//	displaced an inode that a restore took away from its path
//	evidence  the directory in which displaced inodes are kept
//	hold      keeps the versions of a path, and of all below it, from Prune
//
// What it promises:
//
//   - A version is readable or a loud error. A content is on stable storage before
//     the log names it, the log is checksummed record by record, and every content
//     is verified against its BLAKE3 whenever it is read.
//   - A reader of a path sees the whole old file or the whole new one while it is
//     restored, never a mixture and never nothing. The new inode is built unseen,
//     with its metadata, made durable, and exchanged in.
//   - A crash at any point leaves old or new. Leftovers are named ".holdfast-" and
//     16 hex digits; Open moves those of an interrupted restore to the evidence, and
//     puts the flags i and a of chattr(1) back that it had taken off. Flags that somebody
//     else sets meanwhile stay: the path is then left alone (ErrRaced).
//   - A plan that was begun with Begin is there until End, whatever happens: Pending
//     lists it and Continue does what is left of it, and leaves alone what somebody
//     changed since.
//   - A restored file is another inode: descriptors and mappings of the displaced
//     one cannot change it. Metadata alone is mended on the inode that is there.
//   - No symlink is followed, neither in the last component nor in a parent.
//   - What a restore displaces is kept, up to Options.EvidenceMax. The result of the
//     restore for which older evidence goes names what went.
//   - Prune never takes the trusted or the newest version of a path, one under a
//     hold, or one that a record which is still kept refers to; what was there at a
//     time whose version it took is unknown, never taken for what was there before.
//   - With Options.Sealer, contents are sealed before they are written to the vault:
//     objects, lists of chunks and the contents of begun plans. Each tells the id of
//     its key, and the log tells that the vault is sealed: without the key it is not
//     opened for writing, and what cannot be opened is ErrSealed and ProblemSealed,
//     which no repair, capture or prune removes or replaces. Contents from before
//     there was a Sealer stay as they are.
//
// A Sealer seals contents alone: the log has paths, metadata, times and the hashes of
// the contents in the clear, begun plans too, and so has each object the BLAKE3 of
// its content as its name (see cas). Evidence is the displaced inodes themselves, in
// the clear, as are files that a restore is about to put in place. There is room for
// records of the log that are sealed: one is ErrSealed to this version.
//
// The daemon and the command line call it. One process at a time may write
// (ErrLocked); OpenReadOnly works beside it and sees what Sync made durable.
//
// It does not guarantee: that a set of steps happens at one moment (each step
// does), nor that metadata alone does; that an undo planned anew, after one that
// failed between two renames of directories, has all of the rest (Continue does);
// inode numbers, ctime and birth time; bind mounts of the single file elsewhere: they
// go on showing the displaced inode, and the result names them; what processes that
// read the bad content did with it. Names of a hard-linked file that were not kept do
// not follow the restored one. A mount point is written in place, if at all, and
// readers can see that half done. It does not watch anything and trusts no clock for
// order: versions of a path are numbered.
//
// Lock order: Store.keeping, Store.sync, Store.mu, then those of cas. Restores take none of
// them while they change files: two restores of one path at once both succeed, and
// the later one displaces the inode of the earlier one.
package rollback
