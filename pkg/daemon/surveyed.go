package daemon

import (
	"bufio"
	"encoding/gob"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/internal/regular"
	"github.com/holdfast/holdfast/pkg/rehash"
)

// What a survey of a large tree noted is kept in enrolling/, from before the tree is
// watched until all of it is enrolled: one file for each tree, named by the BLAKE3 of
// its path. A run that is cut off leaves it to the next one, to which a file that
// changed in between must not look as if it had always been so.

func surveyFile(state, root string) string {
	h := digest.Sum([]byte(root))
	return filepath.Join(state, "enrolling", hex.EncodeToString(h[:]))
}

// surveyMost bounds what is read of a survey: ten million files.
const surveyMost = 1 << 30

// readSurvey returns what was noted of a tree; nil if its enrolment was not begun, or
// has ended.
func readSurvey(state, root string) (marks []rehash.Mark, err error) {
	f, err := regular.Open(surveyFile(state, root), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		marks = []rehash.Mark{}
		err = errors.Join(gob.NewDecoder(bufio.NewReader(io.LimitReader(f, surveyMost))).Decode(&marks), f.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("read what was surveyed of %q: %w", root, err)
	}
	return marks, nil
}

// writeSurvey keeps marks durably.
func writeSurvey(state, root string, marks []rehash.Mark) error {
	name := surveyFile(state, root)
	if err := os.Mkdir(filepath.Dir(name), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keep what was surveyed of %q: %w", root, err)
	}
	f, _, err := regular.Make(name+".new", os.O_TRUNC|os.O_WRONLY, 0o600)
	if err == nil {
		w := bufio.NewWriter(f)
		err = errors.Join(gob.NewEncoder(w).Encode(marks), w.Flush(), f.Sync(), f.Close())
	}
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err == nil {
		err = errors.Join(syncDir(filepath.Dir(name)), syncDir(state))
	}
	if err != nil {
		return fmt.Errorf("keep what was surveyed of %q: %w", root, err)
	}
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
