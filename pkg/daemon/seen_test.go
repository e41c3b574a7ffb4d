package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
)

func TestTheMarkIsReadAsItWasWrittenAndNeverHalf(t *testing.T) {
	dir := t.TempDir()
	if m, err := readMark(dir); err != nil || m != (mark{}) {
		t.Errorf("where there is none: %+v, %v", m, err)
	}
	for _, want := range []mark{{Time: 1_780_000_000_123_456_789, Seq: 4711}, {Time: 5, Seq: 1 << 60}} {
		if err := want.write(dir); err != nil {
			t.Fatal(err)
		}
		if m, err := readMark(dir); err != nil || m != want {
			t.Errorf("%+v, %v, want %+v", m, err, want)
		}
	}
	whole, err := os.ReadFile(markFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if err := os.WriteFile(markFile(dir), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if m, err := readMark(dir); err != nil || m != (mark{}) {
			t.Errorf("of %d bytes: %+v, %v", n, m, err)
		}
	}
}

func TestWhatAnEarlierRunLeftIsReadFromTheEndOfItsLog(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(filepath.Join(dir, "journal"), filepath.Join(dir, "keys"), journal.Options{HostID: "h", Host: "host", Boot: "b"})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	put := func(r event.Record) {
		t.Helper()
		if _, err := j.Append(&r); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, r.ID)
	}
	gap := func(of, state string) event.Record {
		return event.Record{Kind: event.RecGap, Time: 40, Gap: &event.Gap{Lost: 3, Rescan: state, Of: of}}
	}
	put(event.Record{Kind: event.RecChange, Time: 10, Path: "/t/seen", Op: "create", After: &event.State{Exists: true}})
	put(gap("", event.RescanPending))    // 2: closed below
	put(gap("", event.RescanPending))    // 3: stays open, though its rescan failed once
	put(gap(ids[1], event.RescanDone))   // 4
	put(gap(ids[2], event.RescanFailed)) // 5
	put(event.Record{Kind: event.RecChange, Time: 50, TimeEnd: 60, Path: `/t/\xFF`, PathTo: "/t/new", Op: "rename", Ops: []string{"rename", "exchange"}, Verdict: event.VerdictExpected, After: &event.State{Exists: true}})
	put(event.Record{Kind: event.RecAttempt, Time: 55, Path: "/t/not"})
	put(event.Record{Kind: event.RecResponse, Time: 56, Path: "/t/back", After: &event.State{}})
	if err := j.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	calm, err := readBefore(t.Context(), filepath.Join(dir, "journal"), mark{Seq: 1})
	if err != nil || len(calm.told) != 2 || !calm.told[0].Expected || calm.told[1].Expected {
		t.Errorf("%+v, %v: want the first to be trusted", calm.told, err)
	}
	put(event.Record{Kind: event.RecAgent, Time: 57, Op: "storm"})
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := readBefore(t.Context(), filepath.Join(dir, "journal"), mark{Seq: 1})
	if err != nil {
		t.Fatal(err)
	}
	if b.from != 60 || len(b.open) != 1 || b.open[0].ID != ids[2] || b.open[0].Gap.Lost != 3 {
		t.Errorf("since %d, open %+v", b.from, b.open)
	}
	var paths []string
	for _, told := range b.told {
		paths = append(paths, told.Path+">"+told.To)
	}
	if !slices.Equal(paths, []string{"/t/\xff>/t/new", "/t/back>"}) || !b.told[0].Moved || !b.told[0].Exchanged || b.told[0].Expected || b.told[0].ID != ids[5] {
		t.Errorf("told %q, %+v", paths, b.told)
	}
	if b, err = readBefore(t.Context(), filepath.Join(dir, "journal"), mark{Time: 77, Seq: 9}); err != nil || b.from != 77 || len(b.told)+len(b.open) != 0 {
		t.Errorf("behind the end: %+v, %v", b, err)
	}
}
