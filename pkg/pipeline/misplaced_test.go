package pipeline_test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/pipeline/pipelinetest"
)

// What directories are like in themselves does not tell whose files are in them.
func TestADirectoryInThePlaceOfAnotherOneGoesWithAllInIt(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(a *pipelinetest.Actor) error
	}{
		{"two exchanged directories", func(a *pipelinetest.Actor) error { return a.Exchange("d", "e") }},
		{"a directory exchanged with a file", func(a *pipelinetest.Actor) error { return a.Exchange("d", "f") }},
		{"a file exchanged with a directory", func(a *pipelinetest.Actor) error { return a.Exchange("f", "d") }},
		{"a directory renamed over an empty one", func(a *pipelinetest.Actor) error {
			if err := unix.Rename(a.S.At("e"), a.S.At("empty")); err != nil { // os.Rename refuses
				return err
			}
			now := pipelinetest.Clock{}.Boot()
			a.S.Feed(event.Event{Kind: event.KindFile, Op: event.OpRename, Anchor: 1, Anchor2: 1, Path: []byte("e"), Path2: []byte("empty"), Time: now, First: now, Key: event.ProcKey{PID: a.PID}})
			return nil
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := pipelinetest.NewScene(t, event.ModeRestore)
			plant(s)
			s.Do(errors.Join(os.Chmod(s.At("d"), 0o755), os.MkdirAll(s.At("e/sub"), 0o755), os.Mkdir(s.At("empty"), 0o755),
				os.WriteFile(s.At("e/sub/z"), []byte("z"), 0o600), os.WriteFile(s.At("e/x"), []byte("another"), 0o600)))
			want := truth(t, s.Dir)
			s.Start()
			s.Do(tt.do(s.Actor(7)))
			s.Wait("the answers", func(r []event.Record) bool { return len(outcomes(r)) > 0 })
			s.Stop()
			if got := truth(t, s.Dir); got != want {
				t.Errorf("the tree is\n%s\nand was\n%s", got, want)
			}
			all, _ := s.Journal.Records()
			if c := changes(all); len(c) != 1 || c[0].Verdict != event.VerdictUnauthorized {
				t.Errorf("%v", c)
			}
			for i := range all {
				if r := &all[i]; r.Response != nil && r.Response.Outcome == "failed" {
					t.Error(pipelinetest.Line(r))
				}
			}
			known(s)
		})
	}
}
