package rollback

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"github.com/holdfast/holdfast/pkg/event"
)

// Begun is a Pending without its steps.
type Begun struct {
	ID    string
	Tries int // how often it was begun, from 1
	Begun event.Time
	Note  []byte // the caller's own, from Begin
	Steps int
}

// Begun returns what Pending does, at a cost that does not depend on how many steps the
// plans have: it reads the first frame of each, and does not see damage behind that.
func (s *Store) Begun() ([]Begun, error) {
	names, err := s.planNames()
	if err != nil {
		return nil, err
	}
	var out []Begun
	var errs []error
	for _, name := range names {
		if strings.HasSuffix(name, ".new") {
			continue
		}
		b, err := readBegun(s.plansDir(), name)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it has ended meanwhile
		case err != nil:
			errs = append(errs, fmt.Errorf("plan %s: %w", name, err))
		default:
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b Begun) int { return cmp.Or(cmp.Compare(a.Begun, b.Begun), cmp.Compare(a.ID, b.ID)) })
	return out, errors.Join(errs...)
}

func readBegun(dir, name string) (b Begun, err error) {
	id, tries, _ := strings.Cut(name, ".")
	b.ID = id
	if _, err := fmt.Sscanf(tries, "%d", &b.Tries); err != nil {
		return b, fmt.Errorf("its name: %w", err)
	}
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return b, err
	}
	defer f.Close()
	var body []byte
	for n, ok := int64(4096), false; !ok; n *= 16 {
		text, err := io.ReadAll(io.NewSectionReader(f, 0, n))
		if err != nil {
			return b, err
		}
		if body, ok = frameAt(text); !ok && int64(len(text)) < n {
			return b, ErrCorrupt
		}
		if !ok && n > frameMax {
			return b, ErrCorrupt
		}
	}
	var head pendingHead
	if err := cbor.Unmarshal(body, &head); err != nil {
		return b, err
	}
	b.Begun, b.Note, b.Steps = head.Begun, head.Note, head.Steps
	return b, nil
}
