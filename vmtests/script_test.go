package vmtests

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

// script is one file of scripts/: a txtar archive (a comment, then sections that
// start with a line -- NAME --).
type script struct {
	comment  string
	sections map[string]string
}

var sectionLine = regexp.MustCompile(`^-- (\S+) --\n?$`)

func readScript(file string) (script, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return script{}, fmt.Errorf("read script: %w", err)
	}
	s := script{sections: map[string]string{}}
	name := ""
	for line := range strings.Lines(string(b)) {
		if m := sectionLine.FindStringSubmatch(line); m != nil {
			name = m[1]
			if _, twice := s.sections[name]; twice {
				return s, fmt.Errorf("read script %s: section %s appears twice", file, name)
			}
			s.sections[name] = ""
			continue
		}
		if name == "" {
			s.comment += line
			continue
		}
		s.sections[name] += line
	}
	for _, want := range []string{"run.sh", "expect"} {
		if s.sections[want] == "" {
			return s, fmt.Errorf("read script %s: no section %s", file, want)
		}
	}
	if strings.TrimSpace(s.comment) == "" {
		return s, fmt.Errorf("read script %s: no comment that says what it shows", file)
	}
	return s, nil
}
