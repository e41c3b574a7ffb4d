package journal

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/holdfast/holdfast/pkg/internal/regular"
)

// Pin is what an audit keeps of a log: the newest checkpoint that it proved, the key that signed it, and the edge of the tree
// of that size, so that the next audit needs the records behind it alone, and sees whether the log was written anew or put back since.
// As JSON it has some kilobytes.
type Pin struct {
	Origin string      `json:"origin"`
	First  string      `json:"first"` // verifier's key that the log began with
	Key    string      `json:"key"`   // verifier's key that signed Note
	Since  uint64      `json:"since"` // size at which Key came into force
	Note   string      `json:"note"`  // signed checkpoint
	Edge   []tlog.Hash `json:"edge"`  // complete subtrees of the tree of that size, the largest first
}

// pinMost bounds what is read of a file of Pin.
const pinMost = 1 << 20

// ErrPin says that what is kept of a log is not what an audit wrote.
var ErrPin = errors.New("this is not what an earlier verify kept")

func edgeOf(t *tree) (out []tlog.Hash) {
	for level := bits.Len64(uint64(t.size)) - 1; level >= 0; level-- {
		if t.size>>level&1 == 1 {
			out = append(out, t.edge[level])
		}
	}
	return out
}

// check returns the tree and the checkpoint of p: the edge gives the root that Key signed.
func (p *Pin) check() (*tree, Checkpoint, error) {
	fail := func(what string) (*tree, Checkpoint, error) {
		return nil, Checkpoint{}, fmt.Errorf("%w: %s", ErrPin, what)
	}
	if _, err := newChain(p.First); err != nil {
		return fail(err.Error())
	}
	k, err := newChain(p.Key)
	if err != nil {
		return fail(err.Error())
	}
	c, _, err := k.open([]byte(p.Note))
	if err != nil {
		return fail(err.Error())
	}
	if c.Origin != p.Origin {
		return fail("it is of " + c.Origin)
	}
	t := &tree{size: int64(c.Size)}
	edge := p.Edge
	for level := bits.Len64(c.Size) - 1; level >= 0; level-- {
		if c.Size>>level&1 == 0 {
			continue
		}
		if len(edge) == 0 {
			return fail("its edge is too short")
		}
		t.edge[level], edge = edge[0], edge[1:]
	}
	if len(edge) > 0 || t.root() != c.Root || c.Size < p.Since {
		return fail("its edge does not give the root that was signed")
	}
	return t, c, nil
}

// pinName is the file of a log in a directory of pins. Host ids come from a server that nobody trusts.
func pinName(origin string) string {
	const plain = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_~"
	id := hostOf(origin)
	if id == "" || len(id) > 128 || strings.ContainsFunc(id, func(r rune) bool { return !strings.ContainsRune(plain, r) }) {
		sum := sha256.Sum256([]byte(id))
		id = "sha256-" + hex.EncodeToString(sum[:])
	}
	return id + pinSuffix
}

func hostOf(of string) string { return strings.TrimPrefix(of, origin("")) }

const pinSuffix = ".json"

// ReadPin reads what an audit kept of a log in dir, nil if nothing.
func ReadPin(dir, hostID string) (*Pin, error) {
	p, err := readPin(filepath.Join(dir, pinName(origin(hostID))))
	if err == nil && p != nil && p.Origin != origin(hostID) {
		err = fmt.Errorf("%s: %w: it is of %s", filepath.Join(dir, pinName(origin(hostID))), ErrPin, p.Origin)
	}
	return p, err
}

func readPin(name string) (*Pin, error) {
	f, err := regular.Open(name, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, pinMost))
	if err != nil {
		return nil, err
	}
	p := new(Pin)
	if err := json.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", name, ErrPin, err)
	}
	if _, _, err := p.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// Pinned returns the host ids of which an audit kept something in dir, which need not be there.
func Pinned(dir string) (hostIDs []string, err error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), pinSuffix) || strings.HasPrefix(f.Name(), ".") {
			continue
		}
		p, err := readPin(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, err
		}
		if p != nil {
			hostIDs = append(hostIDs, hostOf(p.Origin))
		}
	}
	return hostIDs, err
}

// Write keeps p in dir, durably; it replaces what is there at once.
func (p *Pin) Write(dir string) error {
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(dir, pinName(p.Origin), append(b, '\n'), 0o600)
}

// ReadKeys reads verifier's keys, one a line, by the id of their host. Empty lines and what begins with # are passed over.
func ReadKeys(text string) (map[string]string, error) {
	keys := map[string]string{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		k, err := newChain(line)
		if err != nil {
			return nil, err
		}
		id := hostOf(k.links[0].verifier.Name())
		if other, ok := keys[id]; ok && other != line {
			return nil, fmt.Errorf("two keys of host %s", id)
		}
		keys[id] = line
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no key in it")
	}
	return keys, nil
}
