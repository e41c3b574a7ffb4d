package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/holdfast/holdfast/pkg/event"
)

// loadKeys reads the signing key, after it has ended a change of keys that a crash interrupted:
//
//	key  next          nothing of it is in the chain: next is dropped
//	key  next  chain   the chain says that next signs: key is destroyed, next takes its place
//	-    next  chain   the same, key was being overwritten and cannot be read
func (r *recovery) loadKeys(notes [][]byte) error {
	next, err := loadSigner(r.keyDir, nextName)
	if errors.Is(err, errBadKey) { // half written
		next, err = nil, destroyKey(r.keyDir, nextName, "")
	}
	if err != nil {
		return err
	}
	if next != nil {
		named := false
		for _, n := range notes {
			c, err := unsigned(n)
			named = named || err == nil && c.Next == next.vkey
		}
		if named {
			err = destroyKey(r.keyDir, keyName, nextName)
		} else {
			err = destroyKey(r.keyDir, nextName, "")
		}
		if err != nil {
			return err
		}
	}
	r.signer, err = loadSigner(r.keyDir, keyName)
	if r.wiped && errors.Is(err, errBadKey) {
		return nil // what it signed is set aside
	}
	return err
}

// linkKeys follows the chain from the first key to the signing one.
func (r *recovery) linkKeys(newest []byte, notes [][]byte) error {
	pub, err := readPub(r.keyDir)
	if err != nil {
		return err
	}
	lost := pub == ""
	if lost {
		if pub = beganWith(notes); pub == "" {
			pub = r.signer.vkey
		}
	}
	if r.chain, err = newChain(pub); err == nil {
		for i, why := range r.chain.extend(notes) {
			r.wrong(ProblemKey, "%s: note %d: %v", chainName, i+1, why)
		}
	}
	if err == nil && r.chain.last().vkey == r.signer.vkey {
		if lost {
			return writeFile(r.keyDir, pubName, []byte(pub+"\n"), 0o644)
		}
		return nil
	}
	// The chain does not lead to the key that is there. If that signed the newest checkpoint, the
	// chain or the public half was changed, else the key was.
	alone, aerr := newChain(r.signer.vkey)
	if aerr != nil {
		return aerr
	}
	var other *note.UnverifiedNoteError
	if newest != nil {
		if _, _, oerr := alone.open(newest); errors.As(oerr, &other) {
			return fmt.Errorf("%w: the newest checkpoint is not signed by %s", ErrKey, filepath.Join(r.keyDir, keyName))
		}
	}
	r.chain = alone
	if err != nil {
		r.wrong(ProblemKey, "%s is no key: %v", filepath.Join(r.keyDir, pubName), err)
	} else {
		r.wrong(ProblemKey, "%s and %s do not lead to %s", filepath.Join(r.keyDir, pubName), chainName, keyName)
	}
	return nil
}

// begin starts an empty log with a key of its own, which is kept last: a crash before leaves nothing
// that counts. Where a key is there already, or r.wiped says so, a log was wiped: the new one has a name of its own.
func (r *recovery) begin() error {
	now := r.o.Now()
	if r.signer != nil || r.wiped {
		r.o.HostID = r.machine + event.Again + strconv.FormatInt(now.UnixNano(), 36)
		r.w.o.HostID = r.o.HostID
	}
	var err error
	if r.signer, err = newSigner(origin(r.o.HostID)); err != nil {
		return err
	}
	r.w.signer = r.signer
	c := Checkpoint{First: 1, Root: (&tree{}).root(), Time: event.TimeOf(now)}
	first, err := r.signer.genesis(c)
	if err != nil {
		return err
	}
	for _, name := range []string{hashesName, checkpointName, historyName, chainName} {
		if err := os.Remove(filepath.Join(r.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	r.opened.Created, r.w.keyed = true, c
	err = r.openFiles()
	if err == nil {
		err = r.w.chain.add(first, true)
	}
	if err == nil {
		err = errors.Join(r.w.seal(true), syncDir(r.dir))
	}
	if err == nil {
		err = r.keepKeys(now)
	}
	if err != nil {
		return errors.Join(err, r.w.abandon())
	}
	return nil
}

// keepKeys writes the keys of a new log, the public half first. Of a log that is
// gone the public half is kept under another name, the private one destroyed.
func (r *recovery) keepKeys(now time.Time) error {
	pub := filepath.Join(r.keyDir, pubName)
	if err := os.Rename(pub, fmt.Sprintf("%s.before-%d", pub, now.UnixNano())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeFile(r.keyDir, pubName, []byte(r.signer.vkey+"\n"), 0o644); err != nil {
		return err
	}
	line := r.signer.line()
	defer clear(line)
	if err := writeFile(r.keyDir, nextName, line, 0o600); err != nil {
		return err
	}
	return destroyKey(r.keyDir, keyName, nextName)
}

// named takes the name of the log from its checkpoint or its key, each "" where there is none: the machine id, or that of a log
// that was begun again.
func (r *recovery) named(checkpoint, key string) error {
	for _, name := range []string{checkpoint, key} {
		own := origin(r.machine)
		more, ok := strings.CutPrefix(name, own)
		switch {
		case name == "":
		case !ok || more != "" && !strings.HasPrefix(more, event.Again):
			return fmt.Errorf("%w: the log in %s with the keys in %s is %s, this is %s", ErrOtherHost, r.dir, r.keyDir, name, own)
		default:
			r.o.HostID = r.machine + more
		}
	}
	if checkpoint != "" && key != "" && checkpoint != key {
		return fmt.Errorf("%w: the newest checkpoint is of %s, the key of %s", ErrKey, checkpoint, key)
	}
	return nil
}
