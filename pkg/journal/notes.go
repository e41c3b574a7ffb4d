package journal

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// lineMark comes before a signed note on a line of text.
const lineMark = "note64="

// Line is a signed checkpoint as one line of text, for a log that takes lines: what it says and,
// behind note64=, the note itself.
func Line(signed []byte) (string, error) {
	c, err := unsigned(signed)
	if err != nil {
		return "", err
	}
	what := "checkpoint"
	if c.Next != "" {
		what = "change of key"
	}
	return fmt.Sprintf("%s of %s: size %d root %s time %s %s%s", what, c.Origin, c.Size, c.Root, c.Time, lineMark, base64.StdEncoding.EncodeToString(signed)), nil
}

// Signed is a signed note and what it says, the signature unchecked.
type Signed struct {
	Checkpoint
	Note []byte
	Line string // see Line
}

// ReadSigned reads a note as LatestCheckpoint and Handovers give it.
func ReadSigned(n []byte) (Signed, error) {
	c, err := unsigned(n)
	if err != nil {
		return Signed{}, err
	}
	line, err := Line(n)
	return Signed{Checkpoint: c, Note: n, Line: line}, err
}

// Notes finds the signed notes in what was kept elsewhere: a file of checkpoints as they are, with an
// empty line behind each, or lines of Line with anything before them. What is neither is one note,
// which no key will open.
func Notes(kept []byte) [][]byte {
	if bytes.Contains(kept, []byte(lineMark)) {
		return lineNotes(kept)
	}
	notes, whole := splitNotes(kept)
	if whole < len(kept) || len(notes) == 0 {
		notes = append(notes, kept[whole:])
	}
	return notes
}

func lineNotes(kept []byte) (notes [][]byte) {
	for line := range bytes.Lines(kept) {
		_, text, ok := bytes.Cut(line, []byte(lineMark))
		if !ok {
			continue
		}
		end := bytes.IndexFunc(text, func(r rune) bool {
			return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=", r)
		})
		if end < 0 {
			end = len(text)
		}
		n, err := base64.StdEncoding.DecodeString(string(text[:end]))
		if err != nil {
			n = line // a line that was cut is told of like a note that is not good
		}
		notes = append(notes, n)
	}
	return notes
}

// Handovers returns the notes by which keys of the log in dir named their successors, as they are on
// disk: kept elsewhere, they show that a log was put back to before one.
func Handovers(dir string) ([][]byte, error) {
	notes, _, err := chainNotes(dir)
	if err != nil {
		return nil, fmt.Errorf("read journal %s: %w", dir, err)
	}
	return notes, nil
}

// NewHandovers returns a function that returns, of what Handovers does, what it did not return before. It reads the chain
// again only when that has grown. One goroutine may use it.
func NewHandovers(dir string) func() ([][]byte, error) {
	var (
		length int64
		given  int
	)
	return func() ([][]byte, error) {
		st, err := os.Lstat(filepath.Join(dir, chainName))
		if errors.Is(err, fs.ErrNotExist) || err == nil && st.Size() == length {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read journal %s: %w", dir, err)
		}
		notes, err := Handovers(dir)
		if err != nil {
			return nil, err
		}
		fresh := notes[min(given, len(notes)):]
		length, given = st.Size(), len(notes)
		return fresh, nil
	}
}
