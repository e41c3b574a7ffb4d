package policy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/internal/strictyaml"
)

// Policy is a set of rules. The zero Policy watches nothing.
type Policy struct {
	Rules []Rule
	// Own lists Holdfast's own directories. No rule holds there, whatever its paths.
	Own []string

	roots map[string]int // path → index into Rules
}

// forbidden are trees of the kernel's own making: their files are not data and
// putting one back would be an action, not a restore.
func forbidden() []string { return []string{"/proc", "/sys"} }

// New checks the form of rules and returns the policy they make. The error joins
// one *strictyaml.Error for each complaint.
func New(rules []Rule) (*Policy, error) {
	p := &Policy{Rules: make([]Rule, 0, len(rules)), roots: make(map[string]int)}
	names := make(map[string]string)
	var errs []error
	for i := range rules {
		r := rules[i].clone()
		c := &complaints{rule: &r}
		c.form()
		if first, ok := names[r.Name]; ok && r.Name != "" {
			c.add("name", fmt.Sprintf("rule %q is already defined at %s", r.Name, first), "give it another name")
		}
		names[r.Name] = r.Pos
		for j, root := range r.Paths {
			k, taken := p.roots[root]
			if !taken {
				p.roots[root] = i
				continue
			}
			other := r.Name
			if k != i {
				other = p.Rules[k].Name
			}
			c.add(fmt.Sprintf("paths[%d]", j), fmt.Sprintf("path %s is already in rule %q", quote(root), other), "keep it in one rule")
		}
		p.Rules = append(p.Rules, r)
		errs = append(errs, c.errs...)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return p, nil
}

// complaints collects what is wrong with one rule.
type complaints struct {
	rule *Rule
	errs []error
}

func (c *complaints) add(key, msg, hint string) {
	file, line := c.rule.Pos, 0
	if n := c.rule.lines[key]; n != 0 {
		file, line = c.rule.file, n
	}
	if file == "" {
		file = "rule " + quote(c.rule.Name)
	}
	c.errs = append(c.errs, &strictyaml.Error{File: file, Line: line, Message: msg, Hint: hint})
}

// form checks all that needs no other rule, and cleans the paths.
func (c *complaints) form() {
	r := c.rule
	switch {
	case r.Name == "":
		c.add("name", "a rule without a name", "add name: and a word that records can carry")
	case r.Name == event.RuleOwn:
		c.add("name", fmt.Sprintf("the name %s is that of the rule of Holdfast's own files", r.Name), "give it another name")
	case !printable(r.Name):
		c.add("name", fmt.Sprintf("name %q has characters that do not print", r.Name), "use letters, digits, - and _")
	}
	switch r.Mode {
	case event.ModeObserve, event.ModeRestore, event.ModeBlock:
	case "":
		c.add("mode", fmt.Sprintf("rule %q has no mode", r.Name), "add mode: observe, restore or block")
	default:
		c.add("mode", fmt.Sprintf("unknown mode %q", r.Mode), "use observe, restore or block")
	}
	switch r.Held {
	case HeldFreeze, HeldKill:
		if r.Mode == event.ModeObserve {
			c.add("held", fmt.Sprintf("held: %s in a rule that only observes", r.Held), "use mode: restore or block, or held: report")
		}
	case "", HeldReport:
		r.Held = HeldReport
	default:
		c.add("held", fmt.Sprintf("unknown word %q in held", r.Held), "use report, freeze or kill")
	}
	if len(r.Paths) == 0 {
		c.add("paths", fmt.Sprintf("rule %q has no paths", r.Name), "add paths: and a list of absolute paths")
	}
	for i := range r.Paths {
		c.path(i)
	}
	for i := range r.Except {
		c.except(i)
	}
	for i, exe := range r.Allow {
		exe = string(event.Untext(exe))
		clean, msg, hint := cleanPath(exe, true)
		if msg == "" && clean == "/" {
			msg, hint = "is a directory", "name an executable"
		}
		if msg == "" && strings.ContainsAny(exe, "*?") {
			msg, hint = "has a pattern", "name each executable"
		}
		if msg != "" {
			c.add(fmt.Sprintf("allow[%d]", i), fmt.Sprintf("executable %s %s", quote(exe), msg), hint)
		}
		r.Allow[i] = clean
	}
}

func (c *complaints) path(i int) {
	r, key := c.rule, fmt.Sprintf("paths[%d]", i)
	p := string(event.Untext(r.Paths[i]))
	clean, msg, hint := cleanPath(p, true)
	if msg == "" && strings.ContainsAny(p, "*?") {
		msg, hint = "has a pattern", "name the directory and leave out with except: what you do not want"
	}
	for _, f := range forbidden() {
		if msg == "" && Within(f, clean) {
			msg, hint = "lies under "+f, "the kernel makes these files up as they are read: watch what configures them, such as /etc/sysctl.d"
		}
	}
	if msg != "" {
		c.add(key, fmt.Sprintf("path %s %s", quote(p), msg), hint)
		return
	}
	r.Paths[i] = clean
}

func (c *complaints) except(i int) {
	r, key := c.rule, fmt.Sprintf("except[%d]", i)
	r.Except[i] = string(event.Untext(r.Except[i]))
	e, msg, hint := parseExcept(r.Except[i])
	if msg == "" && e.pattern != "" && r.Mode == event.ModeBlock {
		msg = fmt.Sprintf("except %s is a pattern in a rule that blocks", quote(e.text))
		hint = "the kernel refuses by inode and cannot match names: write the paths out, or use mode: restore"
	}
	if msg == "" && e.abs && e.pattern == "" {
		if slices.ContainsFunc(r.Paths, func(root string) bool { return Within(e.dir, root) }) {
			msg = fmt.Sprintf("except %s leaves out a whole path of the rule", quote(e.text))
			hint = "remove the path from the rule instead"
		}
	}
	if msg == "" && e.abs && !slices.ContainsFunc(r.Paths, func(root string) bool { return Within(root, e.dir) }) {
		msg = fmt.Sprintf("except %s lies outside the rule's paths", quote(e.text))
		hint = "it would leave nothing out: remove it, or correct the path"
	}
	if msg != "" {
		c.add(key, msg, hint)
		return
	}
	r.excepts = append(r.excepts, e)
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// file is the YAML of a policy file.
type file struct {
	Rules []Rule `yaml:"rules"`
}

// Parse reads a policy file; name is what errors call it.
func Parse(name string, data []byte) (*Policy, error) {
	rules, err := ParseRules(name, data)
	if err != nil {
		return nil, err
	}
	return New(rules)
}

// ParseRules reads the rules of one file without checking them; New does that,
// over the rules of all files.
func ParseRules(name string, data []byte) ([]Rule, error) {
	var f file
	d, err := strictyaml.Decode(name, data, &f)
	if err != nil {
		return nil, err
	}
	for i := range f.Rules {
		f.Rules[i].Locate(name, d, fmt.Sprintf("$.rules[%d]", i))
	}
	return f.Rules, nil
}

// Load reads a policy file, or all *.yaml files of a directory in the order of
// their names.
func Load(path string) (*Policy, error) {
	rules, err := LoadRules(path)
	if err != nil {
		return nil, err
	}
	return New(rules)
}

// LoadRules is Load without the checks of New.
func LoadRules(path string) ([]Rule, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	if !info.IsDir() {
		data, err := ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read policy: %w", err)
		}
		return ParseRules(path, data)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	var rules []Rule
	var errs []error
	for _, e := range entries {
		switch name := filepath.Join(path, e.Name()); {
		case strings.HasPrefix(e.Name(), "."), strings.HasSuffix(e.Name(), "~"):
		case strings.HasSuffix(e.Name(), ".yaml"):
			more, err := LoadRules(name)
			rules, errs = append(rules, more...), append(errs, err)
		case strings.HasSuffix(e.Name(), ".yml"):
			errs = append(errs, &strictyaml.Error{File: name, Message: "policy files end in .yaml", Hint: "rename it, or move it elsewhere: it would not be read"})
		}
	}
	return rules, errors.Join(errs...)
}

// ReadFile reads a YAML file whole, up to one byte more than strictyaml allows.
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, strictyaml.MaxBytes+1))
	return b, errors.Join(err, f.Close())
}

// ParseWatch reads PATH=MODE, the short form of a rule on the command line. The
// path may contain = itself.
func ParseWatch(s string) (Rule, error) {
	i := strings.LastIndexByte(s, '=')
	if i <= 0 || i == len(s)-1 {
		return Rule{}, &strictyaml.Error{File: "--watch " + s, Message: "want PATH=MODE", Hint: "for example --watch /etc=restore"}
	}
	r := Rule{Name: "watch:" + event.Text([]byte(s[:i])), Paths: []string{event.Text([]byte(s[:i]))}, Mode: s[i+1:], Pos: "--watch " + s}
	if _, err := New([]Rule{r}); err != nil {
		return Rule{}, err
	}
	return r, nil
}
