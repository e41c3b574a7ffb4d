package pipeline

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/rehash"
)

// What a rename or a mount brought is not put down to who did that if somebody else
// can have touched it since.
func TestWhatWasChangedSinceAMomentIsTold(t *testing.T) {
	dir := t.TempDir()
	kept, gone := filepath.Join(dir, "kept"), filepath.Join(dir, "gone")
	if err := os.WriteFile(kept, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	there := &rehash.Finding{Path: kept, After: event.State{Exists: true}}
	missing := &rehash.Finding{Path: gone}
	later, earlier := event.TimeOf(time.Now().Add(time.Minute)), event.TimeOf(time.Now().Add(-time.Minute))
	for _, f := range []*rehash.Finding{there, missing} {
		if changedSince(f, later) {
			t.Errorf("%s was changed after what has not come yet", f.Path)
		}
		if !changedSince(f, earlier) {
			t.Errorf("%s was not changed a minute ago and since", f.Path)
		}
	}
}
