package accounts

import (
	"slices"
	"strings"
)

// row is a line of a file whose fields are separated by colons.
type row struct {
	key  string // the name, or the whole line where it is no record
	text string // without its newline
	f    []string
	n    int // among those of the same key, from 0
}

// ok reports whether the line is a record: comments, blanks and lines with another
// number of fields are none.
func (r *row) ok() bool { return r.f != nil }

// fieldsOf is how many fields a record has (passwd(5), shadow(5), group(5), gshadow(5),
// subuid(5)).
func fieldsOf(k kind) int {
	switch k {
	case passwd:
		return 7
	case shadow:
		return 9
	case group, gshadow:
		return 4
	case subids:
		return 3
	}
	return 0
}

// linesOf splits a content at its newlines.
func linesOf(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

func rowsOf(k kind, b []byte) []row {
	want := fieldsOf(k)
	seen := map[string]int{}
	var out []row
	for _, l := range linesOf(b) {
		r := row{key: "\x00" + l, text: l}
		if f := strings.Split(l, ":"); len(f) == want && f[0] != "" && !strings.HasPrefix(strings.TrimSpace(l), "#") {
			r.key, r.f = f[0], f
			if k == subids { // one name may have several ranges
				r.key = l
			}
		}
		r.n = seen[r.key]
		seen[r.key]++
		out = append(out, r)
	}
	return out
}

// pair is a record on both sides; either may be nil.
type pair struct{ a, b *row }

// pairs matches the records of two contents by name, and those of one name in their
// order: first those of the first one, then what is new. Lines that are no records
// come as such.
func pairs(a, b []row) []pair {
	type id struct {
		key string
		n   int
	}
	at := make(map[id]*row, len(b))
	for i := range b {
		at[id{b[i].key, b[i].n}] = &b[i]
	}
	var out []pair
	for i := range a {
		k := id{a[i].key, a[i].n}
		out = append(out, pair{&a[i], at[k]})
		delete(at, k)
	}
	for i := range b {
		if at[id{b[i].key, b[i].n}] != nil {
			out = append(out, pair{nil, &b[i]})
		}
	}
	return slices.DeleteFunc(out, func(p pair) bool { return p.a != nil && p.b != nil && p.a.text == p.b.text })
}

// odd tells of lines that are no records.
func (t *told) odd(p pair) bool {
	switch {
	case p.a != nil && !p.a.ok() && !idle(p.a.text):
		t.say("a line that is no record was taken away")
	case p.b != nil && !p.b.ok() && !idle(p.b.text):
		t.say("a line that is no record was added")
	}
	return p.a != nil && !p.a.ok() || p.b != nil && !p.b.ok()
}

func idle(l string) bool {
	l = strings.TrimSpace(l)
	return l == "" || strings.HasPrefix(l, "#")
}

// renames finds records that went under one name and came under another one: same(a, b),
// and no other one like them. It gives the pairs without these.
func renames(all []pair, same func(a, b *row) bool) (moved, rest []pair) {
	if len(all) > 200 { // a file that came, went or was replaced as a whole
		return nil, all
	}
	took := map[*row]bool{}
	for _, p := range all {
		if p.b != nil || !p.a.ok() {
			continue
		}
		var to []*row
		for _, q := range all {
			if q.a == nil && q.b.ok() && q.b.n == 0 && same(p.a, q.b) && !took[q.b] {
				to = append(to, q.b)
			}
		}
		if len(to) == 1 {
			took[p.a], took[to[0]] = true, true
			moved = append(moved, pair{p.a, to[0]})
		}
	}
	rest = slices.DeleteFunc(all, func(p pair) bool { return p.a == nil && took[p.b] || p.b == nil && took[p.a] })
	return moved, rest
}

// sayings are what is told of the records of a file.
type sayings struct {
	same       func(a, b *row) bool // b is a under another name; nil where that is not looked for
	renamed    string               // of both names
	gone, come func(r *row)
	changed    func(a, b *row)
}

// records tells of each record that differs.
func (t *told) records(old, now []row, w sayings) {
	rest := pairs(old, now)
	if w.same != nil {
		var moved []pair
		moved, rest = renames(rest, w.same)
		for _, p := range moved {
			t.say(w.renamed, quote(p.a.f[0]), quote(p.b.f[0]))
			w.changed(p.a, p.b)
		}
	}
	for _, p := range rest {
		switch {
		case t.full(), t.odd(p):
		case p.b == nil:
			w.gone(p.a)
		case p.a == nil:
			w.come(p.b)
		default:
			w.changed(p.a, p.b)
		}
	}
}

func (t *told) passwd(before, after []byte) {
	now := rowsOf(passwd, after)
	t.records(rowsOf(passwd, before), now, sayings{
		same:    func(a, b *row) bool { return a.f[2] == b.f[2] && a.f[3] == b.f[3] && a.f[6] == b.f[6] },
		renamed: "user %s renamed to %s",
		gone:    func(r *row) { t.say("user %s removed, who had uid %s", quote(r.f[0]), text(r.f[2])) },
		come: func(r *row) {
			f := r.f
			what := "user"
			if r.n > 0 {
				what = "another line for user"
			}
			s := what + " " + quote(f[0]) + " added with uid " + text(f[2])
			if as := sameUID(now, r); as != "" {
				s += ", the same as " + quote(as)
			}
			s += ", gid " + text(f[3]) + ", home " + or(text(f[5]), "none") + ", shell " + or(text(f[6]), "/bin/sh")
			t.say("%s%s", s, passwordThere(f[1]))
		},
		changed: t.user,
	})
}

// passwordThere tells what the password field of passwd or group does, "" for the usual x.
func passwordThere(f string) string {
	if f == "" {
		return ", and needs no password"
	}
	if _, hash, _ := password(f); hash != "" {
		return ", with a password hash that everybody can read"
	}
	return ""
}

func sameUID(now []row, r *row) string {
	for i := range now {
		if o := &now[i]; o.ok() && o.f[0] != r.f[0] && o.f[2] == r.f[2] {
			return o.f[0]
		}
	}
	return ""
}

func (t *told) user(a, b *row) {
	name := quote(b.f[0])
	if a.f[1] != b.f[1] {
		switch is := passwordThere(b.f[1]); {
		case b.f[1] == "":
			t.say("user %s needs no password now", name)
		case is != "":
			t.say("password of %s changed in passwd itself, where everybody can read its hash", name)
		default:
			t.say("password of %s is looked up in shadow now", name)
		}
	}
	for _, c := range []struct {
		i    int
		what string
	}{{2, "uid"}, {3, "gid"}, {4, "full name"}, {5, "home"}, {6, "shell"}} {
		if a.f[c.i] != b.f[c.i] {
			t.say("%s of %s changed from %s to %s", c.what, name, or(text(a.f[c.i]), "none"), or(text(b.f[c.i]), "none"))
		}
	}
}

func (t *told) group(before, after []byte) {
	t.records(rowsOf(group, before), rowsOf(group, after), sayings{
		same:    func(a, b *row) bool { return a.f[2] == b.f[2] },
		renamed: "group %s renamed to %s",
		gone:    func(r *row) { t.say("group %s removed, which had gid %s", quote(r.f[0]), text(r.f[2])) },
		come: func(r *row) {
			s := "group " + quote(r.f[0]) + " added with gid " + text(r.f[2])
			if m := split(r.f[3]); len(m) > 0 {
				s += " and the members " + quoteAll(m)
			}
			t.say("%s", s)
		},
		changed: func(a, b *row) {
			name := quote(b.f[0])
			if a.f[1] != b.f[1] {
				t.say("password of group %s changed in group itself", name)
			}
			if a.f[2] != b.f[2] {
				t.say("gid of group %s changed from %s to %s", name, text(a.f[2]), text(b.f[2]))
			}
			t.members(a.f[3], b.f[3], "group "+name, "")
		},
	})
}

// members tells who joined and who left.
func (t *told) members(a, b, what, where string) {
	old, now := split(a), split(b)
	for _, m := range now {
		if !slices.Contains(old, m) {
			t.say("%s joined %s%s", quote(m), what, where)
		}
	}
	for _, m := range old {
		if !slices.Contains(now, m) {
			t.say("%s left %s%s", quote(m), what, where)
		}
	}
}

// split reads a list separated by commas.
func split(s string) []string {
	return slices.DeleteFunc(strings.Split(s, ","), func(m string) bool { return m == "" })
}

func (t *told) subids(f *file, before, after []byte) {
	what := "user"
	if f.name == "subgid" {
		what = "group"
	}
	got := func(r *row) {
		t.say("%s got %s subordinate %s ids from %s on", quote(r.f[0]), text(r.f[2]), what, text(r.f[1]))
	}
	t.records(rowsOf(subids, before), rowsOf(subids, after), sayings{
		gone: func(r *row) {
			t.say("%s lost %s subordinate %s ids from %s on", quote(r.f[0]), text(r.f[2]), what, text(r.f[1]))
		},
		come:    got,
		changed: func(_, b *row) { got(b) },
	})
}
