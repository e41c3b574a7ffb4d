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
		if len(notes) > 0 {
			if c, err := unsigned(notes[0]); err == nil {
				r.again = c.Again
			}
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
// that counts. Where a key is there already, or r.wiped says so, a log was wiped: the new one says so in its ids.
func (r *recovery) begin() error {
	var c Checkpoint
	now := r.o.Now()
	if r.signer != nil || r.wiped {
		c.Again = fmt.Sprintf("%d %s", now.UnixNano(), r.o.Boot)
	}
	var err error
	if r.signer, err = newSigner(origin(r.o.HostID)); err != nil {
		return err
	}
	r.w.signer = r.signer
	c.First, c.Root, c.Time = 1, (&tree{}).root(), event.TimeOf(now)
	first, err := r.signer.genesis(c)
	if err != nil {
		return err
	}
	for _, name := range []string{hashesName, checkpointName, historyName, chainName} {
		if err := os.Remove(filepath.Join(r.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	r.opened.Created, r.again, r.w.keyed = true, c.Again, c
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

// boot is the boot id as ids have it. A log that was begun again in this boot marks it, so that no id
// of the log that was wiped is given a second time.
func (r *recovery) boot() string {
	number, boot, _ := strings.Cut(r.again, " ")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || boot != r.o.Boot {
		return r.o.Boot
	}
	return boot + "~" + strconv.FormatInt(n, 36)
}
