package index

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/pkg/query"
)

// TestAnIndexOfAnOlderVersionIsBuiltAnew: a file as version 3 made it, without command lines, spans and last elements.
func TestAnIndexOfAnOlderVersionIsBuiltAnew(t *testing.T) {
	h := newHost(t)
	h.write(busy(1, 300))
	h.catchUp()
	h.sql(`DROP INDEX rec_line; DROP INDEX rec_long; DROP INDEX paths_base; DROP VIEW records; DROP TABLE commands; DROP TABLE lines; DROP TABLE bases; DROP TABLE spans;
		ALTER TABLE rec DROP COLUMN line; ALTER TABLE paths DROP COLUMN base; CREATE INDEX rec_time ON rec (till, time); PRAGMA user_version = 3`)
	f := query.Filter{Command: "s/a/27"}
	want := "[27 270 271 272 273 274 275 276 277 278 279]"
	got, note := h.answers(f)
	if fmt.Sprint(got) != want || !strings.Contains(note, "schema is 3") || !strings.Contains(note, "journal is read instead") {
		t.Errorf("before: %v, note %q", got, note)
	}
	if s := h.catchUp(); s.Rebuilt != 1 || s.Seq != 300 || !strings.Contains(s.Reason, "schema is 3") {
		t.Errorf("%+v", s)
	}
	if got, note := h.answers(f); fmt.Sprint(got) != want || note != "" {
		t.Errorf("afterwards: %v, note %q", got, note)
	}
	if c, found := h.compare(); len(found) > 0 || c.Matched != 300 {
		t.Errorf("found %q, %+v", found, c)
	}
	aside, err := filepath.Glob(h.path + ".bad-*")
	if err != nil || len(aside) > 0 {
		t.Errorf("the old file was kept: %q, %v", aside, err)
	}
	if st, err := os.Stat(h.path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
}

// TestCommandLinesThatAreNoTextAreFound: what no writer of ours makes and the journal can hold all the same.
func TestCommandLinesThatAreNoTextAreFound(t *testing.T) {
	h := newHost(t)
	records := busy(1, 60)
	for i, argv := range [][]string{{"xy\xc3\xa4\xa4z"}, {"xy\xff", "z"}, {"a\x00bcdef"}, {"\xed\xa0\x80abc"}, {strings.Repeat("l", maxLine) + "end"}, {opaque}, {strings.Repeat("m", maxLine)}} {
		records[20+i].Process.Argv = argv
	}
	h.write(records)
	h.catchUp()
	for _, words := range []string{"xyä", "\xa4z", "xy\xff z", "bcdef", "\x00", "a\x00b", "abc", "\xa0", "lend", "opaque", "mmmm", "sed", "s/a/", "é"} {
		for _, limit := range []int{0, 2} {
			f := query.Filter{Command: words, Limit: limit}
			var want []uint64
			for i, r := range records {
				r.Seq = uint64(i + 1)
				if f.Match(r) {
					want = append(want, r.Seq)
				}
			}
			if limit > 0 && len(want) > limit {
				want = want[len(want)-limit:]
			}
			if got, _ := h.answers(f); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%q, limit %d: %v, want %v", words, limit, got, want)
			}
		}
	}
	if c, found := h.compare(); len(found) > 0 || c.Matched != 60 {
		t.Errorf("found %q, %+v", found, c)
	}
}

func TestTrigramsAskForAllOfShortWordsAndSomeOfLongOnes(t *testing.T) {
	for s, want := range map[string]string{
		"": "", "ab": "", "äb": "", "a\xffbc": "", "a\x00bc": "", "abc": `"abc"`, "äbc": `"äbc"`, "abcd": `"abc" AND "bcd"`, `a"b`: `"a""b"`, "abcdef": `"abc" AND "def"`,
	} {
		if got := trigrams(s); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
	if n := strings.Count(trigrams(strings.Repeat("x", 1000)), "AND"); n > 8 {
		t.Errorf("%d texts of a long word", n+1)
	}
}
