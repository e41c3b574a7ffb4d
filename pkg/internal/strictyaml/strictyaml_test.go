package strictyaml_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/internal/strictyaml"
)

type inner struct {
	Name  string   `yaml:"name"`
	Paths []string `yaml:"paths"`
}

type outer struct {
	Size  int           `yaml:"size"`
	Every time.Duration `yaml:"every"`
	On    bool          `yaml:"on"`
	Rules []inner       `yaml:"rules"`
	Deep  struct {
		Level string `yaml:"level"`
	} `yaml:"deep"`
}

func TestDecode(t *testing.T) {
	for _, c := range []struct{ name, in, want, hint string }{
		{"an empty file is no error", "", "", ""},
		{"a file of comments is no error", "# nothing\n", "", ""},
		{"known keys are read", "size: 3\nevery: 2s\nrules:\n  - name: a\n    paths: [/x]\n", "", ""},
		{"an unknown key names its line and the keys there are", "size: 3\nsice: 4\n", `f.yaml:2: unknown key "sice"`, "keys known here: deep, every, on, rules, size"},
		{"an unknown key in a list names the keys of the list's items", "rules:\n  - name: a\n  - nane: b\n", `f.yaml:3: unknown key "nane"`, "keys known here: name, paths"},
		{"an unknown key in a group names the keys of the group", "deep:\n  lvl: x\n", `f.yaml:2: unknown key "lvl"`, "keys known here: level"},
		{"a key given twice", "size: 3\nsize: 4\n", `f.yaml:2: mapping key "size" already defined at [1:1]`, ""},
		{"a second document", "size: 3\n---\nsize: 4\n", "f.yaml:3: a second document", "put everything into one document: remove the line ---"},
		{"a number where a list belongs", "rules: 7\n", `f.yaml:1: "7" is not a list`, ""},
		{"text where a number belongs", "size: many\n", `f.yaml:1: "many" is not a number`, ""},
		{"an alias", "rules:\n  - &a {name: x}\n  - *a\n", "f.yaml:2: anchors, aliases and tags are not supported", ""},
		{"a tag", "size: !!str 3\n", "f.yaml:1: anchors, aliases and tags are not supported", ""},
		{"a NUL byte", "size: 3\nx\x00\n", "f.yaml:2: a NUL byte: this is not YAML text", ""},
		{"broken syntax has a line", "size: 3\nrules: [\n", "f.yaml:2: ", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var v outer
			_, err := strictyaml.Decode("f.yaml", []byte(c.in), &v)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var e *strictyaml.Error
			if !errors.As(err, &e) {
				t.Fatalf("error %v, want a *strictyaml.Error", err)
			}
			if !strings.HasPrefix(e.Error(), c.want) {
				t.Errorf("error %q, want %q", e, c.want)
			}
			if c.hint != "" && e.Hint != c.hint {
				t.Errorf("hint %q, want %q", e.Hint, c.hint)
			}
		})
	}
}

func TestLine(t *testing.T) {
	var v outer
	d, err := strictyaml.Decode("f.yaml", []byte("size: 3\nrules:\n  - name: a\n    paths:\n      - /x\n      - /y\n  - name: b\n"), &v)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		want int
	}{
		{"$.size", 1}, {"$.rules[0]", 3}, {"$.rules[0].paths[1]", 6}, {"$.rules[1]", 7}, {"$.rules[1].mode", 7}, {"$.every", 1},
	} {
		if got := d.Line(c.path); got != c.want {
			t.Errorf("line of %s is %d, want %d", c.path, got, c.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("size: 3\nrules: [{name: a, paths: [/x]}]\n"))
	f.Add([]byte("a: &x [*x]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var v outer
		_, err := strictyaml.Decode("f.yaml", b, &v)
		var e *strictyaml.Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("error of type %T: %v", err, err)
		}
	})
}
