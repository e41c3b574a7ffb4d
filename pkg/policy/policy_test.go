package policy_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/policy"
)

func parse(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse("p.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"an unknown key", "rules:\n  - name: a\n    path: [/x]\n    mode: observe\n", `p.yaml:3: unknown key "path"`},
		{"a rule that takes our own name", "rules:\n  - {name: holdfast, paths: [/x], mode: observe}\n", "p.yaml:2: the name holdfast is that of the rule of Holdfast's own files"},
		{"a rule without a name", "rules:\n  - paths: [/x]\n    mode: observe\n", "p.yaml:2: a rule without a name"},
		{"a rule without paths", "rules:\n  - name: a\n    mode: observe\n", `p.yaml:2: rule "a" has no paths`},
		{"a rule without a mode", "rules:\n  - name: a\n    paths: [/x]\n", `p.yaml:2: rule "a" has no mode`},
		{"an unknown mode", "rules:\n  - name: a\n    paths: [/x]\n    mode: protect\n", `p.yaml:4: unknown mode "protect"`},
		{"an unknown word in held", "rules:\n  - name: a\n    paths: [/x]\n    mode: block\n    held: forgive\n", `p.yaml:5: unknown word "forgive" in held`},
		{"a deed against a holder in a rule that observes", "rules:\n  - name: a\n    paths: [/x]\n    mode: observe\n    held: kill\n", "p.yaml:5: held: kill in a rule that only observes"},
		{"two rules of one name", "rules:\n  - {name: a, paths: [/x], mode: observe}\n  - {name: a, paths: [/y], mode: observe}\n", `p.yaml:3: rule "a" is already defined at p.yaml:2`},
		{"a path in two rules", "rules:\n  - {name: a, paths: [/x], mode: observe}\n  - {name: b, paths: [/x/], mode: block}\n", `p.yaml:3: path "/x" is already in rule "a"`},
		{"a relative path", "rules:\n  - name: a\n    mode: observe\n    paths:\n      - /x\n      - etc\n", `p.yaml:6: path "etc" is relative`},
		{"a path with ..", "rules:\n  - {name: a, paths: [/x/../y], mode: observe}\n", `p.yaml:2: path "/x/../y" contains ".."`},
		{"a path with a pattern", "rules:\n  - {name: a, paths: ['/etc/*.conf'], mode: observe}\n", `p.yaml:2: path "/etc/*.conf" has a pattern`},
		{"proc itself", "rules:\n  - {name: a, paths: [/proc], mode: observe}\n", `p.yaml:2: path "/proc" lies under /proc`},
		{"a file of sysfs behind double slashes", "rules:\n  - {name: a, paths: [//sys//kernel], mode: observe}\n", `lies under /sys`},
		{"a pattern in a blocking rule", "rules:\n  - {name: a, paths: [/x], except: ['*.swp'], mode: block}\n", `except "*.swp" is a pattern in a rule that blocks`},
		{"a pattern in a directory", "rules:\n  - {name: a, paths: [/x], except: ['*/b'], mode: observe}\n", `except "*/b" has a pattern in a directory`},
		{"a broken pattern", "rules:\n  - {name: a, paths: [/x], except: ['a[b'], mode: observe}\n", `except "a[b" is no valid pattern`},
		{"an except outside the rule", "rules:\n  - {name: a, paths: [/x], except: [/xy/z], mode: observe}\n", `except "/xy/z" lies outside the rule's paths`},
		{"an except that empties the rule", "rules:\n  - {name: a, paths: [/x/y], except: [/x], mode: observe}\n", `except "/x" leaves out a whole path of the rule`},
		{"an except with ..", "rules:\n  - {name: a, paths: [/x], except: [../y], mode: observe}\n", `except "../y" contains ".."`},
		{"an allowed executable that is relative", "rules:\n  - {name: a, paths: [/x], allow: [dpkg], mode: observe}\n", `executable "dpkg" is relative`},
		{"a control character in a name", "rules:\n  - {name: \"a\\x1b[0m\", paths: [/x], mode: observe}\n", "characters that do not print"},
		{"a list instead of rules", "- a\n", "p.yaml:1: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := policy.Parse("p.yaml", []byte(c.in))
			if err == nil {
				t.Fatalf("accepted: %+v", p)
			}
			if p != nil {
				t.Error("an error came with a policy")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q, want %q in it", err, c.want)
			}
		})
	}
}

func TestParseNamesEveryMistakeAtOnce(t *testing.T) {
	_, err := policy.Parse("p.yaml", []byte("rules:\n  - {name: a, paths: [x], mode: no}\n  - {name: b, paths: [/proc], mode: block}\n"))
	if n := len(strings.Split(err.Error(), "\n")); n != 3 {
		t.Errorf("%d complaints, want 3:\n%v", n, err)
	}
}

const three = `
rules:
  - name: etc
    paths: [/etc, /opt/app/]
    except: [mtab, ssl/private, "*.swp", "cups/*.O", /etc/ld.so.cache, "[[]x"]
    mode: restore
    allow: [/usr/bin/dpkg]
  - name: ssh
    paths: [/etc/ssh]
    except: [keys]
    mode: block
  - name: all
    paths: [/]
    mode: observe
`

func TestMatch(t *testing.T) {
	p := parse(t, three)
	p.Own = []string{"/var/lib/holdfast"}
	for _, c := range []struct{ path, rule, root, name string }{
		{"/etc", "etc", "/etc", "the path of a rule itself"},
		{"/etc/passwd", "etc", "/etc", "a file below it"},
		{"/etcetera", "all", "/", "a name that only begins the same is another path"},
		{"/etc/ssh/sshd_config", "ssh", "/etc/ssh", "the deepest path wins"},
		{"/etc/ssh_config", "etc", "/etc", "the deepest path is compared by component"},
		{"/etc/ssh/keys/a", "etc", "/etc", "an except of the nearer rule leaves the path to the outer one"},
		{"/opt/app/x", "etc", "/opt/app", "a trailing slash in the rule does not matter"},
		{"/etc/mtab", "all", "/", "a relative except"},
		{"/opt/app/mtab/x", "all", "/", "a relative except holds below each path, and for all below it"},
		{"/etc/ssl/private/key", "all", "/", "a relative except with a directory"},
		{"/etc/ssl/privateer", "etc", "/etc", "an except is compared by component"},
		{"/etc/a/b/.x.swp", "all", "/", "a pattern without a slash holds at any depth"},
		{"/etc/d.swp/inner", "all", "/", "a pattern that names a directory takes out all below it"},
		{"/etc/cups/printers.conf.O", "all", "/", "a pattern with a slash"},
		{"/etc/cups/ppd/a.O", "etc", "/etc", "a pattern with a slash does not go deeper"},
		{"/opt/app/cups/a.O", "all", "/", "a relative pattern holds below each path"},
		{"/etc/ld.so.cache", "all", "/", "an absolute except"},
		{"/etc/[x", "all", "/", "an escaped bracket"},
		{"/usr/bin/x", "all", "/", "the root holds for everything"},
		{"/", "all", "/", "the root holds for itself"},
		{"/proc/1/mem", "", "", "never below /proc"},
		{"/sys/kernel/debug", "", "", "never below /sys"},
		{"/process", "all", "/", "but beside it"},
		{"/var/lib/holdfast/journal/1", "", "", "never in our own directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, ok := p.Match(c.path)
			if ok != (c.rule != "") {
				t.Fatalf("match of %s: %v", c.path, ok)
			}
			if ok && (m.Rule.Name != c.rule || m.Root != c.root) {
				t.Errorf("%s: rule %s root %s, want %s %s", c.path, m.Rule.Name, m.Root, c.rule, c.root)
			}
			if ok && m.Why == "" {
				t.Error("no reason given")
			}
			e := p.Explain(c.path)
			if (e.Match != nil) != ok || e.Why == "" {
				t.Errorf("explain says %+v, match %v", e, ok)
			}
		})
	}
}

// The zero index must answer like the built one.
func TestMatchOfAPolicyMadeByHand(t *testing.T) {
	built := parse(t, three)
	hand := &policy.Policy{Rules: []policy.Rule{}}
	for _, r := range built.Rules {
		hand.Rules = append(hand.Rules, policy.Rule{Name: r.Name, Paths: r.Paths, Except: r.Except, Mode: r.Mode, Allow: r.Allow})
	}
	for _, path := range []string{"/etc", "/etc/ssh/x", "/etc/ssh/keys", "/etc/a.swp", "/x", "/etc/mtab"} {
		a, _ := built.Match(path)
		b, _ := hand.Match(path)
		if a.Rule.Name != b.Rule.Name || a.Root != b.Root {
			t.Errorf("%s: %s %s by the index, %s %s by hand", path, a.Rule.Name, a.Root, b.Rule.Name, b.Root)
		}
	}
}

func TestExcepts(t *testing.T) {
	p := parse(t, three)
	got := p.Rules[0].Excepts("/opt/app")
	want := []policy.Except{{Path: "/opt/app/mtab"}, {Path: "/opt/app/ssl/private"}, {Path: "/opt/app", Pattern: "*.swp", Deep: true},
		{Path: "/opt/app/cups", Pattern: "*.O"}, {Path: "/opt/app", Pattern: "[[]x", Deep: true}}
	if len(got) != len(want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("except %d is %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestPathsWithBytesThatAreNoText(t *testing.T) {
	p := parse(t, "rules:\n  - {name: a, paths: ['/x/\\xFF'], mode: observe}\n")
	if _, ok := p.Match("/x/\xff/y"); !ok {
		t.Errorf("no match below %q", p.Rules[0].Paths)
	}
}

func TestParseWatch(t *testing.T) {
	for _, c := range []struct{ in, path, mode, bad string }{
		{"/etc=restore", "/etc", "restore", ""},
		{"/a=b=observe", "/a=b", "observe", ""},
		{"/etc", "", "", "want PATH=MODE"},
		{"=block", "", "", "want PATH=MODE"},
		{"/etc=", "", "", "want PATH=MODE"},
		{"/etc=protect", "", "", `unknown mode "protect"`},
		{"etc=block", "", "", "is relative"},
		{"/proc/sys=block", "", "", "lies under /proc"},
	} {
		r, err := policy.ParseWatch(c.in)
		switch {
		case c.bad != "":
			if err == nil || !strings.Contains(err.Error(), c.bad) {
				t.Errorf("%s: error %v, want %q", c.in, err, c.bad)
			}
		case err != nil:
			t.Errorf("%s: %v", c.in, err)
		case r.Paths[0] != c.path || r.Mode != c.mode:
			t.Errorf("%s: %+v", c.in, r)
		}
	}
}

func TestCheck(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "real"), 0o755),
		os.Symlink("real", filepath.Join(dir, "link")),
		os.Symlink("/proc/self", filepath.Join(dir, "trap")),
		os.WriteFile(filepath.Join(dir, "real", "f"), nil, 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	no := false
	for _, c := range []struct {
		name, path, mode, allow, want string
		fatal                         bool
	}{
		{"a plain path has no problem", "/real/f", "observe", "/real/f", "", false},
		{"a path that does not exist yet", "/later", "restore", "", "does not exist", false},
		{"a symbolic link", "/link", "observe", "", "is a symbolic link", false},
		{"a path through a symbolic link", "/link/f", "observe", "", "leads through a symbolic link to", false},
		{"a link that leads below /proc", "/trap/mem", "observe", "", "leads to", true},
		{"our own directory", "/state/journal", "observe", "", "lies in Holdfast's own directory", true},
		{"our own directory itself", "/state", "observe", "", "lies in Holdfast's own directory", true},
		{"block where the kernel cannot", "/real", "block", "", "which this kernel cannot do", false},
		{"an allowed executable that is missing", "/real", "observe", "/nope", "does not exist", false},
		{"an allowed executable that is a link", "/real", "observe", "/link", "is a symbolic link", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := policy.Rule{Name: "a", Paths: []string{dir + c.path}, Mode: c.mode}
			if c.allow != "" {
				r.Allow = []string{dir + c.allow}
			}
			p, err := policy.New([]policy.Rule{r})
			if err != nil {
				t.Fatal(err)
			}
			env := policy.System(dir + "/state")
			env.CanBlock = &no
			got := p.Check(env)
			if c.want == "" {
				if len(got) != 0 {
					t.Errorf("problems %v", got)
				}
				return
			}
			if len(got) != 1 || !strings.Contains(got[0].Message, c.want) || got[0].Fatal != c.fatal || got[0].Hint == "" {
				t.Errorf("problems %+v, want one that says %q, fatal %v", got, c.want, c.fatal)
			}
		})
	}
}

func TestCanonicalMovesPathsAndExcepts(t *testing.T) {
	p := parse(t, "rules:\n  - {name: a, paths: [/bin/app, /etc], except: [/bin/app/cache, tmp], mode: observe}\n")
	q, err := p.Canonical(func(dir string) (string, error) {
		switch dir {
		case "/bin":
			return "/usr/bin", nil
		case "/":
			return "/", nil
		}
		return "", fs.ErrNotExist
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := q.Match("/usr/bin/app/x"); !ok {
		t.Error("the moved path does not match")
	}
	if _, ok := q.Match("/usr/bin/app/cache/x"); ok {
		t.Error("the except did not move with its path")
	}
	if _, ok := q.Match("/etc/tmp"); ok {
		t.Error("a relative except was lost")
	}
}

func TestLoadReadsADirectoryInOrder(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"20.yaml":   "rules: [{name: b, paths: [/b], mode: observe}]",
		"10.yaml":   "rules: [{name: a, paths: [/a], mode: observe}]",
		".hidden":   "nonsense: true",
		"10.yaml~":  "nonsense: true",
		"README.md": "# rules",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p, err := policy.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Rules) != 2 || p.Rules[0].Name != "a" || p.Rules[1].Name != "b" {
		t.Errorf("rules %+v", p.Rules)
	}
	if err := os.WriteFile(filepath.Join(dir, "30.yml"), []byte("rules: []"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Load(dir); err == nil || !strings.Contains(err.Error(), "30.yml: policy files end in .yaml") {
		t.Errorf("a .yml file: error %v", err)
	}
}

// FuzzParse: an error xor a policy, and what was accepted keeps the promises of
// the package.
func FuzzParse(f *testing.F) {
	f.Add([]byte(three))
	f.Add([]byte("rules: [{name: a, paths: [/x, //y/], except: [z, '*.o', /x/q], mode: restore}]"))
	f.Add([]byte("rules: [{name: a, paths: ['/\\xff'], mode: block}]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := policy.Parse("p", b)
		if (p == nil) == (err == nil) {
			t.Fatalf("policy %v and error %v", p, err)
		}
		if err != nil {
			return
		}
		for i := range p.Rules {
			r := &p.Rules[i]
			for _, root := range r.Paths {
				if !filepath.IsAbs(root) || filepath.Clean(root) != root || policy.Within("/proc", root) || policy.Within("/sys", root) {
					t.Fatalf("accepted path %q", root)
				}
				m, ok := p.Match(root)
				if _, ex := r.Excepted(root, root); !ex && (!ok || m.Rule != r) {
					t.Fatalf("path %q of rule %q matches %+v", root, r.Name, m.Rule)
				}
				for _, e := range r.Excepts(root) {
					if !policy.Within(root, e.Path) {
						t.Fatalf("except %+v outside %q", e, root)
					}
				}
			}
		}
		if _, err := p.Canonical(func(d string) (string, error) { return d, nil }); err != nil {
			t.Fatalf("a policy is refused when it is made again: %v", err)
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	p := parse(b, three)
	b.ReportAllocs()
	for b.Loop() {
		p.Match("/etc/ssl/certs/deep/er/file.pem")
	}
}

func TestHeldIsReportUnlessTheRuleSaysOtherwise(t *testing.T) {
	for _, c := range []struct{ line, want string }{{"", "report"}, {", held: report", "report"}, {", held: freeze", "freeze"}, {", held: kill", "kill"}} {
		p, err := policy.Parse("p.yaml", []byte("rules:\n  - {name: a, paths: [/x], mode: restore"+c.line+"}\n"))
		if err != nil {
			t.Errorf("%s: %v", c.line, err)
			continue
		}
		if got := p.Rules[0].Held; got != c.want {
			t.Errorf("%q: held is %q, want %q", c.line, got, c.want)
		}
	}
}

func TestAPatternCoversWhatItNamesAndAllBelow(t *testing.T) {
	for _, tt := range []struct {
		pattern, path string
		want          bool
	}{
		{"/", "/a", true}, {"/a", "/a", true}, {"/a", "/a/b/c", true}, {"/a", "/ab", false}, {"/a/b", "/a", false},
		{"/a/*", "/a", false}, {"/a/*", "/a/b", true}, {"/a/*", "/a/b/c", true}, {"/a/*.c", "/a/b/x.c", false}, {"/a/?", "/a/bb", false},
		{"/*/c", "/b/c/d", true}, {"/*/c", "/b/d", false}, {"/a/[bc]", "/a/c", true}, {"/a/[bc]", "/a/d/b", false}, {`/a/\*?`, "/a/*x", true}, {`/a/\*?`, "/a/xx", false},
	} {
		if got := policy.Covers(tt.pattern, tt.path); got != tt.want {
			t.Errorf("%s covers %s: %v", tt.pattern, tt.path, got)
		}
	}
	for in, want := range map[string]string{"/a//b/": "/a/b", "/a/*": "/a/*", "a": "", "/a/../b": "", "/a/**": "", "/a/[": "", "/": "/"} {
		if got, msg, hint := policy.Pattern(in); got != want || (want == "") != (msg != "" && hint != "") {
			t.Errorf("%q: %q, %q, %q", in, got, msg, hint)
		}
	}
}
