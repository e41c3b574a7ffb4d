package pipeline_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/pipeline"
	"github.com/holdfast/holdfast/pkg/pipeline/pipelinetest"
	"github.com/holdfast/holdfast/pkg/respond"
)

// gate holds up reads or restores of one path from when it is shut until it is opened.
type gate struct {
	shut    atomic.Bool
	entered chan struct{} // gets a token when somebody waits before it
	opened  chan struct{}
	open    func()
}

func newGate() *gate {
	g := &gate{entered: make(chan struct{}, 64), opened: make(chan struct{})}
	g.open = sync.OnceFunc(func() { close(g.opened) })
	return g
}

func (g *gate) pass(ctx context.Context) error {
	if !g.shut.Load() {
		return nil
	}
	g.entered <- struct{}{}
	select {
	case <-g.opened:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// largeScene is a planted tree with a large file d/big, each reading of which waits at the gate.
func largeScene(t *testing.T, mode string) (*pipelinetest.Scene, *gate) {
	s := pipelinetest.NewScene(t, mode)
	g := newGate()
	s.Options.Large = 1000
	plant(s)
	big := s.At("d/big")
	s.Do(os.WriteFile(big, make([]byte, 2000), 0o644))
	s.Options.Read = func(ctx context.Context, path string, sink io.Writer) (event.State, error) {
		if path == big {
			if err := g.pass(ctx); err != nil {
				return event.State{}, err
			}
		}
		return digest.ReadPath(ctx, path, sink)
	}
	t.Cleanup(g.open)
	return s, g
}

// line is a change as op path > path_to, by their last components.
func line(r *event.Record) string {
	l := r.Op + " " + filepath.Base(r.Path)
	if r.PathTo != "" {
		l += " > " + filepath.Base(r.PathTo)
	}
	return l
}

func lines(all []event.Record) (out []string) {
	for _, r := range changes(all) {
		out = append(out, line(&r))
	}
	return out
}

func TestSmallFilesArePutBackWhileALargeOneIsRead(t *testing.T) {
	s, g := largeScene(t, event.ModeRestore)
	want := truth(t, s.Dir)
	s.Start()
	g.shut.Store(true)
	begun := pipelinetest.Clock{}.Boot()
	s.Do(s.Actor(7).Write("d/big", "bad", 0))
	<-g.entered
	s.Do(s.Actor(8).Write("f", "bad", os.O_TRUNC))
	s.Do(s.Actor(8).Remove("d/x"))
	s.Do(s.Actor(8).Write("n", "bad", os.O_CREATE))
	s.Do(s.Actor(8).Chmod("d", 0o777))
	all := s.Wait("the small ones", func(r []event.Record) bool { return len(outcomes(r)) == 4 })
	if got := lines(all); slices.Contains(got, "write big") || len(got) != 4 {
		t.Errorf("%q while the large file is read", got)
	}
	if at := s.P.Settled(); at > begun {
		t.Errorf("settled %d ns after the large file was changed", at-begun)
	}
	if st := s.P.Stats(); st.Aside != 1 || st.Large != 1 || st.Waiting == 0 {
		t.Errorf("%+v", st)
	}
	g.open()
	s.Wait("the large one", func(r []event.Record) bool { return len(outcomes(r)) == 5 })
	s.Stop()
	if got := truth(t, s.Dir); got != want {
		t.Errorf("the tree is\n%s\nand was\n%s", got, want)
	}
	all, _ = s.Journal.Records()
	ordered(t, all)
	if got := lines(all); got[len(got)-1] != "write big" {
		t.Errorf("%q", got)
	}
	known(s)
}

// slowVault has a gate before the restore of a path.
type slowVault struct {
	pipeline.Vault
	path string
	g    *gate
}

func (v slowVault) Restore(ctx context.Context, path string, version uint64) (respond.Done, error) {
	if path == v.path {
		if err := v.g.pass(ctx); err != nil {
			return respond.Done{}, err
		}
	}
	return v.Vault.Restore(ctx, path, version)
}

// What is about to be put back is in the journal, durably, before that begins.
func TestSmallFilesArePutBackWhileALargeOneIs(t *testing.T) {
	s := pipelinetest.NewScene(t, event.ModeRestore)
	g := newGate()
	t.Cleanup(g.open)
	s.Options.Large = 1000
	s.Options.Vault = slowVault{s.Options.Vault, s.At("big"), g}
	plant(s)
	s.Do(os.WriteFile(s.At("big"), make([]byte, 2000), 0o644))
	want := truth(t, s.Dir)
	s.Start()
	g.shut.Store(true)
	s.Do(s.Actor(7).Write("big", "short now", os.O_TRUNC))
	<-g.entered
	all, durable := s.Journal.Records()
	if len(all) != 2 || durable != 2 || all[1].Response == nil || all[1].Response.Outcome != respond.Intended {
		t.Errorf("%d records, %d durable", len(all), durable)
	}
	s.Do(s.Actor(8).Write("big", "worse", os.O_TRUNC))
	s.Do(s.Actor(8).Write("f", "bad", os.O_TRUNC))
	all = s.Wait("the small one", func(r []event.Record) bool { return len(outcomes(r)) == 1 })
	if got := lines(all); !slices.Equal(got, []string{"write big", "write f"}) {
		t.Errorf("%q while the large file is put back", got)
	}
	g.shut.Store(false)
	g.open()
	s.Wait("the large one", func(r []event.Record) bool { return s.P.Stats().Waiting == 0 })
	s.Stop()
	all, _ = s.Journal.Records()
	if got := lines(all); !slices.Equal(got, []string{"write big", "write f", "write big"}) || truth(t, s.Dir) != want {
		t.Errorf("%q, the tree is\n%s\nand was\n%s", got, truth(t, s.Dir), want)
	}
	ordered(t, all)
	known(s)
}

func TestWhatMeetsALargeFileWaitsBehindItInOrder(t *testing.T) {
	tests := []struct {
		name string
		do   func(s *pipelinetest.Scene, a *pipelinetest.Actor) error
		want []string // behind the write to the large file
	}{
		{"its mode", func(_ *pipelinetest.Scene, a *pipelinetest.Actor) error {
			return errors.Join(a.Chmod("d/big", 0o600))
		}, []string{"chmod big"}},
		{"another file of its name", func(_ *pipelinetest.Scene, a *pipelinetest.Actor) error {
			return errors.Join(a.Rename("d/big", "other"), a.Write("d/big", "small", os.O_CREATE))
		}, []string{"rename big > other", "create big"}},
		{"its end", func(_ *pipelinetest.Scene, a *pipelinetest.Actor) error { return a.Remove("d/big") }, []string{"unlink big"}},
		{"another name of it, and what is done by that", func(_ *pipelinetest.Scene, a *pipelinetest.Actor) error {
			return errors.Join(a.Link("d/big", "other"), a.Chmod("other", 0o600))
		}, []string{"link big > other", "chmod other"}}, // the write is looked at when the mode is changed too
		{"another name of the directory above it, and what is done there", func(_ *pipelinetest.Scene, a *pipelinetest.Actor) error {
			return errors.Join(a.Rename("d", "e"), a.Write("e/y", "new", os.O_TRUNC))
		}, []string{"rename d > e", "write y", "write big"}}, // what was written is told where it went to
		{"another directory in the place of that", func(_ *pipelinetest.Scene, a *pipelinetest.Actor) error {
			return errors.Join(a.MoveOut("d", "o"), a.Mkdir("d"), a.Write("d/big", "small", os.O_CREATE))
		}, []string{"rename d", "mkdir d", "create big"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, g := largeScene(t, event.ModeObserve)
			s.Start()
			g.shut.Store(true)
			a := s.Actor(7)
			s.Do(a.Write("d/big", "new", 0))
			<-g.entered
			s.Do(tt.do(s, a))
			for s.P.Stats().Aside < 2 {
				time.Sleep(time.Millisecond)
			}
			s.Do(s.Actor(8).Write("f", "new", os.O_TRUNC))
			all := s.Wait("the small one", func(r []event.Record) bool { return slices.Contains(lines(r), "write f") })
			for _, l := range lines(all) {
				if strings.Contains(l, "big") || slices.Contains(tt.want, l) {
					t.Errorf("%s while the large file is read", l)
				}
			}
			g.open()
			s.Wait("the rest", func(r []event.Record) bool { return s.P.Stats().Waiting == 0 })
			s.Stop()
			all, _ = s.Journal.Records()
			got := slices.DeleteFunc(lines(all), func(l string) bool { return l == "write f" })
			if want := append([]string{"write big"}, tt.want...); !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
			known(s)
		})
	}
}

// While the lane is full the slow side waits: what comes then is late and not lost.
func TestAFullLaneLosesNothing(t *testing.T) {
	s, g := largeScene(t, event.ModeRestore)
	s.Options.Behind = 2
	want := truth(t, s.Dir)
	s.Start()
	g.shut.Store(true)
	s.Do(s.Actor(7).Write("d/big", "bad", 0))
	<-g.entered
	s.Do(s.Actor(8).Chmod("d/big", 0o600))
	for s.P.Stats().Aside < 2 {
		time.Sleep(time.Millisecond)
	}
	for i := range 5 {
		s.Do(s.Actor(9).Write("f", fmt.Sprint("bad", i), os.O_TRUNC))
	}
	for !slices.ContainsFunc(s.P.Limits(), func(l pipeline.Limit) bool { return l.Value == 2 && l.Hit > 0 }) {
		time.Sleep(time.Millisecond)
	}
	if all, _ := s.Journal.Records(); len(all) != 0 {
		t.Errorf("%q", lines(all))
	}
	g.open()
	s.Wait("all", func(r []event.Record) bool { return s.P.Stats().Waiting == 0 })
	s.Stop()
	if got := truth(t, s.Dir); got != want {
		t.Errorf("the tree is\n%s\nand was\n%s", got, want)
	}
	known(s)
}

// Run ends in time though a large file is being read; the next start finds what it did.
func TestTheEndDoesNotWaitForALargeFileForEver(t *testing.T) {
	s, g := largeScene(t, event.ModeRestore)
	s.Options.Drain, s.Cut = 50*time.Millisecond, true
	want := truth(t, s.Dir)
	s.Start()
	g.shut.Store(true)
	s.Do(s.Actor(7).Write("d/big", "bad", 0))
	<-g.entered
	s.Do(s.Actor(7).Chmod("d/big", 0o600))
	s.Stop()
	if all, _ := s.Journal.Records(); len(all) != 0 {
		t.Errorf("%q", lines(all))
	}
	g.shut.Store(false)
	s.Cut = false
	s.Start()
	s.Wait("the answer", func(r []event.Record) bool { return len(outcomes(r)) == 1 })
	s.Stop()
	if got := truth(t, s.Dir); got != want {
		t.Errorf("the tree is\n%s\nand was\n%s", got, want)
	}
	known(s)
}

// A large file that is changed for ever is put back as often as any other.
func TestALargeFileThatIsUndoneForEverIsLeftAlone(t *testing.T) {
	s, _ := largeScene(t, event.ModeRestore)
	s.Options.FlapLimit, s.Options.FlapWindow = 3, time.Minute
	s.Start()
	for i := range 4 {
		s.Do(s.Actor(7).Write("d/big", fmt.Sprint("bad", i), 0))
		s.Wait("an answer", func(r []event.Record) bool { return len(outcomes(r)) == i+1 })
	}
	all, _ := s.Journal.Records()
	if last := outcomes(all)[3]; !strings.Contains(last.Reason, "a person must look") || s.P.Stats().Respond.Flapping != 1 {
		t.Errorf("%s", pipelinetest.Line(&last))
	}
}
