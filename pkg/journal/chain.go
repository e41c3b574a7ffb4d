package journal

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// The chain of keys. A key signs for a while; then it signs, as its last word, a checkpoint that
// names the next key, and is destroyed:
//
//	key 0 --size 0, next key 0--> chain      the first note: who begins
//	key 0 --size s1, root, next key 1--> chain, then key 0 is destroyed
//	key 1 --size s2, root, next key 2--> chain, then key 1 is destroyed
//	...
//
// Whoever steals key n can sign what comes behind size sn. Nobody can sign other records below sn any
// more: key n-1, which fixed their root, is gone. The public half of key 0, kept
// elsewhere, proves all of it.

// link is one key of the chain.
type link struct {
	vkey     string
	verifier note.Verifier
	since    Checkpoint // the note that made it the key
}

// keychain is the keys that one first key vouches for, in their order.
type keychain struct {
	links  []link
	byHash map[uint32][]int // key hashes have 32 bits: two keys can have one
	known  map[string]bool  // vkeys
	notes  [][]byte         // signed notes that made the links, without the first
}

// newChain begins with the verifier's key of the first key.
func newChain(pub string) (*keychain, error) {
	k := &keychain{byHash: map[uint32][]int{}, known: map[string]bool{}}
	if err := k.add(strings.TrimSpace(pub), Checkpoint{}); err != nil {
		return nil, fmt.Errorf("verifier's key: %w", err)
	}
	k.links[0].since.Origin = k.links[0].verifier.Name()
	return k, nil
}

func (k *keychain) add(vkey string, since Checkpoint) error {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	if len(k.links) > 0 && v.Name() != k.links[0].verifier.Name() {
		return fmt.Errorf("a successor of %s is a key of %s", k.links[0].verifier.Name(), v.Name())
	}
	k.byHash[v.KeyHash()] = append(k.byHash[v.KeyHash()], len(k.links))
	k.links = append(k.links, link{vkey: vkey, verifier: v, since: since})
	k.known[vkey] = true
	return nil
}

func (k *keychain) last() *link { return &k.links[len(k.links)-1] }

// extend adds the keys that the notes lead to, in whatever order these are, and says which notes are no
// part of the chain: not signed by a key of it, or naming a second successor.
func (k *keychain) extend(notes [][]byte) (strange map[int]error) {
	strange = map[int]error{}
	used := map[int]bool{}
	bySigner := map[uint32][]int{}
	for i, n := range notes {
		bySigner[signedBy(n)] = append(bySigner[signedBy(n)], i)
	}
	for grown := true; grown; {
		grown = false
		at := len(k.links) - 1
		for _, i := range bySigner[k.links[at].verifier.KeyHash()] {
			c, by, err := k.open(notes[i])
			if err != nil || by != at || c.Next == "" || k.known[c.Next] {
				continue
			}
			if err := k.add(c.Next, c); err != nil {
				strange[i] = err
				continue
			}
			k.notes = append(k.notes, notes[i])
			used[i], grown = true, true
			break
		}
	}
	for i, n := range notes {
		if used[i] || strange[i] != nil {
			continue
		}
		c, by, err := k.open(n)
		switch {
		case err != nil:
			strange[i] = err
		case c.Next == "":
			strange[i] = errors.New("it names no key")
		case by == 0 && c.Next == k.links[0].vkey && c.Size == 0: // who begins
			k.links[0].since = c
		case !k.leads(c, by):
			strange[i] = fmt.Errorf("a second successor of key %d of the chain", by+1)
		}
	}
	return strange
}

// leads reports whether c, signed by key by, is what began the chain or made its next key.
func (k *keychain) leads(c Checkpoint, by int) bool {
	if by == 0 && c.Size == 0 && c.Next == k.links[0].vkey {
		return true
	}
	return by+1 < len(k.links) && k.links[by+1].vkey == c.Next && k.links[by+1].since == c
}

// open checks a note and returns which key of the chain signed it.
func (k *keychain) open(signed []byte) (Checkpoint, int, error) {
	which := -1
	n, err := note.Open(signed, verifiers{k, &which})
	if err != nil {
		return Checkpoint{}, 0, err
	}
	c, err := parseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, 0, err
	}
	own := &k.links[which]
	if c.Origin != own.verifier.Name() {
		return c, which, fmt.Errorf("it is of %s, the key of %s", c.Origin, own.verifier.Name())
	}
	if c.Size < own.since.Size {
		return c, which, fmt.Errorf("size %d is signed by key %d of the chain, which signs from size %d on: %w", c.Size, which+1, own.since.Size, errOutOfTurn)
	}
	if which+1 < len(k.links) {
		if end := k.links[which+1].since.Size; c.Size > end {
			return c, which, fmt.Errorf("size %d is signed by key %d of the chain, which was destroyed at size %d: %w", c.Size, which+1, end, errOutOfTurn)
		}
	}
	return c, which, nil
}

// errOutOfTurn says that a key signed what it had no right to.
var errOutOfTurn = errors.New("the key was not in force")

// verifiers finds the key of a signature; who is set by the one that verifies.
type verifiers struct {
	k   *keychain
	who *int
}

// Verifier implements note.Verifiers.
func (v verifiers) Verifier(name string, hash uint32) (note.Verifier, error) {
	var of []int
	for _, i := range v.k.byHash[hash] {
		if v.k.links[i].verifier.Name() == name {
			of = append(of, i)
		}
	}
	if len(of) == 0 {
		return nil, &note.UnknownVerifierError{Name: name, KeyHash: hash}
	}
	return oneOf{Verifier: v.k.links[of[0]].verifier, v: v, of: of}, nil
}

// oneOf is all keys with one hash.
type oneOf struct {
	note.Verifier
	v  verifiers
	of []int
}

// Verify implements note.Verifier.
func (o oneOf) Verify(msg, sig []byte) bool {
	for _, i := range o.of {
		if o.v.k.links[i].verifier.Verify(msg, sig) {
			*o.v.who = i
			return true
		}
	}
	return false
}

// signedBy reads the key hash of a note's first signature, 0 if there is none.
func signedBy(signed []byte) uint32 {
	_, sigs, ok := bytes.Cut(signed, []byte("\n\n— "))
	if !ok {
		return 0
	}
	line, _, _ := bytes.Cut(sigs, []byte("\n"))
	_, text, _ := bytes.Cut(line, []byte(" "))
	raw, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil || len(raw) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(raw)
}

// chainMost bounds what is read of a chain: 70 years of keys of an hour.
const chainMost = 256 << 20

// chainNotes reads the chain file; nothing without an error if there is none. torn says that it ends
// inside a note.
func chainNotes(dir string) (notes [][]byte, torn bool, err error) {
	f, err := openRegular(dir, chainName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && st.Size() > chainMost {
		err = fmt.Errorf("%w: %s has more than %d bytes", ErrTampered, chainName, chainMost)
	}
	if err != nil {
		return nil, false, err
	}
	b, err := io.ReadAll(io.LimitReader(f, chainMost))
	if err != nil {
		return nil, false, err
	}
	notes, whole := splitNotes(b)
	return notes, whole < len(b), nil
}

// beganWith returns the verifier's key that a chain says it began with, "" if it does not say: the
// first note is signed by the key that it names.
func beganWith(notes [][]byte) string {
	if len(notes) == 0 {
		return ""
	}
	c, err := unsigned(notes[0])
	if err != nil || c.Next == "" {
		return ""
	}
	k, err := newChain(c.Next)
	if err != nil {
		return ""
	}
	if _, _, err := k.open(notes[0]); err != nil {
		return ""
	}
	return c.Next
}

// genesis is the first note of a chain.
func (s *signer) genesis(c Checkpoint) ([]byte, error) {
	c.Origin, c.Next = s.name, s.vkey
	b, err := c.sign(s)
	return append(b, '\n'), err
}
