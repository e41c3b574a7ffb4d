package config_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/holdfast/holdfast/pkg/config"
)

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"an unknown key", "state: /s\nsokcet: /x\n", `/e/h.yaml:2: unknown key "sokcet"`},
		{"an unknown key in a section", "limits:\n  ring: 16MiB\n  rings: 2\n", `/e/h.yaml:3: unknown key "rings"`},
		{"an unknown tier", "tier: magic\n", `/e/h.yaml:1: unknown tier "magic"`},
		{"processes of nobody known", "processes: some\n", `/e/h.yaml:1: unknown processes "some"`},
		{"an unknown log level", "\nlog_level: loud\n", `/e/h.yaml:2: unknown log level "loud"`},
		{"a ring that is no power of two", "limits:\n  ring: 3MiB\n", "/e/h.yaml:2: ring of 3MiB"},
		{"a size that is none", "limits:\n  ring: big\n", `size "big": want a number of bytes`},
		{"a limit out of range", "limits:\n  queue: 1\n", "/e/h.yaml:2: queue is out of range"},
		{"a window that is too short", "limits:\n  restore_window: 10ms\n", "restore_window is out of range"},
		{"a state directory at the root", "state: /\n", "the state directory may not be /"},
		{"a ClickHouse url that is none", "clickhouse:\n  url: localhost:9000\n", "/e/h.yaml:2: no ClickHouse url"},
		{"ClickHouse settings without a url", "clickhouse:\n  cluster: c\n", "clickhouse settings without a url"},
		{"a certificate without a key", "clickhouse:\n  url: https://h\n  cert_file: c.pem\n", "a certificate needs its key"},
		{"a rule with a mistake", "rules:\n  - name: a\n    paths: [/x]\n    mode: no\n", `/e/h.yaml:4: unknown mode "no"`},
		{"a rule in the state directory", "state: /s\nrules:\n  - {name: a, paths: [/s/vault], mode: observe}\n", "/e/h.yaml:3: path \"/s/vault\" lies in Holdfast's own directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := config.Parse("/e/h.yaml", []byte(c.in))
			if err == nil {
				_, err = cfg.Policy()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestDefaultsHoldWhereTheFileSaysNothing(t *testing.T) {
	c, err := config.Parse("/e/h.yaml", []byte("limits:\n  ring: 1MiB\n  restore_window: 30s\n  queue: 1000\nclickhouse: {url: 'https://u:p@h:8443/d', ca_file: ca.pem}\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.RulesDir = "/e/rules.d"
	want.Limits.Ring, want.Limits.RestoreWindow, want.Limits.Queue = 1<<20, 30*time.Second, 1000
	want.ClickHouse = config.ClickHouse{URL: "https://u:p@h:8443/d", CAFile: "/e/ca.pem"}
	if c.State != want.State || c.Socket != want.Socket || c.Tier != want.Tier || c.RulesDir != want.RulesDir || c.Limits != want.Limits || c.ClickHouse != want.ClickHouse {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if off, err := config.Parse("/e/h.yaml", []byte("guard: false\n")); err != nil || off.Guard || !c.Guard || c.File != "/e/h.yaml" {
		t.Errorf("guard %v, off: %v, file %s, %v", c.Guard, off.Guard, c.File, err)
	}
	d := config.Default()
	if err := d.Check(); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "h.yaml")
	if _, err := config.Load(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("h.yaml", "rules:\n  - {name: a, paths: [/a], mode: observe}\n")
	if c, err := config.Load(file); err != nil || len(c.Rules) != 1 {
		t.Errorf("without a rules directory: %d rules, %v", len(c.Rules), err)
	}
	write("rules.d/b.yaml", "rules:\n  - {name: b, paths: [/b], mode: block}\n")
	if c, err := config.Load(file); err != nil || len(c.Rules) != 2 {
		t.Errorf("with a rules directory: %d rules, %v", len(c.Rules), err)
	}
	write("rules.d/c.yaml", "rules:\n  - {name: a, paths: [/c], mode: block}\n")
	if _, err := config.Load(file); err == nil || !strings.Contains(err.Error(), "rules.d/c.yaml:2: rule \"a\" is already defined at "+file+":2") {
		t.Errorf("a name given in two files: %v", err)
	}
	write("h.yaml", "rules_dir: elsewhere\n")
	if _, err := config.Load(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a rules directory that the file names and that is missing: %v", err)
	}
}

func TestSize(t *testing.T) {
	for _, c := range []struct {
		in   string
		want config.Size
		out  string
	}{{"0", 0, "0"}, {"1024", 1024, "1KiB"}, {"64KiB", 64 << 10, "64KiB"}, {"3 MiB", 3 << 20, "3MiB"}, {"2TiB", 2 << 40, "2TiB"}, {"1025", 1025, "1025"}} {
		got, err := config.ParseSize(c.in)
		if err != nil || got != c.want || got.String() != c.out {
			t.Errorf("%s: %d %s, %v", c.in, got, got, err)
		}
	}
	for _, in := range []string{"", "-1", "9999999TiB", "1 MB", "KiB", "1e3"} {
		if got, err := config.ParseSize(in); err == nil {
			t.Errorf("%q read as %d", in, got)
		}
	}
}

func TestPasswords(t *testing.T) {
	for in, want := range map[string]string{
		"clickhouse://u:secret@h:9000/d": "clickhouse://u:xxxxx@h:9000/d",
		"https://u:a@b:c@h/d":            "https://u:xxxxx@h/d",
		"clickhouse://h:9000/d":          "clickhouse://h:9000/d",
		"clickhouse://u@h:9000/d?x=a:b":  "clickhouse://u@h:9000/d?x=a:b",
		"nonsense":                       "nonsense",
	} {
		if got := config.Redact(in); got != want {
			t.Errorf("redacted %s is %s, want %s", in, got, want)
		}
	}
	file := filepath.Join(t.TempDir(), "pw")
	if err := os.WriteFile(file, []byte("p@ss/word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := config.ClickHouse{URL: "clickhouse://u@h:9000/d", PasswordFile: file}.Secret()
	if err != nil || got != "clickhouse://u:p%40ss%2Fword@h:9000/d" {
		t.Errorf("secret url %s, %v", got, err)
	}
	got, err = config.ClickHouse{URL: "clickhouse://a%40b:old@h1:9000,h2:9000/d", PasswordFile: file}.Secret()
	if err != nil || got != "clickhouse://a%40b:p%40ss%2Fword@h1:9000,h2:9000/d" {
		t.Errorf("secret url of two hosts %s, %v", got, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("state: /s\nlimits: {ring: 1MiB, restore_window: 1m}\nclickhouse: {url: 'https://h'}\nrules: [{name: a, paths: [/a], mode: observe}]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := config.Parse("/e/h.yaml", b)
		if err == nil && (c.State == "" || c.Socket == "" || c.Limits.Queue == 0) {
			t.Fatalf("accepted an incomplete configuration: %+v", c)
		}
	})
}

// The example names every key there is, and with the defaults it promises.
func TestTheExampleIsCompleteAndTrue(t *testing.T) {
	text, err := os.ReadFile("example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse("/etc/holdfast/holdfast.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Policy(); err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.Rules, want.ClickHouse = c.Rules, c.ClickHouse
	if !reflect.DeepEqual(c, want) {
		t.Errorf("the example reads as %+v, the defaults are %+v", c, want)
	}
	var keys func(reflect.Type)
	keys = func(typ reflect.Type) {
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if name == "-" || name == "" {
				continue
			}
			if !regexp.MustCompile(`(?m)^[ -]*` + name + `:`).Match(text) {
				t.Errorf("the example does not name %s", name)
			}
			ft := f.Type
			if ft.Kind() == reflect.Slice {
				ft = ft.Elem()
			}
			if ft.Kind() == reflect.Struct {
				keys(ft)
			}
		}
	}
	keys(reflect.TypeFor[config.Config]())
}
