package policy

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
	"github.com/holdfast/holdfast/pkg/internal/strictyaml"
)

// Rule is one rule. Paths, Except and Allow hold raw bytes; they are written as
// event.Text for people.
type Rule struct {
	Name   string   `yaml:"name" json:"name"`
	Paths  []string `yaml:"paths" json:"paths"`
	Except []string `yaml:"except" json:"except,omitempty"`
	Mode   string   `yaml:"mode" json:"mode"`
	Allow  []string `yaml:"allow" json:"allow,omitempty"`
	// Held says what becomes of a process that could change a file of the rule by a
	// descriptor or a mapping which was there before the file was watched.
	Held string `yaml:"held" json:"held,omitempty"`

	// Pos is where the rule was written: file:line, or the flag that made it.
	Pos string `yaml:"-" json:"pos,omitempty"`

	file    string         // with lines: where each value was written
	lines   map[string]int // "name", "mode", "paths[0]", …
	excepts []except
}

// What held: may say. In each case there is a record that names the process.
const (
	HeldReport = "report" // nothing more; the default
	HeldFreeze = "freeze" // the process is stopped (SIGSTOP) until a person lets it go on
	HeldKill   = "kill"   // the process is ended (SIGKILL)
)

// Except is one except of a rule, seen from one of the rule's paths.
type Except struct {
	Path    string // everything at and below it, if Pattern is ""
	Pattern string // names in the directory Path, or with Deep at any depth below it
	Deep    bool
}

// except is a parsed except: relative to each path of the rule unless abs.
type except struct {
	text    string
	abs     bool
	dir     string // the path itself without a pattern, else its directory; "" is the rule's path
	pattern string
	deep    bool
}

// Locate fills in where the rule was written: d is its file and prefix its place
// there, for example "$.rules[0]".
func (r *Rule) Locate(file string, d *strictyaml.Document, prefix string) {
	r.file, r.Pos, r.lines = file, d.Pos(prefix), make(map[string]int)
	r.lines["name"], r.lines["mode"], r.lines["held"] = d.Line(prefix+".name"), d.Line(prefix+".mode"), d.Line(prefix+".held")
	for key, list := range map[string][]string{"paths": r.Paths, "except": r.Except, "allow": r.Allow} {
		for i := range list {
			at := fmt.Sprintf("%s[%d]", key, i)
			r.lines[at] = d.Line(prefix + "." + at)
		}
	}
}

// at returns the place of one value of the rule.
func (r *Rule) at(key string) string {
	if n := r.lines[key]; n != 0 {
		return strictyaml.Pos(r.file, n)
	}
	return r.Pos
}

// clone copies the rule so that its slices are its own.
func (r *Rule) clone() Rule {
	c := *r
	c.Paths, c.Except, c.Allow = slices.Clone(r.Paths), slices.Clone(r.Except), slices.Clone(r.Allow)
	c.excepts = nil
	return c
}

// Allows reports whether exe is on the rule's list of allowed executables.
func (r *Rule) Allows(exe string) bool { return slices.Contains(r.Allow, exe) }

// Excepts returns the rule's excepts as they read below root, one of its paths.
// Those that lie outside root are left out.
func (r *Rule) Excepts(root string) []Except {
	var out []Except
	for _, e := range r.parsed() {
		dir := e.dir
		if !e.abs {
			dir = join(root, e.dir)
		}
		if Within(root, dir) {
			out = append(out, Except{Path: dir, Pattern: e.pattern, Deep: e.deep})
		}
	}
	return out
}

// Excepted returns the except that takes p, which lies at or below root, out of
// the rule.
func (r *Rule) Excepted(root, p string) (string, bool) {
	for _, e := range r.parsed() {
		dir := e.dir
		if !e.abs {
			dir = join(root, e.dir)
		}
		if holds(e, dir, p) {
			return e.text, true
		}
	}
	return "", false
}

// parsed returns the parsed excepts; a Rule that New did not make parses them
// each time and leaves out those that are malformed.
func (r *Rule) parsed() []except {
	if r.excepts != nil || len(r.Except) == 0 {
		return r.excepts
	}
	var out []except
	for _, text := range r.Except {
		if e, msg, _ := parseExcept(text); msg == "" {
			out = append(out, e)
		}
	}
	return out
}

// holds reports whether e, whose directory or path is dir, holds for p.
func holds(e except, dir, p string) bool {
	if e.pattern == "" {
		return Within(dir, p)
	}
	if !Within(dir, p) || dir == p {
		return false
	}
	names := strings.Split(strings.TrimPrefix(p[len(strings.TrimSuffix(dir, "/")):], "/"), "/")
	if !e.deep {
		names = names[:1]
	}
	return slices.ContainsFunc(names, func(name string) bool {
		ok, err := path.Match(e.pattern, name)
		return ok && err == nil
	})
}

// parseExcept reads one except. A malformed one returns what is wrong and a hint.
func parseExcept(text string) (e except, msg, hint string) {
	e.text = text
	raw := strings.TrimRight(text, "/")
	if raw == "" {
		return e, "an except may be neither empty nor /", "name what the rule leaves out"
	}
	e.abs = strings.HasPrefix(raw, "/")
	dir, base := path.Split(raw)
	if strings.ContainsAny(dir, "*?[") {
		return e, fmt.Sprintf("except %s has a pattern in a directory", quote(text)), "use * ? [ ] in the last component only"
	}
	if strings.ContainsAny(base, "*?[") {
		if _, err := path.Match(base, "x"); err != nil {
			return e, fmt.Sprintf("except %s is no valid pattern", quote(text)), "write [[] for the character ["
		}
		e.pattern, e.deep, raw = base, dir == "", strings.TrimSuffix(dir, "/")
		if raw == "" {
			if e.abs {
				e.dir = "/"
			}
			return e, "", ""
		}
	}
	cleaned, msg, hint := cleanPath(raw, e.abs)
	if msg != "" {
		return e, fmt.Sprintf("except %s %s", quote(text), msg), hint
	}
	e.dir = cleaned
	return e, "", ""
}

// cleanPath drops double and trailing slashes and refuses what could name
// something else than it seems to.
func cleanPath(p string, abs bool) (clean, msg, hint string) {
	switch {
	case p == "":
		return "", "is empty", "write an absolute path"
	case strings.ContainsRune(p, 0):
		return "", "holds a NUL byte", "write a path that can exist"
	case len(p) > 4095:
		return "", fmt.Sprintf("is %d bytes long", len(p)), "linux allows 4095"
	case abs && !strings.HasPrefix(p, "/"):
		return "", "is relative", "write an absolute path"
	}
	for c := range strings.SplitSeq(p, "/") {
		if c == ".." || c == "." {
			return "", fmt.Sprintf("contains %q", c), "write the path without . and .."
		}
		if len(c) > 255 {
			return "", fmt.Sprintf("has a component of %d bytes", len(c)), "linux allows 255"
		}
	}
	return path.Clean(p), "", ""
}

// Within reports whether p is root or lies below it, by component.
func Within(root, p string) bool {
	if root == "/" {
		return strings.HasPrefix(p, "/")
	}
	return strings.HasPrefix(p, root) && (len(p) == len(root) || p[len(root)] == '/')
}

func join(root, rel string) string {
	switch {
	case rel == "":
		return root
	case root == "/":
		return "/" + rel
	}
	return root + "/" + rel
}

// quote writes a path or pattern for a message.
func quote(s string) string { return fmt.Sprintf("%q", event.Text([]byte(s))) }
