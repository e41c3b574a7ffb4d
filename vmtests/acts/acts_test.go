package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/event"
)

func TestActs(t *testing.T) {
	ops := event.OpNames()
	seen := map[string]bool{}
	for _, a := range everyAct() {
		t.Run(a.name, func(t *testing.T) {
			if seen[a.name] {
				t.Error("the name appears twice")
			}
			seen[a.name] = true
			for op := range strings.SplitSeq(a.op+","+orDefault(a.refused, a.op), ",") {
				if !slices.Contains(ops, op) {
					t.Errorf("records know no op %q", op)
				}
			}
			if (a.do == nil) == (a.hold == nil) {
				t.Error("it must either do or hold")
			}
		})
	}
	for _, a := range basicActs() {
		if a.hold != nil || a.from == none || a.from == theTree || a.from == theAncestor {
			t.Errorf("%s is not a basic act: it begins before the rule or has no path of its own", a.name)
		}
	}
}

func TestContentActsLeaveWhatTheySay(t *testing.T) {
	for _, a := range contentActs() {
		t.Run(a.name, func(t *testing.T) {
			s := newScene(a, t.TempDir(), "")
			if err := os.MkdirAll(s.dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := makeThing(s.path, a.have); err != nil {
				t.Fatal(err)
			}
			var err error
			if s.content, err = contentOf(s.path); err != nil {
				t.Fatal(err)
			}
			o, err := a.do(s)
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(s.path)
			if err != nil || string(got) != string(o.content) {
				t.Errorf("%s holds %q, %v; the act says %q", filepath.Base(s.path), got, err, o.content)
			}
		})
	}
}

func TestAViewShowsEveryKindOfChange(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "it")
	if err := os.WriteFile(name, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		do   func() error
	}{
		{"content of the same size", func() error { return os.WriteFile(name, []byte("new"), 0) }},
		{"mode", func() error { return os.Chmod(name, 0o600) }},
		{"a second name", func() error { return os.Link(name, filepath.Join(dir, "two")) }},
		{"another name", func() error { return os.Rename(name, filepath.Join(dir, "three")) }},
	} {
		before := lookAt(dir, true)
		if d := differences(before, lookAt(dir, true)); len(d) > 0 {
			t.Errorf("without a change there is a difference: %s", d)
		}
		if err := tt.do(); err != nil {
			t.Fatal(err)
		}
		if len(differences(before, lookAt(dir, true))) == 0 {
			t.Errorf("%s: no difference is shown", tt.name)
		}
	}
}

func TestHashesAreAddedToTheActsThatLeftThemOut(t *testing.T) {
	content := []byte("what an act left")
	want, err := b3sum(content)
	if err != nil {
		t.Fatal(err)
	}
	var lines [][]byte
	for _, l := range []truth{{Act: "a", After: map[string]any{"exists": false}}, {Act: "b", Content: content, After: map[string]any{"size": 16}}, {Act: "c", Content: []byte{}, After: map[string]any{"size": 0}}} {
		b, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, b)
	}
	var out bytes.Buffer
	if err := hashTogether(lines, &out); err != nil {
		t.Fatal(err)
	}
	got := strings.Split(out.String(), "\n")
	if strings.Contains(got[0], "hash") || !strings.Contains(got[1], want) || !strings.Contains(got[2], "hash") || strings.Contains(got[1], "content") {
		t.Errorf("lines are %s; want %s in the second, a hash in the third", got, want)
	}
}

func TestPathsAreEncodedAsRecordsDo(t *testing.T) {
	if got, want := encode("/a/caf\xe9/é\n"), `/a/caf\xE9/é\x0A`; got != want {
		t.Errorf("encode is %q, want %q", got, want)
	}
}

// A limit of an act that has another name now would excuse nothing, unnoticed.
func TestKnownLimitsNameActs(t *testing.T) {
	b, err := os.ReadFile("limits.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		for pattern := range strings.SplitSeq(f[0], ",") {
			if !slices.ContainsFunc(everyAct(), func(a act) bool { ok, err := path.Match(pattern, a.name); return ok && err == nil }) {
				t.Errorf("no act is called %s", pattern)
			}
		}
	}
}
