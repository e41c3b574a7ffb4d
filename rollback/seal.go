package rollback

import (
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/cas"
)

// sealProof is what the envelope in an entrySealed is of and has in it: whoever
// opens it has the key of the vault.
const sealProof = "holdfast vault"

func anySealed(bad []damage) bool {
	return slices.ContainsFunc(bad, func(d damage) bool { return d.sealed })
}

// openSeal looks whether the Sealer is the one of this vault, before anything is
// read or written by it, and notes in the log which key is used from here on.
// Without the note, a vault opened without its Sealer would go on in the clear, and
// a wrong key of the same id would make every content look damaged.
func (s *Store) openSeal(bad []damage) error {
	if anySealed(bad) && !s.readOnly {
		return fmt.Errorf("the log of versions: %w", ErrSealed)
	}
	note := s.catalog.sealed
	if note != nil && (s.sealer != nil || !s.readOnly) {
		proof, err := cas.Unseal(s.sealer, sealProof, nil, note)
		if errors.Is(err, ErrCorrupt) || err == nil && string(proof) != sealProof {
			err = fmt.Errorf("%w: with another key of the same id", ErrSealed) // the log is checked: it is no damage
		}
		if err != nil {
			return err
		}
	}
	if s.sealer == nil || s.readOnly {
		return nil
	}
	if note != nil {
		if id, _, err := cas.SealedWith(note); err == nil && id == s.sealer.KeyID() {
			return nil
		}
	}
	note, err := cas.Seal(s.sealer, sealProof, []byte(sealProof))
	if err != nil {
		return err
	}
	e := entry{Kind: entrySealed, Time: event.TimeOf(s.now()), Sealed: note}
	b, err := appendFrame(nil, s.enc, &e)
	if err == nil {
		err = s.catalog.apply(&e)
	}
	if err == nil {
		err = s.log.append(b)
	}
	return err
}
