package accounts

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
)

// key is a line of authorized_keys (sshd(8), AUTHORIZED_KEYS FILE FORMAT).
type key struct {
	print   string // SHA256:…, as ssh-keygen -l prints it
	kind    string
	options string
	comment string
	text    string
}

// parseKey reads a line. false: it is no key.
func parseKey(l string) (key, bool) {
	rest := strings.TrimSpace(l)
	if rest == "" || rest[0] == '#' {
		return key{}, false
	}
	k := key{text: rest}
	for first := true; ; first = false {
		word, after := keyWord(rest)
		blob, more := keyWord(after)
		if p, ok := fingerprint(word, blob); ok {
			k.kind, k.print, k.comment = word, p, more
			return k, true
		}
		if !first || after == "" {
			return key{}, false
		}
		k.options, rest = word, after
	}
}

// keyWord takes the word up to a blank that is not quoted.
func keyWord(s string) (word, rest string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == '"':
			i++
		case s[i] == '"':
			quoted = !quoted
		case !quoted && (s[i] == ' ' || s[i] == '\t'):
			return s[:i], strings.TrimLeft(s[i:], " \t")
		}
	}
	return s, ""
}

// fingerprint is that of a public key, whose bytes begin with its kind (RFC 4253, section
// 6.6).
func fingerprint(kind, blob string) (string, bool) {
	b, err := base64.StdEncoding.DecodeString(blob)
	if err != nil || len(b) < 4 || kind == "" {
		return "", false
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n)+4 > uint64(len(b)) || string(b[4:4+n]) != kind {
		return "", false
	}
	sum := sha256.Sum256(b)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:]), true
}

func (k *key) String() string {
	s := "key " + k.print + " (" + text(k.kind)
	if k.comment != "" {
		s += ", " + quote(k.comment)
	}
	return s + ")"
}

func (k *key) limits() string {
	if k.options == "" {
		return ""
	}
	return " with the options " + quote(k.options)
}

func keysOf(b []byte) (all []key, other []string) {
	for _, l := range linesOf(b) {
		if k, ok := parseKey(l); ok {
			all = append(all, k)
		} else if !idle(l) {
			other = append(other, l)
		}
	}
	return all, other
}

func (t *told) keys(f *file, before, after []byte) {
	whose := f.path[:strings.LastIndexByte(f.path, '/')]
	if f.owner != "" {
		whose = quote(f.owner)
	} else {
		whose = "the owner of " + text(whose)
	}
	old, oldOther := keysOf(before)
	now, other := keysOf(after)
	index := func(all []key) map[string]*key {
		x := make(map[string]*key, len(all))
		for i := len(all) - 1; i >= 0; i-- { // of two lines with one key the first one counts
			x[all[i].print] = &all[i]
		}
		return x
	}
	had, has := index(old), index(now)
	for i := range old {
		if t.full() {
			continue
		}
		if has[old[i].print] == nil {
			t.say("%s taken away from %s", &old[i], whose)
		}
	}
	for i := range now {
		if t.full() {
			continue
		}
		k := &now[i]
		switch was := had[k.print]; {
		case was == nil:
			t.say("%s added for %s%s", k, whose, k.limits())
		case has[k.print] != k:
		case was.options != k.options:
			t.say("%s of %s has the options %s now, before %s", k, whose, quote(or(k.options, "none")), quote(or(was.options, "none")))
		case was.comment != k.comment:
			t.say("comment of %s of %s changed", k, whose)
		}
	}
	gone, come := difference(oldOther, other)
	if len(gone) > 0 {
		t.say("lines that are no keys were taken away from %s", whose)
	}
	if len(come) > 0 {
		t.say("lines that are no keys were added for %s", whose)
	}
}
