package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestCompare(t *testing.T) {
	const n = 300
	records := samples(t, testHost, 1, n)
	cases := []struct {
		name   string
		damage func(t *testing.T, db *DB)
		from   uint64
		to     uint64
		want   []string // beginnings of the differences
		counts Comparison
	}{
		{name: "rows that are the records are clean",
			counts: Comparison{Records: n, Rows: n, Matched: n}},
		{name: "a part of the log is compared alone",
			from: 100, to: 149,
			counts: Comparison{Records: 50, Rows: 50, Matched: 50}},
		{name: "deleted rows are missing",
			damage: func(t *testing.T, db *DB) { mutate(t, db, "DELETE WHERE seq IN (1, 7, 300)") },
			want:   []string{"missing H/B/1", "missing H/B/7", "missing H/B/300"},
			counts: Comparison{Records: n, Rows: n - 3, Matched: n - 3, Missing: 3}},
		{name: "one changed byte of a record is altered",
			damage: func(t *testing.T, db *DB) {
				mutate(t, db, "UPDATE rec = replaceOne(rec, 'alice', 'alicf') WHERE seq = 42")
			},
			want:   []string{"altered H/B/42: the bytes"},
			counts: Comparison{Records: n, Rows: n, Matched: n - 1, Altered: 1}},
		{name: "a changed column with the right bytes is altered and named",
			damage: func(t *testing.T, db *DB) {
				mutate(t, db, "UPDATE actor_user = 'mallory', after_uid = 7 WHERE seq = 42")
			},
			want:   []string{"altered H/B/42: columns [after_uid actor_user]"},
			counts: Comparison{Records: n, Rows: n, Matched: n - 1, Altered: 1}},
		{name: "a row of an unknown number is extra, before, between and behind",
			damage: func(t *testing.T, db *DB) {
				send(t, db, "forged", encode(t, sample(testHost, 301)), encode(t, sample(testHost, 900)))
			},
			want:   []string{"extra H/B/301", "extra H/B/900"},
			counts: Comparison{Records: n, Rows: n + 2, Matched: n, Extra: 2}},
		{name: "a second row of the same bytes is duplicated",
			damage: func(t *testing.T, db *DB) {
				server.MustExec(t, "SYSTEM STOP MERGES "+db.target.Database+".records")
				send(t, db, "another token", records[41])
				send(t, db, "a third token", records[41])
			},
			want:   []string{"duplicated H/B/42", "duplicated H/B/42"},
			counts: Comparison{Records: n, Rows: n + 2, Matched: n, Duplicated: 2}},
		{name: "a forged second row beside the true one is altered, not duplicated",
			damage: func(t *testing.T, db *DB) {
				server.MustExec(t, "SYSTEM STOP MERGES "+db.target.Database+".records")
				r := sample(testHost, 42)
				r.Actor.User = "mallory"
				send(t, db, "another token", encode(t, r))
			},
			want:   []string{"altered H/B/42: the bytes"},
			counts: Comparison{Records: n, Rows: n + 1, Matched: n, Altered: 1}},
		{name: "the same number under another boot is altered",
			damage: func(t *testing.T, db *DB) {
				r := sample(testHost, 42)
				r.Boot = "z"
				send(t, db, "another token", encode(t, r))
			},
			want:   []string{"altered H/z/42: the bytes"},
			counts: Comparison{Records: n, Rows: n + 1, Matched: n, Altered: 1}},
		{name: "another host's rows do not count",
			damage: func(t *testing.T, db *DB) { send(t, db, "other", encode(t, sample("other", 42))) },
			counts: Comparison{Records: n, Rows: n, Matched: n}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			db := newDB(t)
			send(t, db, "all", records...)
			if c.damage != nil {
				c.damage(t, db)
			}
			from := max(c.from, 1)
			var got []string
			counts, err := db.Compare(context.Background(), testHost, from, c.to, journalOf(from, records[from-1:]), func(d Difference) {
				got = append(got, d.String())
			})
			if err != nil {
				t.Fatal(err)
			}
			if counts != c.counts || counts.Clean() != (len(c.want) == 0) {
				t.Errorf("counted %+v, want %+v", counts, c.counts)
			}
			ok := slices.EqualFunc(got, c.want, func(g, w string) bool {
				return strings.HasPrefix(g, strings.NewReplacer("H", testHost, "/B/", "/"+testBoot+"/").Replace(w))
			})
			if !ok {
				t.Errorf("reported\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
	t.Run("an error of the journal is an error, not the end", func(t *testing.T) {
		db := newDB(t)
		bad := errors.New("bad disk")
		_, err := db.Compare(context.Background(), testHost, 1, 0, func(context.Context) (uint64, []byte, error) { return 0, nil, bad }, nil)
		if !errors.Is(err, bad) || errors.Is(err, io.EOF) {
			t.Errorf("error %v", err)
		}
	})
}

// TestCompareFull: every column of a record with every field comes back as it went.
func TestCompareFull(t *testing.T) {
	for name, url := range map[string]string{"native": server.URL(newDatabase()), "http": server.HTTPURL(newDatabase())} {
		t.Run(name, func(t *testing.T) {
			db := open(t, url)
			r := full()
			b := encode(t, r)
			send(t, db, "full", b)
			counts, err := db.Compare(context.Background(), r.HostID, r.Seq, r.Seq, journalOf(r.Seq, [][]byte{b}), func(d Difference) { t.Error(d) })
			if err != nil || counts.Matched != 1 {
				t.Errorf("%+v, %v", counts, err)
			}
		})
	}
}

func TestReach(t *testing.T) {
	db := newDB(t)
	ctx := context.Background()
	const chunk = 1000 // records that one question covers
	const n = 2*chunk + 100
	insert := "INSERT INTO " + db.target.Database + ".records (host_id, boot, seq, time) SELECT 'big', 'b', number + 1, now64(9) FROM numbers(%d)"
	server.MustExec(t, fmt.Sprintf(insert, n))
	cases := []struct {
		name            string
		lost            string
		after           uint64
		unbroken, whole uint64
	}{
		{"without a gap it is the newest", "", 0, n, n},
		{"from within", "", 77, n, n},
		{"a gap in the last chunk", "seq = 2050", 0, 2049, n},
		{"a gap at the end of a chunk", "seq = 1000", 0, 999, n},
		{"a gap at the start", "seq = 1", 0, 0, n},
		{"beyond the gap", "", 1, 999, n},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.lost != "" {
				mutate(t, db, "DELETE WHERE "+c.lost)
			}
			unbroken, newest, err := db.reach(ctx, "big", c.after, chunk)
			if err != nil || unbroken != c.unbroken || newest != c.whole {
				t.Errorf("Reach from %d is %d, %d, %v; want %d, %d", c.after, unbroken, newest, err, c.unbroken, c.whole)
			}
		})
	}
}

func send(t testing.TB, db *DB, token string, records ...[]byte) {
	t.Helper()
	if err := db.Send(context.Background(), token, records); err != nil {
		t.Fatal(err)
	}
}

func mutate(t testing.TB, db *DB, what string) {
	t.Helper()
	server.MustExec(t, "ALTER TABLE "+db.target.Database+".records "+what+" SETTINGS mutations_sync = 2")
}

func BenchmarkCompare(b *testing.B) {
	const n = 20_000
	db := newDB(b)
	records := samples(b, testHost, 1, n)
	send(b, db, "all", records...)
	for b.Loop() {
		c, err := db.Compare(context.Background(), testHost, 1, 0, journalOf(1, records), nil)
		if err != nil || !c.Clean() {
			b.Fatal(c, err)
		}
	}
	b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
