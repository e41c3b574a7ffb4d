package journal

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestCheckpointsKeptAsLinesShowWhatTheyShowAsTheyAre(t *testing.T) {
	l, _ := sixKeys(t)
	file := l.readFile(historyName)
	whole, _ := splitNotes(file)
	whole = append(whole, func() [][]byte { n, _ := splitNotes(l.readFile(chainName)); return n }()...)
	var syslog []byte
	for _, n := range whole {
		line, err := Line(n)
		if err != nil {
			t.Fatal(err)
		}
		syslog = append(syslog, "Mar  1 10:00:00 web1 holdfast[812]: "+line+" (end)\nMar  1 10:00:00 web1 cron[1]: nothing\n"...)
	}
	got := Notes(syslog)
	if !slices.EqualFunc(got, whole, bytes.Equal) {
		t.Fatalf("%d notes came back of %d", len(got), len(whole))
	}
	if again := Notes(file); !slices.EqualFunc(again, whole[:len(again)], bytes.Equal) {
		t.Fatal("a file of notes is not split as it is written")
	}
	if _, found := l.verify(l.pub(), got...); len(found) > 0 {
		t.Fatalf("found %q", found)
	}
	// A line that was altered or cut is told of, not passed over.
	for _, bad := range []string{strings.Replace(string(syslog), lineMark+"a", lineMark+"b", 1), string(syslog[:len(syslog)/2]) + lineMark + "x"} {
		if _, found := l.verify(l.pub(), Notes([]byte(bad))...); len(found) == 0 {
			t.Error("an altered line was not told of")
		}
	}
}
