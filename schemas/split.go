package schemas

import "strings"

// Split cuts SQL text into statements at semicolons that are in no string, quoted
// name or comment. Comments stay with the statement that follows them; a part that
// holds nothing else is dropped.
func Split(sql string) []string {
	var out []string
	start, code := 0, false
	for i := 0; i < len(sql); {
		n := token(sql[i:])
		switch {
		case n == 1 && sql[i] == ';':
			if code {
				out = append(out, strings.TrimSpace(sql[start:i]))
			}
			start, code = i+1, false
		case !strings.HasPrefix(sql[i:], "--") && !strings.HasPrefix(sql[i:], "/*") && strings.TrimSpace(sql[i:i+n]) != "":
			code = true
		}
		i += n
	}
	if code {
		out = append(out, strings.TrimSpace(sql[start:]))
	}
	return out
}

// token returns the length of what s begins with: a comment, a quoted string or
// name, or one byte. What is not closed goes to the end.
func token(s string) int {
	to := func(from int, end string) int {
		if i := strings.Index(s[from:], end); i >= 0 {
			return from + i + len(end)
		}
		return len(s)
	}
	switch {
	case strings.HasPrefix(s, "--"):
		return to(2, "\n")
	case strings.HasPrefix(s, "/*"):
		return to(2, "*/")
	case s[0] == '\'' || s[0] == '"' || s[0] == '`':
		for i := 1; i < len(s); i++ {
			switch s[i] {
			case '\\':
				i++
			case s[0]: // a doubled quote reads as the end and a new beginning: the same cut
				return i + 1
			}
		}
		return len(s)
	}
	return 1
}
