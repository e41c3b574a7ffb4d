package accounts

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// grant is one command that one user may run: what a rule of sudoers(5) comes down to.
type grant struct {
	user, host, as, cmnd string
	tags                 string // in order, without those that say what holds anyway
}

func (g grant) who() string {
	switch {
	case strings.HasPrefix(g.user, "!"):
		return "everybody but " + grant{user: g.user[1:]}.who()
	case strings.HasPrefix(g.user, "%#"):
		return "members of the group with gid " + text(g.user[2:])
	case strings.HasPrefix(g.user, "%"):
		return "members of group " + quote(g.user[1:])
	case strings.HasPrefix(g.user, "+"):
		return "netgroup " + quote(g.user[1:])
	case strings.HasPrefix(g.user, "#"):
		return "the user with uid " + text(g.user[1:])
	case g.user == "ALL":
		return "everybody"
	}
	return quote(g.user)
}

// what writes the rest of the sentence behind "may" or "may no longer".
func (g grant) what() string {
	s := "run " + text(g.cmnd) + " as " + text(g.as)
	if strings.HasPrefix(g.cmnd, "!") {
		s = "not run " + text(g.cmnd[1:]) + " as " + text(g.as)
	}
	if g.host != "ALL" {
		s += " on " + text(g.host)
	}
	return s + tagText(g.tags)
}

func tagText(tags string) string {
	var out []string
	for _, tag := range strings.Fields(tags) {
		switch tag {
		case "NOPASSWD":
			out = append([]string{" without password"}, out...)
		default:
			out = append(out, " ("+text(tag)+")")
		}
	}
	return strings.Join(out, "")
}

// sudoLine is a logical line of sudoers, parsed.
type sudoLine struct {
	text   string // without comment, blanks made one
	grants []grant
	alias  [][2]string // kind and name, value
	other  string      // "Defaults" or "include"
	err    error
}

var errSudo = errors.New("sudo would not understand it")

// sudoLines reads a sudoers file as far as a meaning needs it (sudoers(5), sudo 1.9
// plugins/sudoers/gram.y): comments are gone, continued lines are one.
func sudoLines(b []byte) []sudoLine {
	var out []sudoLine
	for _, l := range logical(string(b)) {
		if s := strings.TrimSpace(l); s != "" {
			if d := includeOf(s); d != "" {
				out = append(out, sudoLine{text: d, other: "include"})
				continue
			}
			if s = strings.TrimSpace(uncomment(s)); s != "" {
				out = append(out, parseSudo(s))
			}
		}
	}
	return out
}

// logical joins lines that end in a backslash with the next.
func logical(s string) []string {
	var out []string
	cont := false
	for l := range strings.Lines(s) {
		l = strings.TrimRight(l, "\n")
		more := strings.HasSuffix(l, `\`) && !strings.HasSuffix(l, `\\`)
		l = strings.TrimSuffix(l, `\`)
		if !more && strings.HasSuffix(l, `\`) {
			l += `\` // two of them are one that is meant
		}
		if cont {
			out[len(out)-1] += " " + strings.TrimLeft(l, " \t")
		} else {
			out = append(out, l)
		}
		cont = more
	}
	return out
}

func includeOf(s string) string {
	for _, w := range []string{"#includedir", "@includedir", "#include", "@include"} {
		if rest, ok := strings.CutPrefix(s, w); ok && (strings.HasPrefix(rest, " ") || strings.HasPrefix(rest, "\t")) {
			return "include " + strings.TrimSpace(rest)
		}
	}
	return ""
}

// uncomment cuts a comment off: from a # on that no number follows and that is neither
// quoted nor escaped.
func uncomment(s string) string {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == '#' && !quoted:
			if i+1 < len(s) && s[i+1] >= '0' && s[i+1] <= '9' {
				continue
			}
			return s[:i]
		}
	}
	return s
}

func parseSudo(s string) sudoLine {
	l := sudoLine{text: strings.Join(strings.Fields(s), " ")}
	word, rest, _ := strings.Cut(s, " ")
	if w, r, ok := strings.Cut(word, "\t"); ok {
		word, rest = w, r+" "+rest
	}
	switch {
	case word == "Defaults" || strings.HasPrefix(word, "Defaults") && len(word) > 8 && strings.ContainsRune("@:!>", rune(word[8])):
		if l.other = "Defaults"; strings.TrimSpace(rest) == "" {
			l.err = errSudo
		}
	case word == "User_Alias" || word == "Runas_Alias" || word == "Host_Alias" || word == "Cmnd_Alias" || word == "Cmd_Alias":
		for _, def := range cutAll(rest, ':') {
			name, value, ok := cutFirst(def, '=')
			name, value = strings.TrimSpace(name), strings.Join(strings.Fields(value), " ")
			if !ok || value == "" || !aliasName(name) {
				l.err = errSudo
				break
			}
			l.alias = append(l.alias, [2]string{word + " " + name, value})
		}
	default:
		l.grants, l.err = parseGrants(s)
	}
	return l
}

func aliasName(s string) bool {
	if s == "" || s[0] < 'A' || s[0] > 'Z' || s == "ALL" {
		return false
	}
	return strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
}

// parseGrants reads "users hosts = (as) TAG: commands : hosts = …".
func parseGrants(s string) ([]grant, error) {
	users, rest := sudoList(s)
	if len(users) == 0 {
		return nil, errSudo
	}
	var out []grant
	for _, part := range cutAll(rest, ':', "=") {
		left, right, ok := cutFirst(part, '=')
		hosts, tail := sudoList(left)
		if !ok || len(hosts) == 0 || strings.TrimSpace(tail) != "" || strings.TrimSpace(right) == "" {
			return nil, errSudo
		}
		as := "root"
		tags := map[string]bool{}
		for _, c := range cutAll(right, ',', "(") {
			spec := strings.TrimSpace(c)
			if strings.HasPrefix(spec, "(") {
				in, after, ok := strings.Cut(spec[1:], ")")
				if !ok {
					return nil, errSudo
				}
				as, spec = runas(in), strings.TrimSpace(after)
			}
			spec = options(spec, tags)
			if spec == "" {
				return nil, errSudo
			}
			if !command(spec) {
				return nil, fmt.Errorf("%w: %s is no command", errSudo, quote(spec))
			}
			for _, u := range users {
				for _, h := range hosts {
					out = append(out, grant{user: u, host: h, as: as, cmnd: unescape(strings.Join(strings.Fields(spec), " ")), tags: tagList(tags)})
				}
			}
		}
	}
	if len(out) == 0 {
		return nil, errSudo
	}
	return out, nil
}

// command reports whether a word can stand where sudoers wants a command.
func command(s string) bool {
	s = strings.TrimLeft(s, "! ")
	first, _, _ := strings.Cut(s, " ")
	if name, sum, ok := strings.Cut(first, ":"); ok && strings.HasPrefix(name, "sha") && sum != "" {
		return true
	}
	switch {
	case strings.HasPrefix(first, "/"), strings.HasPrefix(first, `"/`), strings.HasPrefix(first, "^/"):
		return true
	case first == "ALL", first == "sudoedit", first == "list":
		return true
	}
	return s == first && aliasName(first)
}

// unescape takes the backslashes away that a command needs in a list.
func unescape(s string) string {
	return strings.NewReplacer(`\,`, ",", `\:`, ":", `\=`, "=", `\\`, `\`).Replace(s)
}

func runas(in string) string {
	users, groups, ok := strings.Cut(in, ":")
	clean := func(s string) string { return strings.Join(strings.Fields(strings.ReplaceAll(s, ",", ", ")), " ") }
	users, groups = clean(users), clean(groups)
	switch {
	case users == "" && groups == "":
		return "the same user"
	case users == "":
		return "group " + groups
	case !ok || groups == "" || groups == "ALL" && users == "ALL":
		return users
	}
	return users + " and group " + groups
}

// options takes TAG: and OPTION=value from the front of a command.
func options(s string, tags map[string]bool) string {
	for {
		s = strings.TrimSpace(s)
		i := strings.IndexAny(s, ":= \t/")
		if i <= 0 || s[i] != ':' && s[i] != '=' {
			return s
		}
		word := s[:i]
		if strings.Trim(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") != "" {
			return s
		}
		if s[i] == '=' {
			value, rest, _ := strings.Cut(strings.TrimSpace(s[i+1:]), " ")
			tags[word+"="+value] = true
			s = rest
			continue
		}
		base := strings.TrimPrefix(word, "NO") // no other tag begins so
		delete(tags, base)
		delete(tags, "NO"+base)
		tags[word] = true
		s = s[i+1:]
	}
}

func tagList(tags map[string]bool) string {
	var out []string
	for tag := range tags {
		switch tag {
		case "PASSWD", "EXEC", "NOSETENV", "NOINTERCEPT", "NOLOG_INPUT", "NOLOG_OUTPUT": // as without them
		default:
			out = append(out, tag)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// sudoList reads a list separated by commas from the front.
func sudoList(s string) (list []string, rest string) {
	for {
		s = strings.TrimLeft(s, " \t")
		i, quoted := 0, false
		for ; i < len(s); i++ {
			if s[i] == '\\' {
				i++
			} else if s[i] == '"' {
				quoted = !quoted
			} else if !quoted && strings.IndexByte(" \t,=", s[i]) >= 0 && strings.Trim(s[:i], "! ") != "" {
				break
			}
		}
		i = min(i, len(s))
		if word := strings.ReplaceAll(strings.TrimSpace(s[:i]), `"`, ""); word != "" {
			list = append(list, word)
		}
		s = strings.TrimLeft(s[i:], " \t")
		if !strings.HasPrefix(s, ",") {
			return list, s
		}
		s = s[1:]
	}
}

// cutAll splits at a byte that is neither quoted, escaped nor in brackets. A colon splits
// only where a = follows somewhere, so that those of tags and groups stay.
func cutAll(s string, at byte, need ...string) []string {
	var out []string
	from, depth, quoted := 0, 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == at && depth <= 0 && (at != ':' || len(need) == 0 || !digest(s[from:i]) && newPrivilege(s[i+1:])):
			out = append(out, s[from:i])
			from = i + 1
		}
	}
	return append(out, s[from:])
}

// digest reports whether a text ends in what stands before the digest of a command.
func digest(s string) bool {
	for _, name := range []string{"sha224", "sha256", "sha384", "sha512"} {
		if strings.HasSuffix(strings.TrimRight(s, " \t"), name) {
			return true
		}
	}
	return false
}

// newPrivilege reports whether "hosts =" follows, which no tag is.
func newPrivilege(s string) bool {
	hosts, rest := sudoList(s)
	if len(hosts) == 0 || !strings.HasPrefix(rest, "=") {
		return false
	}
	for _, o := range []string{"ROLE", "TYPE", "CWD", "CHROOT", "TIMEOUT", "NOTBEFORE", "NOTAFTER", "PRIVS", "LIMITPRIVS", "APPARMOR_PROFILE"} {
		if hosts[0] == o {
			return false
		}
	}
	return true
}

func cutFirst(s string, at byte) (before, after string, ok bool) {
	parts := cutAll(s, at)
	if len(parts) < 2 {
		return s, "", false
	}
	return parts[0], s[len(parts[0])+1:], true
}

func (t *told) sudoers(before, after []byte) {
	old, now := sudoLines(before), sudoLines(after)
	type key struct{ user, host, as, cmnd string }
	var order []key
	tags := map[key]*[2][]string{}
	for side, lines := range [][]sudoLine{old, now} {
		for _, l := range lines {
			for _, g := range l.grants {
				k := key{g.user, g.host, g.as, g.cmnd}
				if tags[k] == nil {
					tags[k] = &[2][]string{}
					order = append(order, k)
				}
				tags[k][side] = append(tags[k][side], g.tags)
			}
		}
	}
	n := len(t.out)
	for _, k := range order {
		if t.full() {
			continue
		}
		was, is := tags[k][0], tags[k][1]
		g := grant{user: k.user, host: k.host, as: k.as, cmnd: k.cmnd}
		switch {
		case len(is) == 0:
			g.tags = was[len(was)-1]
			t.say("sudoers: %s may no longer %s", g.who(), g.what())
		case len(was) == 0:
			g.tags = is[len(is)-1]
			t.say("sudoers: %s may %s", g.who(), g.what())
		case was[len(was)-1] != is[len(is)-1]:
			g.tags = is[len(is)-1]
			t.say("sudoers: %s may %s, before%s", g.who(), g.what(), or(tagText(was[len(was)-1]), " with password"))
		}
	}
	t.sudoRest(old, now)
	if a, b := sudoTexts(old), sudoTexts(now); len(t.out) == n && !slices.Equal(a, b) {
		gone, come := difference(a, b)
		if len(gone)+len(come) == 0 {
			t.say("sudoers: the order of rules changed, of which the last one that matches counts")
		} else {
			t.say("sudoers: rules are written in another way, which means the same as far as it is read")
		}
	}
}

func sudoTexts(l []sudoLine) []string {
	out := make([]string, len(l))
	for i := range l {
		out[i] = l[i].text
	}
	return out
}

// sudoRest tells of aliases, defaults, included files and what cannot be understood.
func (t *told) sudoRest(old, now []sudoLine) {
	aliases := func(lines []sudoLine) map[string]string {
		m := map[string]string{}
		for _, l := range lines {
			for _, a := range l.alias {
				m[a[0]] = a[1]
			}
		}
		return m
	}
	was, is := aliases(old), aliases(now)
	for _, name := range sortedKeys(was, is) {
		if t.full() {
			continue
		}
		a, had := was[name]
		b, has := is[name]
		switch {
		case !has:
			t.say("sudoers: %s taken away", text(name))
		case !had:
			t.say("sudoers: %s added: %s", text(name), text(b))
		case a != b:
			t.say("sudoers: %s changed from %s to %s", text(name), quote(a), quote(b))
		}
	}
	of := func(lines []sudoLine, pick func(*sudoLine) bool) []string {
		var out []string
		for i := range lines {
			if pick(&lines[i]) {
				out = append(out, lines[i].text)
			}
		}
		return out
	}
	other := func(l *sudoLine) bool { return l.other != "" && l.err == nil }
	gone, come := difference(of(old, other), of(now, other))
	for _, l := range gone {
		if t.full() {
			continue
		}
		t.say("sudoers: %s taken away", quote(l))
	}
	for _, l := range come {
		if t.full() {
			continue
		}
		t.say("sudoers: %s added", quote(l))
	}
	bad := func(l *sudoLine) bool { return l.err != nil }
	gone, come = difference(of(old, bad), of(now, bad))
	for range gone {
		t.say("sudoers: a line that could not be understood was taken away")
	}
	for range come {
		t.say("sudoers: a line was added that cannot be understood")
	}
}
