package index

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/query"
	"github.com/holdfast/holdfast/pkg/query/querytest"
)

func TestSQLReadsAndNothingElse(t *testing.T) {
	h := newHost(t)
	h.write(querytest.Records(50))
	h.catchUp()
	before, err := os.ReadFile(h.path)
	if err != nil {
		t.Fatal(err)
	}
	s := h.read().(*store)
	ask := func(text string) (string, error) {
		var out string
		err := s.statement(context.Background(), text, func(columns []string) error {
			out = fmt.Sprint(columns)
			return nil
		}, func(values []any) error {
			out += fmt.Sprint(" ", values)
			return nil
		})
		return out, err
	}
	if got, err := ask("SELECT count(*) AS n, min(seq) AS first FROM records"); err != nil || got != "[n first] [50 1]" {
		t.Errorf("%s, %v", got, err)
	}
	other := filepath.Join(t.TempDir(), "other.db")
	for _, text := range []string{
		"DELETE FROM rec", "UPDATE state SET seq = 0", "DROP TABLE rec", "CREATE TABLE t (n)", "PRAGMA user_version = 9", "SELECT 1; DELETE FROM rec",
		"ATTACH DATABASE '" + other + "' AS o", "VACUUM INTO '" + other + "'", "VACUUM",
	} {
		if got, err := ask(text); err == nil && text != "PRAGMA user_version = 9" {
			t.Errorf("%s: %q", text, got)
		}
	}
	if _, err := ask("DELETE FROM rec"); !errors.Is(err, query.ErrReadOnly) {
		t.Errorf("deleting: %v, want ErrReadOnly", err)
	}
	for _, text := range []string{"PRAGMA wal_checkpoint(TRUNCATE)", "SELECT 1; PRAGMA locking_mode = EXCLUSIVE", "CREATE TEMP TABLE t (n)", "WITH a AS (SELECT 1) DELETE FROM rec"} {
		if err := s.SQL(context.Background(), text, nil, nil); !errors.Is(err, query.ErrReadOnly) {
			t.Errorf("%s: %v, want ErrReadOnly", text, err)
		}
	}
	// One that never ends, ends when nobody waits for it any more.
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	err = s.SQL(ctx, "WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a) SELECT count(*) FROM a", func([]string) error { return nil }, nil)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an endless question: %v", err)
	}
	if _, err := os.Stat(other); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("another file was written: %v", err)
	}
	after, err := os.ReadFile(h.path)
	if err != nil || string(after) != string(before) {
		t.Errorf("the index was changed: %v", err)
	}
}
