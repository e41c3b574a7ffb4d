package pipeline_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/journal"
	"github.com/holdfast/holdfast/pkg/pipeline"
	"github.com/holdfast/holdfast/pkg/pipeline/pipelinetest"
)

func gapsOf(all []event.Record) []event.Record {
	return pick(all, func(r *event.Record) bool { return r.Kind == event.RecGap })
}

// closed reports whether there is a gap and all are closed.
func closed(all []event.Record) bool {
	g := gapsOf(all)
	n := 0
	for _, r := range g {
		if r.Gap.Rescan == "done" {
			n++
		}
	}
	return len(g) > 0 && 2*n == len(g)
}

func TestALossIsDeclaredAndClosedByARescan(t *testing.T) {
	tests := []struct {
		name   string
		lose   func(s *pipelinetest.Scene)
		reason string
	}{
		{"in the kernel", func(s *pipelinetest.Scene) {
			now := pipelinetest.Clock{}.Boot()
			s.Feed(event.Event{Kind: event.KindFork, CPU: 3, Lost: 2, Time: now})
		}, "kernel's ring"},
		{"before decode", func(s *pipelinetest.Scene) {
			s.P.Feed(make([]byte, 1<<20))
		}, "did not fit between"},
		{"a path that was cut", func(s *pipelinetest.Scene) {
			now := pipelinetest.Clock{}.Boot()
			s.Feed(event.Event{Kind: event.KindFile, Op: event.OpUnlink, Anchor: 1, Path: []byte("f"), Flags: event.FlagTruncated, Time: now})
		}, "too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := pipelinetest.NewScene(t, event.ModeRestore)
			s.Options.HandoverBytes = 4096
			plant(s)
			want := truth(t, s.Dir)
			s.Start()
			a := s.Actor(7)
			s.Mute(true)
			s.Do(a.Write("f", "unseen", os.O_TRUNC))
			s.Do(a.Write("n", "unseen", os.O_CREATE))
			s.Do(a.Remove("d/x"))
			s.Mute(false)
			tt.lose(s)
			all := s.Wait("a closed gap and the answers", func(r []event.Record) bool { return closed(r) && len(outcomes(r)) >= 3 })
			g := gapsOf(all)[0]
			if g.Gap.Lost == 0 || g.Gap.To < g.Gap.From || !slices.Equal(g.Gap.Trees, []string{s.Dir}) || g.Gap.Rescan != "pending" || !strings.Contains(g.Reason, tt.reason) {
				t.Errorf("%+v %s", g.Gap, g.Reason)
			}
			var got []string
			for _, r := range changes(all) {
				got = append(got, r.Op+" "+filepath.Base(r.Path))
				if r.Actor.User != event.Unknown || r.Actor.Evidence != event.EvidenceNone || r.Actor.UID != event.Unset || r.Process != nil ||
					!strings.Contains(r.Reason, "found by a rescan after lost events") {
					t.Errorf("%s %+v", pipelinetest.Line(&r), r.Actor)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, []string{"create n", "unlink x", "write f"}) {
				t.Errorf("%q", got)
			}
			if got := truth(t, s.Dir); got != want {
				t.Errorf("the tree is\n%s\nand was\n%s", got, want)
			}
			known(s)
		})
	}
}

func TestAFullQueueLosesNothingSilently(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeObserve)
	s.Options.Queue = 4
	plant(s)
	s.Start()
	s.Journal.Refuse(1 << 30) // the slow side stands still
	a := s.Actor(7)
	for i := range 40 {
		s.Do(a.Write(fmt.Sprint(i), "x", os.O_CREATE))
	}
	time.Sleep(50 * time.Millisecond)
	s.Journal.Refuse(0)
	all := s.Wait("a closed gap", closed)
	st := s.P.Stats()
	if st.QueueDropped == 0 || st.Lost != st.QueueDropped || st.Refused == 0 {
		t.Errorf("%+v", st)
	}
	all = s.Wait("all files", func(r []event.Record) bool { return len(changes(r)) >= 40 })
	seen := map[string]bool{}
	for _, r := range changes(all) {
		seen[filepath.Base(r.Path)] = true
	}
	for i := range 40 {
		if !seen[fmt.Sprint(i)] {
			t.Errorf("no record of %d", i)
		}
	}
	known(s)
}

func TestAStormOfProcessesPushesOutNoChangeAndIsDeclared(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeObserve)
	s.Options.Queue = 8
	plant(s)
	s.Start()
	s.Journal.Refuse(1 << 30) // the slow side stands still
	const storm = 40
	from := pipelinetest.Clock{}.Boot()
	for range storm {
		s.Feed(event.Event{Kind: event.KindExec, Time: pipelinetest.Clock{}.Boot()})
	}
	s.Do(s.Actor(7).Remove("f"))
	time.Sleep(50 * time.Millisecond)
	s.Journal.Refuse(0)
	all := s.Wait("the gap", func(r []event.Record) bool { return len(gapsOf(r)) == 1 && len(changes(r)) == 1 })
	execs := uint64(len(pick(all, func(r *event.Record) bool { return r.Kind == event.RecExec })))
	g := gapsOf(all)[0].Gap
	if g.Lost == 0 || g.Lost+execs != storm || !slices.Equal(g.Causes, []string{event.CauseProcesses}) || g.Rescan != "" || len(g.Trees) != 0 {
		t.Errorf("%d records of executions and %+v, want %d in all", execs, g, storm)
	}
	if clock := (pipelinetest.Clock{}); g.From+1e6 < clock.Wall(from) || g.To < g.From || g.To > clock.Wall(clock.Boot()) {
		t.Errorf("from %v to %v", g.From, g.To)
	}
	if st := s.P.Stats(); st.Crowded != g.Lost || st.Processes != execs || st.Lost != 0 || st.Rescans != 0 {
		t.Errorf("%+v", st)
	}
}

func TestNamesThatCannotBeFollowedHaveTheTreesComparedOnce(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeObserve)
	plant(s)
	s.Start()
	// Somebody changes a file by a way that nobody can follow.
	hidden := filepath.Join(s.Dir, "hidden")
	if err := os.WriteFile(hidden, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		s.Feed(event.Event{Kind: event.KindFile, Op: event.OpUnlink, Flags: event.FlagNamed, Base: []byte("/"), Path: []byte("/gone/f"), Time: pipelinetest.Clock{}.Boot()})
	}
	all := s.Wait("what changed", func(r []event.Record) bool { return len(changes(r)) == 1 })
	c := changes(all)[0]
	if c.Path != hidden || c.Actor.User != event.Unknown || c.Actor.Evidence != event.EvidenceNone || c.Reason == "" {
		t.Errorf("%+v by %+v", c, c.Actor)
	}
	s.Stop()
	all, _ = s.Journal.Records()
	if n := len(gapsOf(all)); n != 0 {
		t.Errorf("%d gap records: the trees were compared, nothing is missing", n)
	}
	if st := s.P.Stats(); st.Coalesce.Unresolved != 5 || st.Rescans != 1 {
		t.Errorf("%+v", st)
	}
}

func TestARecordThatIsRefusedComesLater(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeRestore)
	plant(s)
	s.Start()
	s.Journal.Refuse(3)
	s.Do(s.Actor(7).Write("f", "bad", os.O_TRUNC))
	all := s.Wait("the answer", func(r []event.Record) bool { return len(outcomes(r)) == 1 })
	if len(all) != 3 {
		t.Errorf("%d records", len(all))
	}
}

func TestWhatChangedWhileTheDaemonWasDownIsFoundAtStart(t *testing.T) {
	for _, mode := range []string{event.ModeObserve, event.ModeRestore} {
		t.Run(mode, func(t *testing.T) {
			s := pipelinetest.NewScene(t, mode)
			plant(s)
			was := truth(t, s.Dir)
			s.Start()
			s.Do(s.Actor(7).Chmod("f", 0o600))
			s.Wait("the record", func(r []event.Record) bool { return len(changes(r)) == 1 })
			s.Stop()
			s.Do(os.WriteFile(s.At("d/x"), []byte("while down"), 0o600))
			s.Do(os.Remove(s.At("ln")))
			s.Do(os.WriteFile(s.At("n"), []byte("while down"), 0o600))
			s.Start()
			all := s.Wait("the finds", func(r []event.Record) bool {
				return len(changes(r)) == 4 && (mode == event.ModeObserve || len(outcomes(r)) == 4)
			})
			for _, r := range changes(all)[1:] {
				if !strings.Contains(r.Reason, "changed while the daemon was down") || r.Actor.User != event.Unknown {
					t.Errorf("%s", pipelinetest.Line(&r))
				}
			}
			if mode == event.ModeRestore && truth(t, s.Dir) != was {
				t.Errorf("the tree is\n%s\nand was\n%s", truth(t, s.Dir), was)
			}
			known(s)
		})
	}
}

func TestWhatWeWereAskedToPutBackIsOurOwnWork(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeRestore)
	plant(s)
	s.Start()
	self := s.Actor(pipelinetest.Self)
	s.Do(self.Write("f", "an older version", os.O_TRUNC))
	s.Do(s.P.Took(t.Context(), []string{s.At("f")}))
	s.Stop()
	if all, _ := s.Journal.Records(); len(all) != 0 {
		t.Errorf("%v", all)
	}
	known(s)
}

func TestARescanOnRequestReturnsWhenItIsDone(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeObserve)
	plant(s)
	s.Start()
	s.Do(os.WriteFile(s.At("f"), []byte("unseen"), 0o644))
	s.Do(s.P.Rescan(t.Context(), []string{s.Dir}, "asked for"))
	all, _ := s.Journal.Records()
	if len(all) != 1 || all[0].Op != "write" || !strings.Contains(all[0].Reason, "asked for") {
		t.Errorf("%v", all)
	}
}

func TestWhoWroteToTheDeviceIsNamedOnlyForWhatThatLeaves(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeObserve)
	plant(s)
	s.Start()
	// By the device: the content and nothing else. Through the file system, the time too.
	st, err := os.Stat(s.At("f"))
	s.Do(err)
	s.Do(os.WriteFile(s.At("f"), bytes.Repeat([]byte("x"), int(st.Size())), 0))
	s.Do(os.Chtimes(s.At("f"), time.Time{}, st.ModTime()))
	s.Do(os.WriteFile(s.At("d/x"), []byte("by somebody else"), 0))
	s.Do(os.WriteFile(s.At("n"), []byte("new"), 0o644))
	by := &pipeline.Beneath{Op: event.OpRawWrite, Actor: event.Actor{User: "eve", Evidence: event.EvidenceNone}}
	s.P.RescanFor([]string{s.Dir}, "found after the device had been open", by, true)
	all := s.Wait("the three", func(r []event.Record) bool { return len(changes(r)) == 3 })
	for _, r := range changes(all) {
		want := event.Unknown
		if filepath.Base(r.Path) == "f" {
			want = "eve"
		}
		if r.Actor.User != want || (r.Process == nil) != (want == event.Unknown) || r.Found != event.FoundBeneath {
			t.Errorf("%s is put down to %s", pipelinetest.Line(&r), r.Actor.User)
		}
	}
}

// deed is one operation that an actor did.
type deed struct {
	pid      uint32
	op       string
	path, to string
}

func TestEveryOperationOfThreeActorsHasItsRecord(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			s := pipelinetest.NewScene(t, event.ModeObserve)
			plant(s)
			s.Start()
			deeds := act(s, rand.New(rand.NewPCG(seed, 1)), 300)
			s.Stop()
			all, _ := s.Journal.Records()
			left := changes(all)
			for _, d := range deeds {
				i := slices.IndexFunc(left, func(r event.Record) bool {
					return r.Process != nil && r.Process.PID == d.pid && r.Path == d.path && r.PathTo == d.to && slices.Contains(r.Ops, d.op) && r.Count > 0
				})
				if i < 0 {
					t.Errorf("no record of %+v", d)
					continue
				}
				left[i].Count-- // one record may tell of several operations of one actor
			}
			if g := gapsOf(all); len(g) > 0 {
				t.Errorf("%d gaps", len(g))
			}
			known(s)
		})
	}
}

// act lets three actors do n operations in turn, as fast as they can.
func act(s *pipelinetest.Scene, rng *rand.Rand, n int) (deeds []deed) {
	actors := []*pipelinetest.Actor{s.Actor(7), s.Actor(8), s.Actor(9)}
	names := []string{"f", "g", "h", "d/x", "d/y", "e", "e/z", "d"}
	mode := os.FileMode(0o600)
	for i := range n {
		a := actors[rng.IntN(3)]
		p, q := names[rng.IntN(len(names))], names[rng.IntN(len(names))]
		d := deed{pid: a.PID, path: s.At(p)}
		var err error
		_, missing := os.Lstat(s.At(p))
		switch rng.IntN(8) {
		case 0, 1:
			d.op = "write"
			if missing != nil {
				d.op = "create"
			}
			err = a.Write(p, fmt.Sprint("content ", i), os.O_CREATE|os.O_TRUNC)
		case 2:
			d.op = "write"
			err = a.Write(p, fmt.Sprint("more ", i), os.O_APPEND)
		case 3:
			mode ^= 0o077
			st, lerr := os.Lstat(s.At(p))
			if lerr != nil || st.Mode().Perm() == mode || st.IsDir() {
				continue
			}
			d.op = "chmod"
			err = a.Chmod(p, mode)
		case 4:
			d.op = "unlink"
			if st, lerr := os.Lstat(s.At(p)); lerr == nil && st.IsDir() {
				d.op = "rmdir"
			}
			err = a.Remove(p)
		case 5:
			d.op = "mkdir"
			err = a.Mkdir(p)
		case 6:
			if p == q {
				continue
			}
			d.op, d.to = "rename", s.At(q)
			one, oerr := os.Lstat(s.At(p))
			two, terr := os.Lstat(s.At(q))
			err = a.Rename(p, q)
			if oerr == nil && terr == nil && os.SameFile(one, two) {
				continue // rename(2) does nothing to two names of one file
			}
		case 7:
			d.op, d.to = "link", s.At(q)
			err = a.Link(p, q)
		}
		if err != nil {
			continue // it was not possible: no operation, no record
		}
		deeds = append(deeds, d)
		if rng.IntN(4) == 0 {
			time.Sleep(time.Duration(rng.IntN(3)) * time.Millisecond)
		}
	}
	return deeds
}

func TestAProtectedTreeSurvivesThreeActors(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeRestore)
	s.Options.FlapLimit = 1 << 20
	plant(s)
	was := truth(t, s.Dir)
	s.Start()
	act(s, rand.New(rand.NewPCG(9, 9)), 150)
	// Nothing more is fed; what was restored meanwhile may still be on its way.
	for range 200 {
		if truth(t, s.Dir) == was && s.P.Stats().QueueLen == 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.Stop()
	if got := truth(t, s.Dir); got != was {
		t.Errorf("the tree is\n%s\nand was\n%s", got, was)
	}
	all, _ := s.Journal.Records()
	ordered(t, all)
	known(s)
}

func TestTheRealJournalTakesItAll(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(dir+"/journal", dir+"/keys", journal.Options{HostID: "h", Host: "host", Boot: "b"})
	if err != nil {
		t.Fatal(err)
	}
	s := pipelinetest.NewScene(t, event.ModeRestore)
	s.Options.Journal = j
	plant(s)
	was := truth(t, s.Dir)
	s.Start()
	for i, p := range []string{"f", "d/x", "d/y"} {
		s.Do(s.Actor(uint32(7+i)).Write(p, "bad", os.O_TRUNC))
	}
	for range 500 {
		if s.P.Stats().Respond.Done == 3 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.Stop()
	s.Do(j.Close())
	sum, err := journal.Verify(context.Background(), dir+"/journal", "", func(p journal.Problem) { t.Errorf("%+v", p) })
	if err != nil {
		t.Fatal(err)
	}
	r, err := journal.OpenReader(dir + "/journal")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var all []event.Record
	for {
		e, err := r.Next(context.Background())
		if err != nil {
			break
		}
		rec, err := journal.Decode(e.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, *rec)
	}
	if len(all) != 9 {
		t.Errorf("%d records, %+v", len(all), sum)
	}
	ordered(t, all)
	if truth(t, s.Dir) != was {
		t.Error("the tree was not put back")
	}
}

var _ pipeline.Clock = pipelinetest.Clock{}
