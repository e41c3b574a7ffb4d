package schemas

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

// TestReleased holds the digests of the migrations that users may have applied
// (sha256sum in schemas/clickhouse, a release adds its lines). Change the schema by
// a new migration, never by an edit.
func TestReleased(t *testing.T) {
	b, err := os.ReadFile("testdata/released.sum")
	if err != nil {
		t.Fatal(err)
	}
	ms, err := ClickHouse()
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]string{}
	for _, m := range ms {
		have[m.Name] = m.Checksum
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if have[f[1]] != f[0] {
			t.Errorf("%s was released with digest %s, it has %q now", f[1], f[0], have[f[1]])
		}
	}
}

// TestRetained: no table with an end is forgotten when the retention changes.
func TestRetained(t *testing.T) {
	ms, err := ClickHouse()
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, m := range ms {
		statements, err := Render(m, Target{Database: "d", KeepDays: 7})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range statements {
			if m := regexp.MustCompile(`CREATE TABLE IF NOT EXISTS d\.(\w+)`).FindStringSubmatch(s); m != nil && strings.Contains(s, "\nTTL ") {
				have = append(have, m[1])
			}
		}
	}
	if !reflect.DeepEqual(have, Retained()) {
		t.Errorf("tables with a TTL: %v; Retained says %v", have, Retained())
	}
	for days, want := range map[int]string{30: "ALTER TABLE d.records ON CLUSTER 'c' MODIFY TTL received + toIntervalDay(30)", 0: "ALTER TABLE d.records ON CLUSTER 'c' REMOVE TTL"} {
		if got := (Target{Database: "d", Cluster: "c", KeepDays: days}).Retain("records"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestLoad(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	cases := []struct {
		name string
		fs   fstest.MapFS
		want int // migrations, -1 an error
	}{
		{"in order, other files aside", fstest.MapFS{"m/0002_b.sql": file("b"), "m/0001_a.sql": file("a"), "m/README": file("")}, 2},
		{"a gap", fstest.MapFS{"m/0001_a.sql": file("a"), "m/0003_b.sql": file("b")}, -1},
		{"a number twice", fstest.MapFS{"m/0001_a.sql": file("a"), "m/0001_b.sql": file("b")}, -1},
		{"no number", fstest.MapFS{"m/a.sql": file("a")}, -1},
		{"no folder", fstest.MapFS{}, -1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ms, err := load(c.fs, "m")
			if (err != nil) != (c.want < 0) || err == nil && len(ms) != c.want {
				t.Errorf("%v, %v", ms, err)
			}
		})
	}
}

func TestRender(t *testing.T) {
	one := Migration{Name: "x", Text: `CREATE TABLE {{.Database}}.t{{.OnCluster}} ENGINE = {{.Engine "MergeTree"}} {{.TTL "received"}} SETTINGS {{.DeduplicationWindow}};`}
	cases := []struct {
		name string
		t    Target
		want string
	}{
		{"one server", Target{Database: "d", KeepDays: 7},
			"CREATE TABLE d.t ENGINE = MergeTree TTL received + toIntervalDay(7) SETTINGS non_replicated_deduplication_window = 10000"},
		{"one server, for ever", Target{Database: "d"},
			"CREATE TABLE d.t ENGINE = MergeTree  SETTINGS non_replicated_deduplication_window = 10000"},
		{"a cluster", Target{Database: "d", Cluster: "{cluster}"},
			"CREATE TABLE d.t ON CLUSTER '{cluster}' ENGINE = ReplicatedMergeTree  SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800"},
		{"no database", Target{}, ""},
		{"a database that is SQL", Target{Database: "a.b"}, ""},
		{"a cluster that is SQL", Target{Database: "d", Cluster: "a' ; DROP"}, ""},
		{"a negative retention", Target{Database: "d", KeepDays: -1}, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := Render(one, c.t)
			if c.want == "" {
				if err == nil {
					t.Errorf("rendered %q", got)
				}
				return
			}
			if err != nil || len(got) != 1 || got[0] != c.want {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
	for _, text := range []string{"{{", "{{.Nothing}}"} {
		if _, err := Render(Migration{Name: "x", Text: text}, Target{Database: "d"}); err == nil {
			t.Errorf("%q was rendered", text)
		}
	}
}

func TestSplit(t *testing.T) {
	cases := []struct {
		name, sql string
		want      []string
	}{
		{"nothing", "", nil},
		{"space and comments alone", " \n-- a; b\n/* c; */ ; ;", nil},
		{"two statements, the last without its semicolon", "a; b", []string{"a", "b"}},
		{"a comment stays with what follows", "a;\n-- why\nb;", []string{"a", "-- why\nb"}},
		{"a semicolon in a string", `a ';' ";" ` + "`;`; b", []string{`a ';' ";" ` + "`;`", "b"}},
		{"a quote in a string", `a 'it\'s; ' ; b 'it''s; '`, []string{`a 'it\'s; '`, `b 'it''s; '`}},
		{"an apostrophe in a comment", "a -- it's\n; b", []string{"a -- it's", "b"}},
		{"a comment mark in a string", "a '--'; b '/*'; c", []string{"a '--'", "b '/*'", "c"}},
		{"a string without its end", "a 'b; c", []string{"a 'b; c"}},
		{"a minus and a slash", "a - b / c; d", []string{"a - b / c", "d"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := Split(c.sql); !reflect.DeepEqual(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func FuzzSplit(f *testing.F) {
	ms, err := ClickHouse()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ms[0].Text)
	f.Add("a '\\")
	f.Add("-")
	f.Fuzz(func(t *testing.T, sql string) {
		parts := Split(sql)
		for _, p := range parts {
			// A statement is one statement.
			if again := Split(p); len(again) != 1 || again[0] != p {
				t.Errorf("%q splits again into %q", p, again)
			}
		}
	})
}
