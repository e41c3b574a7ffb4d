package vault_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/vault"
	"github.com/holdfast/holdfast/rollback"
)

func TestUndoTakesItsOwnRecordsOutOfAccountFiles(t *testing.T) {
	const (
		sroot, salice, salice2, seve = "root:*:1:0:99999:7:::\n", "alice:$6$a$oldoldold:1:0:99999:7:::\n", "alice:$6$b$newnewnew:9:0:99999:7:::\n", "eve:$6$e$evilevil:9:0:99999:7:::\n"
		groot, gsudo                 = "root:x:0:\n", "sudo:x:27:"
	)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := rollback.Open(dir+"/vault", rollback.Options{EvidenceDir: dir + "/evidence"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := os.Mkdir(dir+"/etc", 0o755); err != nil {
		t.Fatal(err)
	}
	var all []*event.Record
	was := map[string]event.State{}
	write := func(user, path, content string) {
		t.Helper()
		path = dir + "/etc/" + path
		if err := os.WriteFile(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		v, err := s.Capture(t.Context(), path, rollback.Provenance{})
		if err != nil {
			t.Fatal(err)
		}
		if before, ok := was[path]; ok {
			seq := uint64(len(all) + 1)
			after := v.State
			all = append(all, &event.Record{ID: "h/b/" + string(rune('0'+seq)), Seq: seq, Kind: event.RecChange, Op: "write", Path: path, Before: &before, After: &after, Actor: &event.Actor{User: user}})
		}
		was[path] = v.State
	}
	write("", "shadow", sroot+salice)
	write("", "group", groot+gsudo+"\n")
	write("", "gshadow", "root:*::\nsudo:*::\n")
	write("bob", "shadow", sroot+salice+seve)
	write("bob", "group", groot+gsudo+"bob\n")
	write("alice", "shadow", sroot+salice2+seve)
	write("alice", "group", groot+gsudo+"bob,carol\n")
	write("bob", "group", groot+gsudo+"bob,carol,eve\n") // again, after somebody else
	write("bob", "gshadow", "root:*::\nsudo:first::\n")
	write("alice", "gshadow", "root:*::\nsudo:second::\n")
	var his, others []*event.Record
	for _, r := range all {
		if r.Actor.User == "bob" {
			his = append(his, r)
		} else {
			others = append(others, r)
		}
	}
	plan, err := s.PlanUndo(t.Context(), his, others, rollback.UndoOptions{Merger: vault.Merger()})
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Conflicts) != 1 || !strings.HasSuffix(plan.Conflicts[0].Path, "/gshadow") || !strings.Contains(plan.Conflicts[0].Reason, "`sudo` was changed on both sides") {
		t.Errorf("conflicts %+v", plan.Conflicts)
	}
	told := ""
	for _, st := range plan.Steps {
		told += st.Reason + "\n"
	}
	if !strings.Contains(told, "stays: password of `alice` changed") || strings.Contains(told, "$6$") {
		t.Errorf("reasons %s", told)
	}
	if err := s.Apply(t.Context(), plan, nil); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"shadow": sroot + salice2, "group": groot + gsudo + "carol\n", "gshadow": "root:*::\nsudo:second::\n"} {
		if got, err := os.ReadFile(dir + "/etc/" + path); err != nil || string(got) != want {
			t.Errorf("%s: %v\n%s, want\n%s", path, err, got, want)
		}
	}
	again, err := s.PlanUndo(t.Context(), his, others, rollback.UndoOptions{Merger: vault.Merger()})
	if err != nil || len(again.Steps) > 0 {
		t.Errorf("a second plan: %+v, %v", again.Steps, err)
	}
}
