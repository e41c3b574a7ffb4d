package query_test

import (
	"errors"
	"testing"

	"github.com/holdfast/holdfast/pkg/query"
)

func TestOneQuestion(t *testing.T) {
	for text, ok := range map[string]bool{
		"SELECT 1": true, "select\t1": true, "SELECT(1)": true, "(SELECT 1) UNION ALL (SELECT 2)": true, "-- why\nSELECT 1": true, "/* a; b */ /**/ SELECT 1 -- ; x": true, "SELECT 1;": true, "SELECT 1 ; ; -- end": true,
		"SELECT ';', \";\", `;`, [;], 'it''s;' -- ;\n FROM a /* ; */": true, "WITH a AS (SELECT 1) SELECT 2 - 1": true, "SELECT 1 / 2; -- x": true,
		"": false, " ": false, ";": false, "-- SELECT 1": false, "/* SELECT": false, "SELECTED": false, "DELETE FROM a": false, "PRAGMA a": false, "1 SELECT": false, "é": false, "SELECT 1; SELECT 2": false,
		"SELECT ';'; PRAGMA a": false, "SELECT 1 /* */; -- x\n PRAGMA a": false, "SELECT 'a": true,
	} {
		if err := query.OneQuestion(text, false, "SELECT", "WITH"); (err == nil) != ok || err != nil && !errors.Is(err, query.ErrReadOnly) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := query.OneQuestion("SELECT 1; SELECT 2", true, "SELECT"); err != nil {
		t.Error(err)
	}
}
