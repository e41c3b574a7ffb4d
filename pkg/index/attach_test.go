package index

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// The writer notices that its file was removed or replaced, or does not hold what it wrote any more, and builds it anew.
func TestTheWriterNoticesThatItsFileIsGone(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, h *host){
		"removed": func(t *testing.T, h *host) {
			for _, end := range []string{"", "-wal", "-shm"} {
				if err := os.Remove(h.path + end); err != nil {
					t.Error(err)
				}
			}
		},
		"replaced by another": func(t *testing.T, h *host) {
			if err := errors.Join(os.Rename(h.path, h.path+".old"), os.WriteFile(h.path, []byte("no database"), 0o600)); err != nil {
				t.Error(err)
			}
		},
		"replaced by a folder": func(t *testing.T, h *host) {
			if err := errors.Join(os.Remove(h.path), os.Mkdir(h.path, 0o700)); err != nil {
				t.Error(err)
			}
		},
		"cut": func(t *testing.T, h *host) {
			if err := errors.Join(os.Truncate(h.path, 0), os.Truncate(h.path+"-wal", 0)); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			records := querytest.Records(300)
			h.write(records[:200])
			x := h.open()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- x.Run(ctx) }()
			wait := func(what string, ok func(Stats) bool) {
				t.Helper()
				for end := time.Now().Add(30 * time.Second); !ok(x.Stats()); time.Sleep(5 * time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("%s: %+v", what, x.Stats())
					}
				}
			}
			wait("at first", func(s Stats) bool { return s.Seq == 200 })
			spoil(t, h)
			h.write(records[200:])
			wait("then", func(s Stats) bool { return s.Seq == 300 && s.Rebuilt == 1 && s.Reason != "" })
			cancel()
			if err := errors.Join(<-done, x.Close()); err != nil {
				t.Error(err)
			}
			if note := h.note(); note != "" {
				t.Error(note)
			}
			if c, found := h.compare(); len(found) > 0 || c.Matched != 300 {
				t.Errorf("%q, %+v", found, c)
			}
		})
	}
}
