package fleettest

import (
	"reflect"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/query"
)

func TestTheSameSeedGivesTheSameHistory(t *testing.T) {
	o := Options{Seed: 7, Hosts: 3, Days: 5}
	a, b := o.All(), o.All()
	if !reflect.DeepEqual(a, b) {
		t.Error("two histories of one seed differ")
	}
	o.Seed = 8
	if c := o.All(); len(c) == len(a) && reflect.DeepEqual(a, c) {
		t.Error("another seed gives the same history")
	}
	o = Options{Seed: 8, Hosts: 5, Days: 5}
	for i, id := range (Options{Seed: 8, Hosts: 3, Days: 5}).HostIDs() {
		if o.HostIDs()[i] != id {
			t.Error("more hosts change the first ones")
		}
	}
}

func TestAHistoryIsWhatALogCanHold(t *testing.T) {
	o := Options{Seed: 1, Hosts: 8, Days: 14, Busy: 20}
	last, boots := map[string]*event.Record{}, map[string]map[string]bool{}
	ids, kinds, verdicts := map[string]*event.Record{}, map[string]int{}, map[string]int{}
	for _, r := range o.All() {
		kinds[r.Kind]++
		verdicts[r.Verdict]++
		b, err := journal.Encode(r)
		if err != nil {
			t.Fatalf("%s: %v", r.ID, err)
		}
		if back, err := journal.Decode(b); err != nil || back.ID != r.ID {
			t.Fatalf("%s comes back as %v, %v", r.ID, back, err)
		}
		host, seq, err := query.SplitID(r.ID)
		if err != nil || host != r.HostID || seq != r.Seq || ids[r.ID] != nil {
			t.Fatalf("id %s of host %s, sequence %d: %v", r.ID, r.HostID, r.Seq, err)
		}
		ids[r.ID] = r
		if p := last[r.HostID]; p == nil && seq != 1 || p != nil && seq != p.Seq+1 {
			t.Fatalf("host %s has %d behind %v", r.HostID, seq, p)
		} else if p != nil && p.Boot != r.Boot {
			if boots[r.HostID][r.Boot] {
				t.Fatalf("%s: boot %s comes back", r.ID, r.Boot)
			}
			if boots[r.HostID] == nil {
				boots[r.HostID] = map[string]bool{}
			}
			boots[r.HostID][p.Boot] = true
		}
		last[r.HostID] = r
		for _, of := range []string{of(r.Response), gapOf(r.Gap)} {
			if c := ids[of]; of != "" && (c == nil || c.HostID != r.HostID) {
				t.Fatalf("%s answers %s, which is not before it", r.ID, of)
			}
		}
		if at(r) < event.TimeOf(o.Start()) || r.Time >= event.TimeOf(o.withDefaults().Until) {
			t.Fatalf("%s is of %v, outside the history", r.ID, r.Time.Go())
		}
	}
	for _, k := range []string{event.RecChange, event.RecAttempt, event.RecSession, event.RecResponse, event.RecGap, event.RecPolicy, event.RecAgent} {
		if kinds[k] == 0 {
			t.Errorf("nothing of kind %s", k)
		}
	}
	for _, v := range []string{event.VerdictObserved, event.VerdictExpected, event.VerdictUnauthorized, event.VerdictBlocked, event.VerdictRestored, event.VerdictRestoreFailed, event.VerdictPromoted} {
		if verdicts[v] == 0 {
			t.Errorf("nothing of verdict %s", v)
		}
	}
	if len(boots) == 0 {
		t.Error("no host was restarted")
	}
	t.Log(kinds, verdicts)
}

func of(r *event.Response) string {
	if r == nil {
		return ""
	}
	return r.Of
}

func gapOf(g *event.Gap) string {
	if g == nil {
		return ""
	}
	return g.Of
}
