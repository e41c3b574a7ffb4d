package dashboards

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// screen is what a reader of a dashboard has chosen: the time shown and the variables.
type screen struct {
	from, to time.Time
	interval time.Duration
	vars     map[string][]string // by name; no values: an empty text
	all      map[string]bool     // variables at "All"
}

// expand writes a query as Grafana and its ClickHouse data source send it, by what
// both document: the macros of the data source's query editor, and Grafana's variables
// with their formats. What it does not know is an error. A variable without a format is
// one too: its text would be pasted into the query as it is.
func (s *screen) expand(sql string) (string, error) {
	var b strings.Builder
	for {
		i := strings.IndexByte(sql, '$')
		if i < 0 {
			b.WriteString(sql)
			return b.String(), nil
		}
		b.WriteString(sql[:i])
		text, n, err := s.one(sql[i:])
		if err != nil {
			return "", err
		}
		b.WriteString(text)
		sql = sql[i+n:]
	}
}

// one expands what s begins with, and tells how long that is.
func (s *screen) one(sql string) (text string, n int, err error) {
	if strings.HasPrefix(sql, "${") {
		end := strings.IndexByte(sql, '}')
		if end < 0 {
			return "", 0, fmt.Errorf("%.20q: no closing }", sql)
		}
		name, format, _ := strings.Cut(sql[2:end], ":")
		text, err := s.variable(name, format)
		return text, end + 1, err
	}
	end := 1
	for end < len(sql) && (sql[end] == '_' || sql[end] >= '0' && sql[end] <= '9' || sql[end]|0x20 >= 'a' && sql[end]|0x20 <= 'z') {
		end++
	}
	name := sql[1:end]
	if !strings.HasPrefix(name, "__") {
		text, err := s.variable(name, "")
		return text, end, err
	}
	if end == len(sql) || sql[end] != '(' {
		text, err := s.macro(name, nil)
		return text, end, err
	}
	args, n, err := arguments(sql[end:])
	if err != nil {
		return "", 0, fmt.Errorf("$%s: %w", name, err)
	}
	if name != "__conditionalAll" {
		for i := range args {
			if args[i], err = s.expand(args[i]); err != nil {
				return "", 0, err
			}
		}
	}
	text, err = s.macro(name, args)
	return text, end + n, err
}

// arguments splits (a, b) at commas that are in no inner brackets and no string.
func arguments(s string) (args []string, n int, err error) {
	depth, start, quote := 0, 1, byte(0)
	for i := range len(s) {
		switch c := s[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"' || c == '`':
			quote = c
		case c == '(' || c == '{':
			depth++
		case c == '}':
			depth--
		case c == ',' && depth == 1:
			args = append(args, strings.TrimSpace(s[start:i]))
			start = i + 1
		case c == ')':
			if depth--; depth == 0 {
				if last := strings.TrimSpace(s[start:i]); last != "" || len(args) > 0 {
					args = append(args, last)
				}
				return args, i + 1, nil
			}
		}
	}
	return nil, 0, fmt.Errorf("no closing )")
}

func (s *screen) macro(name string, args []string) (string, error) {
	want := map[string]int{"__timeFilter": 1, "__timeFilter_ms": 1, "__dateFilter": 1, "__dateTimeFilter": 2, "__dt": 2, "__timeInterval": 1, "__timeInterval_ms": 1,
		"__conditionalAll": 2, "__fromTime": 0, "__toTime": 0, "__fromTime_ms": 0, "__toTime_ms": 0, "__interval_s": 0,
		"__from": 0, "__to": 0, "__interval": 0, "__interval_ms": 0, "__range": 0, "__range_s": 0, "__range_ms": 0}
	n, known := want[name]
	switch {
	case !known:
		return "", fmt.Errorf("unknown macro $%s", name)
	case len(args) != n:
		return "", fmt.Errorf("$%s: %d arguments, want %d", name, len(args), n)
	}
	sec := func(t time.Time) string { return fmt.Sprintf("toDateTime(%d)", t.Unix()) }
	ms := func(t time.Time) string { return fmt.Sprintf("fromUnixTimestamp64Milli(%d)", t.UnixMilli()) }
	date := func(c string) string {
		return fmt.Sprintf("%s >= toDate('%s') AND %[1]s <= toDate('%[3]s')", c, s.from.UTC().Format(time.DateOnly), s.to.UTC().Format(time.DateOnly))
	}
	between := func(c string, f func(time.Time) string) string {
		return fmt.Sprintf("%s >= %s AND %[1]s <= %[3]s", c, f(s.from), f(s.to))
	}
	span := s.to.Sub(s.from)
	switch name {
	case "__timeFilter":
		return between(args[0], sec), nil
	case "__timeFilter_ms":
		return between(args[0], ms), nil
	case "__dateFilter":
		return date(args[0]), nil
	case "__dateTimeFilter", "__dt":
		return date(args[0]) + " AND " + between(args[1], sec), nil
	case "__timeInterval":
		return fmt.Sprintf("toStartOfInterval(toDateTime(%s), INTERVAL %d second)", args[0], max(1, int(s.interval.Seconds()))), nil
	case "__timeInterval_ms":
		return fmt.Sprintf("toStartOfInterval(toDateTime64(%s, 3), INTERVAL %d millisecond)", args[0], max(1, s.interval.Milliseconds())), nil
	case "__conditionalAll":
		if s.all[strings.TrimPrefix(args[1], "$")] {
			return "1=1", nil
		}
		if _, known := s.vars[strings.TrimPrefix(args[1], "$")]; !known || !strings.HasPrefix(args[1], "$") {
			return "", fmt.Errorf("$__conditionalAll: unknown variable %s", args[1])
		}
		return s.expand(args[0])
	case "__fromTime":
		return sec(s.from), nil
	case "__toTime":
		return sec(s.to), nil
	case "__fromTime_ms":
		return ms(s.from), nil
	case "__toTime_ms":
		return ms(s.to), nil
	case "__interval_s":
		return fmt.Sprint(max(1, int(s.interval.Seconds()))), nil
	case "__from":
		return fmt.Sprint(s.from.UnixMilli()), nil
	case "__to":
		return fmt.Sprint(s.to.UnixMilli()), nil
	case "__interval":
		return fmt.Sprintf("%ds", int(s.interval.Seconds())), nil
	case "__interval_ms":
		return fmt.Sprint(s.interval.Milliseconds()), nil
	case "__range":
		return fmt.Sprintf("%ds", int(span.Seconds())), nil
	case "__range_s":
		return fmt.Sprint(int(span.Seconds())), nil
	default:
		return fmt.Sprint(span.Milliseconds()), nil
	}
}

func (s *screen) variable(name, format string) (string, error) {
	values, known := s.vars[name]
	if strings.HasPrefix(name, "__") {
		text, err := s.macro(name, nil)
		if err == nil && format != "" {
			err = fmt.Errorf("${%s:%s}: a format of a global variable", name, format)
		}
		return text, err
	}
	if !known {
		return "", fmt.Errorf("unknown variable $%s", name)
	}
	quote := func(escaped string) string {
		out := slices.Clone(values)
		if len(out) == 0 {
			out = []string{""}
		}
		for i := range out {
			out[i] = "'" + strings.ReplaceAll(out[i], "'", escaped) + "'"
		}
		return strings.Join(out, ",")
	}
	switch format {
	case "singlequote":
		return quote(`\'`), nil
	case "sqlstring":
		return quote("''"), nil
	case "":
		return "", fmt.Errorf("$%s without a format: say ${%[1]s:singlequote} or ${%[1]s:sqlstring}", name)
	}
	return "", fmt.Errorf("${%s:%s}: unknown format", name, format)
}
