package ship_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/clickhouse"
	"github.com/holdfast/holdfast/pkg/clickhouse/clickhousetest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/ship"
)

// forgedHost is a host that ships to a real server, on which others write too.
type forgedHost struct {
	t      *testing.T
	server *clickhousetest.Server
	db     *clickhouse.DB
	id     string
	state  string
	log    *journal.Journal

	mu      sync.Mutex
	foreign []ship.Foreign
}

func newForgedHost(t *testing.T, server *clickhousetest.Server, db *clickhouse.DB, id, state string) *forgedHost {
	h := &forgedHost{t: t, server: server, db: db, id: id, state: state}
	h.open()
	t.Cleanup(func() { _ = h.log.Close() })
	return h
}

func (h *forgedHost) dir() string { return filepath.Join(h.state, "journal") }

func (h *forgedHost) open() {
	h.t.Helper()
	var err error
	h.log, err = journal.Open(h.dir(), filepath.Join(h.state, "keys"), journal.Options{HostID: h.id, Host: "web1", Boot: "boot", FlushEvery: 5 * time.Millisecond, KeyEvery: time.Millisecond})
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *forgedHost) write(n int, path string) {
	h.t.Helper()
	for range n {
		if _, err := h.log.Append(&event.Record{Time: event.TimeOf(time.Now()), Kind: event.RecChange, Op: "write", Path: path}); err != nil {
			h.t.Fatal(err)
		}
	}
	if err := h.log.Sync(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

func (h *forgedHost) end() uint64 {
	h.t.Helper()
	n, err := journal.Newest(h.dir())
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

func (h *forgedHost) ship() (*ship.Shipper, func()) {
	h.t.Helper()
	src, err := openSource(h.dir())
	if err != nil {
		h.t.Fatal(err)
	}
	s, stop := run(h.t, src, h.db, ship.Options{
		HostID: h.id, PositionFile: filepath.Join(h.state, "shipped"), BatchRows: 500, FlushEvery: 20 * time.Millisecond, ConfirmEvery: 20 * time.Millisecond,
		Poll: 5 * time.Millisecond, BackoffMin: 10 * time.Millisecond, BackoffMax: 50 * time.Millisecond, Checkpoint: src.Checkpoint, Changes: journal.NewHandovers(h.dir()),
		Stand: func(end uint64, changes [][]byte, each func(func([]byte)) error) (ship.Standing, error) {
			st, err := journal.Stand(h.dir(), end, changes, each)
			return ship.Standing(st), err
		},
		Foreign: func(_ context.Context, f ship.Foreign) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.foreign = append(h.foreign, f)
			return nil
		},
	})
	return s, func() {
		stop()
		if err := errors.Join(src.Close(), h.server.Revive(h.t.Context())); err != nil {
			h.t.Error(err)
		}
	}
}

// shipAll ships until everything and the checkpoint over it is confirmed.
func (h *forgedHost) shipAll() {
	h.t.Helper()
	s, stop := h.ship()
	n := h.end()
	await(h.t, s, fmt.Sprintf("all %d", n), func(st ship.Stats) bool {
		return st.Confirmed == n && st.Checkpoint == n && st.LastError == ""
	})
	stop()
}

// refused ships and wants one of the errors, and no row of the host changed.
func (h *forgedHost) refused(want ...error) {
	h.t.Helper()
	rows := "SELECT count(), sum(cityHash64(seq, rec)) FROM holdfast.records WHERE host_id = '" + h.id + "'"
	before := h.server.MustExec(h.t, rows)
	s, stop := h.ship()
	await(h.t, s, "an error", func(st ship.Stats) bool { return st.Retries > 2 })
	if st := s.Stats(); !slices.ContainsFunc(want, func(err error) bool { return strings.Contains(st.LastError, err.Error()) }) {
		h.t.Errorf("error %q, want %q", st.LastError, want)
	}
	stop()
	if after := h.server.MustExec(h.t, rows); after != before {
		h.t.Errorf("rows %s, before %s", after, before)
	}
}

// forge writes rows under the host's id: n of them at numbers from first on.
func (h *forgedHost) forge(first, n uint64) {
	h.t.Helper()
	h.server.MustExec(h.t, fmt.Sprintf("INSERT INTO holdfast.records (host_id, host, boot, seq, time, kind, rec) SELECT '%s', 'web1', 'boot', %d + number, now(), 'change', concat('forged ', toString(number)) FROM numbers(%d)", h.id, first, n))
}

// whole wants each record of the journal once and as it is, once forged rows from some number on are left out.
func (h *forgedHost) whole(below uint64) {
	h.t.Helper()
	h.server.MustExec(h.t, "OPTIMIZE TABLE holdfast.records FINAL")
	r, err := journal.OpenReader(h.dir())
	if err != nil {
		h.t.Fatal(err)
	}
	diff, err := h.db.Compare(h.t.Context(), h.id, 1, below-1, func(ctx context.Context) (uint64, []byte, error) {
		e, err := r.Next(ctx)
		return e.Seq, e.Bytes, err
	}, func(d clickhouse.Difference) { h.t.Error(d) })
	if err := errors.Join(err, r.Close()); err != nil || !diff.Clean() || diff.Matched != below-1 {
		h.t.Errorf("compared with the journal: %+v, %v", diff, err)
	}
}

// displaced returns how many forged rows are kept, and how many were told of as displaced.
func (h *forgedHost) displaced() (kept string, told int) {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.foreign {
		if f.End == 0 {
			told += len(f.Rows)
		}
	}
	return h.server.MustExec(h.t, "SELECT count() FROM holdfast.displaced FINAL WHERE host_id = '"+h.id+"' AND startsWith(rec, 'forged ') AND leaf = SHA256(concat('\\0', rec))"), told
}

func copyState(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	if err := filepath.WalkDir(to, func(p string, d fs.DirEntry, err error) error { // CopyFS opens modes up
		if err != nil || d.IsDir() {
			return err
		}
		return os.Chmod(p, 0o600)
	}); err != nil {
		t.Fatal(err)
	}
}

// TestForgedRows: who may insert rows under the id of a host stops its shipping with none of them, and none is gone afterwards.
// An old copy of a journal, or another with the same id, still stops.
func TestForgedRows(t *testing.T) {
	server := clickhousetest.New(t, "")
	db := withSchema(t, clickhouse.Config{URL: server.URL("holdfast")})
	next := 0
	begin := func(t *testing.T) *forgedHost {
		next++
		h := newForgedHost(t, server, db, fmt.Sprintf("%032x", next), t.TempDir())
		h.write(300, "/etc/app/config")
		h.shipAll()
		h.write(100, "/etc/app/other") // with changes of key
		h.shipAll()
		return h
	}
	for _, c := range []struct {
		name     string
		first, n uint64 // forged, counted from the end of what was shipped
		more     int    // then written
		names    int    // of the forged rows, those in whose place ours belong
	}{
		{"one far ahead", 1_000_000_000, 1, 200, 0},
		{"at the largest number", 1<<63 - 500, 1, 200, 0},
		{"the next ones", 1, 50, 200, 50},
		{"in the middle of what comes", 101, 50, 400, 50},
		{"all that comes and more", 1, 1000, 600, 600},
		{"100,000 of them", 1, 100_000, 2500, 2500},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := begin(t)
			end := h.end()
			h.forge(end+c.first, c.n)
			for range 2 {
				h.write(c.more/2, "/etc/app/third")
				h.shipAll()
			}
			if kept, told := h.displaced(); kept != fmt.Sprint(c.names) || told != c.names {
				t.Errorf("%s forged rows are kept, %d were named, want %d", kept, told, c.names)
			}
			if h.mu.Lock(); len(h.foreign) == 0 {
				t.Error("nobody was told")
			}
			h.mu.Unlock()
			h.whole(h.end() + 1)
		})
	}
	t.Run("while it ships", func(t *testing.T) {
		h := begin(t)
		s, stop := h.ship()
		end := h.end()
		await(t, s, "a quiet start", func(st ship.Stats) bool { return st.Connected })
		h.forge(end+1_000, 1)
		h.write(100, "/etc/app/third")
		await(t, s, "what came", func(st ship.Stats) bool { return st.Confirmed == end+100 })
		h.write(1_400, "/etc/app/fourth")
		await(t, s, "what came then", func(st ship.Stats) bool { return st.Confirmed == end+1_500 && st.Foreign == 1 })
		stop()
		if kept, told := h.displaced(); kept != "1" || told != 1 {
			t.Errorf("%s forged rows are kept, %d were named, want 1", kept, told)
		}
		h.whole(h.end() + 1)
	})
	t.Run("without a position file, below too", func(t *testing.T) {
		h := begin(t)
		h.forge(10, 5)
		h.forge(h.end()+10, 5)
		if err := os.Remove(filepath.Join(h.state, "shipped")); err != nil {
			t.Fatal(err)
		}
		h.write(100, "/etc/app/third")
		h.shipAll()
		if kept, told := h.displaced(); kept != "10" || told != 10 {
			t.Errorf("%s forged rows are kept, %d were named, want 10", kept, told)
		}
	})
	t.Run("forged checkpoints count for nothing", func(t *testing.T) {
		h := begin(t)
		h.forge(h.end()+1_000, 1)
		server.MustExec(t, fmt.Sprintf("INSERT INTO holdfast.checkpoints (host_id, size, note) SELECT '%s', 1000000 + number, replaceOne(note, '\\n', concat('\\n', toString(number), '\\n')) FROM holdfast.roots AS r CROSS JOIN numbers(1000) AS n WHERE host_id = '%[1]s' LIMIT 1000", h.id))
		h.write(100, "/etc/app/third")
		h.shipAll()
		h.whole(h.end() + 1)
	})
	t.Run("a state directory put back to an older copy", func(t *testing.T) {
		for _, more := range []int{0, 50, 400} { // written to the copy, before it ships
			h := begin(t)
			old := filepath.Join(t.TempDir(), "old")
			if err := h.log.Close(); err != nil {
				t.Fatal(err)
			}
			copyState(t, h.state, old)
			h.open()
			h.write(200, "/etc/app/true")
			h.shipAll()
			back := newForgedHost(t, server, db, h.id, old)
			if more > 0 {
				back.write(more, "/etc/app/again")
			}
			want := []error{ship.ErrAhead}
			if more > 0 { // which of the two is seen first depends on when the copy's key named another successor
				want = append(want, ship.ErrOtherLog)
			}
			back.refused(want...)
			back.forge(h.end()+1_000, 1) // who restored it makes room for it
			back.refused(want...)
			if kept, _ := back.displaced(); kept != "0" {
				t.Errorf("%s rows were displaced", kept)
			}
		}
	})
	t.Run("two hosts with one id", func(t *testing.T) {
		h := begin(t)
		other := newForgedHost(t, server, db, h.id, t.TempDir())
		other.write(100, "/etc/app/config")
		other.refused(ship.ErrAhead)
		other.write(1000, "/etc/app/config")
		other.refused(ship.ErrOtherLog)
		other.forge(h.end()+10_000, 1)
		other.refused(ship.ErrAhead)
	})
}
