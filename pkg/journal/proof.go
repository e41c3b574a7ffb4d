package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast/holdfast/pkg/event"
)

// ProofFormat names the layout of a Proof.
const ProofFormat = "holdfast-proof/1"

// ErrUnproven is what Check returns for a document that does not prove what it says, and Prove for
// a log that does not give what it signed.
var ErrUnproven = errors.New("not proven")

// ErrNoRecord says that the log has no record with that number any more, or not yet.
var ErrNoRecord = errors.New("no such record in the log")

// Proof shows to somebody who has the first verifier's key and nothing else that a record is in the
// log, or that the log of an earlier checkpoint is the beginning of the log of a later one. It is one JSON
// document; hashes are base64.
type Proof struct {
	Format string `json:"format"`

	// Of a record: its number, its bytes as they were signed (CBOR), and what they say.
	Seq    uint64          `json:"seq,omitempty"`
	Bytes  []byte          `json:"bytes,omitempty"`
	Record json.RawMessage `json:"record,omitempty"`
	// Of two checkpoints: the earlier. Beside a record: one that was kept elsewhere, and that its log is the beginning of this one.
	Earlier     string      `json:"earlier,omitempty"`
	EarlierPath []tlog.Hash `json:"earlier_path,omitempty"` // RFC 6962 consistency proof, beside a record

	Path       []tlog.Hash `json:"path"`           // RFC 6962 audit path, or consistency proof of two checkpoints
	Checkpoint string      `json:"checkpoint"`     // signed note
	Keys       []string    `json:"keys,omitempty"` // signed notes from the first key to the one of the checkpoint
}

// Proven is what a good proof shows.
type Proven struct {
	Origin  string        `json:"origin"`
	Size    uint64        `json:"size"` // of the log that was signed
	Root    string        `json:"root"`
	Time    event.Time    `json:"time"` // of the checkpoint
	Keys    int           `json:"keys"` // of the chain, up to the one that signed
	Seq     uint64        `json:"seq,omitempty"`
	Record  *event.Record `json:"record,omitempty"`
	Earlier uint64        `json:"earlier,omitempty"` // size of the earlier log
	Kept    uint64        `json:"kept,omitempty"`    // size of the largest checkpoint that was kept elsewhere and is of this log
}

// Prove makes the proof of record seq against the newest checkpoint, and, unless earlier is nil, that the log of that signed
// checkpoint is the beginning of this one: who kept it elsewhere can tell that the record is of the log that was seen there. It works
// beside the writer.
func Prove(ctx context.Context, dir string, seq uint64, earlier []byte) (*Proof, error) {
	fail := func(err error) (*Proof, error) { return nil, fmt.Errorf("prove record %d: %w", seq, err) }
	e, err := recordOf(ctx, dir, seq)
	if err != nil {
		return fail(err)
	}
	p := &Proof{Bytes: e.Bytes, Seq: seq, Earlier: string(earlier)}
	rec, err := Decode(e.Bytes)
	if err != nil {
		return fail(err)
	}
	if p.Record, err = json.Marshal(rec); err != nil {
		return fail(err)
	}
	err = p.make(dir, func(c Checkpoint, h tlog.HashReader) error {
		if seq > c.Size {
			return ErrNoRecord
		}
		path, err := tlog.ProveRecord(int64(c.Size), int64(seq)-1, h)
		p.Path = path
		if err == nil && earlier != nil {
			p.EarlierPath, err = proveEarlier(earlier, c, h)
		}
		return err
	})
	if err != nil {
		return fail(err)
	}
	return p, nil
}

// ProveEarlier makes the proof that the log of an earlier signed checkpoint is the beginning of this one.
func ProveEarlier(dir string, signed []byte) (*Proof, error) {
	p := &Proof{Earlier: string(signed)}
	err := p.make(dir, func(c Checkpoint, h tlog.HashReader) (err error) {
		p.Path, err = proveEarlier(signed, c, h)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("prove an earlier checkpoint: %w", err)
	}
	return p, nil
}

// proveEarlier makes the path from a signed checkpoint to c.
func proveEarlier(signed []byte, c Checkpoint, h tlog.HashReader) ([]tlog.Hash, error) {
	old, err := unsigned(signed)
	switch {
	case err != nil:
		return nil, err
	case old.Size > c.Size:
		return nil, fmt.Errorf("the log ends at record %d, the checkpoint is of size %d: %w", c.Size, old.Size, ErrUnproven)
	case old.Size == 0:
		return []tlog.Hash{}, nil
	}
	return tlog.ProveTree(int64(c.Size), int64(old.Size), h)
}

func recordOf(ctx context.Context, dir string, seq uint64) (e Entry, err error) {
	r, err := OpenReader(dir)
	if err != nil {
		return Entry{}, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if end, err := r.End(); err != nil || seq == 0 || seq > end {
		return Entry{}, errors.Join(err, ErrNoRecord)
	}
	if err := r.Seek(seq); err != nil {
		return Entry{}, err
	}
	e, err = r.Next(ctx)
	if err == nil && e.Seq != seq {
		err = ErrNoRecord
	}
	return e, err
}

// make fills in what both proofs have, and looks whether it proves anything.
func (p *Proof) make(dir string, path func(Checkpoint, tlog.HashReader) error) error {
	signed, err := latestNote(dir, checkpointName)
	if err != nil {
		return err
	}
	if signed == nil {
		return fmt.Errorf("there is no checkpoint: %w", ErrUnproven)
	}
	c, err := unsigned(signed)
	if err != nil {
		return err
	}
	p.Format, p.Checkpoint, p.Path = ProofFormat, string(signed), []tlog.Hash{}
	chain, _, err := chainNotes(dir)
	if err != nil {
		return err
	}
	pub := beganWith(chain)
	if pub == "" {
		return fmt.Errorf("%s does not say who began: %w", chainName, ErrUnproven)
	}
	for _, n := range chain[1:] {
		since, err := unsigned(n)
		if err == nil && since.Size > c.Size { // made while we read
			break
		}
		p.Keys = append(p.Keys, string(n))
	}
	f, err := openRegular(dir, hashesName)
	if err != nil {
		return err
	}
	err = path(c, hashFile{f})
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	_, err = p.Check(pub)
	return err
}

// ReadProof reads a document. One that shows its reader something that Check does not look at (a field of nobody, a
// name twice) is ErrUnproven; any other error says that it is no document at all.
func ReadProof(b []byte) (*Proof, error) {
	p := new(Proof)
	if err := json.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("not a proof: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(new(Proof)); err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrUnproven)
	}
	if name := twice(b); name != "" {
		return nil, fmt.Errorf("the document says %q twice: %w", name, ErrUnproven)
	}
	return p, nil
}

// twice returns a name that an object in b has two times, "" if there is none. Capitals make no other name of the
// document's own: encoding/json takes one for the other.
func twice(b []byte) string {
	type object struct {
		names map[string]bool // nil in an array
		named bool            // its next token is a value
	}
	var in []*object
	d := json.NewDecoder(bytes.NewReader(b))
	for {
		t, err := d.Token()
		if err != nil {
			return ""
		}
		n := len(in)
		switch s, isString := t.(string); {
		case t == json.Delim('{'):
			in = append(in, &object{names: map[string]bool{}})
			continue
		case t == json.Delim('['):
			in = append(in, &object{})
			continue
		case t == json.Delim('}') || t == json.Delim(']'):
			in = in[:n-1]
		case isString && n > 0 && in[n-1].names != nil && !in[n-1].named:
			name := s
			if n == 1 {
				name = strings.ToLower(strings.ToUpper(s))
			}
			if in[n-1].names[name] {
				return s
			}
			in[n-1].names[name], in[n-1].named = true, true
			continue
		}
		if n = len(in); n > 0 {
			in[n-1].named = false
		}
	}
}

// Check tells what p proves to one who trusts the verifier's key pub. It reads nothing but p and kept: signed checkpoints and changes of
// key that were kept elsewhere. If there are any, none may contradict p, and one must be of the log that p is of: its size and root are those of p's checkpoint
// or of the earlier one. Its error is ErrUnproven or one about pub.
func (p *Proof) Check(pub string, kept ...[]byte) (Proven, error) {
	fail := func(format string, args ...any) (Proven, error) {
		return Proven{}, fmt.Errorf(format+": %w", append(args, ErrUnproven)...)
	}
	k, err := newChain(pub)
	if err != nil {
		return Proven{}, err
	}
	if p.Format != ProofFormat {
		return fail("format %q is not %s", p.Format, ProofFormat)
	}
	notes := make([][]byte, len(p.Keys))
	for i, n := range p.Keys {
		notes[i] = []byte(n)
	}
	for i, why := range k.extend(notes) {
		return fail("note %d of the chain of keys: %v", i+1, why)
	}
	c, by, err := k.open([]byte(p.Checkpoint))
	if err != nil {
		return fail("checkpoint: %v", err)
	}
	out := Proven{Origin: c.Origin, Size: c.Size, Root: c.Root.String(), Time: c.Time, Keys: by + 1}
	shown := []Checkpoint{c}
	alone := p.Seq == 0 && len(p.Bytes) == 0 && len(p.Record) == 0
	switch {
	case p.Earlier != "":
		old, _, err := k.open([]byte(p.Earlier))
		if err != nil {
			return fail("earlier checkpoint: %v", err)
		}
		path := p.EarlierPath
		if alone {
			path = p.Path
		}
		out.Earlier = old.Size
		if err := beginning(path, old, c); err != nil {
			return fail("the log of size %d is not the beginning of that of size %d (%v)", old.Size, c.Size, err)
		}
		shown = append(shown, old)
	case len(p.EarlierPath) > 0:
		return fail("a path from no earlier checkpoint")
	}
	if out.Kept, err = k.keptOf(shown, by, kept); err != nil {
		return fail("%v", err)
	}
	if alone && p.Earlier != "" {
		if len(p.EarlierPath) > 0 {
			return fail("two paths from the earlier checkpoint")
		}
		return out, nil
	}
	if p.Seq == 0 || p.Seq > c.Size {
		return fail("record %d is not below size %d", p.Seq, c.Size)
	}
	if err := tlog.CheckRecord(p.Path, int64(c.Size), c.Root, int64(p.Seq)-1, tlog.RecordHash(p.Bytes)); err != nil {
		return fail("record %d is not what was signed (%v)", p.Seq, err)
	}
	if out.Record, err = Decode(p.Bytes); err != nil {
		return fail("record %d: %v", p.Seq, err)
	}
	if out.Record.Seq != p.Seq {
		return fail("record %d says that it is record %d", p.Seq, out.Record.Seq)
	}
	if !sameRecord(p.Record, out.Record) {
		return fail("record %d is signed, but the document shows another text for it", p.Seq)
	}
	out.Seq = p.Seq
	return out, nil
}

// keptOf holds what a document shows, signed by key by, against what was kept elsewhere, and returns the largest size in which they agree.
func (k *keychain) keptOf(shown []Checkpoint, by int, kept [][]byte) (size uint64, err error) {
	agree := false
	for i, b := range kept {
		c, signer, err := k.open(b)
		var other *note.UnverifiedNoteError
		late := errors.As(err, &other) // of a key behind those of the document: its root speaks all the same
		if late {
			c, err = unsigned(b)
		}
		if err != nil {
			return 0, fmt.Errorf("kept checkpoint %d: %w", i+1, err)
		}
		ended := !late && c.Next != "" && signer == len(k.links)-1 && by == signer && shown[0].Size > c.Size
		if !late && c.Next != "" && (signer+1 < len(k.links) && !k.leads(c, signer) || ended) {
			return 0, fmt.Errorf("a change of key at size %d was kept, %s: it names another key than the one that signs there", c.Size, c.Time)
		}
		for _, s := range append(k.sizes(), shown...) {
			if c.Origin == s.Origin && c.Size == s.Size && c.Root != s.Root {
				return 0, fmt.Errorf("a checkpoint of size %d was kept, %s, with root %s: another log than that of the document, %s", c.Size, c.Time, c.Root, s.Root)
			}
		}
		for _, s := range shown {
			if !late && c.Size == s.Size && c.Size > 0 { // the empty log is the beginning of any
				agree, size = true, max(size, c.Size)
			}
		}
	}
	if len(kept) > 0 && !agree {
		return 0, fmt.Errorf("none of %d kept checkpoints is of size %d: make the document with show --prove --checkpoint, of one of them", len(kept), shown[0].Size)
	}
	return size, nil
}

// sizes are the checkpoints that made the links.
func (k *keychain) sizes() (out []Checkpoint) {
	for _, l := range k.links[1:] {
		out = append(out, l.since)
	}
	return out
}

// beginning reports why the log of old is not the beginning of that of c.
func beginning(path []tlog.Hash, old, c Checkpoint) error {
	switch {
	case old.Size > c.Size:
		return errors.New("it is the later one")
	case old.Size == 0:
		if old.Root != (&tree{}).root() {
			return errors.New("an empty log has another root")
		}
		if len(path) > 0 {
			return errors.New("there is no path from an empty log")
		}
		return nil
	}
	return tlog.CheckTree(path, int64(c.Size), c.Root, int64(old.Size), old.Root)
}

// sameRecord compares what a reader of the document sees. Without a text there is nothing to compare.
func sameRecord(shown json.RawMessage, signed *event.Record) bool {
	if len(shown) == 0 {
		return true
	}
	b, err := json.Marshal(signed)
	if err != nil {
		return false
	}
	var one, other any
	return plain(shown, &one) == nil && plain(b, &other) == nil && reflect.DeepEqual(one, other)
}

// plain decodes without rounding numbers.
func plain(b []byte, to *any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return d.Decode(to)
}
