package index

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/query"
)

// busy makes n records of one program each; every tenth is a rename.
func busy(from, n int) (out []*event.Record) {
	for i := from; i < from+n; i++ {
		r := &event.Record{
			HostID: "h", Host: "web1", Boot: "b", Time: event.Time(1_700_000_000_000_000_000 + i), Kind: event.RecChange, Op: "write", Path: fmt.Sprintf("/etc/%d", i),
			Actor: &event.Actor{User: "alice", SourceIP: "192.0.2.7", SourcePort: uint16(i)}, Process: &event.Process{PID: 1, ExecID: fmt.Sprint("x", i), Exe: "/usr/bin/sed", Argv: []string{"sed", "-i", fmt.Sprintf("s/a/%d/", i)},
				Ancestors: []event.Ancestor{{PID: 9, ExecID: "shell"}}},
		}
		if i%10 == 0 {
			r.Op, r.PathTo = "rename", fmt.Sprintf("/etc/to/%d", i)
		}
		out = append(out, r)
	}
	return out
}

// all is that word for each record up to n.
func all(word string, n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprint(word, " ", i+1))
	}
	return out
}

func (h *host) compare() (Comparison, []string) {
	h.t.Helper()
	var found []string
	c, err := Compare(context.Background(), h.path, h.dir, func(d Difference) {
		found = append(found, fmt.Sprintf("%s %d", d.What, d.Seq))
		h.t.Logf("%+v", d)
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return c, found
}

// sql runs statements on the file.
func (h *host) sql(q string) {
	h.t.Helper()
	db, err := sql.Open("sqlite", dsn(h.path, "rwc"))
	if err == nil {
		_, err = db.Exec(q)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) count(q string) (n int) {
	h.t.Helper()
	db, err := sql.Open("sqlite", dsn(h.path, "rwc"))
	if err == nil {
		err = db.QueryRow(q).Scan(&n)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		h.t.Fatal(err)
	}
	return n
}

func (h *host) answers(f query.Filter) (seqs []uint64, note string) {
	h.t.Helper()
	s, err := OpenRead(h.path, h.dir)
	if err != nil {
		h.t.Fatal(err)
	}
	defer s.Close()
	if err := s.Records(context.Background(), f, func(r *event.Record) error { seqs = append(seqs, r.Seq); return nil }); err != nil {
		h.t.Fatal(err)
	}
	l, err := s.Lag(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	return seqs, l.Note
}

func TestTheIndexForgetsWhatExpired(t *testing.T) {
	h := newHost(t)
	h.segments = 1
	h.write(busy(1, 600))
	h.catchUp()
	j, err := journal.Open(h.dir, filepath.Join(h.dir, "..", "keys"), journal.Options{HostID: "h", Host: "web1", Boot: "b", SegmentBytes: 1, KeepBytes: 40 << 10, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range busy(601, 50) {
		if _, err := j.AppendDurable(context.Background(), r); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(20 * time.Second); j.Stats().First < 300; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%+v", j.Stats())
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	first, err := journal.Oldest(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	newest, err := journal.Newest(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	left := int(newest - first + 1)
	// Before the index knows, its answers are right already.
	f := query.Filter{Path: "/etc/"}
	want, note := h.answers(f)
	if len(want) == 0 || want[0] < first || strings.Contains(note, "cannot be read") {
		t.Fatalf("%v, %q", want, note)
	}
	if c, found := h.compare(); !c.Clean() || c.Expired != first-1 {
		t.Fatalf("%+v, %q", c, found)
	}
	h.catchUp()
	if n := h.count("SELECT count(*) FROM rec"); n != left {
		t.Fatalf("%d rows, %d records from %d to %d", n, left, first, newest)
	}
	for _, q := range []string{"SELECT count(*) FROM by_path WHERE seq NOT IN (SELECT seq FROM rec)", "SELECT count(*) FROM paths WHERE id NOT IN (SELECT path FROM by_path)",
		"SELECT count(*) FROM bases WHERE id NOT IN (SELECT base FROM paths)", "SELECT count(*) FROM lines WHERE id NOT IN (SELECT line FROM rec)",
		"SELECT count(*) FROM commands_content WHERE id NOT IN (SELECT id FROM lines)", "SELECT count(*) FROM commands WHERE commands MATCH '\"/1/\"'",
		"SELECT count(*) FROM pieces_content WHERE id NOT IN (SELECT id FROM paths)",
		"SELECT count(*) FROM above WHERE exec > 0 AND exec NOT IN (SELECT exec FROM rec WHERE exec IS NOT NULL) OR exec < 0 AND -exec < (SELECT min(seq) FROM rec)",
		"SELECT count(*) FROM spans WHERE (block + 1) * 1024 <= (SELECT min(seq) FROM rec)",
		"SELECT max(0, (SELECT count(*) FROM names) - 11 - " + fmt.Sprint(left) + ")"} {
		if n := h.count(q); n != 0 {
			t.Errorf("%s: %d", q, n)
		}
	}
	if got, _ := h.answers(f); !slices.Equal(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
	if c, found := h.compare(); len(found) > 0 || c.Matched != uint64(left) {
		t.Fatalf("found %q, %+v", found, c)
	}
	// and it goes on with strings that were dropped
	h.write(busy(1, 20))
	h.catchUp()
	if c, found := h.compare(); len(found) > 0 || c.Matched != uint64(left)+20 {
		t.Fatalf("found %q, %+v", found, c)
	}
}

func TestEachTamperingWithTheIndexIsNamed(t *testing.T) {
	for _, c := range []struct {
		name, sql string
		want      []string
	}{
		{"nothing", "", nil},
		{"a row removed", "DELETE FROM rec WHERE seq = 7", []string{"missing 7"}},
		{"a row inserted", "INSERT INTO rec (seq, seg, off, time, till) VALUES (-5, 1, 1, 1, 1); UPDATE rec SET seq = 500 WHERE seq = -5", []string{"extra 41"}},
		{"the user of a row edited", "UPDATE rec SET user = host WHERE seq = 9", []string{"altered 9"}},
		{"the address of a row taken away", "UPDATE rec SET source = NULL WHERE seq = 9", []string{"altered 9"}},
		{"a row that points to another record", "UPDATE rec SET off = (SELECT off FROM rec WHERE seq = 8) WHERE seq = 9", []string{"altered 9"}},
		{"two rows swapped", "UPDATE rec SET seq = -1 WHERE seq = 3; UPDATE rec SET seq = 3 WHERE seq = 4; UPDATE rec SET seq = 4 WHERE seq = -1", []string{"altered 3", "altered 4"}},
		{"the time of a row moved", "UPDATE rec SET time = time - 1 WHERE seq = 12", []string{"altered 12"}},
		{"a path renamed", "UPDATE paths SET s = '/other/5' WHERE s = '/etc/5'", []string{"altered 0", "altered 5"}},
		{"the text of a path edited", "UPDATE pieces SET s = 'x' WHERE s = '/etc/5'", []string{"altered 0"}},
		{"the texts of all paths taken away", "DELETE FROM pieces_data WHERE id > 10", []string{"altered 0"}},
		{"an execution not found below another", "DELETE FROM above WHERE exec = (SELECT exec FROM rec WHERE seq = 6)", []string{"altered 6"}},
		{"a record not found under its path", "DELETE FROM by_path WHERE seq = 10", []string{"altered 10"}},
		{"a record found under another path too", "INSERT INTO by_path SELECT id, 11 FROM paths WHERE s = '/etc/12'", []string{"altered 11"}},
		{"the last ten cut off", "DELETE FROM rec WHERE seq > 30; DELETE FROM by_path WHERE seq > 30", []string{"missing 31", "missing 32", "missing 33", "missing 34", "missing 35", "missing 36", "missing 37", "missing 38", "missing 39", "missing 40"}},
		{"a command line edited", "UPDATE commands SET s = 'ls' WHERE s = 'sed -i s/a/5/'", []string{"altered 5"}},
		{"a command line edited but not its words", "UPDATE commands_content SET c0 = 'ls' WHERE c0 = 'sed -i s/a/5/'", []string{"altered 0", "altered 5"}},
		{"the words of all command lines taken away", "DELETE FROM commands_data WHERE id > 10", []string{"altered 0"}},
		{"the last element of a path edited", "UPDATE bases SET s = 'x' WHERE s = '7'", []string{"altered 0"}},
		{"a span too short", "UPDATE spans SET high = low + 37 WHERE block = 0", []string{"altered 39", "altered 40"}},
		{"a span taken away", "DELETE FROM spans", all("altered", 40)},
		{"no state", "DELETE FROM state", []string{"altered 0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			h.write(busy(1, 40))
			h.catchUp()
			if c.sql != "" {
				h.sql(c.sql)
			}
			if _, found := h.compare(); !slices.Equal(found, c.want) {
				t.Fatalf("found %q, want %q", found, c.want)
			}
		})
	}
	t.Run("a damaged page", func(t *testing.T) {
		h := newHost(t)
		h.write(busy(1, 400))
		h.catchUp()
		b, err := os.ReadFile(h.path)
		if err != nil {
			t.Fatal(err)
		}
		for at := 2*4096 + 3900; at < len(b); at += 4096 { // cells lie at the end of a page
			copy(b[at:], strings.Repeat("\xa5", 150))
		}
		if err := os.WriteFile(h.path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, found := h.compare(); len(found) == 0 {
			t.Fatal("nothing was found")
		}
	})
}

func TestTheIndexIsBuiltAnewWhenAsked(t *testing.T) {
	h := newHost(t)
	h.write(busy(1, 200))
	x := h.open()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- x.Run(ctx) }()
	for x.Stats().Seq != 200 {
		time.Sleep(time.Millisecond)
	}
	x.Rebuild()
	for s := x.Stats(); s.Rebuilt != 1 || s.Seq != 200; s = x.Stats() {
		time.Sleep(time.Millisecond)
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if c, found := h.compare(); len(found) > 0 || c.Matched != 200 {
		t.Fatalf("found %q, %+v", found, c)
	}
}

// TestARowOfARecordThatExpiredIsToldOf: nothing is left that it could be held against, unless it stands where none can.
func TestARowOfARecordThatExpiredIsToldOf(t *testing.T) {
	h := newHost(t)
	h.segments = 1
	h.write(busy(1, 300))
	j, err := journal.Open(h.dir, filepath.Join(h.dir, "..", "keys"), journal.Options{HostID: "h", Host: "web1", Boot: "b", SegmentBytes: 1, KeepBytes: 20 << 10, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range busy(301, 50) {
		if _, err := j.AppendDurable(context.Background(), r); err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(20 * time.Second); j.Stats().First < 100; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%+v", j.Stats())
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	h.catchUp()
	if c, found := h.compare(); !c.Clean() || c.Expired != 0 {
		t.Fatalf("%+v, %q", c, found)
	}
	h.sql("INSERT INTO rec (seq, seg, off, time, till) VALUES (7, 1, 0, 1, 1), (8, 5, 0, 1, 1)")
	if c, found := h.compare(); !c.Clean() || c.Expired != 2 {
		t.Errorf("%+v, %q", c, found)
	}
	h.sql("INSERT INTO rec (seq, seg, off, time, till) VALUES (9, 10, 0, 1, 1), (-3, 1, 0, 1, 1), (10, 9223372036854775807, 0, 1, 1)")
	if c, found := h.compare(); c.Clean() || c.Expired != 2 || !slices.Equal(found, []string{"extra 0", "extra 9", "extra 10"}) {
		t.Errorf("%+v, %q", c, found)
	}
}
