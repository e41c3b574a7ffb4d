package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestReorder(t *testing.T) {
	app := (&app{}).commands()
	for _, c := range []struct{ name, in, want string }{
		{"nothing", "holdfast", "holdfast"},
		{"flags stay before arguments", "holdfast restore --dry-run /a", "holdfast restore --dry-run -- /a"},
		{"a flag behind an argument is still a flag", "holdfast restore /a --dry-run /b --at 2h", "holdfast restore --dry-run --at 2h -- /a /b"},
		{"a value that looks like a verb stays a value", "holdfast log --user status", "holdfast log --user status"},
		{"global flags move before the verb", "holdfast run --state S --watch T=restore", "holdfast --state S run --watch T=restore"},
		{"a flag with its value inline", "holdfast log --state=S --limit=3", "holdfast --state=S log --limit=3"},
		{"what follows -- is an argument", "holdfast who -- --strange", "holdfast who -- --strange"},
		{"verbs of verbs", "holdfast policy --json explain /a --state S", "holdfast --state S policy explain --json -- /a"},
		{"a path named like a verb", "holdfast who log", "holdfast who -- log"},
		{"an unknown verb is left to be refused", "holdfast tidy /a", "holdfast tidy /a"},
		{"an unknown flag is left to be refused", "holdfast log --colour /a", "holdfast log --colour -- /a"},
		{"a flag that lost its value", "holdfast log --user", "holdfast log --user"},
		{"a single dash is an argument", "holdfast who -", "holdfast who -- -"},
	} {
		got := strings.Join(reorder(app, strings.Fields(c.in)), " ")
		if got != c.want {
			t.Errorf("%s: %q became %q, want %q", c.name, c.in, got, c.want)
		}
	}
}

func TestReorderLosesNothing(t *testing.T) {
	app := (&app{}).commands()
	in := strings.Fields("holdfast --config c undo --session s --path /p --json --since 1h --force --socket k --dry-run")
	got := reorder(app, in)
	a, b := slices.Clone(in), slices.Clone(got)
	slices.Sort(a)
	slices.Sort(b)
	if !slices.Equal(a, b) {
		t.Errorf("%q became %q", in, got)
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{
		"/etc/passwd":     "/etc/passwd",
		"/tmp/a b":        "'/tmp/a b'",
		"it's":            `'it'\''s'`,
		"":                "''",
		"/x/$HOME":        "'/x/$HOME'",
		"/x/é":            "/x/é",
		"/x/\x1b[31m":     `$'/x/\x1b[31m'`,
		"/x/\xff'\\":      `$'/x/\xff\'\\'`,
		"/x/\u202egnp.sh": `$'/x/\xe2\x80\xaegnp.sh'`,
		"/x/\n":           `$'/x/\x0a'`,
	} {
		if got := shellQuote(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func TestPrintableTextKeepsTheTerminalQuiet(t *testing.T) {
	const text, want = "a\x1b]0;x\x07\u009b\xfe é\n\tb", `a\x1B]0;x\x07\xC2\x9B\xFE é`
	if got := printableText(text); got != want+"\\x0A\tb" {
		t.Errorf("%q", got)
	}
	if got := printableLines(text); got != want+"\n\tb" {
		t.Errorf("%q", got)
	}
}

func TestNumbersForPeople(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 1 << 30: "1.0 GiB", 1<<64 - 1: "16.0 EiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	for ns, want := range map[uint64]string{900: "1µs", 1_234_567: "1.23ms", 2_345_678_901: "2.346s"} {
		if got := took(ns); got != want {
			t.Errorf("%d: %s, want %s", ns, got, want)
		}
	}
}

func TestTableAlignsWhatIsPainted(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out, terminal: true}
	a.open()
	tb := &table{}
	tb.add("A", "STATE", "B")
	tb.add("long", "ok", "x")
	tb.paint(1, green)
	a.print(tb)
	if err := a.flush(); err != nil {
		t.Fatal(err)
	}
	want := "A     STATE  B\nlong  \x1b[32mok     \x1b[0mx\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
