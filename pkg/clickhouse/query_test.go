package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
	"github.com/holdfast/holdfast/pkg/query/querytest"
)

// TestStore runs the suite that the index passes too, over both protocols. The
// records are in many parts, and each is there twice until a merge.
func TestStore(t *testing.T) {
	for name, url := range map[string]func(string) string{"native": server.URL, "http": server.HTTPURL} {
		t.Run(name, func(t *testing.T) {
			querytest.Run(t, func(t *testing.T, records []*event.Record) query.Store {
				db := open(t, url(newDatabase()))
				server.MustExec(t, "SYSTEM STOP MERGES "+db.target.Database+".records")
				for i, part := range slices.Collect(slices.Chunk(records, 100)) {
					var b [][]byte
					for _, r := range part {
						b = append(b, encode(t, r))
					}
					send(t, db, fmt.Sprint(i), b...)
					send(t, db, fmt.Sprint(i, " again"), b...)
				}
				return db
			})
		})
	}
}

func TestSeveralHosts(t *testing.T) {
	db := newDB(t)
	for _, h := range []string{"b", "a", "c"} {
		send(t, db, h, samples(t, h, 1, 5)...)
	}
	cases := []struct {
		name string
		f    query.Filter
		want string
	}{
		{"host by host in order of their ids", query.Filter{}, "[a1 a2 a3 a4 a5 b1 b2 b3 b4 b5 c1 c2 c3 c4 c5]"},
		{"the newest of each host", query.Filter{Limit: 2}, "[a4 a5 b4 b5 c4 c5]"},
		{"one host", query.Filter{Host: "b", Limit: 3}, "[b3 b4 b5]"},
		{"all that share a name", query.Filter{Host: "web1", Limit: 1}, "[a5 b5 c5]"},
		{"no such host", query.Filter{Host: "d", Limit: 1}, "[]"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := []string{}
			err := db.Records(context.Background(), c.f, func(r *event.Record) error {
				got = append(got, fmt.Sprint(r.HostID, r.Seq))
				return nil
			})
			if err != nil || fmt.Sprint(got) != c.want {
				t.Errorf("%v, %v; want %s", got, err, c.want)
			}
		})
	}
}

// TestInjection: values of filters are values, whatever is in them.
func TestInjection(t *testing.T) {
	db := newDB(t)
	send(t, db, "1", samples(t, testHost, 1, 3)...)
	for _, evil := range []string{"' OR 1 = 1 --", `\' OR 1 = 1 --`, "?", "$1", "{x:String}", "a'; DROP TABLE records; --", "\x00", "\xff", "@name", "`"} {
		for _, f := range []query.Filter{{User: evil}, {Path: evil}, {Path: evil + "/"}, {Path: "*" + evil}, {Exe: evil}, {Host: evil}, {Source: evil}, {Op: evil, Limit: 1}, {User: evil, Session: evil}} {
			err := db.Records(context.Background(), f, func(r *event.Record) error {
				return fmt.Errorf("%+v selects record %d", f, r.Seq)
			})
			if err != nil {
				t.Error(err)
			}
		}
	}
}

func BenchmarkQuery(b *testing.B) {
	db := newDB(b)
	for i := range uint64(20) {
		send(b, db, fmt.Sprint(i), samples(b, testHost, i*5000+1, i*5000+5000)...)
	}
	for name, f := range map[string]query.Filter{
		"newest=100":   {Limit: 100},
		"path":         {Path: "/etc/app/conf.d/7.conf", Limit: 100},
		"record":       {Host: testHost, AfterSeq: 77_776, Until: testTime + 77_777*1_000_003 + 1},
		"window":       {Since: testTime + 50_000*1_000_003, Until: testTime + 50_100*1_000_003},
		"everything":   {},
		"other-source": {Source: "198.51.100.1"},
	} {
		b.Run(name, func(b *testing.B) {
			n := 0
			for b.Loop() {
				if err := db.Records(context.Background(), f, func(*event.Record) error { n++; return nil }); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)/float64(b.N), "records")
		})
	}
}
