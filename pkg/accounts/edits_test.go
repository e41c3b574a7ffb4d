package accounts_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/holdfast/holdfast/pkg/accounts"
)

var update = flag.Bool("update", false, "write docs/accounts.md anew")

// edit is what a real tool did: its command, and the files before and after it.
type edit struct {
	name, command string
	paths         []string
	before, after map[string]accounts.Side
}

// edits reads testdata/edits: each was made by the named program of Debian 12 on a small
// host of its own.
func edits(t *testing.T) []edit {
	t.Helper()
	names, err := filepath.Glob("testdata/edits/*.txtar")
	if err != nil || len(names) < 20 {
		t.Fatalf("%d edits, %v", len(names), err)
	}
	var out []edit
	for _, n := range names {
		ar, err := txtar.ParseFile(n)
		if err != nil {
			t.Fatal(err)
		}
		e := edit{name: filepath.Base(n), command: strings.TrimSpace(string(ar.Comment)), before: map[string]accounts.Side{}, after: map[string]accounts.Side{}}
		for _, f := range ar.Files {
			side, path, _ := strings.Cut(f.Name, "/")
			path = "/" + path
			s := accounts.Side{Exists: true, Data: f.Data}
			if p, link := strings.CutSuffix(path, "@"); link {
				path, s = p, accounts.Side{Exists: true, Target: strings.TrimSpace(string(f.Data))}
			}
			if side == "b" {
				e.before[path] = s
			} else {
				e.after[path] = s
			}
			if !slices.Contains(e.paths, path) {
				e.paths = append(e.paths, path)
			}
		}
		out = append(out, e)
	}
	return out
}

func table(t *testing.T) string {
	var b strings.Builder
	b.WriteString("| command | file | what Holdfast says |\n|---|---|---|\n")
	cell := func(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
	for _, e := range edits(t) {
		command := "`` " + cell(e.command) + " ``"
		for _, p := range e.paths {
			says := accounts.Meaning(p, e.before[p], e.after[p])
			fmt.Fprintf(&b, "| %s | %s | %s |\n", command, p, cell(strings.Join(says, "<br>")))
			command = ""
		}
	}
	return b.String()
}

const tableMark = "<!-- from here on written by go test ./pkg/accounts -update -->\n"

func TestTheTableOfTheDocumentationIsWhatIsSaid(t *testing.T) {
	const doc = "../../docs/accounts.md"
	have, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	text, old, ok := strings.Cut(string(have), tableMark)
	if !ok {
		t.Fatalf("%s has no mark", doc)
	}
	now := table(t)
	if *update {
		if err := os.WriteFile(doc, []byte(text+tableMark+now), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if old != now {
		t.Errorf("docs/accounts.md differs from what is said; go test ./pkg/accounts -update writes it\n%s", now)
	}
}

// secrets are the hashes and keys in all the files: what crypt(3) and ssh-keygen write.
func secrets(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, e := range edits(t) {
		for _, m := range []map[string]accounts.Side{e.before, e.after} {
			for _, s := range m {
				out = append(out, regexp.MustCompile(`\$y\$[^:\s]+|AAAA[0-9A-Za-z+/]{20}[0-9A-Za-z+/=]*|s3cr3t|=abc`).FindAllString(string(s.Data), -1)...)
			}
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	if len(out) < 8 {
		t.Fatalf("only %d secrets: %q", len(out), out)
	}
	return out
}

func TestNoSentenceHoldsASecret(t *testing.T) {
	all := secrets(t)
	for _, e := range edits(t) {
		for _, p := range e.paths {
			for _, s := range accounts.Meaning(p, e.before[p], e.after[p]) {
				for _, x := range all {
					if strings.Contains(s, x) || len(x) > 20 && strings.Contains(s, x[len(x)-12:]) {
						t.Errorf("%s: %q holds %q", e.name, s, x)
					}
				}
			}
		}
	}
}

func TestNoShownContentHoldsASecret(t *testing.T) {
	for _, e := range edits(t) {
		for _, p := range e.paths {
			a, b := accounts.Redact(p, e.before[p].Data, e.after[p].Data)
			for _, x := range secrets(t) {
				if strings.HasPrefix(x, "$y$") || strings.HasPrefix(x, "AAAA") {
					if strings.Contains(string(a)+string(b), x[:16]) {
						t.Errorf("%s: %s still holds %q", e.name, p, x)
					}
				}
			}
			if string(e.before[p].Data) != string(e.after[p].Data) && string(a) == string(b) {
				t.Errorf("%s: the difference in %s is gone", e.name, p)
			}
			if strings.Count(string(a), "\n") != strings.Count(string(e.before[p].Data), "\n") {
				t.Errorf("%s: %s has other lines", e.name, p)
			}
		}
	}
}

// What ssh-keygen -lf printed for the keys that the edits are about.
func TestFingerprintsAreThoseOfSSHKeygen(t *testing.T) {
	b, err := os.ReadFile("testdata/fingerprints")
	if err != nil {
		t.Fatal(err)
	}
	said := table(t)
	for _, l := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		f := strings.Fields(l)
		if !strings.Contains(said, f[1]) || !strings.Contains(said, "`"+f[2]+"`") {
			t.Errorf("%s of %s is in no sentence", f[1], f[2])
		}
	}
}
