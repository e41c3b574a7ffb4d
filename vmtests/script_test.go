package vmtests

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/holdfast/holdfast/vmtests/vm"
)

// script is one file of scripts/: a txtar archive (a comment, then sections that
// start with a line -- NAME --). A line of the comment that starts with kernels:
// names the kernels that it runs on, or says all; without one it runs on the
// first of kernels.txt. One that starts with tiers: names tiers; it runs once in
// each, with TIER set, and in modify_return without bpf among the security modules.
type script struct {
	comment  string
	kernels  []string
	tiers    []string
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
		if names, ok := strings.CutPrefix(line, "kernels:"); ok && name == "" {
			s.kernels = strings.Fields(names)
			continue
		}
		if names, ok := strings.CutPrefix(line, "tiers:"); ok && name == "" {
			s.tiers = strings.Fields(names)
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

// on returns those of all that s runs on.
func (s script) on(all []vm.Kernel) ([]vm.Kernel, error) {
	if len(s.kernels) == 0 {
		return all[:1], nil
	}
	if slices.Equal(s.kernels, []string{"all"}) {
		return all, nil
	}
	var ks []vm.Kernel
	for _, name := range s.kernels {
		k, err := vm.Find(all, name)
		if err != nil {
			return nil, err
		}
		ks = append(ks, k)
	}
	return ks, nil
}

func readKernels() ([]vm.Kernel, error) {
	text, err := os.ReadFile("kernels.txt")
	if err != nil {
		return nil, err
	}
	return vm.ParseKernels(text)
}
