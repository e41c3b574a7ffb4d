package journal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast/holdfast/pkg/internal/regular"
)

// signer signs checkpoints as note's own signers do, and can forget its key.
type signer struct {
	name string
	vkey string // the verifier's key
	hash uint32
	key  ed25519.PrivateKey
}

var _ note.Signer = (*signer)(nil)

// Name implements note.Signer.
func (s *signer) Name() string { return s.name }

// KeyHash implements note.Signer.
func (s *signer) KeyHash() uint32 { return s.hash }

// Sign implements note.Signer.
func (s *signer) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }

// wipe overwrites the key in memory. Copies that the runtime made on the way are not reached.
func (s *signer) wipe() { clear(s.key) }

func signerOf(name string, seed []byte) (*signer, error) {
	key := ed25519.NewKeyFromSeed(seed)
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("no Ed25519 key")
	}
	vkey, err := note.NewEd25519VerifierKey(name, pub)
	if err != nil {
		return nil, err
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	return &signer{name: name, vkey: vkey, hash: v.KeyHash(), key: key}, nil
}

func newSigner(name string) (*signer, error) {
	seed := make([]byte, ed25519.SeedSize)
	defer clear(seed)
	rand.Read(seed) // never fails: crypto/rand
	s, err := signerOf(name, seed)
	if err != nil {
		return nil, fmt.Errorf("make journal key: %w", err)
	}
	return s, nil
}

// algorithm is note's number for Ed25519, the first byte of each of its keys.
const algorithm = 1

// line is the key as note.GenerateKey writes it: PRIVATE+KEY+NAME+HASH+BASE64.
func (s *signer) line() []byte {
	raw := append([]byte{algorithm}, s.key.Seed()...)
	defer clear(raw)
	return append(base64.StdEncoding.AppendEncode(fmt.Appendf(nil, "PRIVATE+KEY+%s+%08x+", s.name, s.hash), raw), '\n')
}

// loadSigner reads a key file; nil without an error if there is none.
func loadSigner(keyDir, file string) (*signer, error) {
	name := filepath.Join(keyDir, file)
	b, err := regular.ReadFile(name, noteMost)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if errors.Is(err, regular.ErrNot) {
		return nil, fmt.Errorf("read journal key: %w: %w", errBadKey, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read journal key: %w", err)
	}
	defer clear(b)
	s, err := parseSigner(bytes.TrimSpace(b))
	if err != nil {
		return nil, fmt.Errorf("read journal key %s: %w", name, err)
	}
	return s, nil
}

var errBadKey = errors.New("malformed signing key")

func parseSigner(line []byte) (*signer, error) {
	f := bytes.SplitN(line, []byte("+"), 5)
	if len(f) != 5 || string(f[0]) != "PRIVATE" || string(f[1]) != "KEY" {
		return nil, errBadKey
	}
	raw := make([]byte, base64.StdEncoding.DecodedLen(len(f[4])))
	defer clear(raw)
	n, err := base64.StdEncoding.Decode(raw, f[4])
	if err != nil || n != 1+ed25519.SeedSize || raw[0] != algorithm {
		return nil, errBadKey
	}
	s, err := signerOf(string(f[2]), raw[1:n])
	if err != nil || fmt.Sprintf("%08x", s.hash) != string(f[3]) {
		return nil, errBadKey
	}
	return s, nil
}

// destroyKey overwrites a key file where it lies and removes it, or with to puts the file to in its
// place. A file system that writes elsewhere (btrfs, a log of data, flash) keeps the old bytes.
func destroyKey(keyDir, file, to string) error {
	name := filepath.Join(keyDir, file)
	f, err := regular.Open(name, os.O_WRONLY, 0)
	if err == nil {
		err = errors.Join(overwrite(f), f.Close())
	} else if errors.Is(err, regular.ErrNot) { // no key of ours
		_, err = regular.Aside(name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("destroy journal key: %w", err)
	}
	if to != "" {
		err = os.Rename(filepath.Join(keyDir, to), name)
	} else if err = os.Remove(name); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("destroy journal key: %w", err)
	}
	return syncDir(keyDir)
}

func overwrite(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	b := make([]byte, min(st.Size(), noteMost)) // a key is shorter
	rand.Read(b)                                // never fails: crypto/rand
	_, err = f.WriteAt(b, 0)
	return errors.Join(err, f.Sync())
}

// readPub reads the verifier's key of the log's first key; "" if the file is missing.
func readPub(keyDir string) (string, error) {
	f, err := openRegular(keyDir, pubName)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, noteMost))
	return strings.TrimSpace(string(b)), err
}
