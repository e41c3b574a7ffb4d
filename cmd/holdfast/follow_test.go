package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
	"github.com/holdfast/holdfast/pkg/query/querytest"
)

// What was looked at once is not looked at again, also if it was not selected; a log that is begun again is followed from its begin.
func TestFollowLooksAtEachRecordOnce(t *testing.T) {
	a := &app{}
	all := querytest.Records(300)
	f := query.Filter{Kind: event.RecGap, Limit: 2}
	for _, c := range []struct {
		when   string
		list   querytest.List
		f      query.Filter
		want   int
		behind uint64
	}{
		{"at first", all[:100], query.Filter{Kind: event.RecGap, Limit: 2}, 2, 100},
		{"nothing new", all[:100], query.Filter{AfterSeq: 100}, 0, 100},
		{"nothing that is selected", all[:110], query.Filter{User: "nobody", AfterSeq: 100}, 0, 110},
		{"something new", all[:120], query.Filter{AfterSeq: 110}, 10, 120},
		{"a log that was begun again", all[:3], query.Filter{AfterSeq: 120}, 3, 3},
		{"a log that is empty", nil, query.Filter{AfterSeq: 3}, 0, 0},
	} {
		f = c.f
		var got []string
		err := a.followLocal(t.Context(), c.list, &f, func(r *event.Record) error { got = append(got, fmt.Sprint(r.Seq)); return nil })
		if err != nil || len(got) != c.want || f.AfterSeq != c.behind || f.Limit != 0 && c.want > 0 {
			t.Errorf("%s: %s, %v; then behind %d", c.when, strings.Join(got, " "), err, f.AfterSeq)
		}
	}
}
