package clickhouse

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/clickhouse/clickhousetest"
)

const oneHost = `<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users>
<default><password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota></default>
<host><password>secret</password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota><grants>
<query>GRANT SELECT ON d.*</query><query>GRANT INSERT ON d.records</query><query>GRANT INSERT ON d.checkpoints</query><query>GRANT INSERT ON d.displaced</query></grants></host>
</users></clickhouse>`

// Whoever has a host's password adds checkpoints and takes none away.
func TestACheckpointThatArrivedStays(t *testing.T) {
	ctx := context.Background()
	s := clickhousetest.New(t, oneHost)
	admin := open(t, s.URL("d"))
	url := strings.Replace(s.URL("d"), "default@", "host:secret@", 1)
	host, err := Open(ctx, Config{URL: url, KeepDays: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	s.MustExec(t, "INSERT INTO d.roots (host_id, size, note, received) VALUES ('h', 3, 'of a day ago', now() - INTERVAL 30 HOUR), ('h', 4, 'of an hour later', now() - INTERVAL 29 HOUR)")
	for _, c := range []struct {
		size uint64
		note string
	}{{7, "true"}, {7, "forged"}, {7, "forged"}} {
		if err := host.SendCheckpoint(ctx, "h", c.size, []byte(c.note)); err != nil {
			t.Fatal(err)
		}
	}
	for _, sql := range []string{
		"INSERT INTO d.roots (host_id, size, note, received) VALUES ('h', 9, 'dated back', now() - INTERVAL 30 HOUR)",
		"ALTER TABLE d.roots DELETE WHERE 1", "TRUNCATE TABLE d.checkpoints", "DROP VIEW d.to_roots",
	} {
		if err := host.conn.Exec(ctx, sql); err == nil || !strings.Contains(err.Error(), "Not enough privileges") {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if err := host.conn.Exec(ctx, "INSERT INTO d.checkpoints (host_id, size, note, received) VALUES ('h', 9, 'dated back', now() - INTERVAL 30 HOUR)"); err != nil {
		t.Fatal(err)
	}
	s.MustExec(t, "OPTIMIZE TABLE d.checkpoints FINAL")
	for _, db := range []*DB{admin, host} {
		got, err := db.Checkpoints(ctx, "h")
		if err != nil {
			t.Fatal(err)
		}
		// The one that was dated back is of this minute all the same, and the two of one size beside it.
		text := fmt.Sprintf("%s", got)
		for _, want := range []string{"of a day ago", "of an hour later", "dated back"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s lacks %q", text, want)
			}
		}
	}
	if got := s.MustExec(t, "SELECT groupArray(note) FROM (SELECT DISTINCT note FROM d.roots WHERE size = 7 ORDER BY note)"); got != "['forged','true']" {
		t.Errorf("of size 7 there are %s", got)
	}
}

// A host's own user keeps foreign rows with these rights: each that is different, once, with its own hash.
func TestForeignRowsAreKept(t *testing.T) {
	ctx := t.Context()
	s := clickhousetest.New(t, oneHost)
	open(t, s.URL("d"))
	host, err := Open(ctx, Config{URL: strings.Replace(s.URL("d"), "default@", "host:secret@", 1), KeepDays: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	s.MustExec(t, "INSERT INTO d.records (host_id, host, boot, seq, rec) SELECT 'h', 'web1', 'b', 5 + number % 1200, concat('forged ', toString(number)) FROM numbers(2400)")
	held, err := host.Holds(ctx, "h", 5, 1300)
	if err != nil {
		t.Fatal(err)
	}
	var leaves [][32]byte
	for _, l := range held {
		leaves = append(leaves, l...)
	}
	for range 2 { // a second try
		if err := host.Displace(ctx, "h", 5, 1300, leaves[1:]); err != nil {
			t.Fatal(err)
		}
	}
	if err := host.conn.Exec(ctx, "INSERT INTO d.displaced (host_id, seq, rec, leaf) VALUES ('h', 5, 'x', 'y')"); err == nil {
		t.Error("a leaf was chosen")
	}
	got := s.MustExec(t, "SELECT count(), uniqExact(leaf), countIf(leaf = SHA256(concat('\\0', rec)) AND host = 'web1' AND boot = 'b' AND arrived > '2020-01-01') FROM d.displaced FINAL")
	if n := len(leaves) - 1; n < 1199 || got != fmt.Sprintf("%d\t%[1]d\t%[1]d", n) {
		t.Errorf("%s rows are kept, want %d", got, n)
	}
}
