// Package replay is a second opinion on what records say: it starts from a scan
// of a tree, applies records in their order and compares the outcome with another
// scan. If the records tell everything, nothing differs.
//
// It shares no code with the product on purpose: it reads the JSON of holdfast
// log, looks at files by itself and imports nothing of pkg/. The rules by which a
// reader of records may follow a tree are those of Apply:
//
//   - A change is about path; with path_to, which only rename and link have, its
//     before and after are about path_to.
//   - rename with both names takes all that is below path along to path_to. If ops
//     has exchange too, what was at and below path_to goes to path.
//   - rename with one name moved something in from outside the tree or out to it:
//     what was at and below path is gone.
//   - Whatever else, after is what is at the name now; if nothing or no directory
//     is there, nothing is below it. What a directory that came from outside the
//     tree holds is told in records of its own.
//   - A file with several names has a record for each of them that changes.
//   - after.unread says that the content could not be told; a later record does.
//
// It does not know rules and modes: the tree must be watched in mode observe.
package replay
