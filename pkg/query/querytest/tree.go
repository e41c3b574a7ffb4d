package querytest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/query"
)

// trees counts by the list: each act of what was asked for is in the tree once, at the
// process that its record names, below the one that the record names as its parent.
func trees(t *testing.T, s query.Store, records []*event.Record) {
	for _, id := range []string{"41", "4", "svc-1-2-3", "10-1-500", "9-1-400", "1-1-1"} {
		want := map[string]*event.Record{}
		nobody := 0
		for _, r := range records {
			in := r.Actor != nil && r.Actor.Session == id
			switch {
			case in && (r.Process == nil || r.Process.PID == 0):
				nobody++
			case in && (r.Kind == event.RecChange || r.Kind == event.RecAttempt || r.Kind == event.RecCredential):
				want[r.ID] = r
			}
		}
		got, none, err := query.Tree(context.Background(), s, id, "")
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		list, _, err := query.Tree(context.Background(), List(records), id, "")
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(list) {
			t.Errorf("%s: %d processes, by the list %d", id, len(got), len(list))
		}
		if none != nobody {
			t.Errorf("%s: %d records without a process, want %d", id, none, nobody)
		}
		session := len(want) > 0
		for i, p := range got {
			if p.Depth > 0 && (i == 0 || p.Depth > got[i-1].Depth+1) {
				t.Fatalf("%s: depth %d after %d", id, p.Depth, got[i-1].Depth)
			}
			for _, a := range p.Acts {
				r := want[a.ID]
				if !session {
					r = records[slices.IndexFunc(records, func(r *event.Record) bool { return r.ID == a.ID })]
				}
				if r == nil || r.Process.ExecID != p.ExecID || p.ExecID == "" && r.Process.PID != p.PID {
					t.Fatalf("%s: %s is not of %s", id, a.ID, p.ExecID)
				}
				delete(want, a.ID)
			}
		}
		if len(want) > 0 {
			t.Errorf("%s: %d acts are missing", id, len(want))
		}
	}
	if _, _, err := query.Tree(context.Background(), s, "no such", ""); !errors.Is(err, query.ErrNotFound) {
		t.Errorf("%v", err)
	}
}
