package query_test

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
	"github.com/holdfast/holdfast/pkg/query/fleettest"
	"github.com/holdfast/holdfast/pkg/query/querytest"
)

func TestAListPassesTheSuite(t *testing.T) {
	querytest.Run(t, func(_ *testing.T, records []*event.Record) query.Store { return querytest.List(records) })
	all := fleettest.Options{Hosts: 3, Days: 4, Busy: 10}.All()
	querytest.RunFleet(t, querytest.List(all), all)
}

func TestPathPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"/etc/passwd", "/etc/passwd", true}, {"/etc/passwd", "/etc/passwd-", false}, {"/etc/passwd", "", false},
		{"/etc/", "/etc/passwd", true}, {"/etc/", "/etc/ssh/x", true}, {"/etc/", "/etc", false}, {"/etc/", "/etcx/y", false},
		{"/etc/*", "/etc/passwd", true}, {"/etc/*", "/etc/ssh/x", false}, {"/etc/**", "/etc/ssh/x", true}, {"/etc/*.conf", "/etc/.conf", true},
		{"/etc/**/x", "/etc/ssh/d/x", true}, {"/etc/**/x", "/etc/x", false}, {"/etc/**x", "/etc/x", true},
		{"/a/?", "/a/b", true}, {"/a/?", "/a//", false}, {"/a/?", "/a/ä", true}, {"/a/[a-c]", "/a/b", true}, {"/a/[!a-c]", "/a/b", false}, {"/a/[^a-c]", "/a/d", true},
		{"/a[/]b", "/a/b", false}, {"/a[!x]b", "/a/b", false}, {"/a/[]]", "/a/]", true}, {"/a/[", "/a/[", true}, {"/a/[-z]", "/a/-", true}, {"/a/[a-]", "/a/-", true},
		{"/srv/*/", "/srv/www/x/y", true}, {"/srv/*/", "/srv/www", false}, {"*", "/a", false}, {"**", "/a", true}, {"/a*b*c", "/aXbXbXc", true}, {"/a*b*c", "/aXb/c", false},
		{"/x/*a/**/b?", "/x/za/1/2/b3", true},
	} {
		if got := query.MatchPath(c.pattern, c.path); got != c.want {
			t.Errorf("%q on %q: %v", c.pattern, c.path, got)
		}
	}
}

func TestLiteralIsTheLongestTextOfAPattern(t *testing.T) {
	for pattern, want := range map[string]string{"/etc/passwd": "/etc/passwd", "/etc/": "/etc/", "**passwd**": "passwd", "/a/*longer?x": "longer", "/etc/[abc]x": "/etc/", "**": "", "/x[/y": "/x[/y", "/[a]*[longset]tail": "tail"} {
		if got := query.Literal(pattern); got != want {
			t.Errorf("%q: %q, want %q", pattern, got, want)
		}
	}
}

func TestTheLastElementOfAPatternMatchesThatOfEachPath(t *testing.T) {
	for pattern, want := range map[string]string{"/srv/*/page-1?.html": "page-1?.html", "/srv/**/x": "x", "**x": "", "/a/*": "", "/a/": "", "/srv/*/": "", "*.c": "*.c",
		"/a/[x/y]b": "[x/y]b", "/a/[x/y": "y", "/a/[!/]*/[/]": "[/]", "/a/?": "?", "/a/b**": ""} {
		if got := query.LastElement(pattern); got != want {
			t.Errorf("%q: %q, want %q", pattern, got, want)
		}
	}
}

func TestQuoteNamesOnePath(t *testing.T) {
	for _, p := range []string{"/a", "/a*", "/a[1]", "/a?", "/**/[[", "/a]b"} {
		if !query.MatchPath(query.Quote(p), p) {
			t.Errorf("%q does not match %q", query.Quote(p), p)
		}
		if query.MatchPath(query.Quote(p), p+"x") || query.MatchPath(query.Quote(p), strings.Replace(p, "*", "x", 1)+"x") {
			t.Errorf("%q matches more than %q", query.Quote(p), p)
		}
	}
}

func FuzzGlobIsItsRegexp(f *testing.F) {
	for _, s := range [][2]string{{"/etc/*", "/etc/x"}, {"/a/**/b", "/a/x/b"}, {"/[!a-/]", "/0"}, {"**a*b", "/a/ab"}, {"[", "["}, {"/[/]x*", "/x"}, {"[]-a]*", "^"}, {"/?*?/**", "/ab/"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, path string) {
		pattern, path = event.Text([]byte(pattern)), event.Text([]byte(path))
		if kind, _ := query.ParsePath(pattern); kind != query.PathGlob || path == "" {
			return
		}
		re, err := regexp.Compile(query.GlobRegexp(pattern))
		if err != nil {
			t.Fatalf("%q as %q: %v", pattern, query.GlobRegexp(pattern), err)
		}
		if query.MatchPath(pattern, path) && !strings.Contains(path, query.Literal(pattern)) {
			t.Fatalf("%q matches %q, which does not hold %q", pattern, path, query.Literal(pattern))
		}
		if got, want := query.MatchPath(pattern, path), re.MatchString(path); got != want {
			t.Fatalf("%q on %q: %v, as regexp %q: %v", pattern, path, got, re, want)
		}
	})
}

func TestTimesAsPeopleWriteThem(t *testing.T) {
	zone := time.FixedZone("somewhere", 2*3600)
	now := time.Date(2026, 3, 10, 15, 30, 0, 500, zone)
	for _, c := range []struct{ in, want string }{
		{"2026-03-01T10:00:00Z", "2026-03-01T10:00:00Z"}, {"2026-03-01T10:00:00.25+01:00", "2026-03-01T09:00:00.25Z"},
		{"2026-03-01", "2026-02-28T22:00:00Z"}, {"2026-03-01 10:00", "2026-03-01T08:00:00Z"}, {"2026-03-01T10:00:07", "2026-03-01T08:00:07Z"},
		{"15:04", "2026-03-10T13:04:00Z"}, {"15:31", "2026-03-09T13:31:00Z"}, {"15:30:00", "2026-03-10T13:30:00Z"},
		{"2h", "2026-03-10T11:30:00.0000005Z"}, {"3d", "2026-03-07T13:30:00.0000005Z"}, {"1d12h", "2026-03-09T01:30:00.0000005Z"}, {"1w", "2026-03-03T13:30:00.0000005Z"}, {"90s", "2026-03-10T13:28:30.0000005Z"}, {"now", "2026-03-10T13:30:00.0000005Z"},
		{"today", "2026-03-09T22:00:00Z"}, {"yesterday", "2026-03-08T22:00:00Z"}, {"1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000001Z"}, {"1678-01-02", "1678-01-01T22:00:00Z"}, {"2261-12-31T23:59:59Z", "2261-12-31T23:59:59Z"},
	} {
		got, err := query.ParseTime(c.in, now)
		if err != nil || got.Go().Format(time.RFC3339Nano) != c.want {
			t.Errorf("%q: %s, %v, want %s", c.in, got, err, c.want)
		}
	}
	for _, bad := range []string{"", "tomorrow", "1677-12-31T00:00:00Z", "9999-01-01", "2262-01-01T00:00:00Z", "0001-01-01", "25:00", "2", "-2h", "2y", "2.5h", "999999999w", "2026-13-01", "2h3"} {
		if got, err := query.ParseTime(bad, now); err == nil {
			t.Errorf("%q: %s", bad, got)
		}
	}
}

func TestClockTimesWhereTheClockWasChanged(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip(err)
	}
	for _, c := range []struct{ now, in, want string }{
		{"2026-10-25T01:45:00Z", "02:30", "2026-10-25T01:30:00Z"}, // shown twice: the second time
		{"2026-10-25T00:45:00Z", "02:30", "2026-10-25T00:30:00Z"}, // the second is yet to come
		{"2026-03-29T08:00:00Z", "02:30", "2026-03-28T01:30:00Z"}, // left out that day
		{"2026-03-29T08:00:00Z", "yesterday", "2026-03-27T23:00:00Z"},
		{"2026-03-30T08:00:00Z", "yesterday", "2026-03-28T23:00:00Z"}, // a day of 23 hours
		{"2026-03-29T08:00:00Z", "1d", "2026-03-28T08:00:00Z"},
	} {
		now, err := time.Parse(time.RFC3339, c.now)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := query.ParseTime(c.in, now.In(zone)); err != nil || got.Go().Format(time.RFC3339) != c.want {
			t.Errorf("%s at %s: %s, %v, want %s", c.in, c.now, got, err, c.want)
		}
	}
}

func TestFollowGivesWhatTheFilterSelects(t *testing.T) {
	records := querytest.Records(100)
	i := 0
	end := errors.New("end")
	next := func(context.Context) (*event.Record, error) {
		if i == len(records) {
			return nil, end
		}
		i++
		return records[i-1], nil
	}
	f := query.Filter{Kind: event.RecChange, Limit: 1}
	var got []*event.Record
	err := query.Follow(context.Background(), next, f, func(r *event.Record) error { got = append(got, r); return nil })
	if !errors.Is(err, end) {
		t.Fatal(err)
	}
	want := 0
	for _, r := range records {
		if r.Kind == event.RecChange {
			want++
		}
	}
	if len(got) != want || want == 0 {
		t.Fatalf("%d records, want %d", len(got), want)
	}
}
