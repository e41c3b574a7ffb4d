package index

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/query/querytest"
)

// Who follows keeps a store open while the index goes, comes again and is replaced, and while the log is begun again.
func TestAStoreUsesTheIndexThatIsThereNow(t *testing.T) {
	h := newHost(t)
	records := querytest.Records(300)
	h.write(records)
	h.catchUp()
	s := h.read()
	check := func(when, note string) {
		t.Helper()
		l, err := s.Lag(t.Context())
		if err != nil || (note == "") != (l.Note == "") || !strings.Contains(l.Note, note) {
			t.Errorf("%s: note %q, %v, want %q", when, l.Note, err, note)
		}
		querytest.RunUgly(t, s, records, 1, 20)
	}
	remove := func() {
		t.Helper()
		for _, end := range []string{"", "-wal", "-shm"} {
			if err := os.Remove(h.path + end); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
	}
	check("at first", "")
	remove()
	check("without an index", "the journal is read instead")
	h.catchUp()
	check("with an index again", "")
	remove()
	h.damage([]byte(strings.Repeat("no database ", 1000)))
	check("with another file in its place", "the journal is read instead")
	remove()
	for _, dir := range []string{h.dir, filepath.Join(h.dir, "..", "keys")} {
		if err := os.Rename(dir, dir+".before"); err != nil {
			t.Fatal(err)
		}
	}
	records = querytest.Ugly(1, 1, 200)
	h.write(records)
	h.catchUp()
	check("with another log", "")
}
