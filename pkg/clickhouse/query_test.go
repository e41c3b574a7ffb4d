package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
	"github.com/holdfast/holdfast/pkg/query/fleettest"
	"github.com/holdfast/holdfast/pkg/query/querytest"
)

// TestStore runs the suite that the index passes too, over both protocols. The
// records are in many parts, and each is there twice until a merge.
func TestStore(t *testing.T) {
	for name, url := range map[string]func(string) string{"native": server.URL, "http": server.HTTPURL} {
		t.Run(name, func(t *testing.T) {
			querytest.Run(t, func(t *testing.T, records []*event.Record) query.Store {
				db := open(t, url(newDatabase()))
				db.eager = name == "http"
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

// TestFleet asks about hosts whose records lie across each other in time.
func TestFleet(t *testing.T) {
	o := fleettest.Options{Seed: 3, Hosts: 4, Days: 6, Busy: 25}
	records := o.All()
	db := newDB(t)
	for i, part := range slices.Collect(slices.Chunk(records, 1000)) {
		var b [][]byte
		for _, r := range part {
			b = append(b, encode(t, r))
		}
		send(t, db, fmt.Sprint(i), b...)
	}
	querytest.RunFleet(t, db, records)
	db.eager = true
	querytest.RunFleet(t, db, records)
}

// TestFollow: what is there, then what comes, of one host and of all.
func TestFollow(t *testing.T) {
	db := newDB(t)
	for _, h := range []string{"b", "a"} {
		send(t, db, h, samples(t, h, 1, 5)...)
	}
	for _, c := range []struct {
		name string
		f    query.Filter
		want []string // first, then when more has come
	}{
		{"all hosts", query.Filter{Limit: 2}, []string{"a5 b5", "a6 a7 c1 c2 c3"}},
		{"one host by its id", query.Filter{Host: "a"}, []string{"a1 a2 a3 a4 a5 a6 a7", "a8 a9"}},
		{"a filter that leaves some out", query.Filter{Host: "web1", Path: "/etc/app/conf.d/11.conf"}, []string{"", "a11"}},
		{"a host that is not there yet", query.Filter{Host: "d"}, []string{"", "d1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			more := map[string]func(){
				"all hosts":                     func() { send(t, db, "a67", samples(t, "a", 6, 7)...); send(t, db, "c", samples(t, "c", 1, 3)...) },
				"one host by its id":            func() { send(t, db, "a89", samples(t, "a", 8, 9)...) },
				"a filter that leaves some out": func() { send(t, db, "a1012", samples(t, "a", 10, 12)...) },
				"a host that is not there yet":  func() { send(t, db, "d", samples(t, "d", 1, 1)...) },
			}[c.name]
			var got []string
			done := errors.New("all has come")
			quiet := 0
			err := db.Follow(context.Background(), c.f, func(r *event.Record) error {
				got = append(got, fmt.Sprint(r.HostID, r.Seq))
				return nil
			}, func(error) error {
				if quiet++; quiet == 1 {
					if have := strings.Join(got, " "); have != c.want[0] {
						return fmt.Errorf("at first %q, want %q", have, c.want[0])
					}
					got = nil
					more()
					return nil
				}
				slices.Sort(got)
				if have := strings.Join(got, " "); have == c.want[1] {
					return done
				} else if quiet > 60 {
					return fmt.Errorf("then %q, want %q", have, c.want[1])
				}
				return nil
			})
			if !errors.Is(err, done) {
				t.Error(err)
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

// Whoever has taken over a host can send any times: questions of all hosts still end, and find what they ask for.
func TestTimesThatNoClockShows(t *testing.T) {
	db := newDB(t)
	times := []event.Time{math.MinInt64 + 1, -1, 0, testTime, testTime + 1, math.MaxInt64}
	for _, host := range []string{"a", "b"} {
		var b [][]byte
		for i, at := range times {
			r := sample(host, uint64(i+1))
			r.Time, r.TimeEnd = at, at
			b = append(b, encode(t, r))
		}
		send(t, db, host, b...)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, c := range []struct {
		f    query.Filter
		want int
	}{{query.Filter{}, 12}, {query.Filter{Limit: 5}, 5}, {query.Filter{Limit: 50}, 12}, {query.Filter{Since: testTime, Limit: 50}, 6}, {query.Filter{Until: testTime + 1}, 8}, {query.Filter{User: "nobody", Limit: 3}, 0}} {
		n := 0
		if err := db.Records(ctx, c.f, func(*event.Record) error { n++; return nil }); err != nil || n != c.want {
			t.Errorf("%+v: %d records, %v, want %d", c.f, n, err, c.want)
		}
	}
}
