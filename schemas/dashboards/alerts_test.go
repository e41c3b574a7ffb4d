package dashboards

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

type alertRule struct {
	UID, Title, Condition string
	Annotations           map[string]string
	Data                  []struct {
		RefID, DatasourceUID string
		RelativeTimeRange    struct{ From, To int }
		Model                struct {
			RawSQL, Expression string
			Conditions         []struct {
				Evaluator struct {
					Type   string
					Params []float64
				}
			}
		}
	}
}

func rules(t *testing.T) map[string]alertRule {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alertRule } }
	b, err := os.ReadFile("provisioning/alerting/holdfast.json")
	if err == nil {
		err = json.Unmarshal(b, &file)
	}
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]alertRule{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			out[strings.TrimPrefix(r.UID, "holdfast-")] = r
		}
	}
	return out
}

var label = regexp.MustCompile(`\$labels\.([a-z]+)`)

// fires evaluates a rule as Grafana does at a moment: one instance for each line of the
// answer, whose texts are its labels and whose one number is held against the threshold.
func (f *fleet) fires(t *testing.T, r alertRule, at time.Time) (firing []string) {
	t.Helper()
	if len(r.Data) != 2 || r.Condition != r.Data[1].RefID || r.Data[1].DatasourceUID != "__expr__" || r.Data[1].Model.Expression != r.Data[0].RefID || r.Data[0].DatasourceUID != "holdfast-clickhouse" {
		t.Fatalf("%s: want a query to holdfast-clickhouse and a threshold over it", r.Title)
	}
	e := r.Data[1].Model.Conditions[0].Evaluator
	if e.Type != "gt" {
		t.Fatalf("%s: evaluator %s", r.Title, e.Type)
	}
	q := r.Data[0]
	s := &screen{from: at.Add(-time.Duration(q.RelativeTimeRange.From) * time.Second), to: at, interval: time.Minute}
	a := f.run(t, q.Model.RawSQL, s, true)
	number := -1
	for i, m := range a.Meta {
		switch {
		case m.Type == "Float64" && number < 0:
			number = i
		case !strings.Contains(m.Type, "String"):
			t.Errorf("%s: column %s is %s: want texts and one Float64", r.Title, m.Name, m.Type)
		}
	}
	if number < 0 {
		t.Fatalf("%s: no number in %v", r.Title, a.Meta)
	}
	for _, l := range label.FindAllStringSubmatch(r.Annotations["summary"], -1) {
		if !strings.Contains(fmt.Sprint(a.Meta), "{"+l[1]+" ") {
			t.Errorf("%s: the summary names label %s, of %v", r.Title, l[1], a.Meta)
		}
	}
	for _, row := range a.Data {
		if row[number].(float64) > e.Params[0] {
			firing = append(firing, fmt.Sprint(row))
		}
	}
	return firing
}

// alerts shows for each rule that it is quiet where nothing is wrong and fires where something is.
func alerts(t *testing.T, f *fleet) {
	all := rules(t)
	now := time.Now().Add(time.Second)
	count := func(where string) string {
		return f.server.MustExec(t, "SELECT uniqExact(host_id) > 0 FROM holdfast.records WHERE "+where)
	}
	for _, uid := range []string{"unauthorized", "restore-failed", "losses"} {
		if got := f.fires(t, all[uid], now); len(got) == 0 {
			t.Errorf("%s does not fire on a history that holds it", uid)
		}
		if got := f.fires(t, all[uid], now.Add(-2*time.Hour)); len(got) > 0 {
			t.Errorf("%s fires before anything arrived: %v", uid, got)
		}
	}
	if count("kind = 'gap'") != "1" {
		t.Error("the history holds no loss")
	}
	for _, uid := range []string{"silent", "ledger"} {
		if got := f.fires(t, all[uid], now); len(got) > 0 {
			t.Errorf("%s fires on whole data: %v", uid, got)
		}
	}
	for after, want := range map[time.Duration]int{3 * time.Hour: 0, 6 * time.Hour: 8, 15 * 24 * time.Hour: 0} {
		if got := f.fires(t, all["silent"], now.Add(after)); len(got) != want {
			t.Errorf("%s later %d hosts are silent, want %d: %v", after, len(got), want, got)
		}
	}
	host := f.server.MustExec(t, "SELECT min(host_id) FROM holdfast.records")
	f.server.MustExec(t, "INSERT INTO holdfast.records (host_id, host, boot, seq, time, received) SELECT concat(host_id, '~earlier'), host, boot, 1, now64(9), now() - INTERVAL 7 HOUR FROM holdfast.records WHERE host_id = '"+host+"' LIMIT 1")
	if got := f.fires(t, all["silent"], now); len(got) > 0 {
		t.Errorf("a host whose log was begun again is silent: %v", got)
	}
	for what, tamper := range map[string]string{
		"a row removed":      "ALTER TABLE holdfast.records DELETE WHERE host_id = '" + host + "' AND seq = 77",
		"the newest gone":    "ALTER TABLE holdfast.records DELETE WHERE host_id != '" + host + "' AND seq > (SELECT max(seq) - 3 FROM holdfast.records WHERE host_id != '" + host + "')",
		"a row of a log too": "INSERT INTO holdfast.records (host_id, boot, seq, time) VALUES ('" + host + "', 'another', 5, now64(9))",
	} {
		before := len(f.fires(t, all["ledger"], now))
		f.server.MustExec(t, tamper+map[bool]string{true: " SETTINGS mutations_sync = 2"}[strings.HasPrefix(tamper, "ALTER")])
		after := f.fires(t, all["ledger"], now.Add(time.Minute))
		if len(after) == 0 || before > len(after) {
			t.Errorf("%s: %v", what, after)
		}
		t.Log(what, after)
	}
	if len(all) != 5 {
		t.Errorf("%d rules, of which 5 are tested", len(all))
	}
}
