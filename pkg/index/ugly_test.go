package index

import (
	"flag"
	"testing"

	"github.com/holdfast/holdfast/pkg/query/querytest"
)

var ugly = flag.Int("ugly", 3, "seeds of ugly records that are tried")

// TestUgly compares answers about records that a hostile host can make with what the filters mean.
func TestUgly(t *testing.T) {
	for seed := range uint64(*ugly) {
		records := querytest.Ugly(seed, 1, 300)
		h := newHost(t)
		h.write(records)
		h.catchUp()
		querytest.RunUgly(t, h.read(), records, seed, 400)
		if t.Failed() {
			return
		}
	}
}
