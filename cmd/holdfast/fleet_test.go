package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/clickhouse"
	"github.com/holdfast/holdfast/pkg/clickhouse/clickhousetest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/query/fleettest"
)

// auditedHost is a host with a log of its own.
type auditedHost struct {
	id, dir string // the state directory
	clock   atomic.Int64
	sent    uint64
}

func (h *auditedHost) log(t *testing.T) *journal.Journal {
	t.Helper()
	j, err := journal.Open(filepath.Join(h.dir, "journal"), filepath.Join(h.dir, "keys"), journal.Options{HostID: h.id, Host: "web-" + h.id, Boot: "b1", KeyEvery: time.Minute,
		Now: func() time.Time { return time.Unix(1_800_000_000+h.clock.Load(), 0) }})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// add appends n records of a made-up history. The key changes a few times.
func (h *auditedHost) add(t *testing.T, n int) {
	t.Helper()
	j := h.log(t)
	enough := errors.New("enough")
	err := fleettest.Options{Seed: 7, Hosts: 1, Days: 3}.Records(0, func(r *event.Record) error {
		if n--; n < 0 {
			return enough
		}
		_, err := j.Append(r)
		if n%7 == 0 {
			err = errors.Join(err, j.Sync(t.Context()))
			h.clock.Add(40)
		}
		return err
	})
	if !errors.Is(err, enough) {
		t.Fatal(err)
	}
	must(j.Close())
}

// ship sends what is new to a server, as a daemon does.
func (h *auditedHost) ship(t *testing.T, db *clickhouse.DB) {
	t.Helper()
	dir := filepath.Join(h.dir, "journal")
	r, err := journal.OpenReader(dir)
	must(err)
	must(r.Seek(h.sent + 1))
	var batch [][]byte
	for {
		e, err := r.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		must(err)
		h.sent = e.Seq
		batch = append(batch, e.Bytes)
	}
	must(r.Close())
	if len(batch) > 0 {
		must(db.Send(t.Context(), fmt.Sprint(h.id, h.sent), batch))
	}
	notes, err := journal.Handovers(dir)
	must(err)
	last, err := journal.LatestCheckpoint(dir)
	must(err)
	for _, n := range append(notes, last) {
		s, err := journal.ReadSigned(n)
		must(err)
		must(db.SendCheckpoint(t.Context(), h.id, s.Size, n))
	}
}

// root is the root of the host's first n records, as RFC 6962, section 2.1 defines it.
func (h *auditedHost) root(t *testing.T, n uint64) string {
	t.Helper()
	r, err := journal.OpenReader(filepath.Join(h.dir, "journal"))
	must(err)
	var leaves [][]byte
	for uint64(len(leaves)) < n {
		e, err := r.Next(t.Context())
		must(err)
		leaves = append(leaves, e.Bytes)
	}
	must(r.Close())
	var mth func(d [][]byte) []byte
	mth = func(d [][]byte) []byte {
		if len(d) == 1 {
			sum := sha256.Sum256(append([]byte{0}, d[0]...))
			return sum[:]
		}
		k := 1
		for k*2 < len(d) {
			k *= 2
		}
		sum := sha256.Sum256(append(append([]byte{1}, mth(d[:k])...), mth(d[k:])...))
		return sum[:]
	}
	return base64.StdEncoding.EncodeToString(mth(leaves))
}

// auditedFleet is three hosts, their rows in one database, and an auditor who has no log.
type auditedFleet struct {
	hosts  []*auditedHost
	dir    string // the auditor's
	config string
	keys   string // all hosts' first keys
	name   string // database
	db     *clickhouse.DB
	server *clickhousetest.Server
}

func newAuditedFleet(t *testing.T, server *clickhousetest.Server, name string) *auditedFleet {
	t.Helper()
	f := &auditedFleet{dir: t.TempDir(), name: name, server: server}
	var err error
	f.db, err = clickhouse.Open(t.Context(), clickhouse.Config{URL: server.URL(name)})
	must(err)
	t.Cleanup(func() { _ = f.db.Close() })
	_, err = f.db.Apply(t.Context())
	must(err)
	var keys []byte
	for i, id := range []string{"h1", "h2", "h3"} {
		h := &auditedHost{id: id, dir: filepath.Join(t.TempDir(), id)}
		h.add(t, 40+i*13)
		h.ship(t, f.db)
		b, err := os.ReadFile(filepath.Join(h.dir, "keys", "journal.pub"))
		must(err)
		keys = append(keys, b...)
		f.hosts = append(f.hosts, h)
	}
	f.config, f.keys = filepath.Join(f.dir, "holdfast.yaml"), filepath.Join(f.dir, "keys")
	must(os.WriteFile(f.config, []byte("state: nothing-here\nsocket: sock\nclickhouse:\n  url: "+server.URL(name)+"\n"), 0o600))
	must(os.WriteFile(f.keys, keys, 0o600))
	return f
}

func (f *auditedFleet) verify(t *testing.T, code int, args ...string) string {
	t.Helper()
	var out, stderr bytes.Buffer
	a := &app{file: f.config, out: &out, err: &stderr, now: time.Now, noColor: true}
	if got := a.main(context.Background(), append([]string{"holdfast", "verify", "--against", "clickhouse", "--fleet"}, args...)); got != code {
		t.Errorf("verify --fleet %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, out.String(), stderr.String())
	}
	return out.String()
}

func (f *auditedFleet) exec(t *testing.T, sql string) {
	t.Helper()
	for s := range strings.SplitSeq(sql, ";") {
		if s = strings.TrimSpace(strings.ReplaceAll(s, "DB", f.name)); s != "" {
			if strings.HasPrefix(s, "ALTER") {
				s += " SETTINGS mutations_sync = 2"
			}
			f.server.MustExec(t, s)
		}
	}
}

func TestVerifyOfAFleetProvesEachHostWithoutItsLog(t *testing.T) {
	f := newAuditedFleet(t, clickhousetest.New(t, ""), "holdfast")
	out := f.verify(t, 0, "--key", f.keys)
	for _, want := range []string{"web-h1 h1  ok: 40 rows read, proven up to record 40", "web-h2 h2  ok: 53 rows", "web-h3 h3  ok: 66 rows", "3 hosts, 159 rows: verified"} {
		if !strings.Contains(out, want) {
			t.Errorf("the answer lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "as ClickHouse has it") {
		t.Errorf("the keys were given:\n%s", out)
	}
	if out := f.verify(t, 0); !strings.Contains(out, "key as ClickHouse has it") || !strings.Contains(out, "note: a key that ClickHouse itself tells of") {
		t.Errorf("without keys:\n%s", out)
	}
	if out := f.verify(t, 0, "--host", "web-h2"); !strings.Contains(out, "1 host, 53 rows: verified") {
		t.Errorf("of one host:\n%s", out)
	}
	f.verify(t, 3, "--host", "web-h9")
	for line := range strings.Lines(f.verify(t, 0, "--json", "--key", f.keys)) {
		var a audit
		must(json.Unmarshal([]byte(line), &a))
		for _, h := range f.hosts {
			if h.id == a.HostID && (!a.OK || a.Trust != "given" || a.Root != h.root(t, a.Proven) || a.Proven != h.sent) {
				t.Errorf("host %s: %s, want root %s at %d", h.id, line, h.root(t, a.Proven), h.sent)
			}
		}
	}
	if c, err := journal.Handovers(filepath.Join(f.hosts[0].dir, "journal")); err != nil || len(c) < 3 {
		t.Errorf("the key changed %d times, %v: too little is tried", len(c)-1, err)
	}
	for _, bad := range [][]string{{"--key", f.config}, {"--key", filepath.Join(f.dir, "none")}, {"--witness", f.config}} {
		f.verify(t, 2, bad...)
	}
}

func TestVerifyOfAFleetNamesEachKindOfTampering(t *testing.T) {
	f := newAuditedFleet(t, clickhousetest.New(t, ""), "holdfast")
	cols := f.server.MustExec(t, "SELECT arrayStringConcat(groupArray(name), ', ') FROM system.columns WHERE database = '"+f.name+"' AND table = 'records' AND default_kind = ''")
	tables := []string{"records", "checkpoints", "roots"}
	for _, name := range tables {
		f.exec(t, "CREATE TABLE DB.clean_"+name+" AS DB."+name+"; INSERT INTO DB.clean_"+name+" SELECT * FROM DB."+name)
	}
	f.verify(t, 0, "--key", f.keys)
	same := "INSERT INTO DB.records (COLS) SELECT COLS"
	for _, c := range []struct {
		name string
		do   string // SQL
		want []string
	}{
		{"a row removed", "ALTER TABLE DB.records DELETE WHERE host_id = 'h2' AND seq = 17", []string{"h2  removed: records 17 to 17 are not there"}},
		{"rows removed at the end", "ALTER TABLE DB.records DELETE WHERE host_id = 'h2' AND seq > 50", []string{"h2  rollback: records 51 to 53 are not there: they were signed"}},
		{"rows removed at the beginning", "ALTER TABLE DB.records DELETE WHERE host_id = 'h2' AND seq < 3", []string{"h2  removed: records 1 to 2"}},
		{"a column edited", "ALTER TABLE DB.records UPDATE actor_user = 'mallory' WHERE host_id = 'h1' AND seq = 3", []string{"h1  clickhouse altered: altered h1/b1/3: columns [actor_user]"}},
		{"bytes edited", "ALTER TABLE DB.records UPDATE rec = concat(substring(rec, 1, length(rec) - 1), 'x') WHERE host_id = 'h1' AND seq = 3", []string{"h1  clickhouse altered: altered h1/b1/3", "h1  checkpoint: what is there is not what was signed at size"}},
		{"two rows' bytes exchanged", "CREATE TABLE DB.x AS DB.records; INSERT INTO DB.x (COLS) SELECT * REPLACE (11 - seq AS seq) FROM (SELECT COLS FROM DB.records WHERE host_id = 'h1' AND seq IN (5, 6)); ALTER TABLE DB.records DELETE WHERE host_id = 'h1' AND seq IN (5, 6); INSERT INTO DB.records (COLS) SELECT COLS FROM DB.x",
			[]string{"h1  clickhouse altered: altered h1/b1/5: columns [seq", "h1  clickhouse altered: altered h1/b1/6: columns [seq", "h1  checkpoint: what is there is not what was signed"}},
		{"a row doubled", same + " FROM DB.records WHERE host_id = 'h3' AND seq = 5", []string{"h3  clickhouse duplicated: duplicated h3/b1/5"}},
		{"another host's row under this host", instead("host_id = 'h1' AND seq = 9", "'h3' AS host_id"), []string{"h3  clickhouse altered: altered h3/b1/9: columns [", "host_id"}},
		{"a row behind the end, after a gap", instead("host_id = 'h1' AND seq = 9", "90 AS seq"), []string{"h1  removed: records 41 to 89", "h1  clickhouse altered: altered h1/b1/90: columns [seq"}},
		{"a row with number 0", instead("host_id = 'h1' AND seq = 9", "0 AS seq"), []string{"h1  clickhouse extra: extra h1/b1/0"}},
		{"two hosts' rows exchanged", "CREATE TABLE DB.x AS DB.records; INSERT INTO DB.x (COLS) SELECT * REPLACE (if(host_id = 'h1', 'h2', 'h1') AS host_id) FROM (SELECT COLS FROM DB.records WHERE host_id IN ('h1', 'h2')); ALTER TABLE DB.records DELETE WHERE host_id IN ('h1', 'h2'); INSERT INTO DB.records (COLS) SELECT COLS FROM DB.x",
			[]string{"h1  clickhouse altered", "h2  clickhouse altered", "h1  not verified", "h2  not verified", "not verified: 2 of 3 hosts"}},
		{"a checkpoint signed by nobody we know", "INSERT INTO DB.checkpoints (host_id, size, note) SELECT 'h1', 100, replaceAll(note, '/h2', '/h1') FROM DB.roots WHERE host_id = 'h2' AND size = 53 LIMIT 1", []string{"h1  key: a checkpoint:"}},
		{"a checkpoint that is none", "INSERT INTO DB.checkpoints (host_id, size, note) VALUES ('h1', 120, 'nothing')", []string{"h1  checkpoint: a checkpoint:"}},
		{"a host's rows and checkpoints removed", "ALTER TABLE DB.records DELETE WHERE host_id = 'h1'; ALTER TABLE DB.checkpoints DELETE WHERE host_id = 'h1'; ALTER TABLE DB.roots DELETE WHERE host_id = 'h1'; ALTER TABLE DB.hosts DELETE WHERE host_id = 'h1'", []string{"h1  unsealed: no checkpoint"}},
		{"a host that nobody knows", instead("host_id = 'h1' AND seq = 1", "'h9' AS host_id"), []string{"h9  not proven: neither ClickHouse nor --key"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.exec(t, strings.ReplaceAll(c.do, "COLS", cols))
			out := f.verify(t, 6, "--key", f.keys)
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("the answer lacks %q:\n%s", want, out)
				}
			}
		})
		for _, name := range tables {
			f.exec(t, "TRUNCATE TABLE DB."+name)
		}
		f.exec(t, strings.ReplaceAll("INSERT INTO DB.records (COLS) SELECT COLS FROM DB.clean_records; INSERT INTO DB.checkpoints SELECT * FROM DB.clean_checkpoints; TRUNCATE TABLE DB.roots; INSERT INTO DB.roots SELECT * FROM DB.clean_roots; DROP TABLE IF EXISTS DB.x", "COLS", cols))
	}
	f.verify(t, 0, "--key", f.keys, "--host", "web-h2")
}

// instead inserts a copy of a row with something else in it.
func instead(where, replace string) string {
	return "INSERT INTO DB.records (COLS) SELECT * REPLACE (" + replace + ") FROM (SELECT COLS FROM DB.records WHERE " + where + ")"
}

// copyDir copies a state directory as it is.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	must(os.CopyFS(to, os.DirFS(from)))
	return to
}

func TestAWitnessSeesWhatWasWrittenAnewSince(t *testing.T) {
	f := newAuditedFleet(t, clickhousetest.New(t, ""), "holdfast")
	h, dir := f.hosts[1], filepath.Join(f.dir, "witness")
	pinned := func(args ...string) []string { return append([]string{"--witness", dir}, args...) }
	stolen := copyDir(t, h.dir) // the key that is in force, and all of the log

	f.verify(t, 0, pinned("--key", f.keys)...)
	if out := f.verify(t, 0, pinned()...); !strings.Contains(out, "h2  ok: 0 rows from record 54 on, proven up to record 53") || strings.Contains(out, "as ClickHouse has it") {
		t.Errorf("a second time:\n%s", out)
	}
	h.add(t, 30)
	h.ship(t, f.db)
	if out := f.verify(t, 0, pinned()...); !strings.Contains(out, "h2  ok: 30 rows from record 54 on, proven up to record 83") {
		t.Errorf("with 30 more:\n%s", out)
	}
	if out := f.verify(t, 0, pinned("--whole")...); !strings.Contains(out, "h2  ok: 83 rows read, proven up to record 83") {
		t.Errorf("the whole of it:\n%s", out)
	}
	kept := filepath.Join(f.dir, "kept")
	must(os.Rename(filepath.Join(h.dir, "journal", "checkpoint"), kept))

	// What was proven before is looked at again with --whole alone.
	f.exec(t, "ALTER TABLE DB.records UPDATE actor_user = 'mallory' WHERE host_id = 'h2' AND seq = 20")
	f.verify(t, 0, pinned()...)
	f.verify(t, 6, pinned("--whole")...)

	gone := func() {
		for _, table := range []string{"records", "checkpoints", "roots"} {
			f.exec(t, "ALTER TABLE DB."+table+" DELETE WHERE host_id = 'h2'")
		}
	}
	// The thief goes on from the copy and replaces all that the server has.
	thief := &auditedHost{id: h.id, dir: stolen}
	thief.clock.Store(100_000)
	thief.add(t, 45)
	gone()
	thief.ship(t, f.db)
	notes, err := journal.Handovers(filepath.Join(stolen, "journal"))
	must(err)
	for _, n := range notes { // the server remembers that it was sent some of them
		s, err := journal.ReadSigned(n)
		must(err)
		f.exec(t, fmt.Sprintf("INSERT INTO DB.checkpoints (host_id, size, note) VALUES ('h2', %d, unhex('%x'))", s.Size, n))
	}
	if out := f.verify(t, 0, "--key", f.keys); !strings.Contains(out, "h2  ok: 98 rows") {
		t.Errorf("who kept nothing cannot tell:\n%s", out)
	}
	f.verify(t, 6, "--key", f.keys, "--checkpoint", kept)
	if out := f.verify(t, 6, pinned()...); !strings.Contains(out, "h2  not verified") {
		t.Errorf("with a witness:\n%s", out)
	}
	f.verify(t, 6, pinned("--whole")...)
	f.verify(t, 6, pinned()...) // what was kept is not replaced by what is not well

	gone()
	f.exec(t, "ALTER TABLE DB.hosts DELETE WHERE host_id = 'h2'")
	if out := f.verify(t, 6, pinned()...); !strings.Contains(out, "h2  not verified") {
		t.Errorf("a host that is gone:\n%s", out)
	}
	if out := f.verify(t, 6, pinned("--host", "h2")...); !strings.Contains(out, "record 83 is not there any more") {
		t.Errorf("a host that is gone:\n%s", out)
	}
	for _, c := range []string{"", "{}", "{", strings.Repeat("[", 1<<20)} {
		must(os.WriteFile(filepath.Join(dir, "h2.json"), []byte(c), 0o600))
		f.verify(t, 1, pinned()...)
	}
}
