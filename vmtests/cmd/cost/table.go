package main

import (
	"bufio"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// column is one of the situations that are measured; guest.sh makes them.
type column struct {
	name, title string
	bare        string // the column that it is compared with
	// The budget: at most so many times what bare costs. Operations without one of
	// their own have that of "".
	most  map[string]float64
	about string // which table it is in
}

// columns is the table from left to right. Budgets are decisions, not
// measurements; 1 means nothing at all, which is what repeats do to each other.
func columns() []column {
	here := map[string]float64{"open+write+close": 1.8, "pwrite": 1.25, "create+unlink": 1.4, "chmod": 1.5}
	return []column{
		{name: "bare", title: "bare"},
		{name: "idle", title: "attached, nothing watched on this file system", bare: "bare", most: map[string]float64{
			"open+write+close": 1.08, "open+read+close": 1.06, "pread": 1.03, "pwrite": 1.03, "stat": 1, "getppid": 1, "vfork+exec": 1.03,
		}},
		{name: "elsewhere", title: "watched elsewhere on it", bare: "bare", most: map[string]float64{"": 1.12}},
		{name: "here", title: "watched here", bare: "bare", most: here},
		{name: "audit", title: "auditd, rule elsewhere", bare: "bare"},
		{name: "audithere", title: "auditd, rule here", bare: "bare"},
		{name: "login", title: "attached, in a login", bare: "bare"},
		{name: "auditexec", title: "auditd, rule for execve", bare: "bare"},

		{name: "idlewriter", title: "nothing watched on this file system", bare: "bare", about: writing},
		{name: "elsewherewriter", title: "watched elsewhere on it", bare: "bare", about: writing},
		{name: "herewriter", title: "watched here", bare: "bare", most: here, about: writing},

		{name: "bare13", title: "bare", about: deep},
		{name: "elsewhere13", title: "watched elsewhere on it", bare: "bare13", most: map[string]float64{"": 1.12}, about: deep},
	}
}

// What a table is about, beside the first one.
const (
	writing = "While a watched file stays open for writing"
	deep    = "13 directories deep"
)

func columnNames() []string {
	var names []string
	for _, c := range columns() {
		names = append(names, c.name)
	}
	return names
}

// noise is what two measurements of the same thing may differ by.
const noise = 0.005

// figures is what a guest printed.
type figures struct {
	operations []string                      // in the order of the first column
	ns         map[string]map[string]float64 // column → operation → instructions
	profile    []string                      // lines
}

// parse reads the lines of guest.sh. A column that lost an event cost less than
// it should have: that is an error.
func parse(text string) (figures, error) {
	f := figures{ns: map[string]map[string]float64{}}
	var times float64 // of the operation before the profile's lines
	sc := bufio.NewScanner(strings.NewReader(text))
	for sc.Scan() {
		w := strings.Fields(sc.Text())
		switch {
		case len(w) == 5 && w[0] == "cost":
			ns, err := strconv.ParseFloat(w[3], 64)
			if err != nil {
				return f, fmt.Errorf("read figure %q: %w", sc.Text(), err)
			}
			if f.ns[w[1]] == nil {
				f.ns[w[1]] = map[string]float64{}
			}
			f.ns[w[1]][w[2]] = ns
			if times, err = strconv.ParseFloat(w[4], 64); err != nil {
				return f, fmt.Errorf("read figure %q: %w", sc.Text(), err)
			}
			if !slices.Contains(f.operations, w[2]) {
				f.operations = append(f.operations, w[2])
			}
		case len(w) == 6 && w[0] == "profile":
			runs, err := strconv.ParseFloat(w[4], 64)
			if err != nil {
				return f, fmt.Errorf("read profile %q: %w", sc.Text(), err)
			}
			if runs > 0.9*times { // else the run of the measuring program itself
				f.profile = append(f.profile, fmt.Sprintf("%-11s %-16s %-18s %4.1f runs of %5s", w[1], w[2], w[3], runs/times, w[5]))
			}
		case len(w) > 2 && w[0] == "events":
			for i := 2; i+1 < len(w); i += 2 {
				if (w[i] == "lost" || w[i] == "failed") && w[i+1] != "0" {
					return f, fmt.Errorf("measure %s: events were %s: %s", w[1], w[i], w[i+1])
				}
			}
		}
	}
	if len(f.ns) == 0 {
		return f, fmt.Errorf("read figures: none")
	}
	return f, sc.Err()
}

// tables is the figures in Markdown: instructions, what that is more than bare, and
// the budget, where there is one.
func (f figures) tables() string {
	var b strings.Builder
	for _, about := range []string{"", writing, deep} {
		var shown []column
		for _, c := range columns() {
			if c.about == about && f.ns[c.name] != nil {
				shown = append(shown, c)
			}
		}
		if len(shown) == 0 {
			continue
		}
		if about != "" {
			fmt.Fprintf(&b, "\n%s:\n\n", about)
		}
		f.table(&b, shown)
	}
	return b.String()
}

func (f figures) table(b *strings.Builder, shown []column) {
	b.WriteString("| operation |")
	for _, c := range shown {
		fmt.Fprintf(b, " %s |", c.title)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(shown)) + "\n")
	for _, op := range f.operations {
		fmt.Fprintf(b, "| %s |", op)
		for _, c := range shown {
			fmt.Fprintf(b, " %s |", f.cell(c, op))
		}
		b.WriteString("\n")
	}
}

func (f figures) cell(c column, op string) string {
	ns, ok := f.ns[c.name][op]
	if !ok {
		return "–"
	}
	text := thousands(ns)
	bare := f.ns[c.bare][op]
	if bare == 0 {
		return text
	}
	ratio := ns / bare
	text += " " + amount(ratio)
	most, ok := c.most[op]
	if !ok {
		most, ok = c.most[""]
	}
	switch {
	case !ok:
		return text
	case ratio <= most || ratio <= 1+noise:
		return text + " (≤ " + amount(most) + ": met)"
	default:
		return text + " (≤ " + amount(most) + ": **not met**)"
	}
}

// amount writes a ratio as people say it: +6.0 %, or ×2.50 from a half on.
func amount(ratio float64) string {
	if ratio >= 1.5 {
		return fmt.Sprintf("×%.2f", ratio)
	}
	return fmt.Sprintf("%+.1f %%", math.Round((ratio-1)*1000)/10+0) // + 0: no minus before 0
}

func thousands(ns float64) string {
	s := strconv.FormatFloat(ns, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// programs lists what each BPF program took.
func (f figures) programs() string { return strings.Join(f.profile, "\n") + "\n" }
