package pipeline_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/pipeline/pipelinetest"
)

// shuffled is a tree of directories that are alike in themselves, with one more
// outside; all that is done to it is to end as it was.
func shuffled(t *testing.T, large bool, do func(s *pipelinetest.Scene, a *pipelinetest.Actor)) {
	t.Helper()
	s := pipelinetest.NewScene(t, event.ModeRestore)
	if large {
		s.Large(1)
	}
	for _, d := range []string{s.At("d"), s.At("e"), s.At("d/sub"), s.At("e/sub"), s.Outside + "/evil", s.Outside + "/evil/sub"} {
		s.Do(errors.Join(os.Mkdir(d, 0o755), os.WriteFile(d+"/same", []byte(d), 0o600), os.WriteFile(fmt.Sprintf("%s/%x", d, d[len(d)-4:]), []byte("x"), 0o600)))
	}
	want := truth(t, s.Dir)
	s.Start()
	do(s, s.Actor(7))
	got, differs := "", []string{}
	for range 1500 {
		if got = truth(t, s.Dir); got == want {
			if differs = s.P.Known(s.Dir); len(differs) == 0 {
				s.Stop()
				if got = truth(t, s.Dir); got == want {
					return
				}
				break
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	all, _ := s.Journal.Records()
	for i := range all {
		t.Log(pipelinetest.Line(&all[i]))
	}
	t.Errorf("known wrongly: %q; the tree is\n%s\nand was\n%s", differs, got, want)
}

// Directories are moved to each other's names faster than the first move is looked at:
// what stands there then is in itself as it should be, and what is in it is not.
func TestADirectoryThatCameBeforeTheMoveWasLookedAtGoesWithAllInIt(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(a *pipelinetest.Actor) error
	}{
		{"two by way of a third name", func(a *pipelinetest.Actor) error {
			return errors.Join(a.Rename("d", "t"), a.Rename("e", "d"), a.Rename("t", "e"))
		}},
		{"one for another from outside", func(a *pipelinetest.Actor) error {
			return errors.Join(a.MoveOut("d", "gone"), a.MoveIn("evil", "d"))
		}},
		{"one for another below it", func(a *pipelinetest.Actor) error {
			return errors.Join(a.Rename("d/sub", "t"), a.MoveOut("d", "gone"), a.Rename("t", "d"))
		}},
		{"one away, and away again", func(a *pipelinetest.Actor) error {
			return errors.Join(a.Rename("d", "t"), a.MoveIn("evil", "d"), a.MoveOut("t", "gone"))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			shuffled(t, false, func(s *pipelinetest.Scene, a *pipelinetest.Actor) { s.Do(tt.do(a)) })
		})
		t.Run(tt.name+", large", func(t *testing.T) {
			shuffled(t, true, func(s *pipelinetest.Scene, a *pipelinetest.Actor) { s.Do(tt.do(a)) })
		})
	}
}

// The same at random, from seeds.
func TestDirectoriesThatAreMovedAboutAtRandomAreAllPutBack(t *testing.T) {
	seeds := []uint64{1, 2, 3, 4, 46, 70, 75, 83, 121, 126, 179, 180}
	for i, seed := range append(seeds, seeds...) {
		large := i >= len(seeds)
		t.Run(fmt.Sprintf("%d, large %v", seed, large), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 1))
			names := []string{"d", "e", "d/sub", "e/sub", "t", "e/t", "d/same", "e/same"}
			one := func() string { return names[rnd.IntN(len(names))] }
			shuffled(t, large, func(_ *pipelinetest.Scene, a *pipelinetest.Actor) {
				for range 3 + rnd.IntN(6) { // which of them succeed is as it comes
					switch rnd.IntN(6) {
					case 0:
						_ = a.MoveOut(one(), []string{"gone", "evil"}[rnd.IntN(2)])
					case 1:
						_ = a.MoveIn([]string{"gone", "evil"}[rnd.IntN(2)], one())
					case 2:
						_ = a.Exchange(one(), one())
					default:
						_ = a.Rename(one(), one())
					}
					if rnd.IntN(8) == 0 {
						time.Sleep(25 * time.Millisecond)
					}
				}
			})
		})
	}
}
