package journal

import (
	"errors"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
)

// due reports whether the key has signed long enough and something came since it began.
func (w *writer) due(now time.Time) bool {
	age := now.Sub(w.keyed.Time.Go())
	return w.o.KeyEvery > 0 && w.sealed > w.keyed.Size && w.sealed == w.written && (age >= w.o.KeyEvery || age < 0)
}

// rotate replaces the signing key:
//
//	make next, write journal.key.next      a crash here: next is dropped at the next open
//	sign with the old key that next follows, append that to the chain
//	                                       from here on next signs, whatever happens
//	overwrite journal.key, rename next     a crash here: the next open does it
//
// An error leaves the old key in force, or, from the chain on, the new one with a file that the
// next open puts right.
func (w *writer) rotate() error {
	next, err := newSigner(w.signer.name)
	if err != nil {
		return err
	}
	if w.o.keyFault != nil {
		if err := w.o.keyFault(); err != nil {
			return err
		}
	}
	line := next.line()
	defer clear(line)
	if err := writeFile(w.keyDir, nextName, line, 0o600); err != nil {
		return err
	}
	c := Checkpoint{Origin: next.name, Size: uint64(w.hashed.size), Root: w.hashed.root(), Time: event.TimeOf(w.o.Now()), First: w.first, Next: next.vkey}
	n, err := c.sign(w.signer)
	if err == nil {
		err = w.chain.add(append(n, '\n'), true)
	}
	if err != nil {
		next.wipe()
		return errors.Join(err, destroyKey(w.keyDir, nextName, ""))
	}
	w.signer.wipe()
	w.signer, w.keyed = next, c
	w.keys++
	return destroyKey(w.keyDir, keyName, nextName)
}
