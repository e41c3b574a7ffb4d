package dashboards

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/clickhouse"
	"github.com/holdfast/holdfast/pkg/clickhouse/clickhousetest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
)

var (
	busy      = flag.Int("busy", 100, "ordinary writes a day on each of 8 hosts, for the benchmarks; 9900 are a million records")
	times     = flag.Int("times", 1, "how many such fleets there are: the others are copies under other ids, a second apart")
	keep      = flag.String("keep", "", "directory for the server's data: it stays there, and the next run with it makes no fleet")
	answersTo = flag.String("answers", "", "file to which BenchmarkPanels writes what the panels answered, for draw/draw.sh")
)

// arrived says that records arrive seconds after what they tell.
const arrived = "toDateTime(greatest(time, time_end), 'UTC') + INTERVAL 1 + seq % 3 SECOND"

// large makes the fleet that the flags ask for.
func large(b *testing.B) *fleet {
	if f := kept(b); f != nil {
		return f
	}
	f := newFleet(b, *busy, 0, arrived)
	// A copy is a part, and these stay: to merge them all takes longer than anything that is measured.
	f.server.MustExec(b, "ALTER TABLE holdfast.records MODIFY SETTING max_bytes_to_merge_at_max_space_in_pool = 300000000")
	for i := 1; i < *times; i++ {
		f.server.MustExec(b, fmt.Sprintf(`INSERT INTO holdfast.records SELECT * REPLACE (lower(hex(MD5(concat(host_id, '%d')))) AS host_id,
			replaceOne(host, '.', '-%[1]d.') AS host, time + INTERVAL %[1]d SECOND AS time, time_end + INTERVAL %[1]d SECOND AS time_end)
			FROM (SELECT * FROM holdfast.records WHERE host_id IN (SELECT host_id FROM holdfast.checkpoints)) SETTINGS max_threads = 1, max_insert_threads = 1, min_insert_block_size_bytes = 4000000000, min_insert_block_size_rows = 2000000`, i))
	}
	for f.server.MustExec(b, "SELECT count() FROM system.merges") != "0" {
		time.Sleep(100 * time.Millisecond)
	}
	f.rows *= *times
	f.tell(b)
	return f
}

// kept is the fleet that an earlier run left, or nil.
func kept(b *testing.B) *fleet {
	if *keep == "" {
		return nil
	}
	if _, err := os.Stat(*keep + "/data"); err != nil {
		return nil
	}
	ctx := context.Background()
	f := &fleet{server: serve(b)}
	db, err := clickhouse.Open(ctx, clickhouse.Config{URL: f.server.URL("holdfast")})
	if err != nil {
		b.Fatal(err)
	}
	f.db = db
	b.Cleanup(func() { _ = db.Close() })
	f.rows, err = strconv.Atoi(f.server.MustExec(b, "SELECT count() FROM holdfast.records"))
	if err != nil {
		b.Fatal(err)
	}
	f.from = time.Now().AddDate(0, 0, -14)
	f.tell(b)
	return f
}

// serve starts a server whose data stay if -keep says so.
func serve(t testing.TB) *clickhousetest.Server {
	if *keep == "" {
		return clickhousetest.New(t, "")
	}
	if err := os.MkdirAll(*keep, 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := clickhousetest.Launch(context.Background(), clickhousetest.Options{Dir: *keep})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

// tell prints how large the fleet is.
func (f *fleet) tell(b *testing.B) {
	fmt.Println(f.server.MustExec(b, "SELECT concat(toString(sum(rows)), ' rows in ', toString(count()), ' parts, ', toString(round(sum(bytes_on_disk) / sum(rows))), ' bytes a row') FROM system.parts WHERE active AND table = 'records'"))
}

// percentiles reports the median and the 95th percentile in ms.
func percentiles(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "p95-ms")
}

// drawn is what draw/ draws: the answers of a dashboard as it opens, by panel.
type drawn struct {
	From, To int64 // ms
	Vars     map[string][]string
	Panels   map[int]answer
}

// BenchmarkPanels asks what each panel asks when its dashboard opens.
func BenchmarkPanels(b *testing.B) {
	f := large(b)
	answers := map[string]drawn{}
	for name, d := range load(b) {
		_, opening, _ := f.screens(b, &d)
		answers[name] = drawn{From: opening.from.UnixMilli(), To: opening.to.UnixMilli(), Vars: opening.vars, Panels: map[int]answer{}}
		for _, p := range d.Panels {
			b.Run(name+"/"+p.Title, func(b *testing.B) {
				text, err := opening.expand(p.Targets[0].RawSQL)
				if err != nil {
					b.Fatal(err)
				}
				var took []time.Duration
				for b.Loop() {
					began := time.Now()
					a, err := f.ask(text)
					if err != nil {
						b.Fatal(err)
					}
					took = append(took, time.Since(began))
					answers[name].Panels[p.ID] = a
				}
				percentiles(b, took)
				b.ReportMetric(float64(answers[name].Panels[p.ID].Statistics.RowsRead), "rows")
			})
		}
	}
	f.questions(b)
	if *answersTo == "" {
		return
	}
	out, err := json.Marshal(answers)
	if err == nil {
		err = os.WriteFile(*answersTo, []byte("window.answers = "+string(out)+"\n"), 0o644)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// questions asks what a person asks about a fleet. What is asked for is taken from a refused attempt on the
// first host that is no copy: in a copy the bytes of a record tell of the host that it was copied from.
func (f *fleet) questions(b *testing.B) {
	some := strings.Split(f.server.MustExec(b, `SELECT host, path, actor_user, source, actor_session, process_exec_id, process_exe, toUnixTimestamp64Nano(time), id
		FROM holdfast.records WHERE kind = 'attempt' AND source != '' AND host_id IN (SELECT host_id FROM holdfast.checkpoints) ORDER BY host_id, seq LIMIT 1`), "\t")
	at, err := strconv.ParseInt(some[7], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	host, hour := some[0], int64(time.Hour)
	for name, q := range map[string]query.Filter{
		"newest 100":                      {Limit: 100},
		"newest 100 of a host":            {Host: host, Limit: 100},
		"path of a host":                  {Host: host, Path: some[1], Limit: 100},
		"path, all hosts":                 {Path: some[1], Limit: 100},
		"prefix of a host":                {Host: host, Path: "/etc/", Limit: 100},
		"glob, all hosts":                 {Path: "**authorized_keys**", Limit: 100},
		"person of a host":                {Host: host, User: some[2], Limit: 100},
		"person, all hosts":               {User: some[2], Limit: 100},
		"address, all hosts":              {Source: some[3], Limit: 100},
		"timeline of a session of a host": {Host: host, Session: some[4]},
		"execution of a host":             {Host: host, Exec: some[5]},
		"executable, all hosts":           {Exe: some[6], Limit: 100},
		"kind and verdict, all hosts":     {Kind: event.RecAttempt, Verdict: event.VerdictBlocked, Limit: 100},
		"an hour, all hosts":              {Since: event.Time(at - hour), Until: event.Time(at), Limit: 100},
		"words of a command, all hosts":   {Command: "useradd", Limit: 100},
		"path that is nowhere":            {Path: "/usr/lib/security/pam_evil.so", Limit: 100},
		"words that are nowhere":          {Command: "nc -e /bin/sh", Limit: 100},
		"session, all hosts":              {Session: some[4], Limit: 100},
		"execution, all hosts":            {Exec: some[5], Limit: 100},
	} {
		f.time(b, name, func() (n int, err error) {
			err = f.db.Records(context.Background(), q, func(*event.Record) error { n++; return nil })
			return n, err
		})
	}
	f.time(b, "record", func() (int, error) { _, err := query.Get(context.Background(), f.db, some[8]); return 1, err })
	f.time(b, "who", func() (int, error) { _, err := query.Who(context.Background(), f.db, some[1], ""); return 1, err })
}

// time asks a question again and again. What the server kept of an earlier answer is dropped.
func (f *fleet) time(b *testing.B, name string, ask func() (records int, err error)) {
	b.Run("questions/"+name, func(b *testing.B) {
		var took []time.Duration
		n := 0
		for b.Loop() {
			f.server.MustExec(b, "SYSTEM DROP QUERY CONDITION CACHE")
			began := time.Now()
			var err error
			if n, err = ask(); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(began))
		}
		percentiles(b, took)
		b.ReportMetric(float64(n), "records")
	})
}
