package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/query"
	"github.com/holdfast/holdfast/pkg/query/fleettest"
	"github.com/holdfast/holdfast/pkg/query/querytest"
)

type host struct {
	t        testing.TB
	dir      string // journal
	path     string // index
	segments int64
}

func newHost(t testing.TB) *host {
	d := t.TempDir()
	return &host{t: t, dir: filepath.Join(d, "journal"), path: filepath.Join(d, "index", "records.db")}
}

// write appends records to the journal. They must come out with the ids that they have.
func (h *host) write(records []*event.Record) {
	h.t.Helper()
	var j *journal.Journal
	var err error
	boot := ""
	closeIt := func() {
		if j != nil {
			if err := j.Close(); err != nil {
				h.t.Fatal(err)
			}
		}
	}
	for i, r := range records {
		if r.Boot != boot || j == nil {
			closeIt()
			boot = r.Boot
			j, err = journal.Open(h.dir, filepath.Join(h.dir, "..", "keys"), journal.Options{HostID: r.HostID, Host: r.Host, Boot: r.Boot, SegmentBytes: h.segments, ReserveBytes: -1})
			if err != nil {
				h.t.Fatal(err)
			}
		}
		id := r.ID
		c := *r
		if _, err := j.Append(&c); err != nil {
			h.t.Fatal(err)
		}
		if id != "" && c.ID != id {
			h.t.Fatalf("record %d got id %s, want %s", i, c.ID, id)
		}
		if i%50 == 49 && h.segments > 0 {
			if err := j.Sync(context.Background()); err != nil {
				h.t.Fatal(err)
			}
		}
	}
	if j == nil {
		if j, err = journal.Open(h.dir, filepath.Join(h.dir, "..", "keys"), journal.Options{HostID: "h", ReserveBytes: -1}); err != nil {
			h.t.Fatal(err)
		}
	}
	closeIt()
}

func (h *host) open() *Index {
	h.t.Helper()
	x, err := Open(h.path, h.dir, Options{Batch: 70, Retry: 10 * time.Millisecond})
	if err != nil {
		h.t.Fatal(err)
	}
	return x
}

func (h *host) catchUp() Stats {
	h.t.Helper()
	x := h.open()
	if err := x.CatchUp(context.Background()); err != nil {
		h.t.Fatal(err)
	}
	s := x.Stats()
	if err := x.Close(); err != nil {
		h.t.Fatal(err)
	}
	return s
}

func (h *host) read() query.Store {
	h.t.Helper()
	s, err := OpenRead(h.path, h.dir)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			h.t.Error(err)
		}
	})
	return s
}

func (h *host) note() string {
	h.t.Helper()
	l, err := h.read().Lag(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	return l.Note
}

func TestTheSuite(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(h *host, records []*event.Record)
		note    string
	}{
		{"all indexed", func(h *host, records []*event.Record) { h.write(records); h.catchUp() }, ""},
		{"half indexed", func(h *host, records []*event.Record) {
			h.write(records[:len(records)/2])
			h.catchUp()
			if len(records) > 0 {
				h.write(records[len(records)/2:])
			}
		}, "300 records are not indexed yet"},
		{"no index", func(h *host, records []*event.Record) { h.write(records) }, "the journal is read instead"},
		{"an index that is no database", func(h *host, records []*event.Record) {
			h.write(records)
			h.damage([]byte("this is not a database at all, but long enough to be read as one, is it not? " + strings.Repeat("x", 4000)))
		}, "the journal is read instead"},
	} {
		t.Run(c.name, func(t *testing.T) {
			querytest.Run(t, func(t *testing.T, records []*event.Record) query.Store {
				h := newHost(t)
				h.segments = 20 << 10
				c.prepare(h, records)
				if note := h.note(); len(records) > 0 && (c.note == "") != (note == "") || !strings.Contains(note, c.note) && len(records) > 0 {
					t.Fatalf("note %q, want %q", note, c.note)
				}
				return h.read()
			})
		})
	}
}

// TestAHistory: questions about a generated history of the host, half of it indexed.
func TestAHistory(t *testing.T) {
	var records []*event.Record
	if err := (fleettest.Options{Seed: 3, Hosts: 1, Days: 10, Busy: 40}).Records(0, func(r *event.Record) error {
		records = append(records, r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	h.write(records[:len(records)/2])
	h.catchUp()
	h.write(records[len(records)/2:])
	querytest.RunFleet(t, h.read(), records)
}

func (h *host) damage(b []byte) {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Dir(h.path), 0o700); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(h.path, b, 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) exec(q string) {
	h.t.Helper()
	db, err := sql.Open("sqlite", h.path)
	if err != nil {
		h.t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(q); err != nil {
		h.t.Fatal(err)
	}
}

func TestAnIndexThatDoesNotFitIsPutAsideAndBuiltAnew(t *testing.T) {
	const aVersion = "schema is 99" // of which nothing is kept
	for _, c := range []struct {
		name   string
		spoil  func(h *host)
		reason string
	}{
		{"no database", func(h *host) { h.damage([]byte(strings.Repeat("junk", 5000))) }, "not a database"},
		{"another schema version", func(h *host) { h.exec("PRAGMA user_version = 99") }, aVersion},
		{"a table missing", func(h *host) { h.exec("DROP TABLE state") }, "state"},
		{"its state missing", func(h *host) { h.exec("DELETE FROM state") }, "no state"},
		{"ahead of the journal", func(h *host) { h.exec("UPDATE state SET seq = 1000") }, "the journal at 600"},
		{"of another journal", func(h *host) {
			if err := os.RemoveAll(h.dir); err != nil {
				h.t.Fatal(err)
			}
			if err := os.RemoveAll(filepath.Join(h.dir, "..", "keys")); err != nil {
				h.t.Fatal(err)
			}
			records := querytest.Records(600)
			for _, r := range records {
				r.Reason = "another journal"
			}
			h.write(records)
		}, "another record 600"},
		{"a page overwritten in the middle", func(h *host) {
			b, err := os.ReadFile(h.path)
			if err != nil {
				h.t.Fatal(err)
			}
			for i := 4096; i < len(b); i++ {
				b[i] = 0xa5
			}
			h.damage(b)
		}, "malformed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			h.write(querytest.Records(600))
			h.catchUp()
			c.spoil(h)
			if note := h.note(); !strings.Contains(note, c.reason) {
				t.Errorf("before: note %q", note)
			}
			s := h.catchUp()
			if s.Rebuilt != 1 || !strings.Contains(s.Reason, c.reason) || s.Seq != 600 || s.Behind != 0 {
				t.Errorf("%+v, want a reason with %q", s, c.reason)
			}
			if aside, err := filepath.Glob(h.path + ".bad-*"); err != nil || (len(aside) == 0) != (c.reason == aVersion) {
				t.Errorf("put aside: %q, %v", aside, err)
			}
			if note := h.note(); note != "" {
				t.Errorf("afterwards: note %q", note)
			}
			if s := h.catchUp(); s.Rebuilt != 0 {
				t.Errorf("built anew again: %+v", s)
			}
		})
	}
}

func TestAMissingIndexIsBuiltWithoutAWord(t *testing.T) {
	h := newHost(t)
	h.write(querytest.Records(600))
	if s := h.catchUp(); s.Rebuilt != 0 || s.Seq != 600 || s.Skipped != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestADamageFoundWhileWritingHealsItself(t *testing.T) {
	h := newHost(t)
	records := querytest.Records(600)
	h.write(records[:300])
	h.catchUp()
	x := h.open()
	h.exec("DROP TABLE by_path") // behind its back
	h.write(records[300:])
	if err := x.CatchUp(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s := x.Stats(); s.Rebuilt != 1 || s.Seq != 600 {
		t.Fatalf("%+v", s)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestQuestionsAreAnsweredWhileTheDaemonWritesAndNeverLag(t *testing.T) {
	h := newHost(t)
	o := journal.Options{HostID: "h1", Host: "web-1", Boot: "b", ReserveBytes: -1, SegmentBytes: 100 << 10}
	j, err := journal.Open(h.dir, filepath.Join(h.dir, "..", "keys"), o)
	if err != nil {
		t.Fatal(err)
	}
	x := h.open()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- x.Run(ctx) }()
	s := h.read()
	source := querytest.Records(600)
	for i := range 300 {
		r := source[i]
		r.Path = fmt.Sprintf("/srv/%d", i%7)
		seq, err := j.AppendDurable(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		var got []uint64
		f := query.Filter{Path: r.Path, Limit: 1}
		if err := s.Records(ctx, f, func(r *event.Record) error { got = append(got, r.Seq); return nil }); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, []uint64{seq}) {
			t.Fatalf("record %d is durable, but the answer is %v", seq, got)
		}
	}
	for x.Stats().Seq < 300 {
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(x.Close(), j.Close()); err != nil {
		t.Fatal(err)
	}
	if n := h.note(); n != "" {
		t.Fatal(n)
	}
}

func TestRecordsThatTheJournalLostAreLeftOutAndSaidSo(t *testing.T) {
	h := newHost(t)
	h.write(querytest.Records(600))
	seg := filepath.Join(h.dir, fmt.Sprintf("%020d.seg", 1))
	b, err := os.ReadFile(seg)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 0xff
	if err := os.WriteFile(seg, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, indexed := range []bool{false, true} {
		if indexed {
			if s := h.catchUp(); s.Skipped != 1 || s.Seq != 600 {
				t.Fatalf("%+v", s)
			}
		}
		s := h.read()
		n := 0
		if err := s.Records(context.Background(), query.Filter{}, func(*event.Record) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		l, err := s.Lag(context.Background())
		if err != nil || n != 599 || !indexed && !strings.Contains(l.Note, "verify") {
			t.Fatalf("%d records, %+v, %v", n, l, err)
		}
	}
}

func TestReadingWorksWhereNothingCanBeWritten(t *testing.T) {
	h := newHost(t)
	records := querytest.Records(600)
	h.write(records)
	h.catchUp()
	// Root may write anywhere but on a file system mounted read-only.
	state := filepath.Dir(h.dir)
	readOnly(t, state)
	s := h.read()
	l, err := s.Lag(context.Background())
	if err != nil || l.Note != "" {
		t.Fatalf("%+v, %v", l, err)
	}
	n := 0
	if err := s.Records(context.Background(), query.Filter{Path: "/etc/"}, func(*event.Record) error { n++; return nil }); err != nil || n == 0 {
		t.Fatal(n, err)
	}
}

func TestJournalOfNothingAndNoJournal(t *testing.T) {
	h := newHost(t)
	if _, err := OpenRead(h.path, h.dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestTheViewHasTheRecordsInWords(t *testing.T) {
	h := newHost(t)
	records := querytest.Records(600)
	h.write(records)
	h.catchUp()
	db, err := sql.Open("sqlite", dsn(h.path, "ro"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	want := 0
	for _, r := range records {
		if r.Actor != nil && r.Actor.User == "bob" && r.Op == "rename" && r.Process != nil && r.Process.Exe == "/usr/bin/vim" {
			want++
		}
	}
	var got int
	if err := db.QueryRow("SELECT count(*) FROM records WHERE actor_user = 'bob' AND op = 'rename' AND process_exe = '/usr/bin/vim'").Scan(&got); err != nil || got != want || want == 0 {
		t.Fatalf("%d, want %d, %v", got, want, err)
	}
}
