package archtest_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/internal/archtest"
)

func load(t *testing.T, root string) *archtest.Module {
	t.Helper()
	root, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	m, err := archtest.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestTheRepositoryKeepsItsRules(t *testing.T) {
	for _, b := range archtest.Check(load(t, "../../..")) {
		t.Error(b)
	}
}

// A loader that overlooks folders would let every rule pass.
func TestTheLoaderSeesWhatTheGoToolSees(t *testing.T) {
	m := load(t, "../../..")
	cmd := exec.Command("go", "list", "-e", "-f", "{{.Dir}}", "./...")
	cmd.Dir = m.Root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range strings.Fields(string(out)) {
		rel, err := filepath.Rel(m.Root, dir)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(m.Packages, func(p *archtest.Package) bool { return p.Dir == filepath.ToSlash(rel) }) {
			t.Errorf("the go tool knows %s, the loader does not", rel)
		}
	}
}

// Each rule must find what is marked "want RULE" in testdata/bad, at that line,
// and nothing else.
func TestEveryRuleFindsItsBreaches(t *testing.T) {
	m := load(t, "testdata/bad")
	want := marked(t, m)
	// Breaches of the module as a whole have no line.
	want["module path"] = 2 // README out of step, no folder for ship
	got := make(map[string]int)
	rules := make(map[string]bool)
	for _, b := range archtest.Check(m) {
		got[b.Pos+" "+b.Rule]++
		rules[b.Rule] = true
		if b.Why == "" || b.What == "" {
			t.Errorf("%s: a breach without what or why", b.Pos)
		}
	}
	for k, n := range want {
		if got[k] != n {
			t.Errorf("%s: found %d times, want %d", k, got[k], n)
		}
	}
	for k, n := range got {
		if want[k] == 0 {
			t.Errorf("%s: found %d times, not marked", k, n)
		}
	}
	for _, r := range archtest.RuleNames() {
		if !rules[r] {
			t.Errorf("rule %s found nothing in the bad module", r)
		}
	}
}

// marked reads the marks of all files.
func marked(t *testing.T, m *archtest.Module) map[string]int {
	t.Helper()
	want := make(map[string]int)
	for _, p := range m.Packages {
		for _, f := range p.Files {
			b, err := os.ReadFile(filepath.Join(m.Root, f.Name))
			if err != nil {
				t.Fatal(err)
			}
			for i, line := range strings.Split(string(b), "\n") {
				if _, marks, ok := strings.Cut(line, "// want "); ok {
					for _, rule := range strings.Fields(marks) {
						want[fmt.Sprintf("%s:%d %s", f.Name, i+1, rule)]++
					}
				}
			}
		}
	}
	return want
}
