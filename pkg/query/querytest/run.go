package querytest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
)

// Run tests the store that open returns for those records: all of one host, in
// order, with ids as Records makes them. open registers what closes it with t.
func Run(t *testing.T, open func(t *testing.T, records []*event.Record) query.Store) {
	t.Helper()
	records := Records(600)
	s := open(t, records)
	t.Run("each filter selects what Match does", func(t *testing.T) { filters(t, s, records) })
	t.Run("filters together select what Match does", func(t *testing.T) { combinations(t, s, records) })
	t.Run("an error of the callback ends the walk", func(t *testing.T) { stops(t, s) })
	t.Run("the callback may ask the store", func(t *testing.T) { nested(t, s, records) })
	t.Run("who changed a path is the newest change of it", func(t *testing.T) { who(t, s, records) })
	t.Run("a record is found by its id", func(t *testing.T) { get(t, s, records) })
	t.Run("sessions are counted from all their records", func(t *testing.T) { sessions(t, s, records) })
	t.Run("a tree has each act at its process", func(t *testing.T) { trees(t, s, records) })
	t.Run("nothing is behind", func(t *testing.T) {
		l, err := s.Lag(context.Background())
		if err != nil || l.Newest != records[len(records)-1].Seq || l.Behind != 0 {
			t.Fatalf("%+v, %v", l, err)
		}
	})
	t.Run("a store without records answers nothing", func(t *testing.T) {
		s := open(t, nil)
		check(t, s, nil, query.Filter{})
		check(t, s, nil, query.Filter{Path: "/etc/", Limit: 5})
		if _, err := query.Who(context.Background(), s, "/etc/passwd", ""); !errors.Is(err, query.ErrNotFound) {
			t.Fatal(err)
		}
	})
}

// truth is the answer by the list.
func truth(records []*event.Record, f query.Filter) []*event.Record {
	var out []*event.Record
	for _, r := range records {
		if f.Match(r) {
			out = append(out, r)
		}
	}
	if f.Limit > 0 && len(out) > f.Limit {
		out = out[len(out)-f.Limit:]
	}
	return out
}

func ask(t *testing.T, s query.Store, f query.Filter) []*event.Record {
	t.Helper()
	var out []*event.Record
	if err := s.Records(context.Background(), f, func(r *event.Record) error {
		out = append(out, r)
		return nil
	}); err != nil {
		t.Fatalf("%+v: %v", f, err)
	}
	return out
}

func check(t *testing.T, s query.Store, records []*event.Record, f query.Filter) {
	t.Helper()
	got, want := ask(t, s, f), truth(records, f)
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Fatalf("%+v: %d records, want %d; the first missing is %+v", f, len(got), len(want), want[i])
		case i >= len(want):
			t.Fatalf("%+v: %d records, want %d; the first too much is %+v", f, len(got), len(want), got[i])
		case !reflect.DeepEqual(got[i], want[i]):
			t.Fatalf("%+v: record %d of the answer is\n%+v, want\n%+v", f, i, got[i], want[i])
		}
	}
}

func values() map[string][]query.Filter {
	set := func(fn func(f *query.Filter, v string), vs ...string) []query.Filter {
		out := make([]query.Filter, len(vs))
		for i, v := range vs {
			fn(&out[i], v)
		}
		return out
	}
	return map[string][]query.Filter{
		"path": set(func(f *query.Filter, v string) { f.Path = v }, append(paths(), "/etc/", "/srv/", "/srv/www", "/etc/*", "/etc/**", "/etc/*/*", "/etc/**/*.conf",
			"/srv/www/?.html", "/srv/www/[0-9].html", "/srv/www/[!0-9].html", "/srv/www/[[]1].html", "/srv/www/[*].html", "/**/passwd", "/*/passwd", "**", "*", "/srv/w*/index.html",
			"/srv/www/100%_.html", "/srv/www/100__.html", "/ETC/PASSWD", "/etc/pass", "/nowhere", "/nowhere/", "/srv/*/", `/srv/www/\xFF*`, "/srv/www/??.html", "/srv/www/[", "passwd", "**passw**", "**www/[0-9]*", "**%_**", `**\**`)...),
		"user":    set(func(f *query.Filter, v string) { f.User = v }, "alice", "bob", event.Unknown, "ALICE", "ali", "%"),
		"source":  set(func(f *query.Filter, v string) { f.Source = v }, "192.0.2.7", "192.0.2.7:50122", "192.0.2.7:1", "192.0.2.70", "2001:db8::7", "2001:0db8:0:0::7", "[2001:db8::7]:22", "::ffff:192.0.2.7", "nonsense"),
		"session": set(func(f *query.Filter, v string) { f.Session = v }, "41", "42", "4", "svc-1-2-3", "5"),
		"exec":    set(func(f *query.Filter, v string) { f.Exec = v }, "10-1-500", "11-1-501", "10-1"),
		"below":   set(func(f *query.Filter, v string) { f.Below = v }, "10-1-500", "9-2-400", "1-1-1", "1-1-2", "9-2"),
		"exe":     set(func(f *query.Filter, v string) { f.Exe = v }, "sed", "/usr/bin/sed", "vim", "bin/sed", "/usr/bin/"),
		"command": set(func(f *query.Filter, v string) { f.Command = v }, "sed -i", "-i s/ä", "sed", "SED", "s%b", "s_ä", "curl", `\`,
			"s", "-i", " ", "ä/", "i s/ä/b", "sed -i s/ä/b/", "sed -i s/ä/b/ ", " sed", "ä/b", "\xa4/b", "\xa4", "ä\xff", "s%", "%", "_", "s*", `"`, `sed "-i`, "sed AND", "se\x00d", `\xFF\x80 b`, `\xff`, `.\xFF`,
			"it's \"quoted\"", `"quoted" OR`, "quoted\"", "日本", "本語", "xyz end", "yyyyyyyyyyyyyyyyyy", "the very end", "zed"),
		"meaning": set(func(f *query.Filter, v string) { f.Meaning = v }, "uid 0", "joined group `g1`", "UID", "0`bob`", "100%_", `_\`, "`"),
		"op":      set(func(f *query.Filter, v string) { f.Op = v }, "write", "rename", "nothing"),
		"kind":    set(func(f *query.Filter, v string) { f.Kind = v }, event.RecChange, event.RecAttempt, event.RecSession, event.RecGap, event.RecAgent, event.RecResponse),
		"verdict": set(func(f *query.Filter, v string) { f.Verdict = v }, event.VerdictObserved, event.VerdictUnauthorized, event.VerdictBlocked, event.VerdictRestored),
		"rule":    set(func(f *query.Filter, v string) { f.Rule = v }, "etc", "www", "none"),
		"found":   set(func(f *query.Filter, v string) { f.Found = v }, event.FoundAfterGap, event.FoundWhileDown, "nothing"),
		"ticket":  set(func(f *query.Filter, v string) { f.Ticket = v }, "CHG-42", "CHG-4", "chg-42", "CHG-%", "ä 'quoted'", "3", "nothing"),
		"host":    set(func(f *query.Filter, v string) { f.Host = v }, host, hostID, machine, "web-2", machine[:8], machine+event.Again),
		"window":  {{Since: start + 100e9, Until: start + 110e9}, {Since: start + 590e9, Until: start + 700e9}, {Since: start - 100e9, Until: start + 1e9}, {Since: start + 300e9, Until: start + 300e9 + 1}},
		"since":   {{Since: start + 100_000_000_000}, {Since: start + 100_000_000_001}, {Since: start - 1e12}, {Since: start + 1e15}},
		"until":   {{Until: start + 100_000_000_000}, {Until: start + 100_000_000_001}, {Until: 1}, {Until: start + 1e15}},
		"after":   {{AfterSeq: 1}, {AfterSeq: 300}, {AfterSeq: 599}, {AfterSeq: 600}, {AfterSeq: 1 << 62}},
		"limit":   {{Limit: 1}, {Limit: 7}, {Limit: 599}, {Limit: 600}, {Limit: 10000}},
	}
}

func filters(t *testing.T, s query.Store, records []*event.Record) {
	check(t, s, records, query.Filter{})
	for name, fs := range values() {
		t.Run(name, func(t *testing.T) {
			for _, f := range fs {
				check(t, s, records, f)
				f.Limit = 3
				check(t, s, records, f)
			}
		})
	}
}

// merge sets in f what is set in g.
func merge(f *query.Filter, g query.Filter) {
	to, from := reflect.ValueOf(f).Elem(), reflect.ValueOf(g)
	for i := range from.NumField() {
		if !from.Field(i).IsZero() {
			to.Field(i).Set(from.Field(i))
		}
	}
}

func combinations(t *testing.T, s query.Store, records []*event.Record) {
	r := rand.New(rand.NewPCG(3, 4))
	all := values()
	var names []string
	for _, n := range []string{"path", "user", "source", "session", "exec", "below", "exe", "command", "meaning", "op", "kind", "verdict", "rule", "ticket", "host", "since", "until", "window", "after", "limit"} {
		if len(all[n]) == 0 {
			t.Fatalf("no filters of %s", n)
		}
		names = append(names, n)
	}
	answered := 0
	for range 300 {
		var f query.Filter
		for range 2 + r.IntN(3) {
			n := names[r.IntN(len(names))]
			merge(&f, all[n][r.IntN(len(all[n]))])
		}
		check(t, s, records, f)
		if len(truth(records, f)) > 0 {
			answered++
		}
	}
	if answered < 50 {
		t.Fatalf("only %d of 300 combinations select anything", answered)
	}
}

func stops(t *testing.T, s query.Store) {
	mine := errors.New("enough")
	n := 0
	err := s.Records(context.Background(), query.Filter{}, func(*event.Record) error {
		if n++; n == 5 {
			return mine
		}
		return nil
	})
	if !errors.Is(err, mine) || n != 5 {
		t.Fatalf("%d records, %v", n, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n = 0
	err = s.Records(ctx, query.Filter{}, func(*event.Record) error {
		n++
		cancel()
		return nil
	})
	if err == nil || n == 600 {
		t.Fatalf("a walk whose context ended read %d records: %v", n, err)
	}
}

func nested(t *testing.T, s query.Store, records []*event.Record) {
	err := s.Records(context.Background(), query.Filter{Limit: 3}, func(r *event.Record) error {
		check(t, s, records, query.Filter{Kind: r.Kind, Limit: 2})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func who(t *testing.T, s query.Store, records []*event.Record) {
	for _, p := range append(paths(), "/elsewhere/passwd", "/nowhere", "/etc/pass") {
		var want *event.Record
		for _, kind := range []string{event.RecAttempt, event.RecChange} {
			for _, r := range records {
				if r.Kind == kind && (r.Path == p || r.PathTo == p) {
					if want == nil || want.Kind != kind || r.Seq > want.Seq {
						want = r
					}
				}
			}
		}
		got, err := query.Who(context.Background(), s, p, "")
		switch {
		case want == nil && !errors.Is(err, query.ErrNotFound):
			t.Errorf("%s: %v, %v", p, got, err)
		case p == "/" && want != nil:
			// "/" cannot be named alone: as a filter it means everything below.
		case want != nil && (err != nil || !reflect.DeepEqual(got, want)):
			t.Errorf("%s: %+v, %v, want %+v", p, got, err, want)
		}
	}
}

func get(t *testing.T, s query.Store, records []*event.Record) {
	for _, i := range []int{0, 1, 399, 400, 599} {
		got, err := query.Get(context.Background(), s, records[i].ID)
		if err != nil || !reflect.DeepEqual(got, records[i]) {
			t.Errorf("%s: %+v, %v", records[i].ID, got, err)
		}
	}
	for _, id := range []string{hostID + "/boot-b/1", hostID + "/boot-a/601", "other/boot-a/1"} {
		if got, err := query.Get(context.Background(), s, id); !errors.Is(err, query.ErrNotFound) {
			t.Errorf("%s: %+v, %v", id, got, err)
		}
	}
	for _, id := range []string{"", "1", "a/b", "a/b/c", hostID + "/boot-a/0", hostID + "/boot-a/01", hostID + "/boot-a/-1"} {
		if got, err := query.Get(context.Background(), s, id); err == nil || errors.Is(err, query.ErrNotFound) {
			t.Errorf("%q is no id, but: %+v, %v", id, got, err)
		}
	}
}

// sessions counts by the list, another way than query.Sessions: session by session.
func sessions(t *testing.T, s query.Store, records []*event.Record) {
	for _, f := range []query.Filter{{}, {User: "bob"}, {Path: "/etc/passwd", Op: "unlink"}, {Session: "4"}, {Source: "192.0.2.7:50122"}, {Kind: event.RecGap}, {Limit: 3}} {
		want := map[string]query.Session{}
		for _, m := range truth(records, f) {
			if m.Actor == nil || m.Actor.Session == "" {
				continue
			}
			x := query.Session{ID: m.Actor.Session, Boot: m.Boot}
			ids := map[string]bool{}
			for _, r := range records {
				if r.Boot != m.Boot || r.Actor == nil || r.Actor.Session != m.Actor.Session {
					continue
				}
				x.Records++
				if r.Kind == event.RecChange {
					x.Changes++
					if r.Verdict == event.VerdictUnauthorized {
						x.Unauthorized++
					}
				}
				if r.Kind == event.RecAttempt {
					x.Attempts++
				}
				if r.Verdict == event.VerdictUnauthorized {
					ids[r.ID] = true
				}
				if x.Start == 0 || r.Time < x.Start {
					x.Start = r.Time
				}
				if r.Kind == event.RecSession && r.TimeEnd > x.End {
					x.End = r.TimeEnd
				}
			}
			for _, r := range records {
				if r.Response != nil && r.Verdict == event.VerdictRestored && r.Response.Outcome == "done" && ids[r.Response.Of] {
					x.Restored++
				}
			}
			want[x.Boot+" "+x.ID] = x
		}
		got, err := query.Sessions(context.Background(), s, f)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Fatalf("%+v: %d sessions, want %d", f, len(got), len(want))
		}
		for i, g := range got {
			if i > 0 && got[i-1].Start > g.Start {
				t.Errorf("%+v: sessions are not in the order of their start", f)
			}
			short := query.Session{ID: g.ID, Boot: g.Boot, Records: g.Records, Changes: g.Changes, Attempts: g.Attempts, Unauthorized: g.Unauthorized, Restored: g.Restored, Start: g.Start, End: g.End}
			if w := want[g.Boot+" "+g.ID]; !reflect.DeepEqual(short, w) {
				t.Errorf("%+v: session %s is\n%+v, want\n%+v", f, fmt.Sprint(g.Boot, " ", g.ID), short, w)
			}
			if g.HostID != hostID || g.Host != host {
				t.Errorf("session %s is of %s (%s)", g.ID, g.Host, g.HostID)
			}
		}
	}
}
