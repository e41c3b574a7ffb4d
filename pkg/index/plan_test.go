package index

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
)

const planned = 6000 // records that plans are about: some blocks of spans

// steady makes a record each 10 ms; each hundredth is of bob and has a command line of its own, each thousandth took an hour.
func steady() []*event.Record {
	out := busy(1, planned)
	for i, r := range out {
		r.Time = event.Time(1_700_000_000_000_000_000 + i*10_000_000)
		r.Path = fmt.Sprintf("/srv/site%d/page-%d.html", i%7, i/7%50)
		r.PathTo = ""
		r.Process.Argv = []string{"sed", "-i", "s/a/b/"}
		if i%100 == 0 {
			r.Actor.User, r.Process.Argv = "bob", []string{"rm", fmt.Sprint("file", i)}
		}
		if i%1000 == 999 {
			r.Time, r.TimeEnd = r.Time-3600e9, r.Time
		}
	}
	return out
}

// planOf returns the plan of a question, how SQLite goes about it, and how many sequences it may look at.
func (h *host) planOf(f query.Filter) (p *plan, how string, wide uint64) {
	h.t.Helper()
	db, err := sql.Open("sqlite", dsn(h.path, "ro"))
	if err != nil {
		h.t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.Begin()
	if err != nil {
		h.t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	if p, err = makePlan(context.Background(), tx, &f, planned); err != nil || p.none {
		h.t.Fatalf("%+v: %+v, %v", f, p, err)
	}
	how = h.explain(tx, p.text(true), p.bind(1, planned, 10)...)
	for _, s := range p.where {
		wide += s.hi - s.lo + 1
	}
	return p, how, wide
}

func TestEachQuestionIsDrivenByItsIndex(t *testing.T) {
	h := newHost(t)
	records := steady()
	h.write(records)
	h.catchUp()
	end := records[planned-2].Time // the last one took an hour
	const all = planned
	for _, c := range []struct {
		name string
		f    query.Filter
		want string // in SQLite's plan
		wide uint64 // sequences at most
	}{
		{"everything", query.Filter{Limit: 10}, "SEARCH r USING INTEGER PRIMARY KEY", all},
		{"a path", query.Filter{Path: "/srv/site1/page-3.html"}, "SEARCH b USING PRIMARY KEY (path=? AND seq>? AND seq<?)", all},
		{"a user", query.Filter{User: "bob"}, "rec_user (user=? AND rowid>? AND rowid<?)", all},
		{"a user in the last second", query.Filter{User: "alice", Since: end - 1e9}, "rec_user (user=? AND rowid>? AND rowid<?)", 2 * spanRecords},
		{"a second long ago", query.Filter{Since: end - 30e9, Until: end - 29e9}, "SEARCH r USING INTEGER PRIMARY KEY", 2*spanRecords + 10},
		{"before a second long ago", query.Filter{Until: end - 55e9}, "SEARCH r USING INTEGER PRIMARY KEY", 2*spanRecords + 10},
		{"words that few have", query.Filter{Command: "file1100"}, "rec_line (line=? AND rowid>? AND rowid<?)", all},
		{"words that begin within a character", query.Filter{Command: "le1100"}, "rec_line (line=? AND rowid>? AND rowid<?)", all},
		{"words of two characters", query.Filter{Command: "rm"}, "rec_line (line=? AND rowid>? AND rowid<?)", all},
		{"words of a user", query.Filter{Command: "rm file", User: "bob"}, "SEARCH", all},
		{"a glob", query.Filter{Path: "/srv/*/page-1?.html"}, "by_path USING PRIMARY KEY (path=? AND seq>? AND seq<?)", all},
		{"a text in paths", query.Filter{Path: "**page-17**"}, "by_path USING PRIMARY KEY (path=? AND seq>? AND seq<?)", all},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, how, wide := h.planOf(c.f)
			if !strings.Contains(how, c.want) || strings.Contains(how, "SCAN r") || strings.Contains(how, "SCAN paths") {
				t.Errorf("%s, want %s", how, c.want)
			}
			if wide > c.wide {
				t.Errorf("%d sequences, want at most %d", wide, c.wide)
			}
		})
	}
	t.Run("words and names are looked up by their indexes", func(t *testing.T) {
		db, err := sql.Open("sqlite", dsn(h.path, "ro"))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		for q, want := range map[string]string{
			"SELECT c.id FROM commands m CROSS JOIN commands_content c ON c.id = m.rowid WHERE commands MATCH '" + trigrams("file1100") + "'": "VIRTUAL TABLE INDEX",
			"SELECT id, s FROM bases WHERE s >= 'a' AND s < 'b'":                                                                              "SEARCH bases",
			"SELECT id, s FROM paths INDEXED BY paths_base WHERE base IN (SELECT value FROM json_each('[1]')) AND s >= 'a'":                   "paths_base (base=?)",
		} {
			if how := h.explain(db, q); !strings.Contains(how, want) {
				t.Errorf("%s: %s", q, how)
			}
		}
	})
}

// explain tells how SQLite goes about a question.
func (h *host) explain(db interface {
	Query(q string, args ...any) (*sql.Rows, error)
}, q string, args ...any) (how string) {
	h.t.Helper()
	rows, err := db.Query("EXPLAIN QUERY PLAN "+q, args...)
	if err != nil {
		h.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var s string
		if err := rows.Scan(&id, &parent, &unused, &s); err != nil {
			h.t.Fatal(err)
		}
		how += s + "; "
	}
	return how
}

// A clock that was set back and forth, records of hours and expired ones: the answers stay those of the filter.
func TestTimesAreFoundHoweverTheClockWasSet(t *testing.T) {
	h := newHost(t)
	records := steady()
	for i, r := range records {
		switch {
		case i >= 2500 && i < 2600:
			r.Time -= 5000e9
		case i >= 4000 && i < 5200:
			r.Time += 7000e9
		case i%3 == 0:
			r.Time -= event.Time(i%11) * 1e9
		}
		if r.TimeEnd != 0 {
			r.TimeEnd = max(r.Time, r.TimeEnd)
		}
	}
	h.write(records)
	h.catchUp()
	first := records[0].Time
	for _, f := range []query.Filter{
		{Since: first - 5000e9, Until: first - 4000e9}, {Since: first + 6000e9}, {Until: first - 1e9}, {Since: first + 10e9, Until: first + 11e9},
		{Since: first + 10e9, Until: first + 11e9, Limit: 7}, {Since: first + 25e9, Until: first + 26e9, User: "bob"}, {Since: first + 59e9, Path: "/srv/*/page-1?.html"},
		{Since: first - 1800e9, Until: first - 1700e9}, {Since: 1, Until: 2}, {Since: first + 1e15},
	} {
		var want []uint64
		for i, r := range records {
			r.Seq = uint64(i + 1)
			if f.Match(r) {
				want = append(want, r.Seq)
			}
		}
		if f.Limit > 0 {
			want = want[len(want)-f.Limit:]
		}
		if got, _ := h.answers(f); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%+v: %d records, want %d", f, len(got), len(want))
		}
	}
}

func TestTheIndexOfLongRecordsIsOfThoseThatNoSpanHas(t *testing.T) {
	if want := fmt.Sprintf("WHERE till - time > %d;", longTime); !strings.Contains(schema, want) {
		t.Errorf("no %q", want)
	}
}

func TestStretchesAreJoinedAndFew(t *testing.T) {
	for _, c := range []struct {
		in   []stretch
		most int
		want string
	}{
		{nil, 1, "[]"},
		{[]stretch{{5, 9}, {1, 4}}, 9, "[{1 9}]"},
		{[]stretch{{1, 20}, {3, 4}, {30, 40}}, 9, "[{1 20} {30 40}]"},
		{[]stretch{{1, 1}, {10, 10}, {13, 13}, {100, 100}}, 3, "[{1 1} {10 13} {100 100}]"},
		{[]stretch{{1, 1}, {1000, 1000}}, 1, "[{1 1000}]"},
	} {
		if got := fmt.Sprint(join(c.in, c.most)); got != c.want {
			t.Errorf("%v, %d: %s, want %s", c.in, c.most, got, c.want)
		}
	}
}
