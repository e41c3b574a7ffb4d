package main

import (
	"fmt"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/holdfast/holdfast/pkg/event"
)

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil && os.Getenv("TERM") != "dumb"
}

// The colours that mean something: what needs a person, what was put right, what
// is only context.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	bold   = "1"
	dim    = "2"
)

// color paints s on a terminal.
func (a *app) color(code, s string) string {
	if !a.terminal || a.noColor || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// verdict paints a verdict, padded to width.
func (a *app) verdict(v string, width int) string {
	s := pad(printableText(v), width)
	switch v {
	case event.VerdictUnauthorized, event.VerdictRestoreFailed:
		return a.color(red, s)
	case event.VerdictBlocked:
		return a.color(yellow, s)
	case event.VerdictRestored, event.VerdictExpected, event.VerdictPromoted:
		return a.color(green, s)
	}
	return s
}

// hostColumn is the host's name, padded to width and with a space behind it, where answers may be of several hosts.
func (a *app) hostColumn(host string, width int) string {
	if !a.fleet {
		return ""
	}
	return pad(dash(host), width) + " "
}

// pad fills s with spaces to width; it counts runes, as a terminal does for the
// scripts that need one cell each.
func pad(s string, width int) string {
	if n := utf8.RuneCountInString(s); n < width {
		return s + strings.Repeat(" ", width-n)
	}
	return s
}

// shellQuote writes a path or an argument so that a shell reads the same bytes.
// Plain words stay as they are; bytes that do not print are written $'\x1b'.
func shellQuote(s string) string {
	if s == "" {
		return "''"
	}
	plain, prints := true, utf8.ValidString(s)
	for _, r := range s {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("_@%+=:,./-", r) {
			plain = false
		}
		if !unicode.IsPrint(r) {
			prints = false
		}
	}
	switch {
	case prints && plain:
		return s
	case prints:
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	var b strings.Builder
	b.WriteString("$'")
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\'' || r == '\\':
			b.WriteString("\\" + string(r))
		case r == utf8.RuneError && n <= 1 || !unicode.IsPrint(r):
			for _, c := range []byte(s[i : i+n]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		default:
			b.WriteRune(r)
		}
		i += n
	}
	b.WriteString("'")
	return b.String()
}

// pathText writes a path of a record, which is event.Text, for a person.
func pathText(text string) string { return shellQuote(string(event.Untext(text))) }

// command writes an argv for a person, cut to a readable length.
func command(argv []string) string {
	var b strings.Builder
	for i, arg := range argv {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(shellQuote(string(event.Untext(arg))))
	}
	return cut(b.String(), 200)
}

func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// printableText keeps a message from steering the terminal, and from looking like a line of ours: it may hold names
// that another user chose.
func printableText(s string) string { return printable(s, "\t") }

// printableLines is printableText for what has lines of its own.
func printableLines(s string) string { return printable(s, "\n\t") }

func printable(s, also string) string {
	plain := func(r rune) bool { return unicode.IsPrint(r) || strings.ContainsRune(also, r) }
	if !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if plain(r) && (r != utf8.RuneError || n > 1) {
			b.WriteString(s[i : i+n])
		} else {
			for _, c := range []byte(s[i : i+n]) {
				fmt.Fprintf(&b, `\x%02X`, c)
			}
		}
		i += n
	}
	return b.String()
}

// when writes a time in the local zone, to the millisecond.
func when(t event.Time) string {
	if t == 0 {
		return "-"
	}
	return t.Go().Local().Format("2006-01-02 15:04:05.000")
}

// took writes a duration with three digits that mean something.
func took(ns uint64) string {
	d := time.Duration(ns)
	switch {
	case d >= time.Second:
		return d.Round(time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

// bytesText writes a number of bytes with a binary unit.
func bytesText(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1024, 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}

// plural writes a count with its noun.
func plural(n uint64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	if base := strings.TrimSuffix(one, "y"); base != one && !strings.HasSuffix(base, "a") && !strings.HasSuffix(base, "e") && !strings.HasSuffix(base, "o") && !strings.HasSuffix(base, "u") {
		return fmt.Sprintf("%d %sies", n, strings.TrimSuffix(one, "y"))
	}
	if strings.HasSuffix(one, "s") {
		return fmt.Sprintf("%d %ses", n, one)
	}
	return fmt.Sprintf("%d %ss", n, one)
}
