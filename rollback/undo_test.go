package rollback

import (
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/storetest"
)

// diary writes records as the pipeline does, of what users do to paths.
type diary struct {
	t   *testing.T
	s   *Store
	seq uint64
	all []*event.Record
}

func (h *diary) state(path string) *event.State {
	h.t.Helper()
	in := h.s.Intake()
	st := readState(h.t, path, in)
	if st.Exists { // the vault keeps what was there
		if _, err := h.s.CaptureState(path, st, in, Provenance{}); err != nil {
			h.t.Fatal(err)
		}
	} else if err := in.Discard(); err != nil {
		h.t.Fatal(err)
	}
	return &st
}

func (h *diary) do(user, op, path, to, line string) *event.Record {
	h.t.Helper()
	target := path
	if to != "" {
		target = to
	}
	r := &event.Record{Kind: event.RecChange, Op: op, Path: event.Text([]byte(path)), Verdict: event.VerdictObserved,
		Actor: &event.Actor{User: user}, Before: h.state(target)}
	if to != "" {
		r.PathTo = event.Text([]byte(to))
		h.state(path)
	}
	storetest.Sh(h.t, line, path, to)
	h.seq++
	r.Seq, r.ID, r.Time = h.seq, fmt.Sprint("h/b/", h.seq), event.TimeOf(time.Now())
	r.After = h.state(target)
	h.all = append(h.all, r)
	return r
}

// exchange swaps two names in one call.
func (h *diary) exchange(user, a, b string) {
	h.t.Helper()
	h.do(user, "rename", a, b, ":")
	r := h.all[len(h.all)-1]
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
		h.t.Fatal(err)
	}
	r.Ops, r.After = []string{"rename", "exchange"}, h.state(b)
	h.state(a)
}

func (h *diary) by(user string, is bool) []*event.Record {
	var out []*event.Record
	for _, r := range h.all {
		if (r.Actor.User == user) == is {
			out = append(out, r)
		}
	}
	return out
}

func TestUndoTakesBackWhatOneUserDid(t *testing.T) {
	for _, tc := range []struct {
		name      string
		before    string                                 // makes the tree; $1 is its root
		changes   func(h *diary, root string)            // by mallory and others
		conflicts string                                 // path reason; path reason
		steps     string                                 // what is planned
		left      string                                 // done after planning is compared: what root must look like, "" as before
		o         UndoOptions                            //
		lose      func(t *testing.T, s *Store, r string) // makes contents go from the vault
	}{
		{name: "a write and an append",
			before: `echo one > $1/f`,
			changes: func(h *diary, root string) {
				h.do("mallory", "write", root+"/f", "", `echo evil > "$1"`)
				h.do("mallory", "write", root+"/f", "", `echo more >> "$1"`)
			}, steps: "write /f"},
		{name: "a created, a deleted and a chmod-ed file",
			before: `echo one > $1/f; echo two > $1/g`,
			changes: func(h *diary, root string) {
				h.do("mallory", "create", root+"/new", "", `echo evil > "$1"`)
				h.do("mallory", "unlink", root+"/f", "", `rm "$1"`)
				h.do("mallory", "chmod", root+"/g", "", `chmod 777 "$1"`)
			}, steps: "remove /new, write /f, meta /g"},
		{name: "a name that is no UTF-8 and has a newline",
			before: `:`,
			changes: func(h *diary, root string) {
				h.do("mallory", "create", root+"/a\xff\n\\x41", "", `echo evil > "$1"`)
			}, steps: "remove /a\xff\n\\x41"},
		{name: "a renamed file gets its name back without its content",
			before: `echo one > $1/f`,
			changes: func(h *diary, root string) {
				h.do("mallory", "rename", root+"/f", root+"/g", `mv "$1" "$2"`)
			}, steps: "rename /f",
			lose: func(t *testing.T, s *Store, root string) {
				if err := s.objects.Remove(readState(t, root+"/g", nil).Hash); err != nil {
					t.Fatal(err)
				}
			}},
		{name: "a rename over another file",
			before: `echo one > $1/f; echo two > $1/g`,
			changes: func(h *diary, root string) {
				h.do("mallory", "rename", root+"/f", root+"/g", `mv "$1" "$2"`)
			}, steps: "write /f, write /g"},
		{name: "an editor's write to a temporary name and rename",
			before: `echo one > $1/f`,
			changes: func(h *diary, root string) {
				h.do("mallory", "create", root+"/.tmp", "", `echo evil > "$1"`)
				h.do("mallory", "rename", root+"/.tmp", root+"/f", `mv "$1" "$2"`)
			}, steps: "write /f"},
		{name: "a created tree goes, deepest first",
			before: `:`,
			changes: func(h *diary, root string) {
				h.do("mallory", "mkdir", root+"/d", "", `mkdir "$1"`)
				h.do("mallory", "mkdir", root+"/d/e", "", `mkdir "$1"`)
				h.do("mallory", "create", root+"/d/e/f", "", `echo x > "$1"`)
			}, steps: "remove /d/e/f, rmdir /d/e, rmdir /d"},
		{name: "a deleted tree comes back, top first",
			before: `mkdir -p -m 710 $1/d/e; echo one > $1/d/e/f; ln -s f $1/d/e/l`,
			changes: func(h *diary, root string) {
				h.do("mallory", "unlink", root+"/d/e/f", "", `rm "$1"`)
				h.do("mallory", "unlink", root+"/d/e/l", "", `rm "$1"`)
				h.do("mallory", "rmdir", root+"/d/e", "", `rmdir "$1"`)
				h.do("mallory", "rmdir", root+"/d", "", `rmdir "$1"`)
			}, steps: "mkdir /d, mkdir /d/e, write /d/e/f, link /d/e/l"},
		{name: "a renamed directory, with changes in it before and after",
			before: `mkdir $1/d; echo one > $1/d/f; echo two > $1/d/g; echo three > $1/d/untouched`,
			changes: func(h *diary, root string) {
				h.do("mallory", "write", root+"/d/f", "", `echo evil > "$1"`)
				h.do("mallory", "rename", root+"/d", root+"/moved", `mv "$1" "$2"`)
				h.do("mallory", "write", root+"/moved/g", "", `echo evil > "$1"`)
				h.do("mallory", "create", root+"/moved/new", "", `echo evil > "$1"`)
			}, steps: "rename /d, remove /d/new, write /d/f, write /d/g"},
		{name: "a directory that took the place of the one it was in",
			before: `mkdir -p $1/old/deep; echo one > $1/old/deep/f`,
			changes: func(h *diary, root string) {
				h.do("mallory", "rename", root+"/old/deep", root+"/deep", `mv "$1" "$2"`)
				h.do("mallory", "rmdir", root+"/old", "", `rmdir "$1"`)
				h.do("mallory", "rename", root+"/deep", root+"/old", `mv "$1" "$2"`)
				h.do("mallory", "write", root+"/old/f", "", `echo evil > "$1"`)
			}, steps: "rename /deep, mkdir /old, rename /old/deep, write /old/deep/f"},
		{name: "another directory under the name of a renamed one",
			before: `mkdir $1/d; echo one > $1/d/f`,
			changes: func(h *diary, root string) {
				h.do("mallory", "rename", root+"/d", root+"/e", `mv "$1" "$2"`)
				h.do("mallory", "mkdir", root+"/d", "", `mkdir "$1"`)
				h.do("mallory", "create", root+"/d/f", "", `echo evil > "$1"`)
				h.do("mallory", "rename", root+"/e", root+"/d/e", `mv "$1" "$2"`)
			}, steps: "rename /e, remove /d/f, rmdir /d, rename /d"},
		{name: "a directory moved through one that is gone",
			before: `mkdir $1/d; echo one > $1/d/f`,
			changes: func(h *diary, root string) {
				h.do("mallory", "mkdir", root+"/tmp", "", `mkdir "$1"`)
				h.do("mallory", "rename", root+"/d", root+"/tmp/d", `mv "$1" "$2"`)
				h.do("mallory", "rename", root+"/tmp/d", root+"/e", `mv "$1" "$2"`)
				h.do("mallory", "rmdir", root+"/tmp", "", `rmdir "$1"`)
			}, steps: "mkdir /tmp, rename /tmp/d, rename /d, rmdir /tmp"},
		{name: "a made directory that was renamed and removed",
			before: `:`,
			changes: func(h *diary, root string) {
				h.do("mallory", "mkdir", root+"/d", "", `mkdir "$1"`)
				h.do("mallory", "rename", root+"/d", root+"/e", `mv "$1" "$2"`)
				h.do("mallory", "rmdir", root+"/e", "", `rmdir "$1"`)
			}},
		{name: "a file that left a removed directory",
			before: `mkdir $1/d; echo one > $1/d/f`,
			changes: func(h *diary, root string) {
				h.do("mallory", "rename", root+"/d/f", root+"/g", `mv "$1" "$2"`)
				h.do("mallory", "rmdir", root+"/d", "", `rmdir "$1"`)
			}, steps: "mkdir /d, rename /d/f"},
		{name: "two directories that were exchanged",
			before: `mkdir $1/d $1/e; echo one > $1/d/f; echo two > $1/e/g`,
			changes: func(h *diary, root string) {
				h.exchange("mallory", root+"/d", root+"/e")
				h.do("mallory", "write", root+"/e/f", "", `echo evil > "$1"`)
			}, steps: "rename /.exchanged-1, rename /e, rename /d, write /d/f"},
		{name: "two files that were exchanged",
			before: `echo one > $1/f; echo two > $1/g`,
			changes: func(h *diary, root string) {
				h.exchange("mallory", root+"/f", root+"/g")
			}, steps: "write /f, write /g"},
		{name: "a directory that was exchanged with a file",
			before: `mkdir $1/d; echo one > $1/d/f; echo two > $1/g`,
			changes: func(h *diary, root string) {
				h.exchange("mallory", root+"/d", root+"/g")
				h.do("mallory", "write", root+"/g/f", "", `echo evil > "$1"`)
			}, steps: "remove /d, rename /d, write /d/f, write /g"},
		{name: "a file that was exchanged with a directory",
			before: `mkdir $1/d; echo one > $1/d/f; echo two > $1/g`,
			changes: func(h *diary, root string) {
				h.exchange("mallory", root+"/g", root+"/d")
			}, steps: "remove /d, rename /d, write /g"},
		{name: "a directory that was renamed and got its name back",
			before: `mkdir $1/d; echo one > $1/d/f`,
			changes: func(h *diary, root string) {
				h.do("mallory", "rename", root+"/d", root+"/e", `mv "$1" "$2"`)
				h.do("mallory", "write", root+"/e/f", "", `echo evil > "$1"`)
				h.do("mallory", "rename", root+"/e", root+"/d", `mv "$1" "$2"`)
			}, steps: "write /d/f"},
		{name: "a directory that got its name back after another one had it",
			before: `mkdir $1/d; echo one > $1/d/f`,
			changes: func(h *diary, root string) {
				h.do("mallory", "rename", root+"/d", root+"/e", `mv "$1" "$2"`)
				h.do("mallory", "create", root+"/d", "", `echo evil > "$1"`)
				h.do("mallory", "unlink", root+"/d", "", `rm "$1"`)
				h.do("mallory", "rename", root+"/e", root+"/d", `mv "$1" "$2"`)
			}},
		{name: "a directory that left the watched tree with all in it",
			before: `mkdir -p $1/d/e; echo one > $1/d/e/f; ln -s f $1/d/l`,
			changes: func(h *diary, root string) {
				for _, p := range []string{"/d", "/d/e", "/d/e/f", "/d/l"} {
					h.state(root + p)
				}
				h.do("mallory", "rename", root+"/d", "", `mv "$1" "${1%/*/*}/out"`)
			}, steps: "mkdir /d, mkdir /d/e, write /d/e/f, link /d/l"},
		{name: "a directory that was renamed and gone before it was read",
			before: `:`,
			changes: func(h *diary, root string) {
				h.do("mallory", "mkdir", root+"/d", "", `mkdir "$1"`)
				h.do("mallory", "mkdir", root+"/d/e", "", `mkdir "$1"`)
				r := h.do("mallory", "rename", root+"/d", root+"/g", `mv "$1" "$2"`)
				r.After = &event.State{Exists: true}
				h.do("mallory", "rmdir", root+"/g/e", "", `rmdir "$1"`)
				h.do("mallory", "rmdir", root+"/g", "", `rmdir "$1"`)
			}},
		{name: "what was there and is not known is a conflict",
			before: `:`,
			changes: func(h *diary, root string) {
				h.do("mallory", "unlink", root+"/f", "", `:`).Before = &event.State{Exists: true}
			}, conflicts: "/f the state before is not known"},
		{name: "all names of a file that were replaced one by one are one inode again",
			before: `echo one > $1/f; ln $1/f $1/g; ln $1/f $1/h`,
			changes: func(h *diary, root string) {
				for _, p := range []string{"/f", "/g", "/h"} {
					h.do("mallory", "unlink", root+p, "", `rm "$1"`)
				}
				h.do("mallory", "create", root+"/f", "", `echo evil > "$1"`)
			}, steps: "write /f, write /g, write /h"},
		{name: "a replaced name of a file that has others becomes one of it again",
			before: `echo one > $1/f; ln $1/f $1/g; echo two > $1/h`,
			changes: func(h *diary, root string) {
				h.do("mallory", "link", root+"/h", root+"/g", `ln -f "$1" "$2"`)
			}, steps: "write /g"},
		{name: "a hard link",
			before: `echo one > $1/f`,
			changes: func(h *diary, root string) {
				h.do("mallory", "link", root+"/f", root+"/g", `ln "$1" "$2"`)
			}, steps: "remove /g"},
		{name: "what somebody else changed since is a conflict",
			before: `echo one > $1/f; echo two > $1/g`,
			changes: func(h *diary, root string) {
				h.do("mallory", "write", root+"/f", "", `echo evil > "$1"`)
				h.do("mallory", "write", root+"/g", "", `echo evil > "$1"`)
				h.do("alice", "write", root+"/f", "", `echo work >> "$1"`)
			}, steps: "write /g", conflicts: "/f changed since by alice", left: `echo evil > $1/f; echo work >> $1/f; echo two > $1/g`},
		{name: "what somebody else changed since and was put back is in nobody's way",
			before: `echo one > $1/f`,
			changes: func(h *diary, root string) {
				h.do("mallory", "write", root+"/f", "", `echo evil > "$1"; touch -d 2001-01-01 "$1"`)
				h.do("alice", "write", root+"/f", "", `echo work >> "$1"`)
				storetest.Sh(h.t, `echo evil > "$1"; touch -d 2001-01-01 "$1"`, root+"/f")
			}, steps: "write /f"},
		{name: "what somebody else changed in between is a conflict although it is as it was left",
			before: `echo one > $1/f`,
			changes: func(h *diary, root string) {
				h.do("mallory", "write", root+"/f", "", `echo evil > "$1"`)
				h.do("alice", "write", root+"/f", "", `echo work >> "$1"`)
				h.do("mallory", "write", root+"/f", "", `echo more >> "$1"`)
			}, conflicts: "/f changed since by alice", left: `echo evil > $1/f; echo work >> $1/f; echo more >> $1/f`},
		{name: "what somebody else changed since goes too if forced",
			before: `echo one > $1/f`,
			changes: func(h *diary, root string) {
				h.do("mallory", "write", root+"/f", "", `echo evil > "$1"`)
				h.do("alice", "write", root+"/f", "", `echo work >> "$1"`)
			}, steps: "write /f", o: UndoOptions{Force: true}},
		{name: "what somebody else changed since stays if it can be merged",
			before: `printf 'a\nb\n' > $1/f; chmod 600 $1/f`,
			changes: func(h *diary, root string) {
				h.do("mallory", "write", root+"/f", "", `echo evil >> "$1"`)
				h.do("mallory", "chmod", root+"/f", "", `chmod 666 "$1"`)
				h.do("alice", "write", root+"/f", "", `echo work >> "$1"`)
				h.do("mallory", "write", root+"/f", "", `echo more evil >> "$1"`)
				h.do("alice", "write", root+"/f", "", `sed -i s/b/B/ "$1"`)
			}, steps: "write /f", o: UndoOptions{Merger: lineMerger{}}, left: `printf 'a\nB\nwork\n' > $1/f; chmod 600 $1/f`},
		{name: "what cannot be merged is a conflict that says why",
			before: `echo a > $1/f`,
			changes: func(h *diary, root string) {
				h.do("mallory", "write", root+"/f", "", `echo unmergeable >> "$1"`)
				h.do("alice", "write", root+"/f", "", `echo work >> "$1"`)
			}, o: UndoOptions{Merger: lineMerger{}}, conflicts: "/f by alice; both changed a line", left: `printf 'a\nunmergeable\nwork\n' > $1/f`},
		{name: "what somebody else changed before is kept",
			before: `echo one > $1/f`,
			changes: func(h *diary, root string) {
				h.do("alice", "write", root+"/f", "", `echo work >> "$1"`)
				h.do("mallory", "write", root+"/f", "", `echo evil >> "$1"`)
			}, steps: "write /f", left: `echo one > $1/f; echo work >> $1/f`},
		{name: "what is not as it was left is a conflict",
			before: `echo one > $1/f`,
			changes: func(h *diary, root string) {
				h.do("mallory", "write", root+"/f", "", `echo evil > "$1"`)
				storetest.Sh(h.t, `echo unseen > "$1"`, root+"/f")
			}, conflicts: "/f not any more as it was left", left: `echo unseen > $1/f`},
		{name: "what is as before already needs nothing",
			before: `echo one > $1/f; touch -d 2001-01-01 $1/f`,
			changes: func(h *diary, root string) {
				h.do("mallory", "write", root+"/f", "", `echo evil > "$1"`)
				storetest.Sh(h.t, `echo one > "$1"; touch -d 2001-01-01 "$1"`, root+"/f")
			}},
		{name: "a content that was not kept is a conflict, forced or not",
			before: `echo one > $1/f`,
			changes: func(h *diary, root string) {
				h.do("mallory", "write", root+"/f", "", `echo evil > "$1"`)
			}, o: UndoOptions{Force: true}, conflicts: "/f content not kept", left: `echo evil > $1/f`,
			lose: func(t *testing.T, s *Store, root string) {
				v, ok := s.Version(root+"/f", 1)
				if !ok {
					t.Fatal("no version")
				}
				if err := s.objects.Remove(v.State.Hash); err != nil {
					t.Fatal(err)
				}
			}},
		{name: "a directory with somebody else's file stays",
			before: `:`,
			changes: func(h *diary, root string) {
				h.do("mallory", "mkdir", root+"/d", "", `mkdir "$1"`)
				h.do("mallory", "create", root+"/d/evil", "", `echo evil > "$1"`)
				h.do("alice", "create", root+"/d/work", "", `echo work > "$1"`)
			}, steps: "remove /d/evil", conflicts: `/d holds "work"`, left: `mkdir $1/d; echo work > $1/d/work`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := places(t)[1]
			s := open1(t, p.vault, Options{})
			root := filepath.Join(p.dir, "root")
			mkdirs(t, root)
			storetest.Sh(t, tc.before, root)
			exact := states(t, root)
			h := &diary{t: t, s: s}
			tc.changes(h, root)
			sync1(t, s)
			if tc.lose != nil {
				tc.lose(t, s, root)
			}
			plan, err := s.PlanUndo(t.Context(), h.by("mallory", true), h.by("mallory", false), tc.o)
			if err != nil {
				t.Fatal(err)
			}
			if got := actions(plan, root); got != tc.steps {
				t.Errorf("steps  %s\nwanted %s", got, tc.steps)
			}
			var conflicts []string
			for _, c := range plan.Conflicts {
				conflicts = append(conflicts, strings.TrimPrefix(c.Path, root)+" "+c.Reason)
			}
			if got := strings.Join(conflicts, "; "); tc.conflicts == "" && got != "" || !containsAll(got, tc.conflicts) {
				t.Errorf("conflicts %q, want %q", got, tc.conflicts)
			}
			if err := s.Apply(t.Context(), plan, nil); err != nil {
				t.Fatal(err)
			}
			again, err := s.PlanUndo(t.Context(), h.by("mallory", true), h.by("mallory", false), tc.o)
			if err != nil || len(again.Steps) > 0 {
				t.Errorf("planned again: %s, %v", actions(again, root), err)
			}
			if tc.left == "" {
				if got := states(t, root); got != exact {
					t.Errorf("before:\n%s\nafter the undo:\n%s", exact, got)
				}
				return
			}
			other := filepath.Join(p.dir, "other")
			mkdirs(t, other)
			storetest.Sh(t, tc.left, other)
			want := withoutTimes(states(t, other))
			if got := withoutTimes(states(t, root)); got != want {
				t.Errorf("wanted:\n%s\nafter the undo:\n%s", want, got)
			}
		})
	}
}

func containsAll(text, words string) bool {
	for _, w := range strings.SplitN(words, " ", 2) {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

func withoutTimes(tree string) string {
	var out []string
	for _, l := range strings.Split(tree, "\n") {
		if !strings.Contains(l, `"mtime"`) {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}

func TestAnUndoOfNothingIsEmpty(t *testing.T) {
	s := open1(t, places(t)[1].vault, Options{})
	plan, err := s.PlanUndo(t.Context(), nil, nil, UndoOptions{})
	if err != nil || !reflect.DeepEqual(plan, Plan{}) {
		t.Errorf("%+v, %v", plan, err)
	}
	attempt := &event.Record{Kind: event.RecAttempt, Op: "write", Path: "/x", Verdict: event.VerdictBlocked}
	if plan, err = s.PlanUndo(t.Context(), []*event.Record{attempt}, nil, UndoOptions{}); err != nil || len(plan.Steps)+len(plan.Conflicts) > 0 {
		t.Errorf("of an attempt: %+v, %v", plan, err)
	}
}

// lineMerger takes out the lines that the cause added.
type lineMerger struct{}

func (lineMerger) Merge(_ string, left, before, now []byte) ([]byte, []string, error) {
	evil := map[string]bool{}
	for _, l := range lines(left) {
		evil[l] = true
	}
	if evil["unmergeable\n"] {
		return nil, nil, fmt.Errorf("both changed a line: %w", ErrNoMerge)
	}
	for _, l := range lines(before) {
		delete(evil, l)
	}
	var out []byte
	for _, l := range lines(now) {
		if !evil[l] {
			out = append(out, l...)
		}
	}
	return out, []string{"the rest"}, nil
}
