// Package judgetest is the one table of cases for everything that reads the
// policy: pkg/judge, and the kernel side's rules (bpf/rules.h). Both tests run all
// of it, so that the two cannot come to disagree.
//
// Called by tests only.
package judgetest

import (
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/judge"
)

// Case is one row.
type Case struct {
	Name string // a sentence
	In   judge.Case
	Want string // event.Verdict*

	Promote bool
	Respond bool

	// Refuses says whether the kernel side, asked before the operation with this
	// mode and this answer about the executable, refuses it. Op is an attempt then.
	Refuses bool
}

func file(content byte) event.State {
	return event.State{Exists: true, Type: event.TypeRegular, Hash: event.Hash{content}, Size: 1, Mode: 0o644}
}

func trusted() *event.State {
	s := file('t')
	return &s
}

// Cases returns the table.
func Cases() []Case {
	var none event.State
	chmod := file('t')
	chmod.Mode = 0o666
	return []Case{
		{Name: "a write under observe is observed",
			In:   judge.Case{Rule: "r", Mode: event.ModeObserve, Op: event.OpWrite, Before: file('t'), After: file('x'), Trusted: trusted()},
			Want: event.VerdictObserved},
		{Name: "a write by an allowed executable under observe is expected and promoted",
			In:   judge.Case{Rule: "r", Mode: event.ModeObserve, Op: event.OpWrite, Allowed: true, Before: file('t'), After: file('x')},
			Want: event.VerdictExpected, Promote: true},
		{Name: "a write under restore is unauthorized",
			In:   judge.Case{Rule: "r", Mode: event.ModeRestore, Op: event.OpWrite, Before: file('t'), After: file('x'), Trusted: trusted()},
			Want: event.VerdictUnauthorized, Respond: true},
		{Name: "a write by an allowed executable under restore is expected and promoted",
			In:   judge.Case{Rule: "r", Mode: event.ModeRestore, Op: event.OpWrite, Allowed: true, Before: file('t'), After: file('x'), Trusted: trusted()},
			Want: event.VerdictExpected, Promote: true},
		{Name: "a removal under restore is unauthorized",
			In:   judge.Case{Rule: "r", Mode: event.ModeRestore, Op: event.OpUnlink, Before: file('t'), After: none, Trusted: trusted()},
			Want: event.VerdictUnauthorized, Respond: true},
		{Name: "a removal by an allowed executable under restore is expected and promoted",
			In:   judge.Case{Rule: "r", Mode: event.ModeRestore, Op: event.OpUnlink, Allowed: true, Before: file('t'), After: none, Trusted: trusted()},
			Want: event.VerdictExpected, Promote: true},
		{Name: "a new file under restore is unauthorized",
			In:   judge.Case{Rule: "r", Mode: event.ModeRestore, Op: event.OpCreate, Before: none, After: file('x')},
			Want: event.VerdictUnauthorized, Respond: true},
		{Name: "a chmod under restore is unauthorized",
			In:   judge.Case{Rule: "r", Mode: event.ModeRestore, Op: event.OpChmod, Before: file('t'), After: chmod, Trusted: trusted()},
			Want: event.VerdictUnauthorized, Respond: true},
		{Name: "bringing the trusted state back under restore is expected",
			In:   judge.Case{Rule: "r", Mode: event.ModeRestore, Op: event.OpWrite, Before: file('x'), After: file('t'), Trusted: trusted()},
			Want: event.VerdictExpected},
		{Name: "a link that gives a file a name outside the tree under restore is observed, for nothing inside differs",
			In:   judge.Case{Rule: "r", Mode: event.ModeRestore, Op: event.OpLink, Before: file('t'), After: file('t'), Trusted: trusted()},
			Want: event.VerdictObserved},
		{Name: "a content that could not be read is not taken for the trusted one",
			In: judge.Case{Rule: "r", Mode: event.ModeRestore, Op: event.OpWrite, Before: file('t'),
				After: event.State{Exists: true, Type: event.TypeRegular, Unread: "gone"}, Trusted: &event.State{Exists: true, Type: event.TypeRegular, Unread: "gone"}},
			Want: event.VerdictUnauthorized, Respond: true},
		{Name: "a difference under our own pid under restore is unauthorized like any other",
			In:   judge.Case{Rule: "r", Mode: event.ModeRestore, Op: event.OpWrite, Self: true, Before: file('t'), After: file('x'), Trusted: trusted()},
			Want: event.VerdictUnauthorized, Respond: true},
		{Name: "a difference under our own pid under observe is observed",
			In:   judge.Case{Rule: "r", Mode: event.ModeObserve, Op: event.OpWrite, Self: true, Before: file('t'), After: file('x')},
			Want: event.VerdictObserved},
		{Name: "a refused write is blocked",
			In:   judge.Case{Rule: "r", Mode: event.ModeBlock, Op: event.OpWrite, Blocked: true},
			Want: event.VerdictBlocked, Refuses: true},
		{Name: "a refused rename is blocked",
			In:   judge.Case{Rule: "r", Mode: event.ModeBlock, Op: event.OpRename, Blocked: true},
			Want: event.VerdictBlocked, Refuses: true},
		{Name: "a write by an allowed executable under block is expected and promoted",
			In:   judge.Case{Rule: "r", Mode: event.ModeBlock, Op: event.OpWrite, Allowed: true, Before: file('t'), After: file('x'), Trusted: trusted()},
			Want: event.VerdictExpected, Promote: true},
		{Name: "a write that got through under block is unauthorized",
			In:   judge.Case{Rule: "r", Mode: event.ModeBlock, Op: event.OpMapWrite, Before: file('t'), After: file('x'), Trusted: trusted()},
			Want: event.VerdictUnauthorized, Respond: true, Refuses: true},
		{Name: "a write in an approved window under observe is expected and promoted",
			In:   judge.Case{Rule: "r", Mode: event.ModeObserve, Op: event.OpWrite, Window: "window 1", Before: file('t'), After: file('x')},
			Want: event.VerdictExpected, Promote: true},
		{Name: "a write in an approved window under restore is expected and promoted",
			In:   judge.Case{Rule: "r", Mode: event.ModeRestore, Op: event.OpWrite, Window: "window 1", Before: file('t'), After: file('x'), Trusted: trusted()},
			Want: event.VerdictExpected, Promote: true},
		{Name: "a removal in an approved window under restore is expected and promoted",
			In:   judge.Case{Rule: "r", Mode: event.ModeRestore, Op: event.OpUnlink, Window: "window 1", Before: file('t'), After: none, Trusted: trusted()},
			Want: event.VerdictExpected, Promote: true},
		{Name: "a write in an approved window of this person under block is expected and promoted",
			In:   judge.Case{Rule: "r", Mode: event.ModeBlock, Op: event.OpWrite, Window: "window 1", Before: file('t'), After: file('x'), Trusted: trusted()},
			Want: event.VerdictExpected, Promote: true},
		{Name: "what was refused is blocked, whatever was approved since",
			In:   judge.Case{Rule: "r", Mode: event.ModeBlock, Op: event.OpWrite, Window: "window 1", Blocked: true},
			Want: event.VerdictBlocked},
	}
}
