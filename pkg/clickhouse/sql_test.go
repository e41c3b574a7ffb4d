package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/holdfast/holdfast/pkg/query"
)

// TestSQL: whoever may write anything can change nothing by a question.
func TestSQL(t *testing.T) {
	ctx := context.Background()
	other := filepath.Join(t.TempDir(), "other")
	for name, url := range map[string]func(string) string{"native": server.URL, "http": server.HTTPURL} {
		t.Run(name, func(t *testing.T) {
			db := open(t, url(newDatabase()))
			send(t, db, "1", samples(t, testHost, 1, 5)...)
			ask := func(text string) (string, error) {
				var out string
				err := db.SQL(ctx, text, func(columns []string) error {
					out = fmt.Sprint(columns)
					return nil
				}, func(values []any) error {
					out += fmt.Sprint(" ", values)
					return nil
				})
				return out, err
			}
			got, err := ask("SELECT seq, path, source FROM records WHERE seq > 3 ORDER BY seq")
			if want := "[seq path source] [4 /etc/app/conf.d/4.conf 192.0.2.7] [5 /etc/app/conf.d/5.conf 192.0.2.7]"; err != nil || got != want {
				t.Errorf("%s, %v; want %s", got, err, want)
			}
			for _, text := range []string{
				"INSERT INTO records (host_id, seq) VALUES ('x', 1)", "INSERT INTO records (host_id, seq) SELECT 'x', 1", "ALTER TABLE records DELETE WHERE 1", "DROP TABLE records", "TRUNCATE TABLE records",
				"CREATE TABLE t (n UInt8) ENGINE = Memory", "SET readonly = 0", "SELECT 1 SETTINGS readonly = 0", "OPTIMIZE TABLE records", "SYSTEM STOP MERGES",
				"GRANT ALL ON *.* TO default", "KILL QUERY WHERE 1", "/* SELECT */ SYSTEM STOP MERGES", "",
				"WITH 1 AS x INSERT INTO FUNCTION file('" + other + "', 'CSV', 'n UInt8') SELECT x", "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'n UInt8')",
			} {
				if got, err := ask(text); err == nil {
					t.Errorf("%s: %s", text, got)
				}
			}
			if _, err := os.Stat(other); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a file was written: %v", err)
			}
			for text, want := range map[string]string{"show tables like 'rec%'": "[name] [records]", "(SELECT 1 AS n)": "[n] [1]", "WITH 2 AS x\nSELECT x": "[x] [2]"} {
				if got, err := ask(text); err != nil || got != want {
					t.Errorf("%s: %s, %v; want %s", text, got, err, want)
				}
			}
			if _, err := ask("DROP TABLE records"); !errors.Is(err, query.ErrReadOnly) {
				t.Errorf("dropping a table: %v, want ErrReadOnly", err)
			}
			if _, err := ask("SELECT nothing FROM records"); err == nil || errors.Is(err, ErrNoSchema) {
				t.Errorf("a column that is not there: %v", err)
			}
			if got := server.MustExec(t, "SELECT count() FROM "+db.target.Database+".records"); got != "5" {
				t.Errorf("%s rows, want 5", got)
			}
		})
	}
}
