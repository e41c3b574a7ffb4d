package accounts

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/pkg/event"
)

// What a secret looks like, wherever it stands: a hash of crypt(5), the base64 of a key of
// SSH (which begins with a length below 2^24: AAAA), a private key in PEM.
var (
	hashPattern    = regexp.MustCompile(`\$[0-9a-zA-Z][0-9a-zA-Z_-]{0,14}(?:,[a-z]+=[0-9]+)*\$[./A-Za-z0-9$=,+-]{8,}`)
	blobPattern    = regexp.MustCompile(`AAAA[0-9A-Za-z+/]{28,}={0,3}`)
	privatePattern = regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)`)
)

// What a command line may hold, and what a line of shadow or of its copies looks like.
var (
	urlPattern  = regexp.MustCompile(`(://[^/\s:@]+:)[^/\s@]+@`)
	wordPattern = regexp.MustCompile(`(?i)\b((?:[a-z]+[_-])?(?:pass(?:word|wd|phrase)?|secret|token|api[_-]?key))=("[^"]*"|'[^']*'|\S+)`)
	linePattern = regexp.MustCompile(`(?m)^([^:\s]+:!*)([./A-Za-z0-9_]{13,}):([0-9]*:)`)
)

// hide takes secrets out of a text that is told.
func hide(s string) string {
	if !strings.ContainsAny(s, "$=@A") && !strings.Contains(s, "-----") {
		return s
	}
	s = hideKeys(s)
	s = urlPattern.ReplaceAllString(s, "$1…@")
	return wordPattern.ReplaceAllString(s, "$1=…")
}

// hideKeys takes hashes and key material out of a text.
func hideKeys(s string) string {
	s = privatePattern.ReplaceAllString(s, "(private key)")
	s = hashPattern.ReplaceAllString(s, "(hash)")
	return blobPattern.ReplaceAllStringFunc(s, func(b string) string { return "(" + printOf(b) + ")" })
}

// printOf is the fingerprint of the key whose base64 b is, or just "key".
func printOf(b string) string {
	raw, err := base64.StdEncoding.DecodeString(b)
	if err == nil && len(raw) > 4 {
		if n := binary.BigEndian.Uint32(raw); uint64(n)+4 <= uint64(len(raw)) {
			if p, ok := fingerprint(string(raw[4:4+n]), b); ok {
				return p
			}
		}
	}
	return "key"
}

// Scrub takes hashes and key material out of the command lines of a record, as in
// "usermod -p HASH". What it changes it copies: the lists may be somebody else's.
func Scrub(r *event.Record) {
	p := r.Process
	if p == nil {
		return
	}
	q := *p
	argv, changed := scrubArgv(p.Argv)
	q.Argv = argv
	cloned := false
	for i := range p.Ancestors {
		a, c := scrubArgv(p.Ancestors[i].Argv)
		if !c {
			continue
		}
		if !cloned {
			q.Ancestors, cloned = slices.Clone(p.Ancestors), true
		}
		q.Ancestors[i].Argv = a
	}
	if changed || cloned {
		r.Process = &q
	}
}

func scrubArgv(argv []string) (out []string, changed bool) {
	out = argv
	set := func(i int, s string) {
		if s == argv[i] {
			return
		}
		if !changed {
			out, changed = slices.Clone(argv), true
		}
		out[i] = s
	}
	takes := len(argv) > 0 && takesHash(path.Base(argv[0]))
	for i, a := range argv {
		if strings.Contains(a, "$") || strings.Contains(a, "AAAA") || strings.Contains(a, "-----BEGIN") {
			set(i, hideKeys(a))
		}
		if !takes || i == 0 {
			continue
		}
		switch prev := argv[i-1]; {
		case prev == "-p" || prev == "--password" || isCluster(prev):
			set(i, "(hash)")
		case strings.HasPrefix(a, "--password="):
			set(i, "--password=(hash)")
		case strings.HasPrefix(a, "-p") && len(a) > 2 && !strings.HasPrefix(a, "--"):
			set(i, "-p(hash)")
		}
	}
	return out, changed
}

// isCluster reports whether a word is short options of which the last one is -p: "-mp".
func isCluster(a string) bool {
	return len(a) > 2 && a[0] == '-' && a[1] != '-' && a[len(a)-1] == 'p' && strings.Trim(a[1:], "mMNrlUofp") == ""
}

// takesHash reports whether a program is given a hash by -p.
func takesHash(name string) bool {
	switch name {
	case "useradd", "usermod", "groupadd", "groupmod", "newusers":
		return true
	}
	return false
}

// Redact takes the secrets out of two contents of a path that are shown beside each other.
// What was the same on both sides stays the same, what differed differs: hashes are
// numbered, keys become their fingerprints.
func Redact(p string, old, now []byte) (oldShown, nowShown []byte) {
	r := redactor{numbers: map[string]int{}, fields: passwordField(path.Base(p))}
	return r.content(old), r.content(now)
}

// passwordField says which field of a line holds passwords, by the name of the file or of
// a copy of it (shadow-, shadow.bak, passwd+); -1 for other files.
func passwordField(name string) int {
	name = strings.TrimPrefix(name, ".")
	switch {
	case strings.HasPrefix(name, "opasswd"):
		return 3 // pam_unix(8), remember=
	case strings.HasPrefix(name, "shadow"), strings.HasPrefix(name, "gshadow"), strings.HasPrefix(name, "passwd"),
		strings.HasPrefix(name, "group"), strings.HasPrefix(name, "nshadow"), strings.HasPrefix(name, "npasswd"), strings.HasPrefix(name, "master.passwd"):
		return 1
	}
	return -1
}

type redactor struct {
	numbers map[string]int
	fields  int
}

func (r *redactor) number(what, secret string) string {
	n, ok := r.numbers[secret]
	if !ok {
		n = len(r.numbers) + 1
		r.numbers[secret] = n
	}
	return fmt.Sprintf("(%s %d)", what, n)
}

func (r *redactor) content(b []byte) []byte {
	if bytes.IndexByte(b, 0) >= 0 {
		return b // binary: nothing of it is shown
	}
	s := string(b)
	if r.fields >= 0 {
		lines := strings.SplitAfter(s, "\n")
		for i, l := range lines {
			lines[i] = r.line(l)
		}
		s = strings.Join(lines, "")
	}
	s = linePattern.ReplaceAllStringFunc(s, func(m string) string {
		g := linePattern.FindStringSubmatch(m)
		return g[1] + r.number("hash", g[2]) + ":" + g[3]
	})
	s = hashPattern.ReplaceAllStringFunc(s, func(m string) string { return r.number("hash", m) })
	s = privatePattern.ReplaceAllStringFunc(s, func(m string) string { return r.number("private key", m) })
	s = blobPattern.ReplaceAllStringFunc(s, func(m string) string {
		if p := printOf(m); p != "key" {
			return "(" + p + ")"
		}
		return r.number("key", m)
	})
	return []byte(s)
}

func (r *redactor) line(l string) string {
	end := ""
	if t, ok := strings.CutSuffix(l, "\n"); ok {
		l, end = t, "\n"
	}
	f := strings.Split(l, ":")
	if len(f) <= r.fields {
		return l + end
	}
	for i, h := range strings.Split(f[r.fields], ",") {
		bare := strings.TrimLeft(h, "!")
		if bare == "" || bare == "x" || bare == "*" {
			continue
		}
		all := strings.Split(f[r.fields], ",")
		all[i] = h[:len(h)-len(bare)] + r.number("hash", bare)
		f[r.fields] = strings.Join(all, ",")
	}
	return strings.Join(f, ":") + end
}
