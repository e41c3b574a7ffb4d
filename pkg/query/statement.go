package query

import (
	"fmt"
	"slices"
	"strings"
)

// OneQuestion refuses SQL that does not begin with one of these words, behind blanks, comments and parentheses, and,
// where the engine would take them, several statements. It says what people did wrong; what keeps
// a statement from writing is the engine.
func OneQuestion(text string, several bool, words ...string) error {
	rest := skipBlank(text, "(")
	word := rest[:len(rest)-len(strings.TrimLeft(rest, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"))]
	if !slices.Contains(words, strings.ToUpper(word)) {
		return fmt.Errorf("%w: a question begins with %s", ErrReadOnly, strings.Join(words, ", "))
	}
	if !several && skipBlank(rest[end(rest):], ";") != "" {
		return fmt.Errorf("%w: one at a time", ErrReadOnly)
	}
	return nil
}

// skipBlank is s behind blanks, comments, and the characters of also.
func skipBlank(s, also string) string {
	for {
		s = strings.TrimLeft(s, " \t\r\n\f\v"+also)
		switch {
		case strings.HasPrefix(s, "--"):
			_, s, _ = strings.Cut(s, "\n")
		case strings.HasPrefix(s, "/*"):
			_, s, _ = strings.Cut(s[2:], "*/")
		default:
			return s
		}
	}
}

// end is where the first statement of s ends, as SQLite reads it (https://sqlite.org/lang_keywords.html tells the quotes).
func end(s string) int {
	for i := 0; i < len(s); i++ {
		behind := ""
		switch s[i] {
		case ';':
			return i
		case '\'', '"', '`':
			behind = s[i : i+1]
		case '[':
			behind = "]"
		case '-', '/':
			if rest := skipBlank(s[i:], ""); len(rest) < len(s)-i {
				i = len(s) - len(rest) - 1
			}
			continue
		default:
			continue
		}
		n := strings.Index(s[i+1:], behind)
		if n < 0 {
			return len(s)
		}
		i += n + 1
	}
	return len(s)
}
