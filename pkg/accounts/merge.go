package accounts

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// entry is one record for a merge.
type entry struct {
	id   string // what it is the record of; of those with the same name each has its own
	text string
	name string // for people
}

// Merge applies to mine what leads from base to theirs, record by record: one user, one
// group, one member of a group, one key, one rule of sudoers, one job of cron. To take a change
// back, base is what it left, theirs what it found, and mine what is there now. ok is false
// for a file that it does not know. Conflicts name the records that both sides changed, or what is wrong with the
// result; with any of them there is no result. No conflict holds a secret.
//
// A record that both sides changed in the same way is none. The members of a group are
// records of their own.
func Merge(path string, base, theirs, mine []byte) (merged []byte, conflicts []string, ok bool) {
	f, ok := parsePath(strings.TrimSuffix(path, "-")) // passwd- and its like are what was there before
	if !ok || !f.merges() || strings.HasSuffix(path, "-") && fieldsOf(f.kind) == 0 {
		return nil, nil, false
	}
	if bytes.IndexByte(base, 0) >= 0 || bytes.IndexByte(theirs, 0) >= 0 || bytes.IndexByte(mine, 0) >= 0 {
		return nil, []string{"it holds bytes that no such file has"}, true
	}
	m := merge{f: &f, base: entries(&f, base), theirs: entries(&f, theirs), mine: entries(&f, mine)}
	m.run()
	if len(m.conflicts) > 0 {
		return nil, m.conflicts, true
	}
	merged = m.result()
	if bad := faults(&f, mine, merged); len(bad) > 0 {
		return nil, bad, true
	}
	return merged, nil, true
}

func (f *file) merges() bool {
	switch f.kind {
	case passwd, shadow, group, gshadow, subids, sudoers, keys, crontab, crond:
		return true
	}
	return false
}

// ordered reports whether the order of records means something: in sudoers the last one
// that matches counts.
func (f *file) ordered() bool { return f.kind == sudoers }

func entries(f *file, b []byte) []entry {
	var out []entry
	seen := map[string]int{}
	add := func(id, text, name string) {
		n := seen[id]
		seen[id]++
		out = append(out, entry{id: id + "\x00" + strconv.Itoa(n), text: text, name: name})
	}
	switch f.kind {
	case sudoers, crontab, crond: // a continued line is one record
		for _, l := range physical(b) {
			add(l, l, quote(l))
		}
	case keys:
		for _, l := range linesOf(b) {
			if k, ok := parseKey(l); ok {
				add(k.print, l, "key "+k.print)
			} else {
				add(l, l, quote(l))
			}
		}
	default:
		for _, r := range rowsOf(f.kind, b) {
			name := quote(r.key)
			if !r.ok() {
				name = "a line that is no record"
			}
			add(r.key, r.text, name)
		}
	}
	return out
}

// physical gives the lines with those that continue them, as they are.
func physical(b []byte) []string {
	var out []string
	cont := false
	for _, l := range linesOf(b) {
		if cont {
			out[len(out)-1] += "\n" + l
		} else {
			out = append(out, l)
		}
		cont = strings.HasSuffix(l, `\`) && !strings.HasSuffix(l, `\\`)
	}
	return out
}

type merge struct {
	f                  *file
	base, theirs, mine []entry
	text               map[string]string  // of entries of mine that change
	gone               map[string]bool    // entries of mine that go
	behind             map[string][]entry // what comes behind an entry of mine, or behind "" at the beginning
	conflicts          []string
}

func (m *merge) conflict(format string, args ...any) {
	if len(m.conflicts) < maxSentences {
		m.conflicts = append(m.conflicts, fmt.Sprintf(format, args...))
	}
}

func byID(es []entry) map[string]*entry {
	x := make(map[string]*entry, len(es))
	for i := range es {
		x[es[i].id] = &es[i]
	}
	return x
}

func (m *merge) run() {
	m.text, m.gone, m.behind = map[string]string{}, map[string]bool{}, map[string][]entry{}
	base, theirs, mine := byID(m.base), byID(m.theirs), byID(m.mine)
	if m.f.ordered() && !sameOrder(m.base, m.theirs) {
		m.conflict("the order of its rules is not as it was before, and the last one that matches counts")
	}
	for i := range m.base {
		b := &m.base[i]
		t, o := theirs[b.id], mine[b.id]
		switch {
		case t != nil && t.text == b.text:
		case t == nil && o == nil, t != nil && o != nil && t.text == o.text:
		case t == nil && o.text == b.text:
			m.gone[b.id] = true
		case o != nil && o.text == b.text:
			m.text[b.id] = t.text
		case t != nil && o != nil && m.members(b, t, o):
		case t == nil:
			m.conflict("%s was changed since", b.name)
		case o == nil:
			m.conflict("%s was taken away since", b.name)
		default:
			m.conflict("%s was changed on both sides", b.name)
		}
	}
	at := "" // the entry of mine behind which theirs is
	for i := range m.theirs {
		t := &m.theirs[i]
		o := mine[t.id]
		switch {
		case o != nil && base[t.id] == nil && o.text != t.text:
			m.conflict("%s is there again, and is another one", t.name)
		case o == nil && base[t.id] == nil:
			m.behind[at] = append(m.behind[at], *t)
		}
		if o != nil && !m.gone[t.id] {
			at = t.id
		}
	}
	if m.f.ordered() {
		m.places(base, theirs)
	}
}

// places finds records that come in where somebody else put one: which of them is the last
// one that matches?
func (m *merge) places(base, theirs map[string]*entry) {
	check := func(at string, next []entry) {
		come := m.behind[at]
		if len(come) == 0 {
			return
		}
		for i := range next {
			e := &next[i]
			if m.gone[e.id] {
				continue
			}
			if base[e.id] == nil && theirs[e.id] == nil && !idle(e.text) {
				m.conflict("%s belongs where %s is now, and the last rule that matches counts", come[0].name, e.name)
			}
			return
		}
	}
	check("", m.mine)
	for i := range m.mine {
		check(m.mine[i].id, m.mine[i+1:])
	}
}

// result puts together what is to be there.
func (m *merge) result() []byte {
	var b bytes.Buffer
	put := func(text string) {
		b.WriteString(text)
		b.WriteByte('\n')
	}
	for _, e := range m.behind[""] {
		put(e.text)
	}
	for i := range m.mine {
		e := &m.mine[i]
		if text, ok := m.text[e.id]; ok {
			put(text)
		} else if !m.gone[e.id] {
			put(e.text)
		}
		for _, x := range m.behind[e.id] {
			put(x.text)
		}
	}
	return b.Bytes()
}

// sameOrder reports whether what both have stands in the same order.
func sameOrder(a, b []entry) bool {
	common := func(x, y []entry) (out []string) {
		has := byID(y)
		for i := range x {
			if has[x[i].id] != nil && !idle(x[i].text) {
				out = append(out, x[i].id)
			}
		}
		return out
	}
	return slices.Equal(common(a, b), common(b, a))
}

// members merges a group's lists of names where all else was changed on one side at most.
func (m *merge) members(b, t, o *entry) bool {
	if m.f.kind != group && m.f.kind != gshadow {
		return false
	}
	fb, ft, fo := strings.Split(b.text, ":"), strings.Split(t.text, ":"), strings.Split(o.text, ":")
	if len(fb) != 4 || len(ft) != 4 || len(fo) != 4 {
		return false
	}
	out := slices.Clone(fo)
	for i := range fb {
		switch {
		case ft[i] == fb[i] || ft[i] == fo[i]:
		case i == 3 || i == 2 && m.f.kind == gshadow:
			out[i] = strings.Join(mergeSet(split(fb[i]), split(ft[i]), split(fo[i])), ",")
		case fo[i] == fb[i]:
			out[i] = ft[i]
		default:
			return false
		}
	}
	m.text[o.id] = strings.Join(out, ":")
	return true
}

func mergeSet(base, theirs, mine []string) []string {
	out := slices.DeleteFunc(slices.Clone(mine), func(s string) bool { return slices.Contains(base, s) && !slices.Contains(theirs, s) })
	for _, s := range theirs {
		if !slices.Contains(base, s) && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// faults tells what is wrong with a result that was not wrong before.
func faults(f *file, before, after []byte) []string {
	_, come := difference(check(f, before), check(f, after))
	return come
}

// check finds what the tools that read a file would stumble over, as far as it is known.
func check(f *file, b []byte) []string {
	var out []string
	switch f.kind {
	case sudoers:
		for _, l := range sudoLines(b) {
			if l.err != nil {
				out = append(out, "sudo would refuse "+quote(l.text))
			}
		}
	case crontab, crond:
		_, _, bad := cronTab(f, b)
		for _, l := range bad {
			out = append(out, "cron would not understand "+quote(l))
		}
	case keys:
	default:
		out = checkRows(f, b)
	}
	return out
}

func checkRows(f *file, b []byte) []string {
	var out []string
	root := false
	for _, r := range rowsOf(f.kind, b) {
		if !r.ok() {
			if !idle(r.text) && !strings.HasPrefix(r.text, "+") && !strings.HasPrefix(r.text, "-") {
				out = append(out, "a line has another number of fields than a record")
			}
			continue
		}
		root = root || r.key == "root"
		if r.n > 0 && f.kind != subids {
			out = append(out, "there are two records of "+quote(r.key))
		}
		numbers := map[kind][]int{passwd: {2, 3}, group: {2}, subids: {1, 2}}[f.kind]
		for _, i := range numbers {
			if _, err := strconv.ParseUint(r.f[i], 10, 32); err != nil {
				out = append(out, quote(r.f[0])+" has no number where one belongs")
			}
		}
	}
	if !root && f.kind != subids && f.kind != gshadow {
		out = append(out, "there is no record of `root`")
	}
	return out
}
