package accounts

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// difference gives what only one of two lists has, each as often as it has it more.
func difference(a, b []string) (gone, come []string) {
	n := map[string]int{}
	for _, s := range b {
		n[s]++
	}
	for _, s := range a {
		if n[s] > 0 {
			n[s]--
		} else {
			gone = append(gone, s)
		}
	}
	have := map[string]int{}
	for _, s := range a {
		have[s]++
	}
	for _, s := range b {
		if have[s] > 0 {
			have[s]--
		} else {
			come = append(come, s)
		}
	}
	return gone, come
}

func sortedKeys[V any](ms ...map[string]V) []string {
	var out []string
	for _, m := range ms {
		for k := range m {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// pamLines are the rules of a file in pam.d, with blanks made one.
func pamLines(b []byte) []string {
	var out []string
	for _, l := range logical(string(b)) {
		l, _, _ = strings.Cut(l, "#")
		if l = strings.Join(strings.Fields(l), " "); l != "" {
			out = append(out, l)
		}
	}
	return out
}

func (t *told) pam(f *file, before, after []byte) {
	old, now := pamLines(before), pamLines(after)
	gone, come := difference(old, now)
	for _, l := range gone {
		if t.full() {
			continue
		}
		t.say("PAM: %s: %s taken away", text(f.name), quote(l))
	}
	for _, l := range come {
		if t.full() {
			continue
		}
		t.say("PAM: %s: %s added", text(f.name), quote(l))
	}
	if len(gone)+len(come) == 0 && !slices.Equal(old, now) {
		t.say("PAM: the order of rules of %s changed", text(f.name))
	}
}

// cronTab is a crontab(5): jobs as "user\x00when command", and variables.
func cronTab(f *file, b []byte) (jobs []string, env map[string]string, bad []string) {
	env = map[string]string{}
	for _, l := range linesOf(b) {
		if idle(l) {
			continue
		}
		words := strings.Fields(l)
		n := 5
		if strings.HasPrefix(words[0], "@") {
			n = 1
		} else if name, value, ok := strings.Cut(l, "="); ok && !strings.ContainsAny(strings.TrimSpace(name), "*/ \t,") {
			env[strings.Trim(strings.TrimSpace(name), `"'`)] = strings.TrimSpace(value)
			continue
		}
		user := f.owner
		if f.kind == crond {
			if len(words) < n+2 {
				bad = append(bad, l)
				continue
			}
			user = words[n]
			words = slices.Delete(words, n, n+1)
		}
		if len(words) < n+1 {
			bad = append(bad, l)
			continue
		}
		jobs = append(jobs, user+"\x00"+strings.Join(words, " "))
	}
	return jobs, env, bad
}

func (t *told) cron(f *file, before, after []byte) {
	oldJobs, oldEnv, oldBad := cronTab(f, before)
	jobs, env, bad := cronTab(f, after)
	gone, come := difference(oldJobs, jobs)
	for _, j := range gone {
		if t.full() {
			continue
		}
		user, job, _ := strings.Cut(j, "\x00")
		t.say("cron job of %s taken away: %s", quote(user), quote(job))
	}
	for _, j := range come {
		if t.full() {
			continue
		}
		user, job, _ := strings.Cut(j, "\x00")
		t.say("cron job of %s added: %s", quote(user), quote(job))
	}
	for _, name := range sortedKeys(oldEnv, env) {
		if t.full() {
			continue
		}
		a, had := oldEnv[name]
		b, has := env[name]
		if had != has || a != b {
			t.say("variable %s of cron jobs %s", quote(name), become(had, has))
		}
	}
	gone, come = difference(oldBad, bad)
	if len(gone) > 0 {
		t.say("lines that cron did not understand were taken away")
	}
	if len(come) > 0 {
		t.say("lines that cron does not understand were added")
	}
}

func become(had, has bool) string {
	switch {
	case !had:
		return "added"
	case !has:
		return "taken away"
	}
	return "changed"
}

// setting is an assignment of a unit file (systemd.syntax(7)).
type setting struct{ section, key, value string }

func settings(b []byte) []setting {
	var out []setting
	section := ""
	for _, l := range logical(string(b)) {
		l = strings.TrimSpace(l)
		switch {
		case l == "" || l[0] == '#' || l[0] == ';':
		case l[0] == '[':
			section = strings.Trim(l, "[]")
		default:
			if key, value, ok := strings.Cut(l, "="); ok {
				out = append(out, setting{section, strings.TrimSpace(key), strings.TrimSpace(value)})
			}
		}
	}
	return out
}

// public writes a setting as far as it may be told: of variables and credentials the names.
func (s setting) public() string {
	switch s.key {
	case "Environment", "SetCredential", "SetCredentialEncrypted":
		sep := "="
		if s.key != "Environment" {
			sep = ":"
		}
		var names []string
		for _, w := range words(s.value) {
			name, _, _ := strings.Cut(w, sep)
			names = append(names, name)
		}
		return s.key + "=" + strings.Join(names, " ")
	}
	return s.key + "=" + s.value
}

// words splits at blanks that are not quoted.
func words(s string) []string {
	var out []string
	var cur strings.Builder
	quote := byte(0)
	flush := func() {
		if cur.Len() > 0 {
			out = append(out, cur.String())
			cur.Reset()
		}
	}
	for i := range len(s) {
		switch c := s[i]; {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote == 0 && (c == ' ' || c == '\t'):
			flush()
		default:
			cur.WriteByte(c)
		}
	}
	flush()
	return out
}

// telling are the settings that a new unit is told by.
func telling() []string {
	return []string{"ExecStartPre", "ExecStart", "ExecStartPost", "ExecStop", "ExecReload", "User", "OnCalendar", "OnBootSec", "OnUnitActiveSec",
		"ListenStream", "ListenDatagram", "PathExists", "PathChanged", "PathModified", "What", "Where"}
}

func (t *told) unit(f *file, before, after []byte) {
	name := "unit " + quote(f.name)
	if strings.HasSuffix(f.dir, ".d") && path.Ext(f.name) == ".conf" {
		name = "unit " + quote(strings.TrimSuffix(f.dir, ".d")) + " (drop-in " + text(f.name) + ")"
	}
	old, now := settings(before), settings(after)
	switch {
	case len(before) == 0:
		t.say("%s added%s", name, summary(now))
		return
	case len(after) == 0:
		t.say("%s removed%s", name, summary(old))
		return
	}
	flat := func(all []setting) []string {
		var out []string
		for _, s := range all {
			out = append(out, s.section+"\x00"+s.key+"\x00"+s.value)
		}
		return out
	}
	back := func(s string) setting {
		p := strings.SplitN(s, "\x00", 3)
		return setting{p[0], p[1], p[2]}
	}
	gone, come := difference(flat(old), flat(now))
	next := map[string][]setting{} // what has come, by section and key
	place := func(s setting) string { return s.section + "\x00" + s.key }
	for _, c := range come {
		s := back(c)
		next[place(s)] = append(next[place(s)], s)
	}
	for _, g := range gone {
		if t.full() {
			continue
		}
		a := back(g)
		k := place(a)
		if len(next[k]) == 0 {
			t.say("%s: %s taken away", name, quote(a.public()))
			continue
		}
		b := next[k][0]
		next[k] = next[k][1:]
		if a.public() == b.public() {
			t.say("%s: the value of %s changed", name, quote(a.public()))
		} else {
			t.say("%s: %s changed to %s", name, quote(a.public()), quote(b.public()))
		}
	}
	for _, c := range come {
		if t.full() {
			continue
		}
		s := back(c)
		k := place(s)
		if n := next[k]; len(n) > 0 && n[0] == s {
			next[k] = n[1:]
			t.say("%s: %s added", name, quote(s.public()))
		}
	}
	if len(gone) == 0 && len(come) == 0 && !slices.Equal(flat(old), flat(now)) {
		t.say("%s: the order of its settings changed", name)
	}
}

func summary(all []setting) string {
	var out []string
	for _, s := range all {
		if slices.Contains(telling(), s.key) && s.value != "" {
			out = append(out, quote(s.public()))
		}
	}
	if len(out) == 0 {
		return ""
	}
	return ": " + strings.Join(out[:min(len(out), 6)], ", ")
}

// unitLink tells what a link below systemd's directories does: enabling, masking, naming.
func (t *told) unitLink(f *file, before, after *Side) {
	name := "unit " + quote(f.name)
	by, asks := strings.CutSuffix(f.dir, ".wants")
	if !asks {
		by, asks = strings.CutSuffix(f.dir, ".requires")
	}
	null := func(s *Side) bool { return s.Target == "/dev/null" }
	switch {
	case asks && before.Target == "":
		t.say("%s is started with %s", name, quote(by))
	case asks && after.Target == "":
		t.say("%s is no longer started with %s", name, quote(by))
	case null(after):
		t.say("%s masked: it cannot be started", name)
	case null(before) && after.Target == "":
		t.say("%s unmasked", name)
	case after.Target == "":
		t.say("%s is no longer a name of %s", name, quote(path.Base(before.Target)))
	default:
		t.say("%s is a name of %s now", name, quote(cmp.Or(path.Base(after.Target), after.Target)))
	}
}
