package rollback

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/holdfast/holdfast/pkg/digest"
	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/storetest"
)

// shared are the paths that two users work on at once.
var shared = []string{"f0", "f1", "f2", "d/f0", "d/f1", "d/f2", "e/f0", "e/f1"}

// turns is when a user touched a path, first and last, by sequence.
type turns struct{ first, last uint64 }

// crowd is a tree in which users' changes interleave.
type crowd struct {
	*diary
	root  string
	rnd   *rand.Rand
	spans map[string]map[string]*turns      // by user and path
	was   map[string]map[uint64]event.State // by path: what was there before a change
}

func (c *crowd) look() map[string]event.State {
	c.t.Helper()
	out := map[string]event.State{}
	for _, p := range shared {
		st, err := digest.ReadPath(c.t.Context(), filepath.Join(c.root, p), nil)
		if err != nil {
			c.t.Fatal(err)
		}
		out[p] = st
	}
	return out
}

// act has a user do something to one path or two.
func (c *crowd) act(user string) {
	c.t.Helper()
	now := c.look()
	p, to := shared[c.rnd.IntN(len(shared))], shared[c.rnd.IntN(len(shared))]
	op, line, two := "write", fmt.Sprintf(`echo %s %d >> "$1"`, user, c.rnd.Uint32()), false
	switch k := c.rnd.IntN(5); {
	case !now[p].Exists:
		op = "create"
	case k == 1:
		op, line = "chmod", fmt.Sprintf(`chmod %o "$1"`, 0o600+c.rnd.IntN(0o100))
	case k == 2:
		op, line = "unlink", `rm "$1"`
	case k == 3 && p != to:
		op, line, two = "rename", `mv -T "$1" "$2"`, true
	}
	at, other := filepath.Join(c.root, p), ""
	paths := []string{p}
	if two {
		other, paths = filepath.Join(c.root, to), append(paths, to)
	}
	r := c.do(user, op, at, other, line)
	for _, p := range paths {
		if c.was[p] == nil {
			c.was[p] = map[uint64]event.State{}
		}
		c.was[p][r.Seq] = now[p]
		if c.spans[user][p] == nil {
			c.spans[user][p] = &turns{first: r.Seq}
		}
		c.spans[user][p].last = r.Seq
	}
}

// undo takes back what the records of a cause changed, and returns the paths that stay as
// conflicts and the records of what it did.
func (c *crowd) undo(mine, others []*event.Record) (conflicts map[string]string, did []*event.Record) {
	c.t.Helper()
	p, err := c.s.PlanUndo(c.t.Context(), mine, others, UndoOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	conflicts = map[string]string{}
	for _, x := range p.Conflicts {
		rel, _ := filepath.Rel(c.root, x.Path)
		conflicts[rel] = x.Reason
	}
	err = c.s.Apply(c.t.Context(), p, func(r Result) {
		c.seq++
		rec := &event.Record{Kind: event.RecResponse, Verdict: event.VerdictRestored, Seq: c.seq, ID: fmt.Sprint("h/b/", c.seq), Time: event.TimeOf(c.s.now()),
			Path: event.Text([]byte(r.Step.Path)), Before: &r.Step.Have, After: &r.After, Actor: &event.Actor{User: "undo"}}
		if r.Step.Action == ActionRename {
			rec.Op, rec.Path, rec.PathTo = "rename", event.Text([]byte(r.Step.From)), rec.Path
		}
		did = append(did, rec)
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return conflicts, did
}

func differs(a, b event.State) []string { return diff(&a, &b) }

func same(a, b event.State) bool { return len(differs(a, b)) == 0 }

// TestUndoOfTwoUsersWhoseChangesInterleave compares with what each path was before and after
// each change: what only the one who is undone touched is as at first; what only the other
// touched stays; what the other touched before is as the other left it; all else is a conflict
// and stays. Then that is undone, or the other is.
func TestUndoOfTwoUsersWhoseChangesInterleave(t *testing.T) {
	seeds := 12
	if *long {
		seeds = 300
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			base := storetest.Temp(t)
			c := &crowd{root: filepath.Join(base, "files"), rnd: rand.New(rand.NewPCG(uint64(seed), 1)),
				spans: map[string]map[string]*turns{"alice": {}, "mallory": {}}, was: map[string]map[uint64]event.State{}}
			mkdirs(t, c.root+"/d", c.root+"/e")
			for i, p := range shared[:6] {
				write(t, filepath.Join(c.root, p), fmt.Sprintln("first", i))
			}
			c.diary = &diary{t: t, s: open1(t, filepath.Join(base, "vault"), Options{})}
			first := c.look()
			for range 16 {
				c.act([]string{"alice", "mallory"}[c.rnd.IntN(2)])
			}
			worked := c.look()
			undone := func(user, other string, now, after map[string]event.State, conflicts map[string]string) {
				t.Helper()
				for _, p := range shared {
					m, o := c.spans[user][p], c.spans[other][p]
					switch {
					case m == nil && !same(now[p], after[p]):
						t.Errorf("undo of %s changed %s, which %s alone touched", user, p, other)
					case m == nil:
					case o == nil && (conflicts[p] != "" || !same(first[p], after[p])):
						t.Errorf("undo of %s: %s, which nobody else touched: conflict %q, %v", user, p, conflicts[p], differs(first[p], after[p]))
					case o == nil:
					case o.last < m.first:
						if before := c.was[p][m.first]; !same(before, after[p]) || conflicts[p] != "" {
							t.Errorf("undo of %s: %s is not as %s left it: conflict %q", user, p, other, conflicts[p])
						}
					case conflicts[p] != "" && !same(now[p], after[p]):
						t.Errorf("undo of %s changed %s, a conflict: %s", user, p, conflicts[p])
					case conflicts[p] == "" && !same(c.was[p][m.first], after[p]):
						t.Errorf("undo of %s: %s is no conflict, and not as it was before", user, p)
					}
				}
			}
			conflicts, did := c.undo(c.by("mallory", true), c.by("mallory", false))
			back := c.look()
			undone("mallory", "alice", worked, back, conflicts)
			if seed%2 == 0 {
				if left, _ := c.undo(did, nil); len(left) > 0 {
					t.Errorf("undo of the undo: %v", left)
				}
				for p, st := range c.look() {
					if !same(st, worked[p]) {
						t.Errorf("undo of the undo: %s differs in %v", p, differs(st, worked[p]))
					}
				}
				back = worked
			}
			conflicts, _ = c.undo(c.by("alice", true), c.by("alice", false))
			after := c.look()
			for _, p := range shared {
				m, o := c.spans["alice"][p], c.spans["mallory"][p]
				switch {
				case m == nil && !same(back[p], after[p]):
					t.Errorf("then undo of alice changed %s", p)
				case m != nil && o == nil && (!same(first[p], after[p]) || conflicts[p] != ""):
					t.Errorf("then undo of alice: %s is not as at first: conflict %q", p, conflicts[p])
				case conflicts[p] != "" && !same(back[p], after[p]):
					t.Errorf("then undo of alice changed %s, a conflict: %s", p, conflicts[p])
				case m != nil && conflicts[p] == "" && !same(c.was[p][m.first], after[p]):
					t.Errorf("then undo of alice: %s is no conflict, and not as it was before", p)
				}
			}
		})
	}
}
