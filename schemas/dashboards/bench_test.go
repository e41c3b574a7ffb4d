package dashboards

import (
	"encoding/json"
	"flag"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

var (
	serverURL = flag.String("server", "", "HTTP URL of a server with a fleet in it, for BenchmarkPanels; a small one is made if empty")
	answersTo = flag.String("answers", "", "file to which BenchmarkPanels writes what the panels answered, for draw/draw.sh")
)

// drawn is what draw/ draws: the answers of a dashboard as it opens, by panel.
type drawn struct {
	From, To int64 // ms
	Vars     map[string][]string
	Panels   map[int]answer
}

// BenchmarkPanels asks what each panel asks when its dashboard opens, and tells the median and the 95th percentile in ms.
func BenchmarkPanels(b *testing.B) {
	f := &fleet{http: *serverURL, from: time.Now().AddDate(0, 0, -14)}
	if *serverURL == "" {
		f = newFleet(b, "toDateTime(greatest(time, time_end), 'UTC') + INTERVAL 1 + seq % 3 SECOND")
	} else {
		a, err := f.ask("SELECT count() FROM records")
		if err != nil {
			b.Fatal(err)
		}
		f.rows = int(a.Data[0][0].(float64))
	}
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
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
				b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "p95-ms")
				b.ReportMetric(float64(answers[name].Panels[p.ID].Statistics.RowsRead), "rows")
			})
		}
	}
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
	b.Log(strconv.Itoa(len(out)), "bytes")
}
