package main

import "testing"

func TestPluralsAreWrittenAsEnglishWritesThem(t *testing.T) {
	for one, want := range map[string]string{
		"key": "2 keys", "entry": "2 entries", "directory": "2 directories", "day": "2 days", "change": "2 changes", "process": "2 processes", "record": "2 records",
	} {
		if got := plural(2, one); got != want {
			t.Errorf("plural(2, %q) = %q, want %q", one, got, want)
		}
		if got := plural(1, one); got != "1 "+one {
			t.Errorf("plural(1, %q) = %q", one, got)
		}
	}
}
