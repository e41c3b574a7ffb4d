package vmtests

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// object is one JSON object: a record, or a line of truth.
type object map[string]any

// expectations are the lines of a script's expect section.
//
//	records FILE                 the records that the lines below speak of (log --json)
//	truth FILE [KEY=VALUE...]    each line of FILE is told by a record, which also has these values
//	refused FILE                 each line of FILE says EPERM, and is told by a record with verdict blocked
//	equal FILE FILE              both are the same, byte for byte
//	record KEY=VALUE...          there is such a record
//	none KEY=VALUE...            there is none
//	match FILE KEY=VALUE...      the object in FILE has these values
//
// KEY is a dotted path into the object (actor.user); KEY~VALUE takes a regular
// expression that must match all of the value. The key chain is the names of the
// programs from the session's first process to the acting one, joined by spaces;
// the value names some of them in their order: chain=sshd,bash,sudo,sed.
type expectations struct {
	dir     string
	records []object
}

// check evaluates text against the files of dir and returns what does not hold.
func check(dir, text string) []error {
	e := expectations{dir: dir}
	var errs []error
	for n, line := range strings.Split(text, "\n") {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		found := e.line(f[0], f[1:])
		for _, err := range found {
			errs = append(errs, fmt.Errorf("expect:%d: %s: %w", n+1, f[0], err))
		}
		if f[0] == "records" && len(found) > 0 {
			return errs // nothing below can hold
		}
	}
	return errs
}

func (e *expectations) line(verb string, args []string) []error {
	one := func(err error) []error {
		if err != nil {
			return []error{err}
		}
		return nil
	}
	switch {
	case verb == "records" && len(args) == 1:
		var err error
		e.records, err = readObjects(filepath.Join(e.dir, args[0]))
		return one(err)
	case verb == "truth" && len(args) >= 1:
		return e.truth(args[0], args[1:], false)
	case verb == "refused" && len(args) == 1:
		return e.truth(args[0], []string{"verdict=blocked"}, true)
	case verb == "equal" && len(args) == 2:
		return one(e.equal(args[0], args[1]))
	case verb == "record" && len(args) > 0:
		if _, ok := e.find(args); !ok {
			return one(fmt.Errorf("none of %d records has %s", len(e.records), strings.Join(args, " ")))
		}
		return nil
	case verb == "none" && len(args) > 0:
		if r, ok := e.find(args); ok {
			return one(fmt.Errorf("a record has %s: %s", strings.Join(args, " "), r.brief()))
		}
		return nil
	case verb == "match" && len(args) > 1:
		os, err := readObjects(filepath.Join(e.dir, args[0]))
		if err != nil {
			return one(err)
		}
		if len(os) != 1 {
			return one(fmt.Errorf("%s holds %d objects, want one", args[0], len(os)))
		}
		return one(os[0].has(args[1:]))
	}
	return one(errors.New("no such expectation"))
}

func (e *expectations) equal(a, b string) error {
	x, err := os.ReadFile(filepath.Join(e.dir, a))
	if err != nil {
		return err
	}
	y, err := os.ReadFile(filepath.Join(e.dir, b))
	if err != nil {
		return err
	}
	if bytes.Equal(x, y) {
		return nil
	}
	xs, ys := strings.Split(string(x), "\n"), strings.Split(string(y), "\n")
	var diff strings.Builder
	for _, l := range xs {
		if !slices.Contains(ys, l) {
			fmt.Fprintf(&diff, "\n\t- %s", l)
		}
	}
	for _, l := range ys {
		if !slices.Contains(xs, l) {
			fmt.Fprintf(&diff, "\n\t+ %s", l)
		}
	}
	return fmt.Errorf("%s and %s differ:%s", a, b, diff.String())
}

func (e *expectations) find(args []string) (object, bool) {
	for _, r := range e.records {
		if r.has(args) == nil {
			return r, true
		}
	}
	return nil, false
}

// truth looks for a record of each line of file.
func (e *expectations) truth(file string, more []string, refused bool) []error {
	lines, err := readObjects(filepath.Join(e.dir, file))
	if err != nil {
		return []error{err}
	}
	if len(lines) == 0 {
		return []error{fmt.Errorf("%s is empty", file)}
	}
	var errs []error
	for _, t := range lines {
		if refused && t["errno"] != "EPERM" {
			errs = append(errs, fmt.Errorf("%s was not refused with EPERM: %s", t.text("act"), t.brief()))
			continue
		}
		if err := e.told(t, more); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// told returns nil if a record tells what the line of truth t says.
func (e *expectations) told(t object, more []string) error {
	var why []string
	for _, r := range e.records {
		if !r.about(t) {
			continue
		}
		err := r.tells(t)
		if err == nil {
			err = r.has(more)
		}
		if err == nil {
			return nil
		}
		why = append(why, fmt.Sprintf("%s: %v", r.brief(), err))
	}
	return fmt.Errorf("no record tells %s\n\t%s", t.brief(), strings.Join(why, "\n\t"))
}

// about tells whether r names a path of t, or something below its "under".
func (r object) about(t object) bool {
	path, to := r.text("path"), r.text("path_to")
	if under := t.text("under"); under != "" {
		return strings.HasPrefix(path, under) || strings.HasPrefix(to, under)
	}
	return slices.ContainsFunc(t.names(), func(n string) bool { return n == path || n == to })
}

// names returns what a record of t must name.
func (t object) names() []string {
	list, ok := t["names"].([]any)
	if !ok {
		return []string{t.text("path")}
	}
	var names []string
	for _, n := range list {
		names = append(names, fmt.Sprint(n))
	}
	return names
}

// tells compares r with every field of truth that t has.
func (r object) tells(t object) error {
	for field, in := range map[string]string{"uid": "actor.uid", "exe": "process.exe", "pid": "process.pid"} {
		if want := t.text(field); want != "" && r.text(in) != want {
			return fmt.Errorf("%s is %q, want %q", in, r.text(in), want)
		}
	}
	if ops := strings.FieldsFunc(t.text("op"), func(c rune) bool { return c == ',' }); len(ops) > 0 && !slices.Contains(ops, r.text("op")) {
		return fmt.Errorf("op is %q, want %q", r.text("op"), t.text("op"))
	}
	if t.text("under") == "" {
		for _, n := range t.names() {
			if n != r.text("path") && n != r.text("path_to") {
				return fmt.Errorf("path is %q and path_to %q, want %q among them", r.text("path"), r.text("path_to"), n)
			}
		}
	}
	if t.text("errno") != "" {
		return nil // nothing changed: a refused attempt has no before and after
	}
	for _, side := range []string{"before", "after"} {
		state, ok := t[side].(map[string]any)
		for key := range state {
			want := t.text(side + "." + key)
			if got := r.text(side + "." + key); ok && got != want {
				return fmt.Errorf("%s.%s is %q, want %q", side, key, got, want)
			}
		}
	}
	return nil
}

// has returns nil if every KEY=VALUE or KEY~REGEXP of conds holds.
func (r object) has(conds []string) error {
	for _, c := range conds {
		i := strings.IndexAny(c, "=~")
		if i < 1 {
			return fmt.Errorf("condition %q: want KEY=VALUE or KEY~REGEXP", c)
		}
		key, want := c[:i], c[i+1:]
		if key == "chain" {
			if !inOrder(r.chain(), strings.Split(want, ",")) {
				return fmt.Errorf("chain is %q, want %q in this order", strings.Join(r.chain(), " "), want)
			}
			continue
		}
		got := r.text(key)
		if c[i] == '=' && got != want {
			return fmt.Errorf("%s is %q, want %q", key, got, want)
		}
		if c[i] == '~' {
			re, err := regexp.Compile("^(?:" + want + ")$")
			if err != nil {
				return err
			}
			if !re.MatchString(got) {
				return fmt.Errorf("%s is %q, want %q", key, got, want)
			}
		}
	}
	return nil
}

// text returns the value at the dotted key as text, "" if it is absent.
func (r object) text(key string) string {
	var v any = map[string]any(r)
	for k := range strings.SplitSeq(key, ".") {
		m, ok := v.(map[string]any)
		if !ok {
			return ""
		}
		v = m[k]
	}
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number:
		return v.String()
	case bool:
		return strconv.FormatBool(v)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// chain names the programs from the session's first process to the acting one.
func (r object) chain() []string {
	var names []string
	if p, ok := r["process"].(map[string]any); ok {
		if as, ok := p["ancestors"].([]any); ok {
			for _, a := range slices.Backward(as) {
				if m, ok := a.(map[string]any); ok {
					names = append(names, filepath.Base(object(m).text("exe")))
				}
			}
		}
	}
	return append(names, filepath.Base(r.text("process.exe")))
}

func inOrder(names, want []string) bool {
	for _, n := range names {
		if len(want) > 0 && n == want[0] {
			want = want[1:]
		}
	}
	return len(want) == 0
}

// brief is one line that tells a record or a line of truth apart from others.
func (r object) brief() string {
	var b strings.Builder
	for _, k := range []string{"seq", "kind", "act", "op", "path", "path_to", "under", "verdict", "errno", "actor.uid", "uid", "process.exe", "exe", "after.hash", "gap"} {
		if v := r.text(k); v != "" {
			fmt.Fprintf(&b, "%s=%s ", k, v)
		}
	}
	return strings.TrimSpace(b.String())
}

func readObjects(file string) ([]object, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all []object
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, 16<<20)
	for n := 1; sc.Scan(); n++ {
		if len(bytes.TrimSpace(sc.Bytes())) == 0 {
			continue
		}
		d := json.NewDecoder(bytes.NewReader(sc.Bytes()))
		d.UseNumber()
		var o object
		if err := d.Decode(&o); err != nil {
			return nil, fmt.Errorf("read %s:%d: %w", filepath.Base(file), n, err)
		}
		all = append(all, o)
	}
	return all, sc.Err()
}
