package main

import (
	"slices"
	"strings"
	"testing"
)

const printed = `cost bare stat 4000.0 100
cost bare pread 1000.0 100
cost idle stat 3999.9 100
profile idle stat file_open 100 80
profile idle stat process_exec 3 9000
cost idle pread 1031.0 100
cost here pread 2000.0 100
events /srv sent 5 lost 0 failed 0
`

func TestTableComparesWithBareAndWithTheBudget(t *testing.T) {
	f, err := parse(printed)
	if err != nil {
		t.Fatal(err)
	}
	got := f.tables()
	for _, want := range []string{
		"| stat | 4,000 | 4,000 +0.0 % (≤ +0.0 %: met) | – |",                    // within what repeats differ by
		"| pread | 1,000 | 1,031 +3.1 % (≤ +3.0 %: **not met**) | 2,000 ×2.00 |", // no budget
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s\nlacks %s", got, want)
		}
	}
	if n := strings.Count(got, "\n"); n != 4 {
		t.Errorf("%d lines", n)
	}
}

func TestEachSituationHasATableOfItsOwn(t *testing.T) {
	f, err := parse(printed + "cost herewriter pread 1200.0 100\n")
	if err != nil {
		t.Fatal(err)
	}
	got := f.tables()
	if want := "\nWhile a watched file stays open for writing:\n\n| operation | watched here |\n|---|---|\n| stat | – |\n| pread | 1,200 +20.0 % |\n"; !strings.HasSuffix(got, want) {
		t.Errorf("%s\ndoes not end with %s", got, want)
	}
}

func TestProfileLeavesOutWhatTheMeasuringProgramDoes(t *testing.T) {
	f, err := parse(printed)
	if err != nil {
		t.Fatal(err)
	}
	if got := f.programs(); !strings.Contains(got, "file_open") || strings.Contains(got, "process_exec") {
		t.Errorf("got %s", got)
	}
}

func TestFiguresOfAColumnThatLostEventsAreRefused(t *testing.T) {
	for _, bad := range []string{
		printed + "events /srv sent 5 lost 1 failed 0\n",
		printed + "events /srv sent 5 lost 0 failed 2\n",
		"cost bare stat many 100\n",
		"",
	} {
		if _, err := parse(bad); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

func TestColumnsThatSpoilOthersBootAlone(t *testing.T) {
	got := boots([]string{"bare", "here", "audit", "idle", "herewriter", "audithere"})
	want := [][]string{{"bare", "idle"}, {"here"}, {"herewriter"}, {"audit", "audithere"}}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := boots([]string{"audit"}); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}
