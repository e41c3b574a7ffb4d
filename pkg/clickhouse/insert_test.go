package clickhouse

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/ship"
	"github.com/holdfast/holdfast/pkg/ship/shiptest"
)

var _ ship.Sink = (*DB)(nil)

func TestSink(t *testing.T) {
	for name, url := range map[string]string{"native": server.URL(newDatabase()), "http": server.HTTPURL(newDatabase())} {
		t.Run(name, func(t *testing.T) {
			shiptest.RunSink(t, open(t, url), func(hostID string, seq uint64) []byte { return encode(t, sample(hostID, seq)) })
		})
	}
}

// onlyInRec are the fields that have no column: they are found in rec.
var onlyInRec = map[string]bool{
	"before_dev": true, "before_ino": true, "before_nlink": true, "before_unread": true,
	"after_dev": true, "after_ino": true, "after_nlink": true, "after_unread": true,
}

// TestColumns compares what the table says with the record's JSON, the other form
// that people see: a field that was added without a column, or is in another's
// column, shows.
func TestColumns(t *testing.T) {
	db := newDB(t)
	r := full()
	if err := db.Send(context.Background(), "full", [][]byte{encode(t, r)}); err != nil {
		t.Fatal(err)
	}
	js, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	dec := json.NewDecoder(strings.NewReader(string(js)))
	dec.UseNumber()
	if err := dec.Decode(&tree); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{}
	flatten("", tree, want)
	got := rowJSON(t, db)
	for name, w := range want {
		if onlyInRec[name] {
			continue
		}
		g, ok := got[name]
		if !ok {
			t.Errorf("field %s has no column", name)
			continue
		}
		if plain(name, w) != fmt.Sprint(g) {
			t.Errorf("column %s is %v, the record says %v", name, g, w)
		}
		delete(got, name)
	}
	delete(got, "rec")
	delete(got, "received")
	for name, want := range map[string]string{"source": full().Actor.SourceIP, "command": strings.Join(full().Process.Argv, " "), "ticket": full().Detail["ticket"]} { // for people
		if fmt.Sprint(got[name]) != want {
			t.Errorf("column %s is %v, want %s", name, got[name], want)
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("column %s has no field", name)
	}
}

// flatten joins names with _; a list of objects becomes one list for each name. A
// map whose keys are not names of ours (xattrs, detail) stays whole.
func flatten(prefix string, tree, out map[string]any) {
	for k, v := range tree {
		name := prefix + k
		switch v := v.(type) {
		case map[string]any:
			if k == "xattrs" || k == "detail" {
				out[name] = v
				continue
			}
			flatten(name+"_", v, out)
		case []any:
			if _, objects := v[0].(map[string]any); !objects {
				out[name] = v
				continue
			}
			for _, o := range v {
				one := map[string]any{}
				flatten(name+"_", o.(map[string]any), one)
				for k, v := range one {
					list, _ := out[k].([]any)
					out[k] = append(list, v)
				}
			}
		default:
			out[name] = v
		}
	}
}

// rowJSON reads the only row with every column, aliases too. Hashes are in hex.
func rowJSON(t *testing.T, db *DB) map[string]any {
	t.Helper()
	names := strings.Split(server.MustExec(t, "SELECT name FROM system.columns WHERE table = 'records' AND database = '"+db.target.Database+"'"), "\n")
	for i, n := range names {
		switch {
		case strings.HasSuffix(n, "_hash"):
			names[i] = "concat('blake3:', lower(hex(" + n + "))) AS " + n
		case strings.HasSuffix(n, "_mode"):
			names[i] = "toUInt64(" + n + ") AS " + n
		case n == "rec":
			names[i] = "length(rec) AS rec"
		}
	}
	out := server.MustExec(t, "SELECT "+strings.Join(names, ", ")+" FROM "+db.target.Database+".records FORMAT JSONEachRow SETTINGS date_time_output_format = 'iso', output_format_json_quote_64bit_integers = 0")
	row := map[string]any{}
	dec := json.NewDecoder(strings.NewReader(out))
	dec.UseNumber()
	if err := dec.Decode(&row); err != nil {
		t.Fatal(err)
	}
	return row
}

// plain writes a JSON value of a record as the column shows it.
func plain(name string, v any) string {
	if s, ok := v.(string); ok && strings.HasSuffix(name, "_mode") {
		n, err := strconv.ParseUint(s, 8, 16)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(n)
	}
	return fmt.Sprint(v)
}

func TestAbsentParts(t *testing.T) {
	db := newDB(t)
	r := &event.Record{Host: "h", HostID: "h", Boot: "b", Seq: 1, Kind: event.RecAgent}
	if err := db.Send(context.Background(), "absent", [][]byte{encode(t, r)}); err != nil {
		t.Fatal(err)
	}
	got := server.MustExec(t, "SELECT actor_uid, actor_loginuid, before_uid, before_exists IS NULL, actor_source_ip, time FROM "+db.target.Database+".records")
	want := "4294967295\t4294967295\t4294967295\t1\t::\t1970-01-01 00:00:00.000000000"
	if got != want {
		t.Errorf("a record without parts is %q, want %q: nobody may look like root", got, want)
	}
}

func TestInsertAcrossMonths(t *testing.T) {
	db := newDB(t)
	var b [][]byte
	for i := range uint64(110) {
		r := sample(testHost, i+1)
		r.Time = testTime + event.Time(i)*31*86400e9
		b = append(b, encode(t, r))
	}
	for range 2 {
		if err := db.Send(context.Background(), "months", b); err != nil {
			t.Fatal(err)
		}
	}
	if got := server.MustExec(t, "SELECT count() FROM "+db.target.Database+".records"); got != "110" {
		t.Errorf("%s rows, want 110", got)
	}
}

func TestUndecodable(t *testing.T) {
	db := newDB(t)
	if err := db.Send(context.Background(), "x", [][]byte{encode(t, sample(testHost, 1)), []byte("no record")}); err == nil {
		t.Error("bytes that are no record were taken")
	}
	if err := db.Insert(context.Background(), "", []Row{{Record: sample(testHost, 1)}}); err == nil {
		t.Error("an insert without a token was taken")
	}
	if got := server.MustExec(t, "SELECT count() FROM "+db.target.Database+".records"); got != "0" {
		t.Errorf("%s rows, want none", got)
	}
}

// TestColumnList keeps the columns that are written and the table the same.
func TestColumnList(t *testing.T) {
	db := newDB(t)
	table := strings.Split(server.MustExec(t, "SELECT name FROM system.columns WHERE table = 'records' AND database = '"+db.target.Database+"' AND default_kind NOT IN ('ALIAS', 'MATERIALIZED') AND name != 'received'"), "\n")
	written := strings.Split(names(columns()), ", ")
	sort.Strings(table)
	sort.Strings(written)
	if !reflect.DeepEqual(table, written) {
		t.Errorf("the table has\n%v\nInsert writes\n%v", table, written)
	}
}

func BenchmarkInsert(b *testing.B) {
	for _, size := range []uint64{1000, 10_000} {
		b.Run(fmt.Sprintf("rows=%d", size), func(b *testing.B) {
			db := newDB(b)
			records := samples(b, testHost, 1, size)
			n := 0
			for b.Loop() {
				if err := db.Send(context.Background(), fmt.Sprint(n), records); err != nil {
					b.Fatal(err)
				}
				n++
			}
			b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

func BenchmarkViews(b *testing.B) {
	records := samples(b, testHost, 1, 1000)
	rows := make([]Row, len(records))
	for i := range records {
		r, err := NewRow(records[i])
		if err != nil {
			b.Fatal(err)
		}
		rows[i] = r
	}
	for b.Loop() {
		vs := views(rows)
		for _, c := range columns() {
			c.slice(vs)
		}
	}
	b.ReportMetric(1000*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
