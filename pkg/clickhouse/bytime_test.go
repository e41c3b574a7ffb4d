package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
)

// TestTheNewestRecordsOfOneMomentAreInOrder: where a limit cuts through records of one time, host and sequence decide.
func TestTheNewestRecordsOfOneMomentAreInOrder(t *testing.T) {
	db := open(t, server.URL(newDatabase()))
	var all []*event.Record
	for h, hosts := 0, 3; h < hosts; h++ {
		var batch [][]byte
		for seq := uint64(1); seq <= 12; seq++ {
			r := sample(fmt.Sprintf("h%d", h), seq)
			r.Time = testTime + event.Time((seq-1)/4)
			r.TimeEnd = r.Time
			all, batch = append(all, r), append(batch, encode(t, r))
		}
		if err := db.Send(context.Background(), fmt.Sprint(h), batch); err != nil {
			t.Fatal(err)
		}
	}
	keyOf := func(r *event.Record) key { return key{hostID: r.HostID, seq: r.Seq, boot: r.Boot, time: int64(r.Time)} }
	slices.SortFunc(all, func(a, b *event.Record) int { return keyOf(a).compare(keyOf(b)) })
	for limit := 1; limit <= 2*(len(all)+1); limit++ {
		if limit > len(all)+1 {
			db.eager = true
		}
		limit := (limit-1)%(len(all)+1) + 1
		var got, want []string
		err := db.Records(context.Background(), query.Filter{Limit: limit}, func(r *event.Record) error { got = append(got, r.ID); return nil })
		for _, r := range all[max(0, len(all)-limit):] {
			want = append(want, r.ID)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("limit %d, eager %t: %v\n%q, want\n%q", limit, db.eager, err, got, want)
		}
	}
}
