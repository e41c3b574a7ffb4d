package query

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// PathKind says how a path pattern is to be read.
type PathKind int

// The kinds of path patterns.
const (
	PathExact  PathKind = iota // the path itself
	PathPrefix                 // all that begins with the pattern, which ends in a slash
	PathGlob                   // the whole path must match
)

// ParsePath says of what kind a pattern is and which text every path that matches
// begins with. A glob that ends in a slash means everything below what it matches.
func ParsePath(pattern string) (kind PathKind, prefix string) {
	if i := strings.IndexAny(pattern, "*?["); i >= 0 {
		return PathGlob, pattern[:i]
	}
	if strings.HasSuffix(pattern, "/") {
		return PathPrefix, pattern
	}
	return PathExact, pattern
}

// Quote returns the pattern that matches this one path, whatever is in its name.
func Quote(path string) string {
	if len(path) > 1 {
		path = strings.TrimSuffix(path, "/")
	}
	if !strings.ContainsAny(path, "*?[") {
		return path
	}
	return strings.NewReplacer("*", "[*]", "?", "[?]", "[", "[[]").Replace(path)
}

// MatchPath reports whether a pattern of Filter.Path matches a path as a record has it.
func MatchPath(pattern, path string) bool {
	if path == "" {
		return false
	}
	switch kind, prefix := ParsePath(pattern); kind {
	case PathExact:
		return path == pattern
	case PathPrefix:
		return strings.HasPrefix(path, prefix)
	default:
		return matchGlob(below(pattern), path)
	}
}

// Literal returns the longest text that every path which matches holds.
func Literal(pattern string) string {
	kind, _ := ParsePath(pattern)
	if kind != PathGlob {
		return pattern
	}
	best, run := "", 0
	for i := 0; i < len(pattern); {
		n := 1
		switch c := pattern[i]; c {
		case '*', '?', '[':
			if _, end, ok := parseSet(pattern[i:]); c == '[' && ok {
				n = end
			} else if c == '[' {
				i++ // a plain character, and part of the text
				continue
			}
			if i-run > len(best) {
				best = pattern[run:i]
			}
			run = i + n
		}
		i += n
	}
	if len(pattern)-run > len(best) {
		best = pattern[run:]
	}
	return best
}

// LastElement is the glob that the last element of every path which matches has to match, "" if there is no such or it says nothing.
func LastElement(pattern string) string {
	from := 0
	for i := 0; i < len(pattern); i++ {
		switch pattern[i] {
		case '/':
			from = i + 1
		case '[':
			if _, end, ok := parseSet(pattern[i:]); ok {
				i += end - 1
			}
		}
	}
	last := pattern[from:]
	if strings.Contains(last, "**") || strings.Trim(last, "*") == "" {
		return ""
	}
	return last
}

// below lets a glob with a slash at its end mean everything below.
func below(glob string) string {
	if strings.HasSuffix(glob, "/") {
		return glob + "**"
	}
	return glob
}

// matchGlob walks both strings once. On a mismatch the last * takes one more
// character, but no slash; when it cannot, the last ** does. No earlier one needs to be asked again:
// what the later one passes over, the earlier one would only pass over later.
func matchGlob(p, s string) bool {
	type back struct{ p, s int } // pattern behind the star, text behind what it took
	star, stars := back{p: -1}, back{p: -1}
	pi, si := 0, 0
	for {
		switch {
		case strings.HasPrefix(p[pi:], "**"):
			for pi < len(p) && p[pi] == '*' {
				pi++
			}
			stars, star = back{pi, si}, back{p: -1}
			continue
		case pi < len(p) && p[pi] == '*':
			pi++
			star = back{pi, si}
			continue
		case pi == len(p) && si == len(s):
			return true
		case pi < len(p) && si < len(s):
			if np, ns, ok := matchOne(p, pi, s, si); ok {
				pi, si = np, ns
				continue
			}
		}
		switch {
		case star.p >= 0 && star.s < len(s) && s[star.s] != '/':
			star.s += runeLen(s[star.s:])
			pi, si = star.p, star.s
		case stars.p >= 0 && stars.s < len(s):
			stars.s += runeLen(s[stars.s:])
			pi, si, star = stars.p, stars.s, back{p: -1}
		default:
			return false
		}
	}
}

func runeLen(s string) int {
	_, n := utf8.DecodeRuneInString(s)
	return n
}

// matchOne matches one element of the pattern that is no star with one character.
func matchOne(p string, pi int, s string, si int) (np, ns int, ok bool) {
	c, cn := utf8.DecodeRuneInString(s[si:])
	switch p[pi] {
	case '?':
		return pi + 1, si + cn, c != '/'
	case '[':
		if set, end, whole := parseSet(p[pi:]); whole {
			return pi + end, si + cn, c != '/' && set.has(c)
		}
	}
	w, wn := utf8.DecodeRuneInString(p[pi:])
	return pi + wn, si + cn, w == c && p[pi:pi+wn] == s[si:si+cn]
}

// set is a [...] of a glob.
type set struct {
	not    bool
	ranges [][2]rune
}

func (s set) has(c rune) bool {
	for _, r := range s.ranges {
		if r[0] <= c && c <= r[1] {
			return !s.not
		}
	}
	return s.not
}

// parseSet reads the set at the start of p. A [ without its ] is a plain character.
func parseSet(p string) (s set, end int, ok bool) {
	i := 1
	if i < len(p) && (p[i] == '!' || p[i] == '^') {
		s.not = true
		i++
	}
	for first := true; i < len(p); first = false {
		if p[i] == ']' && !first {
			return s, i + 1, true
		}
		lo, n := utf8.DecodeRuneInString(p[i:])
		i += n
		hi := lo
		if i+1 < len(p) && p[i] == '-' && p[i+1] != ']' {
			hi, n = utf8.DecodeRuneInString(p[i+1:])
			i += 1 + n
		}
		s.ranges = append(s.ranges, [2]rune{lo, hi})
	}
	return set{}, 0, false
}

// GlobRegexp writes a glob of Filter.Path as a regular expression of RE2, which
// Go and ClickHouse share, anchored at both ends.
func GlobRegexp(glob string) string {
	p := below(glob)
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for i := 0; i < len(p); {
		switch c := p[i]; {
		case strings.HasPrefix(p[i:], "**"):
			for i < len(p) && p[i] == '*' {
				i++
			}
			b.WriteString(".*")
			continue
		case c == '*':
			b.WriteString("[^/]*")
		case c == '?':
			b.WriteString("[^/]")
		case c == '[':
			if s, end, ok := parseSet(p[i:]); ok {
				b.WriteString(s.regexp())
				i += end
				continue
			}
			b.WriteString(`\[`)
		default:
			n := runeLen(p[i:])
			b.WriteString(regexp.QuoteMeta(p[i : i+n]))
			i += n
			continue
		}
		i++
	}
	b.WriteString(`\z`)
	return b.String()
}

// regexp leaves the slash out of every set: no element of a glob but ** crosses it.
func (s set) regexp() string {
	var b strings.Builder
	add := func(lo, hi rune) {
		if lo <= hi {
			b.WriteString(classChar(lo) + "-" + classChar(hi))
		}
	}
	if s.not {
		b.WriteString("[^/")
	}
	for _, r := range s.ranges {
		if !s.not && r[0] <= '/' && '/' <= r[1] {
			add(r[0], '/'-1)
			add('/'+1, r[1])
			continue
		}
		add(r[0], r[1])
	}
	if s.not {
		return b.String() + "]"
	}
	if b.Len() == 0 {
		return `[^\x00-\x{10FFFF}]` // matches nothing
	}
	return "[" + b.String() + "]"
}

func classChar(r rune) string {
	if strings.ContainsRune(`\]^-[`, r) {
		return `\` + string(r)
	}
	return string(r)
}
