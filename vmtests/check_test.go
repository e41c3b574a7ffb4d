package vmtests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast/holdfast/vmtests/vm"
)

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"log": `{"seq":1,"kind":"change","op":"write","path":"/t/a","verdict":"observed","actor":{"user":"ann","uid":0},"process":{"pid":7,"exe":"/usr/bin/sed","ancestors":[{"exe":"/usr/bin/sudo"},{"exe":"/usr/bin/bash"},{"exe":"/usr/sbin/sshd"}]},"before":{"hash":"blake3:aa"},"after":{"exists":true,"hash":"blake3:bb","size":3}}
{"seq":2,"kind":"attempt","op":"unlink","path":"/b/x","verdict":"blocked","actor":{"uid":5},"process":{"pid":8,"exe":"/bin/acts"}}
`,
		"good":    `{"op":"truncate,write","path":"/t/a","uid":0,"exe":"/usr/bin/sed","after":{"hash":"blake3:bb","size":3}}`,
		"hash":    `{"op":"write","path":"/t/a","after":{"hash":"blake3:cc"}}`,
		"refused": `{"act":"unlink","op":"unlink","path":"/b/x","errno":"EPERM","uid":5,"pid":8}`,
		"done":    `{"act":"unlink","op":"unlink","path":"/b/x","ok":true}`,
		"under":   `{"op":"unlink","under":"/b/","errno":"EPERM"}`,
		"empty":   "",
		"same":    "one\ntwo\n",
		"other":   "one\nthree\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ name, line, want string }{
		{"a record that tells the truth is found", "truth good verdict=observed", ""},
		{"a wrong hash is told", "truth hash", "after.hash is"},
		{"a missing extra value is told", "truth good verdict=restored", "verdict is"},
		{"an empty file of truth proves nothing", "truth empty", "is empty"},
		{"a refusal that was recorded holds", "refused refused", ""},
		{"an act that was done is no refusal", "refused done", "was not refused"},
		{"a refusal may be told of any path below", "refused under", ""},
		{"equal files are equal", "equal same same", ""},
		{"different files show their difference", "equal same other", "- two"},
		{"a record is found by its values", "record path=/t/a actor.user=ann process.pid=7", ""},
		{"a record is found by a pattern", "record path~/t/.* actor.user~a.*", ""},
		{"a pattern must match all of the value", "record actor.user~a", "none of 2 records"},
		{"a record that must not be is told", "none verdict=blocked", "a record has"},
		{"none holds where there is none", "none kind=gap", ""},
		{"the chain is in order from the first process", "record chain=sshd,bash,sudo,sed", ""},
		{"a chain in another order does not hold", "record path=/t/a chain=sudo,sshd", "none of"},
		{"match reads one object", "match refused uid=5", ""},
		{"a word that is no expectation is an error", "recrod a=b", "no such expectation"},
		{"a file that is missing is an error", "truth nothere", "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			errs := check(dir, "records log\n"+tt.line+"\n")
			var got string
			for _, err := range errs {
				got += err.Error() + "\n"
			}
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("%s: got %q, want %q in it", tt.line, got, tt.want)
			}
		})
	}
}

func TestScriptsAreComplete(t *testing.T) {
	kernels, err := readKernels()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("scripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			s, err := readScript(f)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.on(kernels); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestScriptNamesItsKernels(t *testing.T) {
	all := []vm.Kernel{{Name: "6.1"}, {Name: "5.10"}, {Name: "sid"}}
	for _, tt := range []struct{ name, line, want string }{
		{"a script that names none runs on the first", "", "6.1"},
		{"a script that names some runs on these", "kernels: sid 6.1\n", "sid 6.1"},
		{"a script runs on all", "kernels: all\n", "6.1 5.10 sid"},
		{"a name that is none is an error", "kernels: 4.4\n", "find kernel 4.4: unknown kernel"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "x.txt")
			if err := os.WriteFile(file, []byte("What it shows.\ntiers: lsm modify_return\n"+tt.line+"-- run.sh --\ntrue\n-- expect --\nequal a a\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			s, err := readScript(file)
			if err != nil {
				t.Fatal(err)
			}
			ks, err := s.on(all)
			var got []string
			for _, k := range ks {
				got = append(got, k.Name)
			}
			if err != nil {
				got = []string{err.Error()}
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if strings.Join(s.tiers, " ") != "lsm modify_return" {
				t.Errorf("tiers are %q", s.tiers)
			}
		})
	}
}
