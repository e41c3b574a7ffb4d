package pipeline_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/pipeline"
	"github.com/holdfast/holdfast/pkg/pipeline/pipelinetest"
)

// A burst whose end was lost has no later event that could tell of it.
func TestALossThatNoEventTellsOfIsNoticedByTheKernelsCounters(t *testing.T) {
	for cause, count := range map[string]func(*pipeline.KernelLosses){
		event.CauseRing:   func(k *pipeline.KernelLosses) { k.Ring = []uint64{0, 5} },
		event.CauseKernel: func(k *pipeline.KernelLosses) { k.Failed = 5 },
	} {
		t.Run(cause, func(t *testing.T) {
			s := pipelinetest.NewScene(t, event.ModeObserve)
			var full atomic.Bool
			s.Options.Kernel = func() (k pipeline.KernelLosses, err error) {
				if full.Load() {
					count(&k)
				}
				return k, nil
			}
			plant(s)
			s.Start()
			s.Do(os.WriteFile(s.At("f"), []byte("unseen"), 0o644))
			before := pipelinetest.Clock{}.Wall(pipelinetest.Clock{}.Boot())
			full.Store(true)
			all := s.Wait("a closed gap", closed)
			g := gapsOf(all)
			if g[0].Gap.Lost != 5 || !slices.Equal(g[0].Gap.Causes, []string{cause}) || g[0].Gap.From > before || g[0].Gap.To < before {
				t.Errorf("%+v, the loss was at %v", g[0].Gap, before)
			}
			if g[1].Gap.Of != g[0].ID || g[1].Gap.Looked == 0 || g[1].Gap.Changes != 1 {
				t.Errorf("%+v", g[1].Gap)
			}
			c := changes(all)
			if len(c) != 1 || c[0].Found != event.FoundAfterGap || c[0].Gap.Of != g[0].ID || c[0].Time != g[0].Gap.From || c[0].TimeEnd < before {
				t.Errorf("%+v", c)
			}
			l := s.P.Losses()
			if l.Causes[cause] != 5 || len(l.Open) != 0 || l.Healed != 1 || l.Last == nil || l.Last.ID != g[0].ID || l.Last.Open {
				t.Errorf("%+v", l)
			}
			known(s)
		})
	}
}

// What an io_uring did may be told by a counter alone: that is no loss if comparing tells it.
func TestWhatACounterAloneTellsOfIsFoundByComparing(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeObserve)
	var done atomic.Uint64
	s.Options.Kernel = func() (pipeline.KernelLosses, error) { return pipeline.KernelLosses{Rings: done.Load()}, nil }
	plant(s)
	s.Start()
	s.Do(os.WriteFile(s.At("f"), []byte("by a ring"), 0o644))
	done.Store(3)
	c := s.Wait("a record", func(r []event.Record) bool { return len(r) == 1 })
	if c[0].Kind != event.RecChange || c[0].Found != event.FoundUnplaced || c[0].After.Hash.String() != b3sum(t, "by a ring") {
		t.Errorf("%+v", c[0])
	}
	if !strings.Contains(c[0].Reason, "io_uring") || c[0].Actor.User != "unknown" {
		t.Errorf("by %s: %s", c[0].Actor.User, c[0].Reason)
	}
	if l := s.P.Losses(); len(l.Causes) != 0 || len(l.Open) != 0 {
		t.Errorf("%+v", l)
	}
	known(s)
}

// Who renamed something somewhere has not written a file: what the operations were is told
// with what is found because of them.
func TestWhatIsFoundTellsWhichOperationsCouldNotBePlaced(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeObserve)
	var held atomic.Bool
	held.Store(true)
	s.Options.Waiting = held.Load // comparisons wait
	plant(s)
	s.Start()
	s.Do(os.WriteFile(s.At("f"), []byte("unseen"), 0o644))
	nobody := func(string) error { return nil }
	for _, op := range []event.Op{event.OpRename, event.OpChmod, event.OpRename} {
		s.Do(s.Actor(7).Simple(op, "g/../h", nobody)) // no kernel walks there
	}
	s.Wait("the comparison for the first", func([]event.Record) bool { return s.P.Stats().Rescans == 1 })
	s.Do(s.Actor(7).Simple(event.OpTruncate, "g/../h", nobody))
	held.Store(false)
	r := s.Wait("a record", func(r []event.Record) bool { return len(r) == 1 })[0]
	if r.Found != event.FoundUnplaced || r.Detail[event.DetailUnplaced] != "chmod rename truncate" {
		t.Errorf("found %s, %v: %s", r.Found, r.Detail, r.Reason)
	}
}

// A comparison for another reason may come before the rescan of a loss: what it
// finds was lost, and is told so.
func TestWhatWasLostIsFoundAfterItsGapWhateverComparesFirst(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeObserve)
	var full, held atomic.Bool
	held.Store(true)
	s.Options.Waiting = held.Load // events are on their way: comparisons wait for them
	s.Options.Kernel = func() (pipeline.KernelLosses, error) {
		k := pipeline.KernelLosses{Rings: 3}
		if full.Load() {
			k.Ring = []uint64{5}
		}
		return k, nil
	}
	plant(s)
	s.Start()
	s.Do(os.WriteFile(s.At("f"), []byte("unseen"), 0o644))
	s.Wait("the comparison for a ring", func([]event.Record) bool { return s.P.Stats().Rescans == 1 })
	full.Store(true)
	s.Wait("a gap", func(r []event.Record) bool { return len(gapsOf(r)) == 1 })
	held.Store(false)
	all := s.Wait("a closed gap", closed)
	g, c := gapsOf(all), changes(all)
	if len(c) != 1 || c[0].Found != event.FoundAfterGap || c[0].Gap == nil || c[0].Gap.Of != g[0].ID || c[0].Actor.User != event.Unknown {
		t.Errorf("%+v", c)
	}
	if g[1].Gap.Of != g[0].ID || g[1].Gap.Changes != 1 {
		t.Errorf("%+v", g[1].Gap)
	}
	known(s)
}

// A file that was seen to change and cannot be read is a gap of its own path, which
// is open until the file was read.
func TestAFileThatCannotBeReadIsLookedAtUntilItCan(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EIO, unix.EMFILE, unix.EACCES} {
		t.Run(errno.Error(), func(t *testing.T) {
			s := pipelinetest.NewScene(t, event.ModeObserve)
			bad := s.At("f")
			var broken atomic.Bool
			s.Options.Read = func(ctx context.Context, path string, sink io.Writer) (event.State, error) {
				if path == bad && broken.Load() {
					return event.State{}, errno
				}
				return digest.ReadPath(ctx, path, sink)
			}
			plant(s)
			s.Start()
			broken.Store(true)
			s.Do(s.Actor(7).Write("f", "cannot be read", os.O_TRUNC))
			s.Do(s.Actor(8).Write("g2", "can be read", os.O_CREATE))
			all := s.Wait("a rescan that fails", func(r []event.Record) bool { return len(gapsOf(r)) == 2 })
			g := gapsOf(all)
			if !slices.Equal(g[0].Gap.Trees, []string{bad}) || !slices.Equal(g[0].Gap.Causes, []string{event.CauseUnreadable}) || g[1].Gap.Rescan != event.RescanFailed {
				t.Errorf("%+v, %+v", g[0].Gap, g[1].Gap)
			}
			c := changes(all)
			i := slices.IndexFunc(c, func(r event.Record) bool { return r.Path == bad })
			if i < 0 || c[i].After.Unread != errno.Error() || !c[i].After.Exists || c[i].Actor.User != pipelinetest.User(7) {
				t.Errorf("the change itself: %+v", c)
			}
			if l := s.P.Losses(); len(l.Open) != 1 || l.Open[0].ID != g[0].ID || l.Open[0].Tries == 0 {
				t.Errorf("%+v", l)
			}
			broken.Store(false)
			all = s.Wait("the gap's end", func(r []event.Record) bool {
				return slices.ContainsFunc(gapsOf(r), func(r event.Record) bool { return r.Gap.Rescan == event.RescanDone })
			})
			last := changes(all)[len(changes(all))-1]
			if last.Path != bad || last.Found != event.FoundAfterGap || last.After.Hash.IsZero() || last.Actor.User != event.Unknown {
				t.Errorf("%+v", last)
			}
			if l := s.P.Losses(); len(l.Open) != 0 || l.Healed != 1 {
				t.Errorf("%+v", l)
			}
			known(s)
		})
	}
}

// What is dropped for want of room is looked for where it was, and only there.
func TestALossOfAKnownPlaceConcernsItsTreeAlone(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeObserve)
	s.Options.Queue = 4
	s.Options.Trees = func() []string { return []string{s.Dir, s.At("d")} }
	plant(s)
	s.Start()
	s.Journal.Refuse(1 << 30) // the slow side stands still
	for range 20 {
		s.Do(s.Actor(7).Chmod("d/x", 0o600))
		s.Do(s.Actor(8).Chmod("d/x", 0o644))
	}
	for s.P.Stats().QueueDropped == 0 {
		s.Do(s.Actor(9).Chmod("d/x", 0o640))
	}
	s.Journal.Refuse(0)
	all := s.Wait("a closed gap", closed)
	for _, g := range gapsOf(all) {
		if !slices.Equal(g.Gap.Trees, []string{s.At("d")}) {
			t.Errorf("trees %q", g.Gap.Trees)
		}
	}
	if d := s.P.Known(s.At("d")); len(d) > 0 {
		t.Errorf("not known: %q", d)
	}
}

// A gap whose rescan did not come to its end is closed by the next run's.
func TestAGapThatAnEarlierRunLeftOpenIsClosedAtStart(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeObserve)
	plant(s)
	s.Start()
	s.Stop()
	s.Do(os.WriteFile(s.At("f"), []byte("while down"), 0o644))
	s.Down = pipelinetest.Clock{}.Wall(0)
	s.Open = []pipeline.Prior{{ID: "host/boot/77", Gap: event.Gap{Lost: 9, Causes: []string{event.CauseQueue}, Rescan: event.RescanPending}}}
	s.Start()
	all := s.Wait("three gap records", func(r []event.Record) bool { return len(gapsOf(r)) == 3 })
	g := gapsOf(all)
	if !slices.Equal(g[0].Gap.Causes, []string{event.CauseDown}) || g[0].Gap.From != s.Down || g[1].Gap.Of != g[0].ID || g[1].Gap.Rescan != event.RescanDone {
		t.Errorf("%+v, %+v", g[0].Gap, g[1].Gap)
	}
	if g[2].Gap.Of != "host/boot/77" || g[2].Gap.Rescan != event.RescanDone || g[2].Gap.Lost != 9 {
		t.Errorf("%+v", g[2].Gap)
	}
	if c := changes(all); len(c) != 1 || c[0].Found != event.FoundWhileDown || c[0].Gap.Of != g[0].ID || c[0].Time != s.Down {
		t.Errorf("%+v", c)
	}
}

// A run was killed after it recorded an expected change and before its vault was durable:
// the next one trusts what the record tells of, where it is there still, and nothing else.
func TestWhatAKilledRunExpectedIsTrusted(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeRestore)
	plant(s)
	s.Start()
	s.Stop()
	told := func(path string) {
		st, err := digest.ReadPath(t.Context(), s.At(path), nil)
		s.Do(err)
		x := s.Told(path, st)
		x.Expected = true
		s.Options.Told = append(s.Options.Told, x)
	}
	s.Do(os.WriteFile(s.At("f"), []byte("approved"), 0o644))
	s.Do(os.WriteFile(s.At("new"), []byte("approved, too"), 0o600))
	s.Do(os.WriteFile(s.At("d/x"), []byte("approved, and then"), 0o600))
	s.Do(os.Remove(s.At("d/y")))
	for _, path := range []string{"f", "new", "d/x", "d/y"} {
		told(path)
	}
	s.Do(os.Rename(s.At("ln"), s.At("ln2")))
	told("ln2")
	moved := &s.Options.Told[len(s.Options.Told)-1]
	moved.Path, moved.To, moved.Moved = s.At("ln"), s.At("ln2"), true
	s.Do(os.WriteFile(s.At("d/x"), []byte("evil"), 0o600))
	s.Start()
	s.Wait("the gap's end", closed)
	s.Wait("one restore", func(r []event.Record) bool { return len(outcomes(r)) == 1 })
	s.Stop()
	trusts(s, "f", "approved")
	trusts(s, "new", "approved, too")
	trusts(s, "d/x", "x")
	content(s, "f", "approved")
	content(s, "d/x", "x")
	if v, ok := s.Store.Trusted(s.At("d/y")); !ok || v.State.Exists {
		t.Errorf("what was removed: %+v, %v", v.State, ok)
	}
	all, _ := s.Journal.Records()
	if c := changes(all); len(c) != 1 || c[0].Path != s.At("d/x") {
		t.Errorf("%d changes", len(c))
	}
	known(s)
}

// What the records of a killed run tell, and its vault does not, was no change
// while the daemon was down; and what was taken back since is one.
func TestTheLastRecordsOfAKilledRunAreFollowed(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeObserve)
	plant(s)
	s.Start()
	s.Stop()
	state := func(path string) event.State {
		st, err := digest.ReadPath(t.Context(), s.At(path), nil)
		s.Do(err)
		return st
	}
	s.Do(os.WriteFile(s.At("told"), []byte("recorded"), 0o644))
	s.Do(os.Mkdir(s.At("gone"), 0o755))
	s.Options.Told = append(s.Options.Told, s.Told("told", state("told")), s.Told("gone", state("gone")), s.Told("d/x", event.State{}))
	s.Do(os.Remove(s.At("gone")))
	s.Start()
	all := s.Wait("the finds", func(r []event.Record) bool { return closed(r) })
	var got []string
	for _, r := range changes(all) {
		got = append(got, r.Found+" "+r.Op+" "+filepath.Base(r.Path))
	}
	slices.Sort(got)
	if want := "while_down create x, while_down rmdir gone"; strings.Join(got, ", ") != want {
		t.Errorf("found %q, want %q", got, want)
	}
	known(s)
	s.Stop()
	if v, ok := s.Store.Latest(s.At("told")); !ok || !v.State.Exists || v.Record != "told" {
		t.Errorf("the vault did not follow: %+v", v)
	}
}
