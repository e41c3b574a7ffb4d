package clickhouse

import (
	"flag"
	"fmt"
	"slices"
	"testing"

	"github.com/holdfast/holdfast/pkg/query/querytest"
)

var ugly = flag.Int("ugly", 2, "seeds of ugly records that are tried")

// TestUgly compares answers about records that hostile hosts can make with what the filters mean.
func TestUgly(t *testing.T) {
	for seed := range uint64(*ugly) {
		records := querytest.Ugly(seed, 1+2*int(seed%3), 150)
		db := newDB(t)
		db.eager = seed%2 == 1
		for i, part := range slices.Collect(slices.Chunk(records, 70)) {
			var b [][]byte
			for _, r := range part {
				b = append(b, encode(t, r))
			}
			send(t, db, fmt.Sprint(i), b...)
		}
		querytest.RunUgly(t, db, records, seed, 80)
		if t.Failed() {
			return
		}
	}
}
