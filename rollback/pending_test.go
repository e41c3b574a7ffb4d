package rollback

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/rollback/storetest"
)

// deeds are what mallory, and alice in between, did in a tree: together they need
// each kind of step to be undone.
var deeds = []struct {
	name, before string
	changes      func(h *diary, root string)
}{
	{"files",
		`cd "$1"; echo one > f; chmod 640 f; echo two > g; setfattr -n user.x -v y g; echo three > h; ln -s h l; printf 'a\nb\n' > both; mkdir -m 710 d; echo x > d/x; ln f hard`,
		func(h *diary, root string) {
			h.do("mallory", "write", root+"/f", "", `rm "$1"; echo evil > "$1"`)
			h.do("mallory", "chmod", root+"/g", "", `chown 1:2 "$1"; chmod 4777 "$1"; setfattr -n user.x -v z "$1"`)
			h.do("mallory", "rename", root+"/h", root+"/moved", `mv "$1" "$2"`)
			h.do("mallory", "unlink", root+"/l", "", `rm "$1"`)
			h.do("mallory", "create", root+"/new", "", `echo evil > "$1"`)
			h.do("mallory", "write", root+"/both", "", `echo evil >> "$1"`)
			h.do("alice", "write", root+"/both", "", `echo work >> "$1"`)
			h.do("mallory", "unlink", root+"/d/x", "", `rm "$1"`)
			h.do("mallory", "rmdir", root+"/d", "", `rmdir "$1"`)
		}},
	{"directories",
		`cd "$1"; mkdir -p d old/deep; echo one > d/f; echo two > d/untouched; echo x > old/deep/f`,
		func(h *diary, root string) {
			h.do("mallory", "rename", root+"/d", root+"/e", `mv "$1" "$2"`)
			h.do("mallory", "write", root+"/e/f", "", `echo evil > "$1"`)
			h.do("mallory", "mkdir", root+"/d", "", `mkdir "$1"`)
			h.do("mallory", "create", root+"/d/evil", "", `echo evil > "$1"`)
			h.do("mallory", "rename", root+"/old/deep", root+"/deep", `mv "$1" "$2"`)
			h.do("mallory", "rmdir", root+"/old", "", `rmdir "$1"`)
			h.do("mallory", "rename", root+"/deep", root+"/old", `mv "$1" "$2"`)
			h.do("mallory", "write", root+"/old/f", "", `echo evil >> "$1"`)
			h.do("mallory", "mkdir", root+"/tmp", "", `mkdir "$1"`)
			h.do("mallory", "rename", root+"/old", root+"/tmp/old", `mv "$1" "$2"`)
			h.do("mallory", "rename", root+"/tmp/old", root+"/older", `mv "$1" "$2"`)
			h.do("mallory", "rmdir", root+"/tmp", "", `rmdir "$1"`)
		}},
}

// mischief makes a tree, has it changed and leaves the records in base/records.
// It returns the tree before and after.
func mischief(t *testing.T, base, before string, changes func(h *diary, root string)) (good, bad string) {
	t.Helper()
	files, vault := filepath.Join(base, "files"), filepath.Join(base, "state", "vault")
	if err := errors.Join(os.RemoveAll(files), os.RemoveAll(filepath.Dir(vault))); err != nil {
		t.Fatal(err)
	}
	mkdirs(t, files, filepath.Dir(vault))
	storetest.Sh(t, before, files)
	good = bodies(states(t, files))
	s := open1(t, vault, Options{})
	h := &diary{t: t, s: s}
	changes(h, files)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal([][]*event.Record{h.by("mallory", true), h.by("mallory", false)})
	if err == nil {
		err = os.WriteFile(filepath.Join(base, "records"), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return good, bodies(states(t, files))
}

// bodies drops the times of a merged file, which is new, and of what is made anew
// to hold it.
func bodies(tree string) string { return withoutTimes(tree) }

func planUndoAll(s *Store, base string) (Plan, error) {
	text, err := os.ReadFile(filepath.Join(base, "records"))
	if err != nil {
		return Plan{}, err
	}
	var rs [2][]*event.Record
	if err := json.Unmarshal(text, &rs); err != nil {
		return Plan{}, err
	}
	return s.PlanUndo(context.Background(), rs[0], rs[1], UndoOptions{Merger: lineMerger{}})
}

// undoAll takes back what the records tell, as a daemon does.
func undoAll(s *Store, base string) error {
	plan, err := planUndoAll(s, base)
	if err != nil {
		return err
	}
	return carryOut(s, plan)
}

func carryOut(s *Store, plan Plan) error {
	id, err := s.Begin(plan, []byte("note"))
	if err != nil {
		return err
	}
	return ended(s, id, s.Apply(context.Background(), plan, nil))
}

// ended ends a plan, unless it may go on.
func ended(s *Store, id string, err error) error {
	if Passing(err) {
		return err
	}
	return errors.Join(err, s.End(id))
}

// continueAll goes on with what was begun and counts that.
func continueAll(s *Store) (n int, err error) {
	all, err := s.Pending()
	for _, p := range all {
		err = errors.Join(err, ended(s, p.ID, s.Continue(context.Background(), p, nil)))
	}
	return len(all), err
}

// either reports a file whose state is neither that before nor that after nor the
// merged one: names apart, for directories get theirs back. Of g only the metadata
// changes, one after the other.
func either(tree, good, bad string) string {
	whole := map[string]bool{}
	for _, part := range strings.Split(noFlags(good+bad), "== ")[1:] {
		_, body, _ := strings.Cut(part, "\n")
		whole[body] = true
	}
	for _, part := range strings.Split(noFlags(tree), "== ")[1:] {
		path, body, _ := strings.Cut(part, "\n")
		if !whole[body] && strings.Contains(body, `"regular"`) && path != "/g" {
			return part
		}
	}
	return ""
}

func TestAnUndoThatWasKilledAtAnyStepGoesOnByItself(t *testing.T) {
	for _, d := range deeds {
		t.Run(d.name, func(t *testing.T) {
			base := storetest.Temp(t)
			files, vault := filepath.Join(base, "files"), filepath.Join(base, "state", "vault")
			mischief(t, base, d.before, d.changes)
			s := open1(t, vault, Options{})
			if err := undoAll(s, base); err != nil {
				t.Fatal(err)
			}
			want := bodies(states(t, files)) // other tests compare that with the truth
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			went, again := 0, 0
			for n := 1; ; n++ {
				if n > maxSteps {
					t.Fatal("it never ends")
				}
				_, bad := mischief(t, base, d.before, d.changes)
				died := die(t, "undo", n, base)
				if died && n%2 == 0 && die(t, "continue", 3+n%23, base) { // and once more on its way on
					again++
				}
				s := open1(t, vault, Options{})
				for _, p := range s.Opened().Damage {
					t.Errorf("step %d: %s", n, p)
				}
				noLeftovers(t, files)
				clean(t, s)
				if part := either(bodies(states(t, files)), want, bad); part != "" {
					t.Errorf("killed at step %d: neither old nor new:\n%s", n, part)
				}
				k, err := continueAll(s)
				if err != nil {
					t.Errorf("going on after a crash at step %d: %v", n, err)
				}
				went += k
				if k == 0 && died { // it was not begun, or it was ended
					if err := undoAll(s, base); err != nil {
						t.Errorf("again after a crash at step %d: %v", n, err)
					}
				}
				if got := bodies(states(t, files)); got != want {
					t.Errorf("after a crash at step %d:\n%s\nwanted:\n%s", n, got, want)
				}
				if left, err := s.Pending(); len(left) > 0 || err != nil {
					t.Errorf("still begun: %+v, %v", left, err)
				}
				clean(t, s)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if !died {
					break
				}
			}
			t.Logf("went on %d times, %d of them after a second crash", went, again)
			if went < 20 || again < 5 {
				t.Errorf("it went on %d times only, %d after a second crash", went, again)
			}
		})
	}
}

func TestAFailureAtAnyStepOfAnUndoLeavesOldOrNew(t *testing.T) {
	for _, d := range deeds {
		for _, fault := range faults[1:3] { // EINTR is tried at the same places by the restores
			t.Run(d.name+", "+fault.name, func(t *testing.T) {
				base := storetest.Temp(t)
				files, vault := filepath.Join(base, "files"), filepath.Join(base, "state", "vault")
				var want string
				for n := 0; ; n++ { // 0: nothing fails
					_, bad := mischief(t, base, d.before, d.changes)
					s, f := openFaulty(t, vault)
					f.Fail(n, fault.err)
					if fault.onward && n > 0 {
						f.FailFrom(n, fault.err)
					}
					err := undoAll(s, base)
					reached := len(f.Steps()) >= n
					f.Fail(0, nil)
					if n == 0 {
						want = bodies(states(t, files))
					}
					if err != nil && !reached {
						t.Errorf("step %d: %v", n, err)
					}
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					s = open1(t, vault, Options{})
					clean(t, s)
					noLeftovers(t, files)
					if part := either(bodies(states(t, files)), want, bad); part != "" {
						t.Errorf("failed at step %d (%v): neither old nor new:\n%s", n, err, part)
					}
					_, err = continueAll(s) // End may have failed
					if err := errors.Join(err, undoAll(s, base)); err != nil {
						t.Errorf("after a failure at step %d: %v", n, err)
					}
					if got := bodies(states(t, files)); got != want {
						t.Errorf("after a failure at step %d and a second undo:\n%s\nwanted:\n%s", n, got, want)
					}
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					if !reached || n > maxSteps {
						return
					}
				}
			})
		}
	}
}

func TestWhatSomebodyChangedSinceAPlanWasCutOffIsLeftAlone(t *testing.T) {
	base := storetest.Temp(t)
	files, vault := filepath.Join(base, "files"), filepath.Join(base, "state", "vault")
	mischief(t, base, deeds[0].before, deeds[0].changes)
	s := open1(t, vault, Options{})
	plan, err := planUndoAll(s, base)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Begin(plan, []byte("note")); err != nil {
		t.Fatal(err)
	}
	var half []Step // all but what brings g and l back
	for _, st := range plan.Steps {
		if st.Path != files+"/g" && st.Path != files+"/l" {
			half = append(half, st)
		}
	}
	if err := s.Apply(t.Context(), Plan{Steps: half}, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	storetest.Sh(t, `cd "$1"; echo later >> f; echo later > l; chmod 700 g`, files)
	s = open1(t, vault, Options{})
	all, err := s.Pending()
	if err != nil || len(all) != 1 || string(all[0].Note) != "note" || len(all[0].Plan.Steps) != len(plan.Steps) || all[0].Tries != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	outcomes := map[string]string{}
	err = s.Continue(t.Context(), all[0], func(r Result) {
		outcomes[strings.TrimPrefix(r.Step.Path, files)] = r.Outcome
		if r.Err != nil && !errors.Is(r.Err, ErrRaced) {
			t.Error(r.Err)
		}
	})
	if !errors.Is(err, ErrRaced) || Passing(err) {
		t.Errorf("the end: %v", err)
	}
	for path, want := range map[string]string{"/f": OutcomeFailed, "/l": OutcomeFailed, "/g": OutcomeFailed, "/h": OutcomeSkipped, "/new": OutcomeSkipped, "/d/x": OutcomeDone} {
		if outcomes[path] != want && !(path == "/d/x" && outcomes[path] == OutcomeSkipped) {
			t.Errorf("%s: %q, want %q", path, outcomes[path], want)
		}
	}
	if got := read(t, files+"/f") + read(t, files+"/l"); got != "one\nlater\nlater\n" {
		t.Errorf("f and l hold %q", got)
	}
	if got := storetest.Run(t, "stat", "-c%a", files+"/g"); got != "700\n" {
		t.Errorf("g has mode %s", got)
	}
	if err := s.End(all[0].ID); err != nil {
		t.Error(err)
	}
	if all, err := s.Pending(); len(all) > 0 || err != nil {
		t.Errorf("it has ended: %+v, %v", all, err)
	}
}

func TestABegunPlanThatIsDamagedIsReportedAndRepaired(t *testing.T) {
	base := storetest.Temp(t)
	vault := filepath.Join(base, "state", "vault")
	mischief(t, base, deeds[0].before, deeds[0].changes)
	s := open1(t, vault, Options{})
	plan, err := planUndoAll(s, base)
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.Begin(plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	storetest.Sh(t, `printf damaged | dd of="$1" bs=1 seek=900 conv=notrunc status=none`, filepath.Join(vault, "plans", id+".1"))
	if all, err := s.Pending(); len(all) > 0 || !errors.Is(err, ErrCorrupt) {
		t.Errorf("%+v, %v", all, err)
	}
	var found []Problem
	if err := s.Fsck(t.Context(), true, func(p Problem) { found = append(found, p) }); err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].Kind != ProblemPlan || !found[0].Repaired {
		t.Errorf("%+v", found)
	}
	clean(t, s)
}

func TestWhatABegunPlanNeedsIsNotPruned(t *testing.T) {
	p := places(t)[1]
	now := newClock()
	s := open1(t, p.vault, Options{Now: func() time.Time { return now.now }})
	file := filepath.Join(p.dir, "f")
	content := string(longText(3 << 20)) // in chunks
	write(t, file, content)
	old := capture(t, s, file)
	write(t, file, "newer")
	capture(t, s, file)
	plan, err := s.PlanRestore(t.Context(), []string{file}, RestoreOptions{Version: old.ID})
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.Begin(plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	prune := func() {
		for range 2 { // marked, then swept
			now.now = now.now.Add(400 * 24 * time.Hour)
			if _, err := s.Prune(t.Context(), Keep{Age: day}, Provenance{}, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	prune()
	if _, ok := s.Version(file, old.ID); ok {
		t.Fatal("the version is still there")
	}
	if err := s.Fsck(t.Context(), true, func(p Problem) { t.Error(p) }); err != nil {
		t.Fatal(err)
	}
	if _, err := continueAll(s); err != nil {
		t.Fatal(err)
	}
	if read(t, file) != content {
		t.Error("the plan did not bring it back")
	}
	prune()
	if ok, err := s.Has(old.State.Hash); ok || err != nil {
		t.Errorf("plan %s has ended, and its content is kept: %v", id, err)
	}
}

// TestAnEmptyMergedContentStaysOneOverARestart: no content would mean the vault's.
func TestAnEmptyMergedContentStaysOneOverARestart(t *testing.T) {
	dir := filepath.Join(storetest.Disk(t), "vault")
	s := open1(t, dir, Options{})
	p := Plan{Steps: []Step{{Path: "/merged", Action: ActionWrite, Content: []byte{}}, {Path: "/kept", Action: ActionWrite}}}
	if _, err := s.Begin(p, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	left, err := open1(t, dir, Options{}).Pending()
	if err != nil || len(left) != 1 {
		t.Fatalf("%v, %v", left, err)
	}
	if got := left[0].Plan.Steps; got[0].Content == nil || got[1].Content != nil {
		t.Errorf("merged %#v, kept %#v", got[0].Content, got[1].Content)
	}
}
