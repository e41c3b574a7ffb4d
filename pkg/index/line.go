package index

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/holdfast/holdfast/pkg/event"
)

// maxLine is how many bytes of a command line are worth breaking up. All that are longer, or are no text as
// SQLite reads it, are kept as opaque, and a question about words looks at each of their records.
const (
	maxLine = 1024
	opaque  = "(opaque)" // a command line that is this text is looked at like them
)

// lineOf is what the index keeps of a command line, "" for none: query.Filter.Command is somewhere in it.
func lineOf(p *event.Process) string {
	n := len(p.Argv)
	for _, s := range p.Argv {
		n += len(s)
	}
	if n > maxLine {
		return opaque
	}
	if s := strings.Join(p.Argv, " "); isText(s) {
		return s
	}
	return opaque
}

// isText reports whether SQLite reads the same characters in s as we do.
func isText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// lineDigest stands for a line where it is numbered; "" stands for "".
func lineDigest(s string) string {
	if s == "" {
		return ""
	}
	d := sha256.Sum256([]byte(s))
	return base64.RawStdEncoding.EncodeToString(d[:16])
}

// trigrams asks commands for lines that hold all of up to most texts of three characters from s, spread over it;
// "" if it cannot be asked so, because s is too short or no text as SQLite reads it.
func trigrams(s string) string {
	const most = 8
	if !isText(s) {
		return ""
	}
	c := []rune(s)
	last := len(c) - 3
	if last < 0 {
		return ""
	}
	var ask []string
	step := max(3, (last+most-1)/most)
	for i := 0; ; i = min(i+step, last) {
		ask = append(ask, `"`+strings.ReplaceAll(string(c[i:i+3]), `"`, `""`)+`"`)
		if i == last {
			return strings.Join(ask, " AND ")
		}
	}
}

// linesWith returns the numbers of up to most lines that hold s or are opaque; more says that there are more.
func linesWith(ctx context.Context, tx *sql.Tx, s string, most int) (ids []int64, more bool, err error) {
	const holds = "instr(CAST(c0 AS BLOB), ?) > 0" // as bytes: the text may begin within a character
	q, args := "SELECT id FROM commands_content WHERE "+holds+" LIMIT ?", []any{[]byte(s), most + 1}
	if ask := trigrams(s); ask != "" {
		q = "SELECT c.id FROM commands m CROSS JOIN commands_content c ON c.id = m.rowid WHERE commands MATCH ? AND " + holds + " LIMIT ?"
		args = append([]any{ask}, args...)
	}
	long, ok, err := lookup(ctx, tx, "lines", lineDigest(opaque))
	if err != nil {
		return nil, false, err
	}
	rows, err := tx.QueryContext(ctx, q, args...)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, false, err
		}
		if id != long {
			ids = append(ids, id)
		}
	}
	more = len(ids) > most
	if ok {
		ids = append(ids, long)
	}
	return ids, more, rows.Err()
}
