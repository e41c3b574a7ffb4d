package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/holdfast/holdfast/pkg/clickhouse"
	"github.com/holdfast/holdfast/pkg/clickhouse/clickhousetest"
	"github.com/holdfast/holdfast/pkg/journal"
)

// The same question to the local records and to ClickHouse gives the same bytes,
// and verify --against clickhouse finds a row that was altered or removed.
func TestClickHouseAnswersLikeTheJournal(t *testing.T) {
	server := clickhousetest.New(t, "")
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	script, err := txtar.ParseFile("testdata/log.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range script.Files {
		if f.Name == "records.json" {
			if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := mkjournal(state, filepath.Join(dir, "records.json")); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "holdfast.yaml")
	text := "state: state\nsocket: sock\nclickhouse:\n  url: " + server.URL("holdfast") + "\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(code int, args ...string) string {
		t.Helper()
		var out, stderr bytes.Buffer
		a := &app{file: config, out: &out, err: &stderr, now: time.Now}
		if got := a.main(context.Background(), append([]string{"holdfast"}, args...)); got != code {
			t.Fatalf("holdfast %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, out.String(), stderr.String())
		}
		return out.String()
	}

	run(5, "schema", "status")
	run(0, "schema", "apply")
	if out := run(0, "schema", "apply"); !strings.Contains(out, "nothing to do") {
		t.Errorf("a second apply: %s", out)
	}
	run(0, "schema", "status", "--json")
	if out := run(0, "verify", "--against", "clickhouse"); !strings.Contains(out, "7 records not shipped yet") {
		t.Errorf("before shipping: %s", out)
	}
	send(t, server.URL("holdfast"), filepath.Join(state, "journal"))

	if out := run(0, "sql", "--store", "clickhouse", "--json", "SELECT seq, path, before_exists, time FROM records WHERE seq = 2"); out != `{"seq":2,"path":"/etc/app.conf","before_exists":true,"time":"2026-03-01T10:00:01.123456789Z"}`+"\n" {
		t.Errorf("sql: %s", out)
	}
	if out := run(0, "sql", "--store", "clickhouse", "SELECT kind, count() AS n FROM records GROUP BY kind HAVING n > 1"); !strings.Contains(out, "change  2") {
		t.Errorf("sql: %s", out)
	}
	odd := "/* any */ SELECT [1, 2] AS a, [1, NULL] AS b, map('k', unhex('FF')) AS c, toNullable(toDateTime64('2026-03-01 10:00:00', 3, 'UTC')) AS d, NULL AS e, toUInt64(-1) AS f, toInt128(-1) AS g, nan AS h"
	if out := run(0, "sql", "--store", "clickhouse", "--json", odd); out != `{"a":[1,2],"b":[1,null],"c":{"k":"\\xFF"},"d":"2026-03-01T10:00:00Z","e":null,"f":18446744073709551615,"g":-1,"h":"NaN"}`+"\n" {
		t.Errorf("sql: %s", out)
	}
	if out := run(0, "sql", "--store", "clickhouse", odd); !strings.Contains(out, `[1,2]  [1,null]  {"k":"\\xFF"}  2026-03-01T10:00:00Z`) {
		t.Errorf("sql: %s", out)
	}
	if out := run(0, "sql", "--store", "clickhouse", "SELECT number AS n FROM numbers(2500)"); strings.Count(out, "\n") != 2501 || !strings.HasSuffix(out, "\n2499\n") {
		t.Errorf("sql: %d lines", strings.Count(out, "\n"))
	}
	run(2, "sql", "--store", "clickhouse", "DROP TABLE records")
	run(1, "sql", "--store", "clickhouse", "SELECT nothing FROM records")

	for _, question := range []string{
		"log --host web1", "log --json", "log --json --limit 2", "log --json --user alice", "log --json --path /etc/", "log --json --path /etc/*.conf",
		"log --json --source 192.0.2.7", "log --json --verdict blocked", "log --json --exe sed", "log --json --path **app**", "log --json --command sed", "log --json --since 2026-03-01T10:00:03Z",
		"who /etc/app.conf --host web1", "who --json /etc/app.conf", "sessions --host web1", "sessions --json", "show --json 2",
		"show --json 0123456789abcdef0123456789abcdef/b1/6",
	} {
		here := run(0, strings.Fields(question)...)
		there := run(0, strings.Fields(question+" --store clickhouse")...)
		if here != there {
			t.Errorf("holdfast %s\nlocal:\n%s\nclickhouse:\n%s", question, here, there)
		}
		if here == "" {
			t.Errorf("holdfast %s: no answer", question)
		}
	}

	for question, want := range map[string]string{"log": " web1             #2 ", "who /etc/app.conf": "web1 /etc/app.conf was written by", "sessions": "\nweb1  "} {
		if out := run(0, append(strings.Fields(question), "--store", "clickhouse")...); !strings.Contains(out, want) {
			t.Errorf("holdfast %s of all hosts does not say of which:\n%s", question, out)
		}
	}
	if out := run(3, "who", "/etc/app.conf", "--host", "web2", "--store", "clickhouse"); out != "" {
		t.Errorf("who on another host: %s", out)
	}

	if out := run(0, "verify", "--against", "clickhouse"); !strings.Contains(out, "7 records, 7 rows, 7 matched") {
		t.Errorf("verify: %s", out)
	}
	server.MustExec(t, "INSERT INTO holdfast.records SELECT * REPLACE(100 AS seq) FROM holdfast.records WHERE op = 'write' LIMIT 1")
	if out := run(6, "verify", "--against", "clickhouse"); !strings.Contains(out, "the log ends at record 7") || !strings.Contains(out, "1 extra") {
		t.Errorf("verify of a row behind the end: %s", out)
	}
	server.MustExec(t, "ALTER TABLE holdfast.records DELETE WHERE seq = 100 SETTINGS mutations_sync = 2")
	server.MustExec(t, "ALTER TABLE holdfast.records UPDATE actor_user = 'mallory' WHERE seq = 4 SETTINGS mutations_sync = 2")
	server.MustExec(t, "ALTER TABLE holdfast.records DELETE WHERE seq = 6 SETTINGS mutations_sync = 2")
	out := run(6, "verify", "--against", "clickhouse")
	for _, want := range []string{"clickhouse altered: ", "clickhouse missing: ", "5 matched, 1 missing, 1 altered", "not verified: 2 problems"} {
		if !strings.Contains(out, want) {
			t.Errorf("verify of altered rows lacks %q:\n%s", want, out)
		}
	}

	// Rows at the end that are gone were confirmed once; a log that is put back has checkpoints there.
	server.MustExec(t, "TRUNCATE TABLE holdfast.records")
	run(0, "verify", "--against", "clickhouse") // nothing says that there were rows
	writePosition(t, state, 5)
	if out := run(6, "verify", "--against", "clickhouse"); !strings.Contains(out, "5 missing") || !strings.Contains(out, "2 records not shipped yet") {
		t.Errorf("verify of rows that were all removed: %s", out)
	}
	keepCheckpoint(t, server.URL("holdfast"), filepath.Join(state, "journal"))
	for _, dir := range []string{"journal", "keys"} {
		if err := os.RemoveAll(filepath.Join(state, dir)); err != nil {
			t.Fatal(err)
		}
	}
	if err := mkjournal(state, filepath.Join(dir, "records.json")); err != nil {
		t.Fatal(err)
	}
	if out := run(6, "verify", "--against", "clickhouse"); !strings.Contains(out, "key: the given checkpoint") {
		t.Errorf("verify of a log that was written anew: %s", out)
	}
}

// keepCheckpoint sends the newest checkpoint of a journal.
func keepCheckpoint(t *testing.T, url, dir string) {
	t.Helper()
	ctx := context.Background()
	n, err := journal.LatestCheckpoint(dir)
	if err != nil {
		t.Fatal(err)
	}
	db, err := clickhouse.Open(ctx, clickhouse.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.SendCheckpoint(ctx, "0123456789abcdef0123456789abcdef", 7, n), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// writePosition writes what a daemon whose last confirmed record was n leaves.
func writePosition(t *testing.T, state string, n int) {
	t.Helper()
	line := fmt.Sprintf("holdfast-ship 1 %d 0 0 %08x", n, crc32.ChecksumIEEE([]byte("0123456789abcdef0123456789abcdef")))
	line = fmt.Sprintf("%s %08x", line, crc32.ChecksumIEEE([]byte(line)))
	if err := os.WriteFile(filepath.Join(state, "shipped"), []byte(fmt.Sprintf("%-511s\n", line)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// send ships the records of a journal.
func send(t *testing.T, url, dir string) {
	t.Helper()
	ctx := context.Background()
	db, err := clickhouse.Open(ctx, clickhouse.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	r, err := journal.OpenReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	var batch [][]byte
	for {
		e, err := r.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		batch = append(batch, e.Bytes)
	}
	if err := errors.Join(db.Send(ctx, "batch", batch), db.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
}
