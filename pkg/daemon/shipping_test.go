package daemon

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/ship"
)

// What somebody else wrote to ClickHouse under our id is on the record with its hash, and status says so.
func TestForeignRowsAreRecorded(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(filepath.Join(dir, "journal"), filepath.Join(dir, "keys"), journal.Options{HostID: "h", Host: "host", Boot: "b"})
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{ops: ops{state: &state{journal: j}}, degraded: map[string]string{}, log: slog.New(slog.DiscardHandler)}
	many := ship.Foreign{}
	for i := range uint64(100) {
		many.Rows = append(many.Rows, ship.Row{Seq: 7 + i, Leaf: [32]byte{byte(i), 1, 2}})
	}
	sum := many.Hash()
	for _, f := range []ship.Foreign{{Rows: []ship.Row{{Seq: 900, Leaf: [32]byte{0xab, 0xcd}}}, End: 12}, many} {
		if err := d.noteForeign(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		if r := d.reasons(); len(r) != 1 || !strings.Contains(r[0], "somebody else wrote them") {
			t.Errorf("reasons %q", r)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := journal.OpenReader(filepath.Join(dir, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var found []*event.Record
	for {
		e, err := r.Next(t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		rec, err := journal.Decode(e.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(rec.Reason, "somebody else") {
			found = append(found, rec)
		}
	}
	if len(found) != 2 {
		t.Fatalf("%d records", len(found))
	}
	if got := string(found[0].Detail["leaf_900_abcd"]); got != "abcd"+strings.Repeat("0", 60) || string(found[0].Detail["last"]) != "900" {
		t.Errorf("beyond the end: %v", found[0].Detail)
	}
	if x := found[1].Detail; x["rows"] != "100" || x["first"] != "7" || x["last"] != "106" || x["sha256"] != fmt.Sprintf("%x", sum) || len(x) != 4+foreignShown {
		t.Errorf("displaced: %v", x)
	}
}
