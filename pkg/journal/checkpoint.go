package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/internal/regular"
)

// The files beside the segments, and the key files.
const (
	lockName       = "lock"
	hashesName     = "hashes"
	checkpointName = "checkpoint"
	historyName    = "checkpoints"
	chainName      = "chain"
	reserveName    = "reserve"
	keyName        = "journal.key"
	nextName       = "journal.key.next"
	pubName        = "journal.pub"
)

// Checkpoint is what the host signed: that its log had this size and root at
// that time. As text it is a note of golang.org/x/mod/sumdb/note whose lines are
// those of a C2SP tlog checkpoint:
//
//	holdfast.journal/HOST_ID   (with ~ and a number behind it of a log that was begun again)
//	SIZE
//	ROOT in base64
//	time RFC3339
//	recovered N        (only at an open that found N whole records unsigned)
//	first N            (records below N have expired)
//	next VERIFIER_KEY  (only in the chain: this key signs from here on)
//
//	— NAME SIGNATURE
type Checkpoint struct {
	Origin    string
	Size      uint64
	Root      tlog.Hash
	Time      event.Time
	Recovered uint64
	First     uint64 // records below it have expired; 1 while none have
	Next      string // verifier's key of the key that signs what follows, "" for an ordinary checkpoint
}

// origin is the first line of a host's checkpoints and the name of its key.
func origin(hostID string) string {
	return "holdfast.journal/" + strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || r == '+' || r == unicode.ReplacementChar || unicode.IsControl(r) {
			return '_'
		}
		return r
	}, hostID)
}

func (c *Checkpoint) text() string {
	s := fmt.Sprintf("%s\n%d\n%s\ntime %s\n", c.Origin, c.Size, c.Root, c.Time)
	if c.Recovered > 0 {
		s += fmt.Sprintf("recovered %d\n", c.Recovered)
	}
	if c.First > 1 {
		s += fmt.Sprintf("first %d\n", c.First)
	}
	if c.Next != "" {
		s += "next " + c.Next + "\n"
	}
	return s
}

func (c *Checkpoint) sign(s note.Signer) ([]byte, error) {
	b, err := note.Sign(&note.Note{Text: c.text()}, s)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	return b, nil
}

// parseCheckpoint reads the signed text without looking at the signature.
func parseCheckpoint(text string) (Checkpoint, error) {
	c := Checkpoint{First: 1}
	bad := func(what string) (Checkpoint, error) {
		return Checkpoint{}, fmt.Errorf("parse checkpoint: %s", what)
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 4 || !strings.HasPrefix(lines[0], "holdfast.journal/") {
		return bad("not a journal's checkpoint")
	}
	var err error
	c.Origin = lines[0]
	if c.Size, err = strconv.ParseUint(lines[1], 10, 62); err != nil {
		return bad("size " + strconv.Quote(lines[1]))
	}
	if c.Root, err = tlog.ParseHash(lines[2]); err != nil {
		return bad("root " + strconv.Quote(lines[2]))
	}
	for _, l := range lines[3:] {
		key, val, _ := strings.Cut(l, " ")
		switch key {
		case "time":
			if err = c.Time.UnmarshalJSON([]byte(`"` + val + `"`)); err != nil {
				return bad("time " + strconv.Quote(val))
			}
		case "recovered":
			if c.Recovered, err = strconv.ParseUint(val, 10, 62); err != nil {
				return bad("recovered " + strconv.Quote(val))
			}
		case "first":
			if c.First, err = strconv.ParseUint(val, 10, 62); err != nil || c.First < 1 || c.First > c.Size {
				return bad("first " + strconv.Quote(val))
			}
		case "next":
			c.Next = val
		}
	}
	return c, nil
}

// splitNotes cuts a checkpoint file into its signed notes; each is followed by an
// empty line. whole is how many bytes belong to complete notes.
func splitNotes(b []byte) (notes [][]byte, whole int) {
	for {
		rest := b[whole:]
		text := bytes.Index(rest, []byte("\n\n"))
		if text < 0 {
			return notes, whole
		}
		sigs := bytes.Index(rest[text+2:], []byte("\n\n"))
		if sigs < 0 {
			return notes, whole
		}
		end := text + 2 + sigs + 1
		notes = append(notes, rest[:end:end])
		whole += end + 1
	}
}

// unsigned reads the text part of a signed note.
func unsigned(signed []byte) (Checkpoint, error) {
	text, _, ok := bytes.Cut(signed, []byte("\n\n"))
	if !ok {
		return Checkpoint{}, errors.New("parse checkpoint: no signature")
	}
	return parseCheckpoint(string(text) + "\n")
}

// The largest note that is read of a file of notes, and how far from its end the last one is looked for.
const (
	noteMost = 64 << 10
	endMost  = 4 << 20
)

// splitNote is a bufio.SplitFunc for the notes of a file, as splitNotes cuts them.
func splitNote(data []byte, _ bool) (advance int, token []byte, err error) {
	if notes, _ := splitNotes(data); len(notes) > 0 {
		return len(notes[0]) + 1, notes[0], nil
	}
	return 0, nil, nil
}

// openRegular opens a file of the journal for reading. Whoever put a pipe, a device or a directory in its place
// must not hold up the reader.
func openRegular(dir, name string) (*os.File, error) {
	f, err := regular.Open(filepath.Join(dir, name), os.O_RDONLY, 0)
	return f, strange(err)
}

// strange makes something else in the place of a file ErrTampered.
func strange(err error) error {
	if errors.Is(err, regular.ErrNot) {
		return fmt.Errorf("%w: %w", ErrTampered, err)
	}
	return err
}

// lastNote returns the last complete note in f, nil if there is none, and where it ends. It
// reads only the end of the file.
func lastNote(f *os.File) (n []byte, end int64, err error) {
	st, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	for span := int64(4 << 10); ; span *= 4 {
		from := max(0, st.Size()-span)
		if span > endMost {
			return nil, 0, fmt.Errorf("%w: %s ends with more than %d bytes that are no checkpoint", ErrTampered, f.Name(), endMost)
		}
		b := make([]byte, st.Size()-from)
		if got, err := f.ReadAt(b, from); got < len(b) {
			return nil, 0, fmt.Errorf("read %s: %w", f.Name(), err)
		}
		skip := 0
		if from > 0 { // the first note in b is cut: begin at the first whole one
			i := bytes.Index(b, []byte("\n\nholdfast.journal/"))
			if i < 0 {
				continue
			}
			skip = i + 2
		}
		notes, whole := splitNotes(b[skip:])
		if len(notes) > 0 {
			return notes[len(notes)-1], from + int64(skip+whole), nil
		}
		if from == 0 {
			return nil, 0, nil
		}
	}
}

// latestNote returns the last complete note of a checkpoint file; nil without an
// error if there is none.
func latestNote(dir, name string) ([]byte, error) {
	f, err := openRegular(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	n, _, err := lastNote(f)
	return n, err
}

// writeFile replaces dir/name by way of a temporary file, durably.
func writeFile(dir, name string, data []byte, mode os.FileMode) error {
	tmp := filepath.Join(dir, "."+name+".tmp")
	f, _, err := regular.Make(tmp, os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", filepath.Join(dir, name), err), os.Remove(tmp))
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Newest returns the number of the newest record in dir that a checkpoint covers, 0 if there is
// none: of a checkpoint that nobody signed, at most that of the newest record that is there. Any goroutine of any process may ask.
func Newest(dir string) (uint64, error) {
	_, n, err := sealed(dir)
	if err != nil {
		return 0, fmt.Errorf("read journal %s: %w", dir, err)
	}
	return n, nil
}

// Oldest returns the number of the oldest record that has not expired; 1 in an empty log. Any
// goroutine of any process may ask.
func Oldest(dir string) (uint64, error) {
	n, _, err := sealed(dir)
	if err != nil {
		return 0, fmt.Errorf("read journal %s: %w", dir, err)
	}
	return n, nil
}

// LatestCheckpoint returns the newest signed checkpoint in dir as it is on disk,
// nil if there is none.
func LatestCheckpoint(dir string) ([]byte, error) {
	b, err := latestNote(dir, checkpointName)
	if err != nil {
		return nil, fmt.Errorf("read journal %s: %w", dir, err)
	}
	return b, nil
}
