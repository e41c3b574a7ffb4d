package journal

// The kinds of Problem.
const (
	ProblemAltered    = "altered"         // a record differs from what was signed
	ProblemRemoved    = "removed"         // records are gone
	ProblemInserted   = "inserted"        // something is there that was never signed
	ProblemSwapped    = "swapped"         // two records stand in each other's place
	ProblemMoved      = "moved"           // a record stands elsewhere
	ProblemDuplicated = "duplicated"      // a record is there twice
	ProblemTruncated  = "truncated"       // the end of a segment is gone
	ProblemSegment    = "missing_segment" // a segment is gone
	ProblemHashes     = "hashes"          // the hash file was edited or cut
	ProblemCheckpoint = "checkpoint"      // a checkpoint is forged, damaged or missing
	ProblemRollback   = "rollback"        // a later checkpoint is known than the log has
	ProblemKey        = "key"             // signed by another key
	ProblemUnsealed   = "unsealed"        // records or bytes that no checkpoint covers, and nobody writes
	ProblemUnreadable = "unreadable"      // a file cannot be read
)

// Problem is one thing that is wrong with a journal.
type Problem struct {
	Kind    string `json:"kind"`
	From    uint64 `json:"from,omitempty"` // first and last record concerned, 0 if none
	To      uint64 `json:"to,omitempty"`
	File    string `json:"file,omitempty"`   // name in the journal's directory
	Offset  int64  `json:"offset,omitempty"` // in File
	Text    string `json:"text"`             // one line for people
	Records uint64 `json:"records,omitempty"`
}
