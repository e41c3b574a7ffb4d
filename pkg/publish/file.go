package publish

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// File appends notes to a file as the journal keeps them, each with an empty line behind it. It is opened for
// each write, so that it may be moved away at any time.
type File struct{ Path string }

var _ Place = File{}

// Name implements Place.
func (f File) Name() string { return f.Path }

// Send implements Place. The notes are on disk when it returns.
func (f File) Send(_ context.Context, notes []Note) error {
	var b []byte
	for _, n := range notes {
		b = append(append(b, n.Signed...), '\n')
	}
	out, err := os.OpenFile(f.Path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	st, err := out.Stat()
	if err == nil {
		if _, err = out.Write(b); err != nil { // half a note would spoil the next one
			err = errors.Join(err, out.Truncate(st.Size()))
		}
	}
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}
