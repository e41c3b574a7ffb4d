package vault

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/holdfast/holdfast/pkg/accounts"
	"github.com/holdfast/holdfast/rollback"
)

// Merger returns what an undo merges the files of accounts with.
func Merger() rollback.Merger { return merger{} }

type merger struct{}

// Merge implements rollback.Merger: what others changed is what leads from left to now.
func (merger) Merge(path string, left, before, now []byte) (merged []byte, kept []string, err error) {
	merged, conflicts, ok := accounts.Merge(path, left, before, now)
	switch {
	case !ok:
		return nil, nil, fmt.Errorf("%w: it is no file of accounts", rollback.ErrNoMerge)
	case len(conflicts) > 0:
		return nil, nil, fmt.Errorf("%w: %s", rollback.ErrNoMerge, strings.Join(conflicts, "; "))
	}
	if !bytes.Equal(left, now) {
		kept = accounts.Meaning(path, accounts.Side{Exists: true, Data: left}, accounts.Side{Exists: true, Data: now})
	}
	return merged, kept, nil
}
