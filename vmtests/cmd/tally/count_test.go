package main

import (
	"errors"
	"io"
	"strings"
	"testing"
)

func TestCount(t *testing.T) {
	bad := errors.New("exit status 1")
	for _, tt := range []struct {
		name           string
		lines          string
		err            error
		passed, failed int
	}{
		{"a command without test events counts once by its exit code", "all is well\n", nil, 1, 0},
		{"a failing command without test events counts one failure", "oh\n", bad, 0, 1},
		{"a test with subtests is counted by its subtests",
			`{"Action":"run","Package":"p","Test":"T"}
{"Action":"run","Package":"p","Test":"T/a b"}
{"Action":"pass","Package":"p","Test":"T/a b"}
{"Action":"run","Package":"p","Test":"T/c"}
{"Action":"pass","Package":"p","Test":"T/c"}
{"Action":"pass","Package":"p","Test":"T"}
{"Action":"pass","Package":"p"}
`, nil, 2, 0},
		{"a failing subtest fails once, not once more for its parent",
			`{"Action":"run","Package":"p","Test":"T"}
{"Action":"run","Package":"p","Test":"T/a"}
{"Action":"fail","Package":"p","Test":"T/a"}
{"Action":"fail","Package":"p","Test":"T"}
{"Action":"fail","Package":"p"}
`, bad, 0, 1},
		{"a parent that fails while its subtests pass is a failure",
			`{"Action":"run","Package":"p","Test":"T"}
{"Action":"run","Package":"p","Test":"T/a"}
{"Action":"pass","Package":"p","Test":"T/a"}
{"Action":"fail","Package":"p","Test":"T"}
{"Action":"fail","Package":"p"}
`, bad, 1, 1},
		{"a package that does not build is a failure",
			`{"ImportPath":"p","Action":"build-output","Output":"syntax error\n"}
{"Action":"fail","Package":"p"}
`, bad, 0, 1},
		{"a test that was running when its program died is a failure",
			`{"Action":"run","Package":"p","Test":"T"}
{"Action":"fail","Package":"p"}
`, bad, 0, 1},
		{"a skipped test is a failure",
			`{"Action":"run","Package":"p","Test":"T"}
{"Action":"skip","Package":"p","Test":"T"}
{"Action":"pass","Package":"p"}
`, nil, 0, 1},
		{"a package without tests counts nothing",
			`{"Action":"skip","Package":"q"}
{"Action":"run","Package":"p","Test":"T"}
{"Action":"pass","Package":"p","Test":"T"}
{"Action":"pass","Package":"p"}
`, nil, 1, 0},
		{"a failing command is a failure even when all its tests passed",
			`{"Action":"run","Package":"p","Test":"T"}
{"Action":"pass","Package":"p","Test":"T"}
{"Action":"pass","Package":"p"}
`, bad, 1, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCounter(io.Discard)
			for line := range strings.Lines(tt.lines) {
				c.line(line)
			}
			if p, f, _ := c.count(tt.err); p != tt.passed || f != tt.failed {
				t.Errorf("counted %d passed, %d failed; want %d and %d", p, f, tt.passed, tt.failed)
			}
		})
	}
}

func TestRunEndsWithTheTotal(t *testing.T) {
	for _, tt := range []struct {
		name  string
		steps []string
		code  int
		last  string
	}{
		{"all good", []string{"a=true", "b=echo hello"}, 0, "2 passed, 0 failed\n"},
		{"a failing step does not stop the next", []string{"a=false", "b=true"}, 1, "1 passed, 1 failed\n"},
		{"standard error is output too", []string{"a=echo oops >&2; exit 4"}, 1, "0 passed, 1 failed\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			if code := run(tt.steps, &b); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if !strings.HasSuffix(b.String(), "\n"+tt.last) {
				t.Errorf("output ends %q, want the line %q", b.String(), tt.last)
			}
		})
	}
}

func TestWhatFailedIsToldAtTheEnd(t *testing.T) {
	event := func(s string) string { return "echo '" + s + "'; " }
	step := event(`{"Action":"run","Package":"p","Test":"T"}`) +
		event(`{"Action":"output","Package":"p","Test":"T","Output":"half of it\\n"}`) +
		event(`{"Action":"output","Package":"p","Output":"signal: killed\\n"}`) +
		event(`{"Action":"fail","Package":"p"}`) + "exit 1"
	var b strings.Builder
	run([]string{"live=" + step}, &b)
	_, end, _ := strings.Cut(b.String(), "fail p ")
	for _, want := range []string{
		"failed: live: p\n    signal: killed\n",
		"failed: live: p T (the program ended in the middle of it)\n    half of it\n",
	} {
		if !strings.Contains(end, want) {
			t.Errorf("the end says\n%s\nit should say %q", end, want)
		}
	}
}
