package cas

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
)

// ErrSealed says that something is sealed and cannot be opened here: there is no
// Sealer, it lacks the key, or the form is of a later version. It says nothing
// about damage, and what it is about is never removed or replaced because of it.
var ErrSealed = errors.New("it is sealed and cannot be opened here")

// Sealer encrypts what the vault stores, and decrypts it. Its methods are called
// from several goroutines, for each object that is written or read; a capture, a
// restore or a check waits for them.
//
// The vault owns all slices: a Sealer keeps none when it returns, and writes to none
// but the room behind dst, which none of the others reaches into.
//
// storetest.Keys is one for tests.
type Sealer interface {
	// KeyID names the key that Seal is to use from now on: 1 to 255 bytes, which are
	// stored in the clear. It stands for the method too, and for one key for ever:
	// made from the key, it cannot be given to another one. It may change when keys
	// are rotated, as long as Open knows the old ones.
	KeyID() string

	// Seal appends plain, sealed with the key of that id, to dst and returns the whole.
	// Whoever lacks the key must neither be able to read it nor to alter it or aad
	// unseen, and the same plain sealed twice must not show that it is the same.
	Seal(keyID string, dst, plain, aad []byte) ([]byte, error)

	// Open appends what Seal was given as plain to dst and returns the whole. aad is as
	// it was for Seal. An error that wraps ErrCorrupt says that the bytes, or aad, are
	// not those of Seal with this very key: what they are of is then damaged, and may
	// be stored afresh. Any other one, of an unknown key or of a service that does not
	// answer, becomes ErrSealed.
	Open(keyID string, dst, sealed, aad []byte) ([]byte, error)
}

// What is sealed is wrapped into an envelope:
//
//	0       3         4        6           n-4      n
//	+-------+---------+--------+-----------+--------+--------------+
//	| "HFS" | version | n      | id of the | check  | what Seal    |
//	|       | 1       |        | key       | 0..n-4 | appended     |
//	+-------+---------+--------+-----------+--------+--------------+
//
// n is little endian, the check is the beginning of the BLAKE3 of 0 to n-4. A later
// version may have another head, but has "HFS", a version, n and a check there: so a
// reader tells what it does not know from what is damaged. The aad is the head and
// what the envelope is of.
const (
	sealMagic   = "HFS"
	sealVersion = 1
	sealHead    = 6
	sealSum     = 4
	keyIDMax    = 255
)

var errEnvelope = errors.New("the head of its seal is damaged")

// Sealed reports whether b begins as an envelope does. No zstd frame, list of
// chunks or CBOR map does.
func Sealed(b []byte) bool {
	return len(b) >= len(sealMagic) && string(b[:len(sealMagic)]) == sealMagic
}

// Seal returns plain in an envelope. of is what it is, and must be said to Unseal.
func Seal(s Sealer, of string, plain []byte) ([]byte, error) {
	id := s.KeyID()
	if len(id) == 0 || len(id) > keyIDMax {
		return nil, fmt.Errorf("seal: the id of the key has %d bytes, not 1 to %d", len(id), keyIDMax)
	}
	head := make([]byte, 0, sealHead+len(id)+sealSum+len(plain)+64)
	head = append(head, sealMagic...)
	head = append(head, sealVersion)
	head = binary.LittleEndian.AppendUint16(head, uint16(sealHead+len(id)+sealSum))
	head = append(head, id...)
	head = append(head, sealCheck(head)...)
	b, err := s.Seal(id, head, plain, aad(head, of))
	if err != nil {
		return nil, fmt.Errorf("seal with key %q: %w", id, err)
	}
	if now, _, err := SealedWith(b); err != nil || now != id {
		return nil, fmt.Errorf("seal with key %q: the head is not before what Seal returned", id)
	}
	return b, nil
}

func sealCheck(head []byte) []byte {
	sum := digest.Sum(head)
	return sum[:sealSum]
}

func aad(head []byte, of string) []byte { return append(head[:len(head):len(head)], of...) }

// Unseal appends what is in an envelope to dst and returns the whole. The error
// wraps ErrSealed or ErrCorrupt.
func Unseal(s Sealer, of string, dst, b []byte) ([]byte, error) {
	id, n, err := SealedWith(b)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, fmt.Errorf("%w: with key %q, and no key is at hand", ErrSealed, id)
	}
	out, err := s.Open(id, dst, b[n:], aad(b[:n], of))
	if errors.Is(err, ErrCorrupt) {
		return nil, fmt.Errorf("sealed with key %q: %w", id, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: with key %q: %w", ErrSealed, id, err)
	}
	return out, nil
}

// SealedWith returns the id of the key of an envelope and how long its head is.
func SealedWith(b []byte) (keyID string, n int, err error) {
	if !Sealed(b) || len(b) < sealHead+sealSum {
		return "", 0, fmt.Errorf("%w: %w", ErrCorrupt, errEnvelope)
	}
	n = int(binary.LittleEndian.Uint16(b[4:]))
	if n < sealHead+sealSum || n > len(b) || string(sealCheck(b[:n-sealSum])) != string(b[n-sealSum:n]) {
		return "", 0, fmt.Errorf("%w: %w", ErrCorrupt, errEnvelope)
	}
	if v := b[3]; v != sealVersion {
		return "", 0, fmt.Errorf("%w: in version %d of the form, this program knows %d", ErrSealed, v, sealVersion)
	}
	return string(b[sealHead : n-sealSum]), n, nil
}

// objectName is what the envelope of an object is of: one moved to another address
// does not open.
func objectName(h event.Hash) string { return "object " + h.Hex() }

// seal wraps an object if there is a Sealer.
func (s *Store) seal(h event.Hash, b []byte) ([]byte, error) {
	if s.sealer == nil {
		return b, nil
	}
	return Seal(s.sealer, objectName(h), b)
}
