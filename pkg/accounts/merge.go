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
	merged = join(m.out)
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

func join(es []entry) []byte {
	var b bytes.Buffer
	for _, e := range es {
		b.WriteString(e.text)
		b.WriteByte('\n')
	}
	return b.Bytes()
}

type merge struct {
	f                  *file
	base, theirs, mine []entry
	out                []entry
	conflicts          []string
}

func find(es []entry, id string) int {
	return slices.IndexFunc(es, func(e entry) bool { return e.id == id })
}

func (m *merge) conflict(format string, args ...any) {
	m.conflicts = append(m.conflicts, fmt.Sprintf(format, args...))
}

func (m *merge) run() {
	m.out = slices.Clone(m.mine)
	byID := func(es []entry) map[string]*entry {
		x := make(map[string]*entry, len(es))
		for i := range es {
			x[es[i].id] = &es[i]
		}
		return x
	}
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
			m.out = slices.DeleteFunc(m.out, func(e entry) bool { return e.id == b.id })
		case o != nil && o.text == b.text:
			m.out[find(m.out, b.id)].text = t.text
		case t != nil && o != nil && m.members(b, t, o):
		case t == nil:
			m.conflict("%s was changed since", b.name)
		case o == nil:
			m.conflict("%s was taken away since", b.name)
		default:
			m.conflict("%s was changed on both sides", b.name)
		}
	}
	for i := range m.theirs {
		t := &m.theirs[i]
		if base[t.id] != nil {
			continue
		}
		switch o := mine[t.id]; {
		case o == nil:
			m.insert(i)
		case o.text != t.text:
			m.conflict("%s is there again, and is another one", t.name)
		}
	}
}

// insert puts theirs[i] behind what stands before it there.
func (m *merge) insert(i int) {
	at := 0
	for j := i - 1; j >= 0; j-- {
		if k := find(m.out, m.theirs[j].id); k >= 0 {
			at = k + 1
			break
		}
	}
	// What follows in theirs should follow here too, else somebody added at the same place.
	if m.f.ordered() && at < len(m.out) && !m.known(m.out[at].id) && !idle(m.out[at].text) {
		m.conflict("%s belongs where %s is now, and the last rule that matches counts", m.theirs[i].name, m.out[at].name)
		return
	}
	m.out = slices.Insert(m.out, at, m.theirs[i])
}

func (m *merge) known(id string) bool { return find(m.base, id) >= 0 || find(m.theirs, id) >= 0 }

// sameOrder reports whether what both have stands in the same order.
func sameOrder(a, b []entry) bool {
	common := func(x, y []entry) (out []string) {
		for i := range x {
			if find(y, x[i].id) >= 0 && !idle(x[i].text) {
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
	m.out[find(m.out, o.id)].text = strings.Join(out, ":")
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
