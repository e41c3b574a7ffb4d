package index

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/query"
	"github.com/holdfast/holdfast/pkg/query/querytest"
)

// many writes n records: 185,000 paths, 20 users, 500 sessions, one exec for ten records and four above it, 50,000 command lines.
func (h *host) many(b *testing.B, n int) {
	b.Helper()
	j, err := journal.Open(h.dir, filepath.Join(h.dir, "..", "keys"), journal.Options{HostID: "h1", Host: "web-1", Boot: "b", ReserveBytes: -1})
	if err != nil {
		b.Fatal(err)
	}
	var template *event.Record
	for _, r := range querytest.Records(100) {
		if r.Kind == event.RecChange && r.Actor != nil && r.Process != nil {
			template = r
		}
	}
	for i := range n {
		r, a, p := *template, *template.Actor, *template.Process
		r.Actor, r.Process = &a, &p
		r.Time = event.Time(1_780_000_000_000_000_000 + int64(i)*1_000_000)
		r.Path = fmt.Sprintf("/srv/www/site%d/page-%d.html", i%37, (i*7919)%5000)
		r.Op, r.Verdict, p.Exe = "write", event.VerdictObserved, "/usr/bin/sed"
		a.User, a.Session = fmt.Sprintf("user%d", i%20), fmt.Sprint(i/2000%500)
		a.SourceIP = fmt.Sprintf("192.0.2.%d", i%200)
		p.ExecID = fmt.Sprintf("%d-1-%d", i/10, i/10)
		p.Ancestors = []event.Ancestor{{PID: 30, ExecID: fmt.Sprintf("make-%d", i/200)}, {PID: 20, ExecID: fmt.Sprintf("bash-%d", i/2000)}, {PID: 10, ExecID: fmt.Sprintf("sshd-%d", i/2000)}, {PID: 1, ExecID: "init"}}
		line := i / 10 % 50_000
		p.Argv = []string{"sed", "-i", fmt.Sprintf("s/name%d/%x/", line%5000, line), fmt.Sprintf("/srv/www/site%d/", line%37)}
		for {
			_, err := j.Append(&r)
			if err == nil {
				break
			}
			if !errors.Is(err, journal.ErrFull) {
				b.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
	}
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkIndexing(b *testing.B) {
	const n = 200_000
	h := newHost(b)
	h.many(b, n)
	for b.Loop() {
		x, err := Open(filepath.Join(b.TempDir(), "records.db"), h.dir, Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := x.CatchUp(context.Background()); err != nil {
			b.Fatal(err)
		}
		s := x.Stats()
		b.ReportMetric(float64(s.Bytes)/n, "bytes/record")
		if err := x.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

var records = flag.Int("records", 1_000_000, "records that BenchmarkQuestions asks")

func BenchmarkQuestions(b *testing.B) {
	n := *records
	h := newHost(b)
	h.many(b, n)
	x, err := Open(h.path, h.dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	if err := x.CatchUp(context.Background()); err != nil {
		b.Fatal(err)
	}
	if err := x.Close(); err != nil {
		b.Fatal(err)
	}
	s, err := OpenRead(h.path, h.dir)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	end := event.Time(1_780_000_000_000_000_000 + int64(n)*1_000_000)
	for _, c := range []struct {
		name string
		f    query.Filter
	}{
		{"newest 1000", query.Filter{Limit: 1000}},
		{"exact path newest 100", query.Filter{Path: "/srv/www/site5/page-17.html", Limit: 100}},
		{"narrow prefix newest 100", query.Filter{Path: "/srv/www/site5/", Limit: 100}},
		{"wide prefix newest 100", query.Filter{Path: "/srv/", Limit: 100}},
		{"glob newest 100", query.Filter{Path: "/srv/www/*/page-1?.html", Limit: 100}},
		{"text in a path newest 100", query.Filter{Path: "**page-4321.**", Limit: 100}},
		{"user newest 100", query.Filter{User: "user7", Limit: 100}},
		{"user in the last minute", query.Filter{User: "user7", Since: end - 60_000_000_000}},
		{"address and port newest 100", query.Filter{Source: "192.0.2.9:22", Limit: 100}},
		{"timeline of a session", query.Filter{Session: "123"}},
		{"kind and verdict newest 100", query.Filter{Kind: event.RecChange, Verdict: event.VerdictObserved, Limit: 100}},
		{"op newest 100", query.Filter{Op: "write", Limit: 100}},
		{"executable newest 100", query.Filter{Exe: "sed", Limit: 100}},
		{"words that no command line has", query.Filter{Command: "s/a/b/", Limit: 100}},
		{"words that few command lines have newest 100", query.Filter{Command: "name4321/", Limit: 100}},
		{"words that all command lines have newest 100", query.Filter{Command: "sed -i", Limit: 100}},
		{"text in a path that all have newest 100", query.Filter{Path: "**html**", Limit: 100}},
		{"text in a path that none has", query.Filter{Path: "**authorized_keys**", Limit: 100}},
		{"below a process", query.Filter{Below: "make-77"}},
		{"below a login newest 1000", query.Filter{Below: "bash-7", Limit: 1000}},
		{"below the first process newest 100", query.Filter{Below: "init", Limit: 100}},
		{"exec", query.Filter{Exec: "77-1-77"}},
		{"nobody", query.Filter{User: "nobody"}},
		{"a minute long ago", query.Filter{Since: end - 600_000_000_000, Until: end - 540_000_000_000, Limit: 1000}},
	} {
		b.Run(c.name, func(b *testing.B) {
			k := 0
			var took []time.Duration
			for b.Loop() {
				k = 0
				began := time.Now()
				if err := s.Records(context.Background(), c.f, func(*event.Record) error { k++; return nil }); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "p95-ms")
			b.ReportMetric(float64(k), "records")
		})
	}
	b.Run("who", func(b *testing.B) {
		for b.Loop() {
			if _, err := query.Who(context.Background(), s, "/srv/www/site5/page-17.html", ""); err != nil && !errors.Is(err, query.ErrNotFound) {
				b.Fatal(err)
			}
		}
	})
}
