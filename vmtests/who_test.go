package vmtests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// addresses are those of who/lib.sh, uids those of its people.
var (
	addresses = map[string]string{"alice": "10.77.0.2", "bob": "10.77.0.3", "carol": "10.77.0.4", "root": "10.77.0.5"}
	uids      = map[string]string{"root": "0", "alice": "2001", "bob": "2002", "carol": "2003", "unknown": "4294967295"}
)

// whoCase is one case of who/cases.txt.
type whoCase struct {
	name, file string // as people read it; as files are called
	lean       bool
	notes      []string
	wants      []whoWant
	unknown    []whoUnknown
	script     string
}

// whoWant is the actor that every record about one file must name.
type whoWant struct {
	path string
	keys map[string]string
}

// whoUnknown is what a case says may be unknown, and why it cannot be known.
type whoUnknown struct {
	tier, why string
	keys      []string
}

// mayBeUnknown returns why key may be unknown in a tier, "" if it may not.
func (c whoCase) mayBeUnknown(tier, key string) string {
	for _, u := range c.unknown {
		if (u.tier == "*" || u.tier == tier) && (slices.Contains(u.keys, "*") || slices.Contains(u.keys, key)) {
			return u.why
		}
	}
	return ""
}

// whoKeys are what a want may say, in the order in which the document tells it.
var whoKeys = []string{"user", "loginuid", "as", "uid", "euid", "via", "origin", "from", "source_ip", "session", "exe", "chain"}

func readCases(file string) ([]whoCase, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all []whoCase
	var c *whoCase
	head := false
	for n, line := range strings.Split(string(b), "\n") {
		fail := func(format string, a ...any) ([]whoCase, error) {
			return nil, fmt.Errorf("%s:%d: %s", file, n+1, fmt.Sprintf(format, a...))
		}
		if name, ok := strings.CutPrefix(line, "== "); ok {
			all = append(all, whoCase{name: name, file: strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(name), "-"), "-")})
			c, head = &all[len(all)-1], true
			continue
		}
		if c == nil {
			continue
		}
		f := strings.Fields(line)
		switch {
		case !head || len(f) == 0:
			head = false
			c.script += line + "\n"
		case f[0] == "#":
			c.notes = append(c.notes, strings.Join(f[1:], " "))
		case f[0] == "lean":
			c.lean = true
		case f[0] == "unknown" && len(f) > 3:
			c.unknown = append(c.unknown, whoUnknown{f[1], strings.Join(f[3:], " "), strings.Split(f[2], ",")})
		case f[0] == "want":
			w := whoWant{path: "file", keys: map[string]string{}}
			for i, p := range f[1:] {
				key, value, ok := strings.Cut(p, "=")
				switch {
				case ok && slices.Contains(whoKeys, key):
					w.keys[key] = strings.ReplaceAll(value, `\x20`, " ")
				case !ok && i == 0:
					w.path = p
				default:
					return fail("%q is no KEY=VALUE of %v", p, whoKeys)
				}
			}
			if !strings.HasPrefix(w.path, "/") {
				w.path = "/srv/who/" + c.file + "/" + w.path
			}
			for _, key := range []string{"user", "origin", "session", "exe", "chain"} {
				if w.keys[key] == "" {
					return fail("a want says nothing of %s", key)
				}
			}
			c.wants = append(c.wants, w)
		default:
			head = false
			c.script += line + "\n"
		}
	}
	for _, c := range all {
		if len(c.wants) == 0 || strings.TrimSpace(c.script) == "" {
			return nil, fmt.Errorf("%s: %s: no want or no script", file, c.name)
		}
	}
	return all, nil
}

// whoTruth is what a case says of itself: KEY=VALUE lines; of one key several values, with
// | between them.
type whoTruth map[string]string

func readTruth(file string) (whoTruth, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	t := whoTruth{}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			t[key] = strings.TrimPrefix(t[key]+"|"+value, "|")
		}
	}
	return t, nil
}

// whoCell is what one run says of one case: a line of the results.
type whoCell struct {
	Case     string   `json:"case"`
	Kernel   string   `json:"kernel"`
	Tier     string   `json:"tier"`
	SSH      string   `json:"ssh"`
	Build    string   `json:"build"` // sumOf the executable of Holdfast
	Is       string   `json:"is"`    // right, unknown or wrong
	Got      string   `json:"got"`
	Evidence string   `json:"evidence"`
	Why      []string `json:"why,omitempty"` // what is wrong; what is unknown
}

func (c whoCell) place() string { return c.SSH + " " + c.Tier }

// judgeCase compares the records with what was to be.
func judgeCase(c whoCase, at whoCell, records []object, truth whoTruth) whoCell {
	at.Case, at.Is = c.name, "right"
	wrong := func(format string, a ...any) { at.Is = "wrong"; at.Why = append(at.Why, fmt.Sprintf(format, a...)) }
	if code := truth["failed"]; code != "" {
		wrong("the case itself failed: exit code %s", code)
	}
	var got, evidence []string
	for _, w := range c.wants {
		found := 0
		for _, r := range records {
			if k := r.text("kind"); k != "change" && k != "attempt" || !w.about(r, c) {
				continue
			}
			found++
			got, evidence = append(got, r.whoSentence()), append(evidence, r.text("actor.evidence"))
			for _, d := range w.compare(r, at.SSH, truth) {
				why := fmt.Sprintf("%s: %s is %q, and was %s", r.brief(), d.key, d.got, d.want)
				if reason := c.mayBeUnknown(at.Tier, d.key); reason != "" && d.unknown {
					if at.Is == "right" {
						at.Is = "unknown"
					}
					why = reason
				} else if d.unknown {
					why = "unknown, and the case does not say why: " + why
					at.Is = "wrong"
				} else {
					at.Is = "wrong"
				}
				if !slices.Contains(at.Why, why) {
					at.Why = append(at.Why, why)
				}
			}
		}
		if found == 0 {
			wrong("no record about %s", w.path)
		}
	}
	at.Got, at.Evidence = strings.Join(once(got), " / "), strings.Join(once(evidence), ", ")
	return at
}

func once(l []string) []string {
	var out []string
	for _, s := range l {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// about tells whether r is about what w speaks of: the file, or for the file of a case
// everything in its directory that no other want names. What another case mounts over
// the file, where it alone sees it, changes nothing.
func (w whoWant) about(r object, c whoCase) bool {
	if r.text("op") == "mount" {
		return false
	}
	path, to := r.text("path"), r.text("path_to")
	if path == w.path || to == w.path {
		return true
	}
	own := "/srv/who/" + c.file + "/"
	if w.path != own+"file" || !strings.HasPrefix(path, own) {
		return false
	}
	return !slices.ContainsFunc(c.wants, func(o whoWant) bool { return o.path == path || o.path == to })
}

// whoDiffers is one key that is not what it was to be; unknown if the record says so.
type whoDiffers struct {
	key, got, want string
	unknown        bool
}

func (w whoWant) compare(r object, ssh string, truth whoTruth) []whoDiffers {
	var out []whoDiffers
	nobody := r.text("actor.evidence") == "none" && r.text("process.pid") == ""
	is := func(key, got, want string, known bool) {
		known = known && (!nobody || got == want)
		if known && !slices.Contains(strings.Split(want, "|"), got) || !known {
			out = append(out, whoDiffers{key, got, want, !known || got == "" || got == "unknown"})
		}
	}
	is("user", r.text("actor.user"), w.keys["user"], true)
	is("loginuid", r.text("actor.loginuid"), orElse(w.keys["loginuid"], uids[w.keys["user"]]), true)
	uid, euid := orElse(w.keys["uid"], uids[w.keys["as"]]), orElse(w.keys["euid"], uids[w.keys["as"]])
	is("uid", r.text("actor.uid"), uid, true)
	is("euid", r.text("actor.euid"), euid, true)
	is("via", strings.Join(r.object("actor").list("via"), ","), w.keys["via"], true)
	is("origin", r.text("actor.origin"), w.keys["origin"], true)
	is("source_ip", r.text("actor.source_ip"), orElse(w.keys["source_ip"], addresses[w.keys["from"]]), true)
	if port := truth[w.keys["from"]+".port"]; port != "" {
		is("source_port", r.text("actor.source_port"), port, true)
	}
	if pid := truth["pid"]; pid != "" && w.keys["from"] == "alice" {
		is("pid", r.text("process.pid"), pid, true)
	}
	session := r.text("actor.session")
	switch name := w.keys["session"]; name {
	case "svc":
		is("session", strings.SplitN(session, "-", 2)[0], "svc", true)
	case "own":
		taken := false
		for key, value := range truth {
			taken = taken || strings.HasSuffix(key, ".session") && slices.Contains(strings.Split(value, "|"), strings.TrimPrefix(session, "login-"))
		}
		if !strings.HasPrefix(session, "login-") || taken {
			is("session", session, "a login of its own", true)
		}
	default:
		is("session", session, "login-"+strings.ReplaceAll(orElse(truth[name+".session"], "?"), "|", "|login-"), true)
	}
	is("exe", r.text("process.exe"), w.keys["exe"], true)
	var chains []string
	for c := range strings.SplitSeq(w.keys["chain"], "|") {
		for _, name := range processesOf(ssh) {
			chains = append(chains, strings.ReplaceAll(c, "SSHD", name))
		}
	}
	chain := strings.Join(slices.Compact(r.chain()), ",")
	want := strings.Join(chains, "|")
	is("chain", chain, want, !slices.ContainsFunc(chains, func(c string) bool { return unknownIn(chain, c) }))
	return out
}

// unknownIn tells whether chain is want, but for programs that it calls unknown, the
// first of which may stand for several.
func unknownIn(chain, want string) bool {
	if rest, ok := strings.CutPrefix(chain, "unknown,"); ok && strings.HasSuffix(want, ","+rest) {
		return true
	}
	have, all := strings.Split(chain, ","), strings.Split(want, ",")
	for i := range have {
		if len(have) != len(all) || have[i] != all[i] && have[i] != "unknown" {
			return false
		}
	}
	return strings.Contains(chain, "unknown")
}

// processesOf are the names of a session's process in an OpenSSH of that version.
func processesOf(ssh string) []string {
	if strings.HasPrefix(ssh, "9.") && !strings.HasPrefix(ssh, "9.8") && !strings.HasPrefix(ssh, "9.9") {
		return []string{"sshd"}
	}
	return []string{"sshd-session"}
}

func (o object) object(key string) object {
	m, _ := o[key].(map[string]any)
	return m
}

func TestCasesOfAttributionAreWrittenCorrectly(t *testing.T) {
	cases, err := readCases(filepath.Join("who", "cases.txt"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, c := range cases {
		if names[c.file] {
			t.Errorf("two cases are called %s", c.file)
		}
		names[c.file] = true
	}
}

func TestJudgeCase(t *testing.T) {
	c := whoCase{name: "a case", file: "a-case", wants: []whoWant{{"/srv/who/a-case/file", map[string]string{
		"user": "alice", "as": "root", "via": "sudo", "origin": "ssh", "from": "alice", "session": "alice", "exe": "/usr/bin/sed", "chain": "SSHD,bash,sudo,sed"}}}}
	record := func(change ...string) object {
		actor := map[string]any{"user": "alice", "loginuid": "2001", "uid": "0", "euid": "0", "via": []any{"sudo"}, "origin": "ssh",
			"source_ip": "10.77.0.2", "source_port": "700", "session": "login-7", "evidence": "accepted_socket"}
		process := map[string]any{"exe": "/usr/bin/sed", "ancestors": []any{map[string]any{"exe": "/usr/bin/sudo"}, map[string]any{"exe": "/usr/bin/sudo"},
			map[string]any{"exe": "/usr/bin/bash"}, map[string]any{"exe": "/usr/sbin/sshd"}}}
		for i := 0; i < len(change); i += 2 {
			if _, ok := actor[change[i]]; ok {
				actor[change[i]] = change[i+1]
			} else {
				process[change[i]] = change[i+1]
			}
		}
		return object{"kind": "change", "path": "/srv/who/a-case/file", "actor": actor, "process": process}
	}
	truth := whoTruth{"alice.session": "7", "alice.port": "700"}
	for _, tt := range []struct {
		name    string
		records []object
		is, why string
	}{
		{"what was to be is right", []object{record()}, "right", ""},
		{"another person is wrong", []object{record("user", "bob")}, "wrong", "user is"},
		{"another session is wrong", []object{record("session", "login-8")}, "wrong", "session is"},
		{"another port is wrong", []object{record("source_port", "701")}, "wrong", "source_port is"},
		{"another program is wrong", []object{record("exe", "/usr/bin/ed")}, "wrong", "exe is"},
		{"one wrong record among right ones is wrong", []object{record(), record("uid", "2001")}, "wrong", "uid is"},
		{"unknown without a reason is wrong", []object{record("source_ip", "")}, "wrong", "does not say why"},
		{"no record at all is wrong", nil, "wrong", "no record"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := judgeCase(c, whoCell{SSH: "9.2", Tier: "lsm"}, tt.records, truth)
			if why := strings.Join(got.Why, "\n"); got.Is != tt.is || tt.why == "" && why != "" || !strings.Contains(why, tt.why) {
				t.Errorf("got %s, %s; want %s, %q in it", got.Is, why, tt.is, tt.why)
			}
		})
	}
	c.unknown = []whoUnknown{{"*", "there is no telling", []string{"source_ip"}}}
	if got := judgeCase(c, whoCell{SSH: "9.2"}, []object{record("source_ip", "")}, truth); got.Is != "unknown" {
		t.Errorf("what may be unknown and is: got %s, %v", got.Is, got.Why)
	}
	if got := judgeCase(c, whoCell{SSH: "9.2"}, []object{record("source_ip", "10.77.0.3")}, truth); got.Is != "wrong" {
		t.Errorf("what may be unknown and is another: got %s, %v", got.Is, got.Why)
	}
}
