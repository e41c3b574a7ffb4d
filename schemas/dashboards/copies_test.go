package dashboards

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	limit = regexp.MustCompile(`\bLIMIT \d+( BY)?`)
	some  = regexp.MustCompile(`groupUniqArray(If)?\(\d+\)`)
)

// whole takes away what makes an answer depend on the order in which rows are read: limits, and the choice of some of many.
func whole(sql string) string {
	sql = limit.ReplaceAllStringFunc(sql, func(l string) string {
		if strings.HasSuffix(l, " BY") {
			return l
		}
		return ""
	})
	return some.ReplaceAllString(sql, "groupUniqArray$1")
}

// fromRows are the questions to the rows themselves that panels ask of projections.
func fromRows() map[string]string {
	return map[string]string{
		"Slowest arrival": `SELECT max(dateDiff('second', greatest(time, time_end), received)) FROM records WHERE $__conditionalAll(host IN (${host:singlequote}), $host)`,
		"Delay from event to row, by host": `SELECT $__timeInterval(received) AS t, host, quantileExactLow(0.5)(dateDiff('second', greatest(time, time_end), received)) FROM records
			WHERE $__conditionalAll(host IN (${host:singlequote}), $host) GROUP BY t, host`,
		"Ledger: rows against sequences": `SELECT any(host), max(seq), max(seq), toInt64(max(seq) - min(seq) + 1 - uniqExact(seq)), 0, toInt64(uniqExact(seq, boot) - uniqExact(seq)), if(host_id = 'late', 0, max(seq)), 0
			FROM records WHERE $__conditionalAll(host IN (${host:singlequote}), $host) GROUP BY host_id`,
	}
}

// copies holds each panel and rule that asks notable, or a projection, against what records themselves say.
func copies(t *testing.T, f *fleet, all map[string]dashboard) {
	queries := map[string]string{}
	for _, d := range all {
		for _, p := range d.Panels {
			queries[d.UID+"/"+p.Title] = p.Targets[0].RawSQL
		}
	}
	for uid, r := range rules(t) {
		queries["rule/"+uid] = r.Data[0].Model.RawSQL
	}
	defer f.late(t)()
	now := time.Now()
	s := &screen{from: f.from.Add(-time.Hour), to: now.Add(time.Hour), interval: time.Hour, all: map[string]bool{"user": true},
		vars: map[string][]string{"host": strings.Split(f.server.MustExec(t, "SELECT DISTINCT host FROM holdfast.records ORDER BY host"), "\n"), "user": nil, "session": nil, "source": nil, "path": nil}}
	one := *s
	one.vars = maps.Clone(s.vars)
	one.vars["host"] = s.vars["host"][:1]
	asked, projected := 0, 0
	for name, sql := range queries {
		_, title, _ := strings.Cut(name, "/")
		truth := fromRows()[title]
		switch {
		case strings.Contains(sql, "FROM notable"):
			truth = strings.ReplaceAll(sql, "FROM notable", "FROM records")
			asked++
		case truth != "":
			projected++
		default:
			continue
		}
		t.Run(name, func(t *testing.T) {
			forced := ""
			if fromRows()[title] != "" {
				forced = " SETTINGS force_optimize_projection = 1"
			}
			s := s
			if strings.Contains(sql, "host = $") {
				s = &one
			}
			got, want := f.sorted(t, s, sql, forced), f.sorted(t, s, truth, " SETTINGS optimize_use_projections = 0")
			if len(want) == 0 || !reflect.DeepEqual(got, want) {
				t.Errorf("%d lines, from the records %d\n%.2000s\nfrom the records\n%.2000s", len(got), len(want), strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
	if asked < 20 || projected != len(fromRows()) {
		t.Errorf("%d panels and rules ask notable, %d a projection", asked, projected)
	}
}

// late adds a host whose records came late, some of them under two boots, and returns what takes it away again.
func (f *fleet) late(t *testing.T) func() {
	t.Helper()
	for boot, which := range map[string]string{"a": "seq != 60", "b": "seq % 7 = 0"} {
		f.server.MustExec(t, fmt.Sprintf(`INSERT INTO holdfast.records (host_id, host, boot, seq, time, kind, verdict, received)
			SELECT 'late', 'late.example.net', '%s', seq, time, kind, verdict, now() - toIntervalHour(seq %% 5) FROM holdfast.records
			WHERE host_id = (SELECT min(host_id) FROM holdfast.records) AND seq BETWEEN 40 AND 90 AND %s`, boot, which))
	}
	return func() {
		for _, table := range []string{"records", "notable", "hosts"} {
			f.server.MustExec(t, "ALTER TABLE holdfast."+table+" DELETE WHERE host_id = 'late' SETTINGS mutations_sync = 2")
		}
	}
}

// sorted asks and returns the lines of the answer in an order of their own.
func (f *fleet) sorted(t *testing.T, s *screen, sql, settings string) (lines []string) {
	t.Helper()
	text, err := s.expand(whole(sql))
	if err != nil {
		t.Fatal(err)
	}
	a, err := f.ask(text + settings)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, row := range a.Data {
		for _, v := range row {
			if list, ok := v.([]any); ok {
				slices.SortFunc(list, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
			}
		}
		b, err := json.Marshal(row)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(b))
	}
	slices.Sort(lines)
	return lines
}
