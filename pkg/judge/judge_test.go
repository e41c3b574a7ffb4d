package judge_test

import (
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/judge"
	"github.com/holdfast/holdfast/pkg/judge/judgetest"
)

func TestEveryCaseOfTheTableGetsItsVerdict(t *testing.T) {
	for _, c := range judgetest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			got := judge.Judge(c.In)
			if got.Verdict != c.Want || got.Promote != c.Promote || got.Respond != c.Respond {
				t.Errorf("got %+v, want verdict %s promote %v respond %v", got, c.Want, c.Promote, c.Respond)
			}
			if got.Reason == "" {
				t.Error("no reason")
			}
		})
	}
}

func TestAVerdictThatRespondsIsUnauthorizedAndNeverPromotes(t *testing.T) {
	for _, mode := range []string{event.ModeObserve, event.ModeRestore, event.ModeBlock, ""} {
		for bits := range 32 {
			c := judge.Case{Rule: "r", Mode: mode, Op: event.OpWrite,
				Blocked: bits&1 != 0, Allowed: bits&2 != 0, Self: bits&4 != 0, Before: event.State{Exists: bits&8 != 0}}
			if bits&16 != 0 {
				c.Window = "window 1"
			}
			v := judge.Judge(c)
			if v.Promote && !c.Allowed && c.Window == "" {
				t.Errorf("%+v: trusted without leave", c)
			}
			if v.Respond && (v.Verdict != event.VerdictUnauthorized || v.Promote) {
				t.Errorf("%+v: %+v", c, v)
			}
			if c.Blocked && v.Verdict != event.VerdictBlocked {
				t.Errorf("%+v: %+v", c, v)
			}
		}
	}
}
