package dashboards

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/clickhouse"
	"github.com/holdfast/holdfast/pkg/clickhouse/clickhousetest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/query/fleettest"
	"github.com/holdfast/holdfast/schemas"
)

// What is looked at of a dashboard's JSON.
type dashboard struct {
	UID        string `json:"uid"`
	Time       struct{ From, To string }
	Templating struct{ List []variable }
	Panels     []panel
}

type variable struct {
	Name, Type string
	Query      any
	IncludeAll bool
}

type panel struct {
	ID          int
	Type, Title string
	Description string
	Interval    string
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct{ RawSQL string }
	Options     json.RawMessage
	FieldConfig json.RawMessage
}

// fleet is a server with a history in it.
type fleet struct {
	server *clickhousetest.Server
	db     *clickhouse.DB
	rows   int
	from   time.Time
}

// granule makes parts of small data as fine-grained as those of large data are: 30,000
// rows are then read like 2 million. In records an entry of an index is of 8 granules.
const granule = 256

// newFleet fills a server by the code that ships, with records of 8 hosts and 14 days, busy ordinary writes a day and host,
// in tables with granules of that size, 0 as they are.
// The history ends where the present hour began. Everything arrived in this minute, or, as received says, by that
// expression of a record's columns.
func newFleet(t testing.TB, busy, granule int, received string) *fleet {
	t.Helper()
	ctx := context.Background()
	f := &fleet{server: serve(t)}
	var ddl strings.Builder
	if err := clickhouse.PrintSchema(&ddl, clickhouse.Config{URL: f.server.URL("holdfast")}); err != nil {
		t.Fatal(err)
	}
	for _, s := range schemas.Split(ddl.String()) {
		fine := fmt.Sprintf("index_granularity = %d", schemas.Granule)
		switch {
		case granule == 0 || !strings.Contains(s, "CREATE TABLE"):
		case strings.Contains(s, fine):
			s = strings.Replace(s, fine, fmt.Sprintf("index_granularity = %d", granule/8), 1)
		default:
			s = strings.Replace(s, "SETTINGS ", fmt.Sprintf("SETTINGS index_granularity = %d, ", granule), 1)
		}
		if strings.Contains(s, ".records\n(") && received != "" {
			s = strings.Replace(s, "DEFAULT now()", "DEFAULT "+received, 1)
		}
		f.server.MustExec(t, s)
	}
	db, err := clickhouse.Open(ctx, clickhouse.Config{URL: f.server.URL("holdfast")})
	if err != nil {
		t.Fatal(err)
	}
	f.db = db
	t.Cleanup(func() { _ = db.Close() })
	o := fleettest.Options{Seed: 1, Hosts: 8, Days: 14, Busy: busy, Until: time.Now().UTC().Truncate(time.Hour)}
	f.from = o.Start()
	for i, id := range o.HostIDs() {
		var batch [][]byte
		n := 0
		err := o.Records(i, func(r *event.Record) error {
			b, err := journal.Encode(r)
			if batch = append(batch, b); err == nil && len(batch) == 10_000 {
				err = db.Send(ctx, id+strconv.Itoa(n), batch)
				n, batch = n+len(batch), nil
			}
			return err
		})
		if n += len(batch); err == nil && len(batch) > 0 {
			err = db.Send(ctx, id, batch)
		}
		if err == nil {
			err = db.SendCheckpoint(ctx, id, uint64(n), []byte("holdfast\n"+strconv.Itoa(n)+"\nroot\n"))
		}
		if err != nil {
			t.Fatal(err)
		}
		f.rows += n
	}
	return f
}

// answer is a result of the server in JSONCompact.
type answer struct {
	Meta       []struct{ Name, Type string }
	Data       [][]any
	Statistics struct {
		RowsRead int `json:"rows_read"`
	}
}

// ask runs one query as a user who may only read.
func (f *fleet) ask(sql string) (a answer, err error) {
	u := f.server.HTTPURL("")
	u += "?" + url.Values{"database": {"holdfast"}, "readonly": {"2"}, "default_format": {"JSONCompact"}, "output_format_json_quote_64bit_integers": {"0"}, "use_query_condition_cache": {"0"}}.Encode()
	res, err := http.Post(u, "text/plain", strings.NewReader(sql))
	if err != nil {
		return a, err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", b)
	}
	if err == nil {
		err = json.Unmarshal(b, &a)
	}
	return a, err
}

func load(t testing.TB) map[string]dashboard {
	t.Helper()
	files, err := filepath.Glob("*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("dashboards: %v, %v", files, err)
	}
	out := map[string]dashboard{}
	for _, name := range files {
		var d dashboard
		b, err := os.ReadFile(name)
		if err == nil {
			err = json.Unmarshal(b, &d)
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[name] = d
	}
	return out
}

var (
	budget = regexp.MustCompile(`^/\* reads (\d+)% \*/`)
	link   = regexp.MustCompile(`/d/([a-z-]+)\?([^"]*)`)
	linked = regexp.MustCompile(`var-([a-z]+)=`)
)

// run expands a query and asks it. It must answer something or, as the dashboard opens,
// read no more rows than the share of all records that it says it does.
func (f *fleet) run(t testing.TB, sql string, s *screen, opening bool) answer {
	t.Helper()
	m := budget.FindStringSubmatch(sql)
	if m == nil {
		t.Error(`no budget: a query begins with /* reads N% */, which says how many rows it may read at most, in percent of all records`)
		return answer{}
	}
	text, err := s.expand(sql)
	if err != nil {
		t.Error(err)
		return answer{}
	}
	a, err := f.ask(text)
	if err != nil {
		t.Errorf("%v\n%s", err, text)
		return answer{}
	}
	percent, _ := strconv.Atoi(m[1])
	if limit := f.rows * percent / 100; opening && a.Statistics.RowsRead > limit {
		t.Errorf("it read %d rows, its budget is %d of %d", a.Statistics.RowsRead, limit, f.rows)
	}
	t.Logf("reads %d%%", a.Statistics.RowsRead*100/f.rows)
	if len(a.Data) == 0 && !opening {
		t.Errorf("empty\n%s", text)
	}
	return a
}

// screens are what each dashboard is looked at with: the whole history, the time with
// which it opens, and the first value of each variable chosen.
func (f *fleet) screens(t testing.TB, d *dashboard) (whole, opening, chosen *screen) {
	t.Helper()
	age, err := time.ParseDuration(strings.NewReplacer("now-", "", "7d", "168h", "2d", "48h").Replace(d.Time.From))
	if err != nil || d.Time.To != "now" {
		t.Fatalf("time %+v: %v", d.Time, err)
	}
	now := time.Now().Add(time.Minute)
	whole = &screen{from: f.from, to: now, interval: time.Hour, vars: map[string][]string{}, all: map[string]bool{}}
	chosen = &screen{from: now.Add(-age), to: now, interval: time.Hour, vars: map[string][]string{}}
	for _, v := range d.Templating.List {
		switch v.Type {
		case "datasource":
		case "textbox":
			whole.vars[v.Name], chosen.vars[v.Name] = nil, nil
		case "query":
			a := f.run(t, v.Query.(string), whole, false)
			if len(a.Data) == 0 {
				t.Fatalf("variable %s has no value", v.Name)
			}
			for _, row := range a.Data {
				whole.vars[v.Name] = append(whole.vars[v.Name], row[0].(string))
			}
			chosen.vars[v.Name] = whole.vars[v.Name][:1]
			if whole.all[v.Name] = v.IncludeAll; !v.IncludeAll {
				whole.vars[v.Name] = whole.vars[v.Name][:1]
			}
		default:
			t.Errorf("variable %s of type %s", v.Name, v.Type)
		}
	}
	opening = &screen{from: chosen.from, to: chosen.to, interval: time.Hour, vars: whole.vars, all: whole.all}
	return whole, opening, chosen
}

func TestPanelsAnswerWithinTheirBudgets(t *testing.T) {
	f := newFleet(t, 100, granule, "")
	all := load(t)
	vars := map[string][]string{}
	for _, d := range all {
		for _, v := range d.Templating.List {
			vars[d.UID] = append(vars[d.UID], v.Name)
		}
	}
	for name, d := range all {
		t.Run(name, func(t *testing.T) {
			whole, opening, chosen := f.screens(t, &d)
			for _, p := range d.Panels {
				t.Run(p.Title, func(t *testing.T) {
					for _, target := range p.Targets {
						a := f.run(t, target.RawSQL, whole, false)
						fits(t, p.Type, a)
						f.run(t, target.RawSQL, opening, true)
						f.run(t, target.RawSQL, chosen, true)
					}
					for _, l := range link.FindAllStringSubmatch(string(p.FieldConfig), -1) {
						for _, v := range linked.FindAllStringSubmatch(l[2], -1) {
							if !slices.Contains(vars[l[1]], v[1]) {
								t.Errorf("it links to variable %s of dashboard %s, which is not there", v[1], l[1])
							}
						}
					}
				})
			}
		})
	}
	t.Run("copies", func(t *testing.T) { copies(t, f, all) })
	t.Run("alerts", func(t *testing.T) { alerts(t, f) })
}

// fits reports an answer that a panel of that type cannot draw.
func fits(t *testing.T, panel string, a answer) {
	t.Helper()
	if len(a.Meta) == 0 {
		return
	}
	number := func(typ string) bool {
		return regexp.MustCompile(`^(Nullable\()?(U?Int|Float)`).MatchString(typ)
	}
	switch panel {
	case "timeseries":
		if !strings.HasPrefix(a.Meta[0].Type, "DateTime") || !slices.ContainsFunc(a.Meta, func(m struct{ Name, Type string }) bool { return number(m.Type) }) {
			t.Errorf("a time series of %v: want a time and a number", a.Meta)
		}
	case "bargauge":
		if len(a.Meta) != 2 || number(a.Meta[0].Type) || !number(a.Meta[1].Type) {
			t.Errorf("bars of %v: want a text and a number", a.Meta)
		}
	case "stat":
		if len(a.Meta) != 1 || len(a.Data) != 1 || a.Data[0][0] == nil {
			t.Errorf("one value is wanted, not %v of %v", a.Data, a.Meta)
		}
	}
}

func TestDashboardsAreWhatGrafanaReads(t *testing.T) {
	b, err := os.ReadFile("grafana/schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(b, &schema); err != nil {
		t.Fatal(err)
	}
	v := validator{schema["definitions"].(map[string]any)}
	uids := map[string]string{}
	for name, d := range load(t) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var raw any
		if err := json.Unmarshal(b, &raw); err != nil {
			t.Fatal(err)
		}
		for _, p := range v.check(name, schema, raw) {
			t.Error(p)
		}
		if uids[d.UID] != "" {
			t.Errorf("%s and %s have the same uid", name, uids[d.UID])
		}
		uids[d.UID] = name
		layout(t, name, &d)
	}
	t.Run("a mistake is found", func(t *testing.T) {
		for what, change := range map[string][2]string{
			"a width that is a text":      {`"w": 4`, `"w": "4"`},
			"an option that is not there": {`"graphMode"`, `"graphMood"`},
			"a value that is not there":   {`"drawStyle": "bars"`, `"drawStyle": "barz"`},
			"a panel that is not there":   {`"type": "bargauge"`, `"type": "bargage"`},
			"a panel without a title":     {`"title": "Hosts",`, ``},
		} {
			good, err := os.ReadFile("fleet.json")
			if err != nil {
				t.Fatal(err)
			}
			bad := strings.Replace(string(good), change[0], change[1], 1)
			var raw any
			if err := json.Unmarshal([]byte(bad), &raw); err != nil || bad == string(good) {
				t.Fatalf("%s: %v", what, err)
			}
			if len(v.check("fleet.json", schema, raw)) == 0 {
				t.Errorf("%s is not found", what)
			}
		}
	})
}

// layout finds panels that lie over each other, and what a reader would miss.
func layout(t *testing.T, name string, d *dashboard) {
	t.Helper()
	taken, ids := map[[2]int]string{}, map[int]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Description == "" || len(p.Targets) == 0 {
			t.Errorf("%s: panel %q: its id %d is there twice, or nothing describes it, or it asks nothing", name, p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s: panel %q lies over %q or outside", name, p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}

func TestExpand(t *testing.T) {
	s := &screen{from: time.Unix(1415792726, 123e6), to: time.Unix(1447328726, 456e6), interval: 20 * time.Second,
		vars: map[string][]string{"host": {"a", "b'c"}, "text": nil, "user": {"x"}}, all: map[string]bool{"user": true}}
	for _, c := range []struct{ in, want string }{
		{"$__timeFilter(time)", "time >= toDateTime(1415792726) AND time <= toDateTime(1447328726)"},
		{"$__timeFilter_ms(f(a, 'b)'))", "f(a, 'b)') >= fromUnixTimestamp64Milli(1415792726123) AND f(a, 'b)') <= fromUnixTimestamp64Milli(1447328726456)"},
		{"$__dateFilter(d)", "d >= toDate('2014-11-12') AND d <= toDate('2015-11-12')"},
		{"$__timeInterval(time) t", "toStartOfInterval(toDateTime(time), INTERVAL 20 second) t"},
		{"$__fromTime-$__toTime/$__interval_s", "toDateTime(1415792726)-toDateTime(1447328726)/20"},
		{"$__conditionalAll(host IN (${host:singlequote}), $host)", `host IN ('a','b\'c')`},
		{"$__conditionalAll(user IN (${user:singlequote}), $user)", "1=1"},
		{"${text:sqlstring} ${host:sqlstring}", "'' 'a','b''c'"},
		{"${__from} $__range_s", "1415792726123 31536000"},
		{"$__nonsense(x)", ""}, {"$__timeFilter()", ""}, {"$__timeFilter(x", ""}, {"$nobody", ""}, {"$host", ""}, {"${host}", ""}, {"${host:csv}", ""}, {"${host", ""}, {"$__conditionalAll(1, $nobody)", ""}, {"$__adHocFilters('t')", ""},
	} {
		got, err := s.expand(c.in)
		if (err != nil) != (c.want == "") || got != c.want {
			t.Errorf("%s: %q, %v; want %q", c.in, got, err, c.want)
		}
	}
}
