package storetest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/holdfast/holdfast/rollback/cas"
)

// Keys is a Sealer for tests: AES-256-GCM with random nonces, the keys made from
// words. A real one gets its keys from where they are safe.
type Keys struct {
	now   string // id
	known map[string]cipher.AEAD
}

var _ cas.Sealer = (*Keys)(nil)

// ErrNoKey is what Keys answers for an id that it does not know.
var ErrNoKey = errors.New("no such key")

// NewKeys has the keys of some words and seals with the first one.
func NewKeys(words ...string) *Keys {
	k := &Keys{known: map[string]cipher.AEAD{}}
	for _, w := range words {
		k.Learn(KeyID(w), w)
	}
	k.Use(words[0])
	return k
}

// KeyID is the id of the key of a word. It is made from the key.
func KeyID(word string) string {
	key := sha256.Sum256([]byte(word))
	id := sha256.Sum256(key[:])
	return fmt.Sprintf("aes-256-gcm/%x", id[:8])
}

// Learn has the key of a word go by an id.
func (k *Keys) Learn(id, word string) {
	key := sha256.Sum256([]byte(word))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // of another length than 32 bytes
	}
	if k.known[id], err = cipher.NewGCMWithRandomNonce(block); err != nil {
		panic(err)
	}
}

// Use seals with the key of a word from now on.
func (k *Keys) Use(word string) { k.now = KeyID(word) }

// KeyID implements cas.Sealer.
func (k *Keys) KeyID() string { return k.now }

// Seal implements cas.Sealer.
func (k *Keys) Seal(id string, dst, plain, aad []byte) ([]byte, error) {
	key, ok := k.known[id]
	if !ok {
		return nil, ErrNoKey
	}
	return key.Seal(dst, nil, plain, aad), nil
}

// Open implements cas.Sealer.
func (k *Keys) Open(id string, dst, sealed, aad []byte) ([]byte, error) {
	key, ok := k.known[id]
	if !ok {
		return nil, ErrNoKey
	}
	plain, err := key.Open(dst, nil, sealed, aad)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", cas.ErrCorrupt, err)
	}
	return plain, nil
}
