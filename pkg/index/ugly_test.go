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
		n, questions := 300, 400
		if seed == 0 { // so many that paths are found by their text
			n, questions = 2500, 150
		}
		records := querytest.Ugly(seed, 1, n)
		h := newHost(t)
		h.write(records)
		h.catchUp()
		querytest.RunUgly(t, h.read(), records, seed, questions)
		if t.Failed() {
			return
		}
	}
}
